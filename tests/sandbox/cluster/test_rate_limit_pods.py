"""The rate limit service's pods as the component describes them, run by the sandbox's node."""

from __future__ import annotations

import json
import re

import httpx
import psutil
import pytest

from components.processes.rate_limits import RateLimits, RateLimitsArgs
from infra.settings import Images
from kilo.traffic.limit_service import HEALTH_PORT, METRICS_PORT
from sandbox.cluster.objects import Object
from sandbox.toolchain.catalogue import missing
from tests.components.recorder import Recording, record
from tests.patience import eventually
from tests.sandbox.cluster.support import NAMESPACE, RunningCluster

SERVICE, STORE = "rate-limits", "rate-limits-store"


@pytest.fixture
def described() -> Recording:
    """What the program registers, which needs an event loop of its own."""
    if missing("ratelimit"):
        pytest.skip("the rate limit service is not built here: kilo toolchain ratelimit")
    images = Images(runtime="kilo:1")
    return record(
        lambda: RateLimits(
            SERVICE,
            RateLimitsArgs(
                namespace=NAMESPACE,
                image=images.rate_limits,
                store_image=images.rate_limits_store,
                replicas=2,
                gateway="gateway",
                monitoring_namespace="monitoring",
            ),
        )
    )


@pytest.fixture
async def deployed(described: Recording, cluster: RunningCluster) -> RunningCluster:
    """The service and its store, both ready."""
    for resource in described.resources:
        if resource.custom:
            # The engine's numbers are all of one kind; the provider's are whole again.
            cluster.apply(json.loads(json.dumps(resource.inputs), parse_float=lambda text: int(float(text))))
    await eventually(lambda: cluster.status("Deployment", STORE).get("readyReplicas") == 1, "store")
    await eventually(lambda: cluster.status("Deployment", SERVICE).get("readyReplicas") == 2, "service")
    return cluster


def pods(cluster: RunningCluster, workload: str) -> list[Object]:
    found = [pod for pod in cluster.pods(workload) if not pod["metadata"]["name"].startswith(STORE)]
    return cluster.pods(STORE) if workload == STORE else found


async def counted(client: httpx.AsyncClient, pod: Object, tenant: str) -> int:
    """Ask one pod whether the tenant may, whose limit is ten an hour; the status says so."""
    entries = [{"key": "limit", "value": "10/10"}, {"key": "tenant", "value": tenant}]
    asked = {
        "domain": "kilo",
        "descriptors": [{"entries": entries, "limit": {"requestsPerUnit": 10, "unit": "HOUR"}}],
    }
    url = f"http://{pod['status']['podIP']}:{HEALTH_PORT}/json"
    return (await client.post(url, json=asked)).status_code


def said(url: str, word: str) -> str | None:
    """What ``url`` says, once it says ``word``."""
    text = httpx.get(url).text
    return text if word in text else None


async def test_its_pods_count_together(deployed: RunningCluster) -> None:
    async with httpx.AsyncClient(timeout=30) as client:
        turns = [pods(deployed, SERVICE)[number % 2] for number in range(12)]
        answers = [await counted(client, pod, "acme") for pod in turns]
        assert answers == [200] * 10 + [429] * 2
        assert await counted(client, turns[0], "globex") == 200


async def test_its_metrics_name_no_tenant(deployed: RunningCluster) -> None:
    async with httpx.AsyncClient(timeout=30) as client:
        pod = pods(deployed, SERVICE)[0]
        await counted(client, pod, "acme")
    url = f"http://{pod['status']['podIP']}:{METRICS_PORT}/metrics"
    # Its statistics come every few seconds.
    seen = await eventually(lambda: said(url, "ratelimit_service_config_load_success"), "they are there")
    assert "acme" not in seen
    assert not re.search(r"^ratelimit_service_rate_limit", seen, re.MULTILINE)


async def test_a_store_that_hangs_is_started_anew(deployed: RunningCluster) -> None:
    (pod,) = pods(deployed, STORE)
    name = pod["metadata"]["name"]
    (store,) = (each for each in psutil.Process().children() if each.name() == "valkey-server")
    store.suspend()

    def anew() -> bool:
        (status,) = deployed.status("Pod", name)["containerStatuses"]
        return status["restartCount"] == 1 and status["ready"]

    await eventually(anew, "its probe has started it anew")
    async with httpx.AsyncClient(timeout=30) as client:
        # Each connection to the one before fails once.
        answers = [await counted(client, pods(deployed, SERVICE)[0], "acme") for _ in range(30)]
    assert 200 in answers
    assert answers[-1] == 429
