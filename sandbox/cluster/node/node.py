"""The node: follows the pods in the store and runs each."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kilo.testing.servers.process import bound_log
from sandbox.cluster.addresses import Addresses
from sandbox.cluster.node.container import ContainerContext
from sandbox.cluster.node.images import Images
from sandbox.cluster.node.logs import LogReader
from sandbox.cluster.node.lookup import Lookup
from sandbox.cluster.node.pod import PodRunner
from sandbox.cluster.node.text import Names
from sandbox.cluster.objects import Key, Object, controller_of, is_deleting
from sandbox.cluster.store import Store

_DEFAULT_GRACE_SECONDS = 30
_ROTATE_SECONDS = 30


@dataclass
class NodeSettings:
    """Where the node keeps what, and what it gives every pod.

    Attributes:
        home: ``.kilo``; pods, volumes and logs lie under it.
        images: the local programs.
        outside: addresses of servers beside the cluster, by name.
        injected: variables for every container, as a pod-identity webhook injects them.
    """

    home: Path
    images: Images = field(default_factory=Images)
    outside: Mapping[str, str] = field(default_factory=dict[str, str])
    injected: Mapping[str, str] = field(default_factory=dict[str, str])


class Node:
    """Runs all pods of the store."""

    def __init__(self, store: Store, addresses: Addresses, settings: NodeSettings) -> None:
        self.logs = LogReader(settings.home / "logs" / "pods")
        self._store = store
        self._addresses = addresses
        self._settings = settings
        self._names = Names(addresses, settings.outside)
        self._running: dict[Key, tuple[PodRunner, asyncio.Task[None]]] = {}
        self._stopping = False

    async def run(self) -> None:
        """Run pods until cancelled."""
        self._store.subscribe(self._changed)
        for pod in self._store.list("v1", "Pod"):
            self._begin(pod)
        while True:
            await asyncio.sleep(_ROTATE_SECONDS)
            for path in self.logs.all():
                await asyncio.to_thread(bound_log, path)

    async def stop(self) -> None:
        """Stop all containers in order, their pods staying in the store for the next start."""
        self._stopping = True
        tasks = [task for _, task in self._running.values()]
        for runner, _ in self._running.values():
            runner.suspend()
        await asyncio.gather(*tasks)

    def _changed(self, key: Key, obj: Object | None) -> None:
        if self._stopping:
            return
        if key.kind == "Pod":
            if obj is None:
                self._release(key)
            elif key not in self._running:
                self._begin(self._store.get(key) or obj)
            elif is_deleting(obj):
                self._running[key][0].delete()
        elif obj is None and key.kind == "PersistentVolumeClaim":
            # As storage classes have it by default: the volume goes with its claim.
            shutil.rmtree(self._settings.home / "volumes" / key.namespace / key.name, ignore_errors=True)
        elif obj is None and key.kind == "Namespace":
            for kept in ("volumes", "logs/pods"):
                shutil.rmtree(self._settings.home / kept / key.name, ignore_errors=True)
            self._addresses.release_namespace(key.name)
        elif key.kind in {"ConfigMap", "Secret"} and key.api_version == "v1":
            for (_, _, namespace, _), (runner, _) in self._running.items():
                if namespace == key.namespace:
                    runner.refresh()

    def _release(self, key: Key) -> None:
        runner = self._running[key][0] if key in self._running else None
        owner = controller_of(runner.pod) if runner else None
        # A StatefulSet's pods come back under their names, by which others know their addresses.
        if owner is None or owner.kind != "StatefulSet":
            self._addresses.release_pod(key.namespace, key.name)

    def _begin(self, pod: Object) -> None:
        metadata, spec = pod["metadata"], pod["spec"]
        namespace = metadata["namespace"]
        grace = spec.get("terminationGracePeriodSeconds")
        context = ContainerContext(
            pod=pod,
            address=self._addresses.pod(namespace, metadata["name"]),
            images=self._settings.images,
            lookup=Lookup(self._store, namespace),
            logs=self.logs,
            injected=self._settings.injected,
            changed=lambda: runner.changed(),  # noqa: PLW0108  the runner is made below
            grace_seconds=_DEFAULT_GRACE_SECONDS if grace is None else grace,
        )
        directory = self._settings.home / "pods" / metadata["uid"]
        claims = self._settings.home / "volumes" / namespace
        runner = PodRunner(self._store, context, directory, claims, self._names)
        task = asyncio.get_running_loop().create_task(runner.run())
        self._running[runner.key] = (runner, task)
        task.add_done_callback(lambda _: self._ended(runner))

    def _ended(self, runner: PodRunner) -> None:
        self._running.pop(runner.key, None)
        # One of the same name, a StatefulSet's, may have come to be meanwhile.
        if not self._stopping and (pod := self._store.get(runner.key)):
            self._begin(pod)
