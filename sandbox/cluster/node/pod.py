"""One pod on the node: its containers from first to last, and its status."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from pathlib import Path

from sandbox.cluster.node.container import Container, ContainerContext
from sandbox.cluster.node.lookup import MissingReference
from sandbox.cluster.node.text import Names
from sandbox.cluster.node.volumes import FileSystem
from sandbox.cluster.objects import Object, condition, is_deleting, key_of, timestamp, with_transitions
from sandbox.cluster.store import Store

FINAL = ("Succeeded", "Failed")
_log = logging.getLogger(__name__)


class PodRunner:
    """Runs a pod until it is deleted, or its containers have ended for good.

    Args:
        store: where its status goes.
        context: what its containers share.
        directory: the pod's own, removed with it.
        claims: where persistent volumes of its namespace lie.
        names: for names in its text.
    """

    def __init__(
        self, store: Store, context: ContainerContext, directory: Path, claims: Path, names: Names
    ) -> None:
        self._store = store
        self._context = context
        self.pod = context.pod
        self.key = key_of(self.pod)
        self._directory = directory
        self._phase = "Pending"
        self._initialized = False
        self._deleted = asyncio.Event()
        self._suspended = False
        spec = self.pod["spec"]
        before = self._earlier()

        policy = spec.get("restartPolicy") or "Always"

        def container(item: Object, policy: str) -> Container:
            files = FileSystem(
                self.pod,
                item,
                address=context.address,
                pod_directory=directory,
                claims=claims,
                lookup=context.lookup,
                names=names,
            )
            earlier = before.get(item["name"], {})
            lost = earlier.get("state", {}).get("running")
            return Container(
                item,
                files,
                context,
                policy=policy,
                restarts=earlier.get("restartCount", 0) + (1 if lost else 0),
                last_state=_lost(lost) if lost else earlier.get("lastState"),
            )

        once = "Never" if policy == "Never" else "OnFailure"
        self._initial = [
            container(item, item.get("restartPolicy") or once) for item in spec.get("initContainers") or ()
        ]
        self.containers = [container(item, policy) for item in spec["containers"]]
        # A policy of never restarting counts a run that ended with the node as failed.
        self._lost = policy == "Never" and any(
            earlier.get("state", {}).get("running") for earlier in before.values()
        )

    def _earlier(self) -> dict[str, Object]:
        status = self.pod.get("status") or {}
        listed = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
        return {item["name"]: item for item in listed}

    async def run(self) -> None:
        """Run the pod; returns when it is gone from the store, or suspended."""
        phase = (self.pod.get("status") or {}).get("phase")
        if phase not in FINAL and not is_deleting(self.pod):
            work = asyncio.create_task(self._run_guarded())
            deleted = asyncio.create_task(self._deleted.wait())
            await asyncio.wait({work, deleted}, return_when=asyncio.FIRST_COMPLETED)
            if deleted.done():
                await self._stop(work)
            deleted.cancel()
        if not is_deleting(self.pod):
            await self._deleted.wait()
        if self._suspended:
            return
        await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)
        self._context.logs.remove(self.pod)
        self._store.remove(self.key)

    def suspend(self) -> None:
        """Stop its containers and leave it in the store as it is, for the node's next start."""
        self._suspended = True
        self._deleted.set()

    def delete(self) -> None:
        """Its deletion has begun."""
        self._deleted.set()

    def refresh(self) -> None:
        """A ConfigMap or Secret of the namespace has changed."""
        self._context.wake.set()
        for container in self.containers:
            if container.pid is not None:
                # What is gone keeps its files, as with the kubelet.
                with contextlib.suppress(MissingReference):
                    container.files.refresh()

    async def _run_guarded(self) -> None:
        try:
            await self._run_containers()
        except Exception as error:
            _log.exception("%s", self.key)
            self.finish("Failed", "NodeError", str(error))

    async def _run_containers(self) -> None:
        if self._lost:
            self.finish("Failed", "ContainerStatusUnknown", "the node was stopped while the pod ran")
            return
        self.changed()
        sidecars: list[asyncio.Task[int]] = []
        for container in self._initial:
            if container.spec.get("restartPolicy") == "Always":
                sidecars.append(asyncio.create_task(container.run()))
                await container.has_started.wait()
            elif code := await container.run():
                self.finish("Failed", "", f"init container {container.name} exited with code {code}")
                return
        self._initialized = True
        codes = await asyncio.gather(*(container.run() for container in self.containers))
        if not self._deleted.is_set():
            self.finish("Failed" if any(codes) else "Succeeded", "", "")
        for container, task in zip(self._initial, sidecars, strict=False):
            await container.stop(self._context.grace_seconds)
            await task

    async def _stop(self, work: asyncio.Task[None]) -> None:
        grace = self._context.grace_seconds
        hook = not self._suspended
        await asyncio.gather(*(c.stop(grace, hook=hook) for c in [*self.containers, *self._initial]))
        await work

    def finish(self, phase: str, reason: str, message: str) -> None:
        """The pod has ended for good."""
        self._phase = phase
        status = self._status()
        status.update({name: text for name, text in (("reason", reason), ("message", message)) if text})
        self._store.put_status(self.key, status)

    def changed(self) -> None:
        """Something in the pod is different; write its status."""
        if self._phase in FINAL or self._suspended:
            return
        running = self._initialized and any("waiting" not in c.state or c.restarts for c in self.containers)
        self._phase = "Running" if running else "Pending"
        self._store.put_status(self.key, self._status())

    def _status(self) -> Object:
        old = (self._store.get(self.key) or {}).get("status") or {}
        done = self._phase in FINAL
        ready = not done and self._initialized and all(c.ready for c in self.containers)
        reason = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(self._phase, "ContainersNotReady")
        listed = [c.name for c in self.containers if not c.ready]
        why = {} if ready else {"reason": reason, "message": f"containers with unready status: {listed}"}
        conditions = [
            condition("PodScheduled", holds=True),
            condition("Initialized", holds=self._initialized),
            condition("ContainersReady", holds=ready, **why),
            condition("Ready", holds=ready, **why),
        ]
        status: Object = {
            "phase": self._phase,
            "podIP": self._context.address,
            "podIPs": [{"ip": self._context.address}],
            "hostIP": "127.0.0.1",
            "startTime": old.get("startTime") or timestamp(),
            "conditions": with_transitions(conditions, old.get("conditions")),
            "containerStatuses": [container.status() for container in self.containers],
            "qosClass": "Burstable",
        }
        if self._initial:
            status["initContainerStatuses"] = [container.status() for container in self._initial]
        return status


def _lost(running: Object) -> Object:
    ended = {"exitCode": 137, "reason": "ContainerStatusUnknown", "finishedAt": timestamp()}
    return {"terminated": {**ended, "startedAt": running["startedAt"], "message": "the node was stopped"}}
