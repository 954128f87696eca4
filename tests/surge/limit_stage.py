"""A dev stage of three gateways with a rate limit service, whose parts can be stopped and frozen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from kilo.tenancy import RateLimit
from sandbox.cluster.client import connect
from sandbox.servers.leftovers import processes_of
from tests.alerts.stage import AlertStage
from tests.patience import until
from tests.surge.fleet import Entrance, Fleet

GATEWAY, SERVICE, STORE = "gateway", "rate-limits", "rate-limits-store"
_PROGRAMS = {SERVICE: "ratelimit", STORE: "valkey-server"}
_GATEWAYS = 3


class LimitStage(AlertStage):
    """The stage, and one tenant whose limit is counted."""

    tenant = "initech"

    def __init__(self, directory: Path, limit: RateLimit) -> None:
        self._limit = limit
        super().__init__(directory)

    def _change_file(self) -> None:
        self.set_limit(self._limit)

    def set_limit(self, limit: RateLimit) -> None:
        """Write what the tenant is limited to into the stage's file."""
        yaml, file = YAML(), self.directory / "Pulumi.dev.yaml"
        document = yaml.load(file)
        config = document["config"]
        # What a busy machine sheds is another matter.
        config["kilo:gateway"] |= {
            "replicas": _GATEWAYS,
            "rate_limit_service": "deployed",
            "shedding_enabled": False,
        }
        (entry,) = (each for each in config["kilo:tenants"] if each["id"] == self.tenant)
        entry["limit"] = limit.model_dump()
        yaml.dump(document, file)
        self._limit = limit

    def pods(self, workload: str) -> list[dict[str, Any]]:
        """The pods of a workload that are there."""
        with connect(self.endpoints.cluster) as client:
            answer = client.get(f"/api/v1/namespaces/{self.outputs['namespace']}/pods").raise_for_status()
        return [
            pod
            for pod in answer.json()["items"]
            if pod["metadata"]["labels"].get("app.kubernetes.io/name") == workload
            and "deletionTimestamp" not in pod["metadata"]
        ]

    def runs(self, workload: str) -> dict[str, int]:
        """How often each pod's containers were started anew, by the pod's name."""
        return {
            pod["metadata"]["name"]: sum(
                each["restartCount"] for each in pod["status"].get("containerStatuses", ())
            )
            for pod in self.pods(workload)
        }

    def fleet(self) -> Fleet:
        """The stage's gateways, each by its own address."""
        addresses = [pod["status"]["podIP"] for pod in self.pods(GATEWAY)]
        assert len(addresses) == _GATEWAYS
        entrances = [Entrance(each, 10_080, f"http://{each}:10090") for each in addresses]
        return Fleet(entrances, self.tenant, self._limit)

    def signal(self, workload: str, number: int) -> None:
        """Send a signal to each process of a workload's program."""
        program = _PROGRAMS[workload]
        found = [each for each in processes_of(str(self.home)) if each.name() == program]
        assert found, f"{program} does not run"
        for process in found:
            os.kill(process.pid, number)

    def started_anew(self, workload: str, before: dict[str, int]) -> None:
        """Wait until every pod of ``before`` has a fresh container that is ready."""

        def ready() -> bool:
            now = self.runs(workload)
            states = [each for pod in self.pods(workload) for each in pod["status"]["containerStatuses"]]
            return all(now[name] > count for name, count in before.items()) and all(
                each["ready"] for each in states
            )

        until(ready, f"{workload} is there again")
