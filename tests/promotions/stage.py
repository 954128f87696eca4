"""A dev stage whose promotions are tried: the commands that people give, its record, and events that flow."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import psycopg

from infra.promotion.rehearsal import Load
from kilo.contract import load_outputs
from kilo.promotion.record import Phase
from kilo.tour.count import count, wait_delivered
from sandbox import daemon
from sandbox.cluster.client import connect
from sandbox.servers.leftovers import processes_of
from tests.e2e.conftest import KILO, PATIENCE, Stage
from tests.promotions.files import write_files

HOLD = ("--hold", "20")
SURELY_OFF_SECONDS = 10
"""Of a hold, its last seconds: what ran before has ended by then."""
DUPLICATES = 0.001
"""At most this share of events may be delivered again, by the table."""
FIELDS = ("email", "phone")


@dataclass(frozen=True)
class Rehearsed:
    """One rehearsal that came to its end.

    Attributes:
        off: when what was off was switched on again, in seconds since the epoch.
        held: what was found while it was off.
        returned: what was found once everything was on again.
    """

    off: float
    held: dict[str, Any]
    returned: dict[str, Any]

    @property
    def span(self) -> tuple[float, float]:
        """When it surely was off."""
        return self.off - SURELY_OFF_SECONDS, self.off


class PromotedStage(Stage):
    """The project's dev stage; in a folder that has it already, as it is there."""

    name = "dev"

    def __init__(self, directory: Path) -> None:
        if (directory / "Pulumi.yaml").exists():
            self.directory = directory
            return
        directory.mkdir(exist_ok=True)
        super().__init__(directory)
        write_files(directory)

    @property
    def file(self) -> Path:
        """What it is configured by."""
        return self.directory / f"Pulumi.{self.name}.yaml"

    @property
    def url(self) -> str:
        """Of its database."""
        return daemon.database_url(self.directory)

    def ok(self, *arguments: str, program: Sequence[str] = KILO) -> str:
        """What a command writes that must succeed."""
        done = self.kilo(*arguments, program=program)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def started(self, *arguments: str, program: Sequence[str] = KILO) -> subprocess.Popen[str]:
        """A command that is under way."""
        return self.begin(shlex.join([*program, *arguments]))

    def signed(self, who: str) -> tuple[str, ...]:
        """The options of somebody who signs."""
        return ("--as", who, "--signing-key", str(self.directory / "keys" / f"{who}.pem"))

    def restart(self, what: str) -> None:
        """Kill a pod's program, which is started again."""
        for process in processes_of(str(self.home)):
            with suppress(psutil.NoSuchProcess):
                if what in " ".join(process.cmdline()):
                    process.kill()

    def steps(self) -> list[dict[str, Any]]:
        """What is recorded of promotions, the oldest first."""
        return json.loads(self.ok("promote", "history", "--to", self.name, "--json"))

    def rehearsed(self, running: subprocess.Popen[str]) -> Rehearsed:
        """What came of a rehearsal that is under way: no event lost, by its own count."""
        output, errors = running.communicate(timeout=2 * PATIENCE)
        assert running.returncode == 0, output + errors
        [returned] = json.loads(output)[-1]["figures"]
        off = next(step for step in reversed(self.steps()) if step["details"]["act"] == Phase.OFF)
        assert (returned["lost"], returned["sent"]) == (0, returned["acknowledged"])
        assert returned["sent"] > 0
        [held] = off["details"]["figures"]
        return Rehearsed(datetime.fromisoformat(off["at"]).timestamp(), held, returned)

    def sql(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What a query answers."""
        with psycopg.connect(self.url) as connection:
            return connection.execute(query, values).fetchall()  # type: ignore[arg-type]

    def values(self, tenant: str, since: float, until: float) -> list[str]:
        """What was stored of a tenant's sensitive fields in between, in seconds since the epoch."""
        query = (
            "SELECT payload ->> field FROM events, unnest(%s::text[]) field WHERE tenant = %s"
            " AND payload ->> field IS NOT NULL"
            " AND received_at BETWEEN to_timestamp(%s) AND to_timestamp(%s)"
        )
        return [value for (value,) in self.sql(query, list(FIELDS), tenant, since, until)]

    def told(self, config_map: str, file: str) -> Any:
        """What a file says that pods are given."""
        found = self._object(f"api/v1/…/configmaps/{config_map}")
        return json.loads(found["data"][file])

    def replicas(self, deployment: str) -> int:
        """How many pods there are to be."""
        return self._object(f"apis/apps/v1/…/deployments/{deployment}")["spec"]["replicas"]

    def _object(self, path: str) -> dict[str, Any]:
        with connect(self.endpoints.cluster) as client:
            found = client.get("/" + path.replace("…", f"namespaces/{self.outputs['namespace']}"))
        return found.raise_for_status().json()

    @contextmanager
    def flow(self) -> Generator[Load]:
        """Events that flow meanwhile; in the end each was delivered, as it was sent, and once."""
        with Load(load_outputs(self.home / "outputs.json")) as load:
            yield load
        wait_delivered(self.url, load.answers, timeout_seconds=PATIENCE, progress=lambda _: None)
        counts = count(self.url, load.answers, dict.fromkeys(self.outputs["tenants"], FIELDS)).values()
        sent = len(load.answers)
        assert sent > 0
        assert sum(each.acknowledged for each in counts) == sent
        assert sum(each.lost + each.altered for each in counts) == 0
        assert sum(each.duplicates for each in counts) <= DUPLICATES * sent
