"""Deployments and StatefulSets: what runs, and what never stops running."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx

from sandbox.cluster.objects import Object, find_condition, labels_of
from tests.patience import eventually
from tests.sandbox.cluster.support import (
    NAMESPACE,
    RunningCluster,
    container,
    deployment,
    named,
    server,
    template,
)

SERVICE = named(
    "Service", "web", spec={"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}
)


def version(number: int, **more: object) -> Object:
    return server(env=[{"name": "VERSION", "value": str(number)}], **more)


def complete(cluster: RunningCluster, name: str = "web", kind: str = "Deployment") -> bool:
    obj = cluster.find(kind, name)
    assert obj is not None
    status, wanted = obj["status"], obj["spec"]["replicas"]
    counts = [status.get(field) for field in ("replicas", "updatedReplicas", "availableReplicas")]
    return status.get("observedGeneration") == obj["metadata"]["generation"] and counts == [wanted] * 3


@contextlib.asynccontextmanager
async def traffic(cluster: RunningCluster) -> AsyncGenerator[list[str]]:
    """Requests to the Service without a pause; the answers, failures among them."""
    address = cluster.cluster.addresses.service(NAMESPACE, "web")
    answers: list[str] = []

    async def ask() -> None:
        while True:
            try:
                async with httpx.AsyncClient(trust_env=False) as client:
                    answers.append((await client.get(f"http://{address}:80/")).text)
            except httpx.HTTPError as error:
                answers.append(repr(error))
            await asyncio.sleep(0.005)

    task = asyncio.create_task(ask())
    try:
        yield answers
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_new_version_serves_before_the_old_one_stops(cluster: RunningCluster) -> None:
    cluster.apply(SERVICE)
    cluster.apply(deployment("web", version(1, lifecycle={"preStop": {"sleep": {"seconds": 1}}}), replicas=2))
    await eventually(lambda: complete(cluster))
    async with traffic(cluster) as answers:
        await eventually(lambda: answers.count("1") > 10)
        cluster.apply(
            deployment("web", version(2, lifecycle={"preStop": {"sleep": {"seconds": 1}}}), replicas=2)
        )
        await eventually(lambda: complete(cluster))
        await eventually(lambda: answers[-10:] == ["2"] * 10)
    assert set(answers) == {"1", "2"}
    revisions = sorted(
        item["metadata"]["annotations"]["deployment.kubernetes.io/revision"] for item in sets(cluster)
    )
    assert revisions == ["1", "2"]


def sets(cluster: RunningCluster) -> list[Object]:
    return list(cluster.store.list("apps/v1", "ReplicaSet", NAMESPACE))


async def test_a_version_that_never_becomes_ready_leaves_the_old_one_serving(cluster: RunningCluster) -> None:
    cluster.apply(SERVICE)
    cluster.apply(deployment("web", version(1), replicas=2))
    await eventually(lambda: complete(cluster))
    broken = version(2)
    broken["env"].append({"name": "READY", "value": "/never"})
    async with traffic(cluster) as answers:
        cluster.apply(deployment("web", broken, replicas=2, progressDeadlineSeconds=1))

        def given_up() -> bool:
            found = find_condition(cluster.find("Deployment", "web") or {}, "Progressing")
            return found is not None and found.get("reason") == "ProgressDeadlineExceeded"

        await eventually(given_up)
        await eventually(lambda: len(answers) > 20)
    assert set(answers) == {"1"}
    assert cluster.status("Deployment", "web")["availableReplicas"] == 2


async def test_going_back_takes_the_old_replica_set_up_again(cluster: RunningCluster) -> None:
    for number in (1, 2, 1):
        cluster.apply(deployment("web", version(number)))
        await eventually(lambda: complete(cluster))
    assert len(sets(cluster)) == 2
    running = next(item for item in sets(cluster) if item["spec"]["replicas"])
    assert running["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"


async def test_recreate_stops_the_old_pods_first(cluster: RunningCluster) -> None:
    made = deployment("web", version(1), strategy={"type": "Recreate"})
    cluster.apply(made)
    await eventually(lambda: complete(cluster))
    seen: list[set[str]] = []

    def note(key: object, obj: object) -> None:
        del key, obj
        seen.append({labels_of(pod)["pod-template-hash"] for pod in cluster.pods()})

    cluster.store.subscribe(note)
    cluster.apply(deployment("web", version(2), strategy={"type": "Recreate"}))
    await eventually(lambda: complete(cluster))
    assert max(len(versions) for versions in seen) == 1


async def test_a_container_that_ends_is_started_again_with_growing_pauses(cluster: RunningCluster) -> None:
    cluster.apply(deployment("web", container("-c", "print('falling over'); raise SystemExit(3)")))

    def backing_off() -> Object | None:
        for pod in cluster.pods():
            for status in pod["status"].get("containerStatuses", ()):
                if status["restartCount"] >= 2 and "waiting" in status["state"]:
                    return status
        return None

    status = await eventually(backing_off)
    assert status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert "falling over" in status["lastState"]["terminated"]["message"]
    assert "falling over" in cluster.log(cluster.pods()[0]["metadata"]["name"])
    # Between two tries the container runs for a moment, and the Deployment's counts follow the pod's.
    await eventually(lambda: cluster.status("Deployment", "web").get("unavailableReplicas") == 1)


async def test_an_image_that_nothing_stands_for_says_what_there_is(cluster: RunningCluster) -> None:
    cluster.apply(deployment("web", {**server(), "image": "registry.example/unheard-of:1"}))

    def waiting() -> Object | None:
        pods = cluster.pods()
        states = (
            [s["state"].get("waiting") for s in pods[0]["status"].get("containerStatuses", ())]
            if pods
            else []
        )
        return next((state for state in states if state and "Pull" in state["reason"]), None)

    said = (await eventually(waiting))["message"]
    assert "registry.example/unheard-of:1" in said
    assert "envoyproxy/envoy" in said


async def test_scaling_to_zero_and_deleting_leave_nothing(cluster: RunningCluster, tmp_path: Path) -> None:
    cluster.apply(deployment("web", server(), replicas=2))
    await eventually(lambda: complete(cluster))
    cluster.apply(deployment("web", server(), replicas=0))
    await eventually(lambda: not cluster.pods())
    cluster.apply(deployment("web", server(), replicas=1))
    await eventually(lambda: complete(cluster))
    cluster.delete("Deployment", "web")
    await eventually(lambda: cluster.find("Deployment", "web") is None)
    assert not cluster.pods()
    assert not sets(cluster)
    assert not list((tmp_path / "pods").iterdir())


def stateful(number: int, **spec: object) -> Object:
    labels = {"app": "db"}
    program = version(number, volumeMounts=[{"name": "data", "mountPath": "/data"}])
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    made = {
        "replicas": 3,
        "serviceName": "db",
        "selector": {"matchLabels": dict(labels)},
        "template": template(program, labels),
        "volumeClaimTemplates": [claim],
        **spec,
    }
    return named("StatefulSet", "db", spec=made)


async def test_members_start_in_order_and_are_replaced_from_the_last(cluster: RunningCluster) -> None:
    begun: list[str] = []
    cluster.store.subscribe(
        lambda key, obj: (
            begun.append(key.name)
            if key.kind == "Pod" and obj is not None and key.name not in begun[-1:]
            else None
        )
    )
    cluster.apply(stateful(1))
    await eventually(lambda: complete(cluster, "db", "StatefulSet"))
    assert list(dict.fromkeys(begun)) == ["db-0", "db-1", "db-2"]
    begun.clear()
    uids = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in cluster.pods()}
    addresses = {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in cluster.pods()}
    cluster.apply(stateful(2))
    await eventually(lambda: complete(cluster, "db", "StatefulSet"))
    assert list(dict.fromkeys(begun)) == ["db-2", "db-1", "db-0"]
    assert all(uids[pod["metadata"]["name"]] != pod["metadata"]["uid"] for pod in cluster.pods())
    assert addresses == {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in cluster.pods()}


async def test_a_members_disk_outlives_it_and_the_set(cluster: RunningCluster, tmp_path: Path) -> None:
    cluster.apply(stateful(1, replicas=1))
    await eventually(lambda: complete(cluster, "db", "StatefulSet"))
    disk = tmp_path / "volumes" / NAMESPACE / "data-db-0"
    (disk / "kept").write_text("yes")
    cluster.delete("StatefulSet", "db")
    await eventually(lambda: cluster.find("StatefulSet", "db") is None)
    cluster.apply(stateful(1, replicas=1))
    await eventually(lambda: complete(cluster, "db", "StatefulSet"))
    uid = cluster.pods()[0]["metadata"]["uid"]
    assert (tmp_path / "pods" / uid / "containers" / "main" / "data" / "kept").read_text() == "yes"


async def test_deleting_a_namespace_deletes_what_it_holds(cluster: RunningCluster) -> None:
    cluster.apply(SERVICE)
    cluster.apply(deployment("web", server()))
    cluster.apply(named("ConfigMap", "c", data={}))
    await eventually(lambda: complete(cluster))
    cluster.resources.delete(next(key for key in cluster.store.all_keys() if key.kind == "Namespace"))
    await eventually(lambda: not [k for k in cluster.store.all_keys() if NAMESPACE in (k.namespace, k.name)])
