"""Services: what a connection to one meets."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.patience import eventually
from tests.sandbox.cluster.support import (
    NAMESPACE,
    RunningCluster,
    container,
    deployment,
    named,
)

# Sends back what it got, its own address first, once the client has said all that it has to say.
ECHO = """
import os, socketserver
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        data = self.rfile.read()
        self.wfile.write(os.environ["POD_IP"].encode() + b" " + data)
socketserver.ThreadingTCPServer.allow_reuse_address = True
server = socketserver.ThreadingTCPServer((os.environ["POD_IP"], 8000), Handler)
server.daemon_threads = True
server.serve_forever()
"""
PORTS = [{"name": "echo", "port": 80, "targetPort": "echo"}]


def echo(replicas: int, name: str = "echo") -> dict[str, object]:
    probe = {"tcpSocket": {"port": "echo"}, "periodSeconds": 1}
    main = container("-c", ECHO, ports=[{"name": "echo", "containerPort": 8000}], readinessProbe=probe)
    return deployment(name, main, replicas=replicas)


def service(**spec: object) -> dict[str, object]:
    return named("Service", "echo", spec={"selector": {"app": "echo"}, "ports": PORTS, **spec})


def ready(cluster: RunningCluster, count: int) -> bool:
    return cluster.status("Deployment", "echo").get("availableReplicas", 0) == count


async def say(cluster: RunningCluster, data: bytes) -> tuple[str, bytes]:
    """The address of the pod that answered, and what it sent back."""
    address = cluster.cluster.addresses.service(NAMESPACE, "echo")
    reader, writer = await asyncio.open_connection(address, 80)
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    pod, _, rest = answer.partition(b" ")
    return pod.decode(), rest


@pytest.mark.parametrize("cluster_ip", [None, "None"])
async def test_connections_go_to_all_ready_pods_in_turn(
    cluster: RunningCluster, cluster_ip: str | None
) -> None:
    cluster.apply(service(**({"clusterIP": cluster_ip} if cluster_ip else {})))
    cluster.apply(echo(3))
    await eventually(lambda: ready(cluster, 3))
    answered = {(await say(cluster, b"hello"))[0] for _ in range(9)}
    assert answered == {pod["status"]["podIP"] for pod in cluster.pods()}


async def test_bytes_arrive_whole_both_ways(cluster: RunningCluster) -> None:
    cluster.apply(service())
    cluster.apply(echo(1))
    await eventually(lambda: ready(cluster, 1))
    data = os.urandom(8 * 1024 * 1024)
    assert (await say(cluster, data))[1] == data


async def test_without_a_ready_pod_a_connection_ends_at_once(cluster: RunningCluster) -> None:
    cluster.apply(service())
    cluster.apply(echo(1))
    await eventually(lambda: ready(cluster, 1))
    cluster.apply(echo(0))
    await eventually(lambda: not cluster.pods())
    with pytest.raises(ConnectionError):
        await say(cluster, b"hello")


async def test_a_deleted_service_is_not_there_any_more(cluster: RunningCluster) -> None:
    cluster.apply(service())
    cluster.apply(echo(1))
    await eventually(lambda: ready(cluster, 1))
    assert (await say(cluster, b""))[0]
    cluster.delete("Service", "echo")
    with pytest.raises(ConnectionError):
        await say(cluster, b"hello")


async def test_a_service_follows_a_change_of_its_ports(cluster: RunningCluster) -> None:
    cluster.apply(service(ports=[{"name": "echo", "port": 81, "targetPort": "echo"}]))
    cluster.apply(echo(1))
    await eventually(lambda: ready(cluster, 1))
    cluster.apply(service())

    async def answers() -> bool:
        try:
            return bool((await say(cluster, b""))[0])
        except ConnectionError:
            return False

    for _ in range(1000):
        if await answers():
            break
        await asyncio.sleep(0.02)
    address = cluster.cluster.addresses.service(NAMESPACE, "echo")
    with pytest.raises(ConnectionError):
        await asyncio.open_connection(address, 81)


async def test_two_clusters_on_one_machine_have_addresses_of_their_own(
    cluster: RunningCluster, tmp_path: Path
) -> None:
    from tests.sandbox.cluster.support import running

    async with running(tmp_path / "other") as other:
        mine = cluster.cluster.addresses.service(NAMESPACE, "echo")
        theirs = other.cluster.addresses.service(NAMESPACE, "echo")
        assert mine != theirs
