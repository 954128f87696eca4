"""Services: an address that leads to the ready pods of a selector.

TCP only. A headless Service has an address here too, since names stand for one address each.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterable, Iterator

from typing_extensions import override

from sandbox.cluster import proxy
from sandbox.cluster.addresses import Addresses
from sandbox.cluster.controllers.controller import Controller
from sandbox.cluster.controllers.pods import is_active, is_ready
from sandbox.cluster.node.probes import port_of
from sandbox.cluster.objects import Key, Object, is_deleting, key_of, labels_of
from sandbox.cluster.resources import Resources

_log = logging.getLogger(__name__)


class ServiceController(Controller):
    """Keeps a proxy on every port of every Service, and the Service's list of pods."""

    api_version = "v1"
    kind = "Service"

    def __init__(self, resources: Resources, addresses: Addresses) -> None:
        super().__init__(resources)
        self._addresses = addresses
        self._servers: dict[tuple[str, int], asyncio.Server] = {}
        self._targets: dict[tuple[Key, int], list[tuple[str, int]]] = {}
        self._turns: dict[tuple[Key, int], Iterator[int]] = {}
        self._opening: dict[tuple[str, int], asyncio.Task[None]] = {}

    @override
    def affected(self, key: Key, obj: Object) -> Iterable[Key]:
        if key.kind == "Service":
            return [key]
        if key.kind != "Pod":
            return []
        services = self.store.list("v1", "Service", key.namespace)
        return [key_of(service) for service in services if _selects(service, labels_of(obj))]

    @override
    def reconcile(self, obj: Object) -> float | None:
        key, spec = key_of(obj), obj["spec"]
        if spec["type"] == "ExternalName":
            return None
        address = self._addresses.service(key.namespace, key.name)
        pods = self._pods(obj)
        wanted: set[tuple[str, int]] = set()
        for port in spec.get("ports") or ():
            if port["protocol"] != "TCP":
                continue
            found = [target for pod in pods if (target := _target(pod, port)) is not None]
            self._targets[key, port["port"]] = found
            wanted.add((address, port["port"]))
            self._open(key, address, port["port"])
        for place in [place for place in self._servers if place[0] == address and place not in wanted]:
            self._servers.pop(place).close()
        status: Object = {"loadBalancer": {}}
        if spec["type"] == "LoadBalancer":
            status["loadBalancer"] = {"ingress": [{"ip": address}]}
        self.store.put_status(key, status)
        return None

    def endpoints(self, key: Key) -> int:
        """How many pods the Service leads to, over all its ports."""
        return sum(len(found) for (other, _), found in self._targets.items() if other == key)

    def close(self) -> None:
        """Close every port."""
        for server in self._servers.values():
            server.close()

    def _pods(self, obj: Object) -> list[Object]:
        ready_only = not obj["spec"].get("publishNotReadyAddresses")
        pods = self.store.list("v1", "Pod", obj["metadata"]["namespace"])
        chosen = [pod for pod in pods if _selects(obj, labels_of(pod)) and is_active(pod)]
        return [pod for pod in chosen if (is_ready(pod) if ready_only else not is_deleting(pod))]

    def _open(self, key: Key, address: str, port: int) -> None:
        place = (address, port)
        if place in self._servers or place in self._opening:
            return

        def choose() -> tuple[str, int] | None:
            found = self._targets.get((key, port)) or []
            turn = self._turns.setdefault((key, port), itertools.count())
            return found[next(turn) % len(found)] if found else None

        async def open_port() -> None:
            try:
                self._servers[place] = await proxy.serve(address, port, choose)
            except OSError as error:
                _log.warning("%s: port %d of %s: %s", key, port, address, error.strerror)

        self._opening[place] = asyncio.get_running_loop().create_task(open_port())
        self._opening[place].add_done_callback(lambda _: self._opening.pop(place))

    @override
    def gone(self, key: Key) -> None:
        address = self._addresses.service(key.namespace, key.name)
        for place in [place for place in self._servers if place[0] == address]:
            self._servers.pop(place).close()
        for target in [target for target in self._targets if target[0] == key]:
            del self._targets[target]


def _selects(service: Object, labels: dict[str, str]) -> bool:
    selector = service["spec"].get("selector")
    return bool(selector) and all(labels.get(name) == value for name, value in selector.items())


def _target(pod: Object, port: Object) -> tuple[str, int] | None:
    address = (pod.get("status") or {}).get("podIP")
    if not address:
        return None
    for container in pod["spec"]["containers"]:
        try:
            return address, port_of(port["targetPort"], container)
        except ValueError:
            continue
    return None
