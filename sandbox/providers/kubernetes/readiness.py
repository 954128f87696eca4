"""Waits until a workload is ready, and says why when it does not become so.

The conditions are those by which the official provider and ``kubectl rollout status`` judge.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping

from sandbox.providers.kubernetes.api import Api, Object

DEFAULT_SECONDS = 300.0
SKIP_ANNOTATION = "pulumi.com/skipAwait"

WITHOUT_NODE = "KILO_WITHOUT_NODE"
"""Set where the cluster stores objects and runs none, so that there is nothing to wait for."""

_WORKLOADS = frozenset({"Deployment", "StatefulSet"})
_POLL_SECONDS = 0.2
_LOG_LINES = 15
# A part that waits for another may fall over a few times; one that always falls is not waited for.
_HOPELESS_RESTARTS = 6
_HOPELESS_REASONS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError"}
)
_HOPELESS_SECONDS = 10.0


class NotReady(Exception):
    """The object was stored, and what it stands for does not run."""

    def __init__(self, place: str, problem: str, details: Iterable[str] = ()) -> None:
        self.reasons = (f"{place} {problem}", *details)
        super().__init__("\n".join(self.reasons))


def wait_ready(api: Api, obj: Object, seconds: float, cancelled: threading.Event) -> Object:
    """Wait until the object is ready and answer with it as it is then.

    Raises:
        NotReady: it failed, won't become ready, or did not in ``seconds``; with the pods' last lines.
    """
    metadata = obj["metadata"]
    place = f"{obj['kind']} {metadata.get('namespace', '')}/{metadata['name']}"
    skipped = (metadata.get("annotations") or {}).get(SKIP_ANNOTATION) == "true"
    if skipped or os.environ.get(WITHOUT_NODE):
        return obj
    deadline = time.monotonic() + seconds
    hopeless_since: float | None = None
    # Restarts of before this update say nothing of it.
    before = _restarts(api, obj)
    while True:
        live = api.get(obj)
        if live is None:
            raise NotReady(place, "was deleted while it was waited for")
        if failure := _failure(live):
            raise NotReady(place, f"failed: {failure}", _why(api, live))
        if _is_ready(live):
            return live
        reason = _hopeless(api, live, before)
        hopeless_since = (hopeless_since or time.monotonic()) if reason else None
        if reason and hopeless_since and time.monotonic() - hopeless_since > _HOPELESS_SECONDS:
            raise NotReady(place, f"won't become ready: {reason}", _why(api, live))
        if time.monotonic() > deadline:
            raise NotReady(place, f"was not ready within {seconds:.0f} s", _why(api, live))
        if cancelled.wait(_POLL_SECONDS):
            raise NotReady(place, "was not ready when the update was cancelled")


def wait_gone(api: Api, obj: Object, seconds: float, cancelled: threading.Event) -> None:
    """Wait until the object is gone.

    Raises:
        TimeoutError: it is still there.
    """
    deadline = time.monotonic() + seconds
    while api.get(obj) is not None:
        if time.monotonic() > deadline or cancelled.wait(_POLL_SECONDS / 4):
            msg = f"{obj['kind']} {obj['metadata']['name']} was not gone within {seconds:.0f} s"
            raise TimeoutError(msg)


def _is_ready(obj: Object) -> bool:
    status, spec = obj.get("status") or {}, obj.get("spec") or {}
    observed = status.get("observedGeneration", 0) >= obj["metadata"].get("generation", 0)
    match obj["kind"]:
        case "Deployment":
            wanted = spec.get("replicas", 1)
            counts = [status.get(name, 0) for name in ("updatedReplicas", "availableReplicas", "replicas")]
            return observed and counts == [wanted] * 3
        case "StatefulSet":
            wanted = spec.get("replicas", 1)
            counts = [status.get(name, 0) for name in ("readyReplicas", "updatedReplicas", "replicas")]
            return observed and counts == [wanted] * 3
        case "Job":
            return bool(spec.get("suspend")) or _condition(status, "Complete") is not None
        case "Pod":
            return status.get("phase") == "Succeeded" or _condition(status, "Ready") is not None
        case _:
            return True


def _failure(obj: Object) -> str | None:
    status = obj.get("status") or {}
    if obj["kind"] == "Job" and (failed := _condition(status, "Failed")):
        return str(failed.get("message") or failed.get("reason") or "its pods failed")
    if obj["kind"] == "Pod" and status.get("phase") == "Failed":
        return str(status.get("message") or "its containers failed")
    return None


def _condition(status: Object, name: str) -> Object | None:
    for condition in status.get("conditions") or ():
        if condition["type"] == name and condition["status"] == "True":
            return condition
    return None


def _containers(pod: Object) -> Iterator[Object]:
    status = pod.get("status") or {}
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def _restarts(api: Api, obj: Object) -> dict[tuple[str, str], int]:
    """How often each container of a workload was restarted, by pod and container."""
    pods = api.pods(obj) if obj["kind"] in _WORKLOADS else []
    return {
        (pod["metadata"]["uid"], container["name"]): container.get("restartCount", 0)
        for pod in pods
        for container in _containers(pod)
    }


def _hopeless(api: Api, obj: Object, before: Mapping[tuple[str, str], int]) -> str | None:
    if obj["kind"] not in _WORKLOADS:
        return None
    for pod in api.pods(obj):
        for container in _containers(pod):
            waiting = (container.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") in _HOPELESS_REASONS:
                return f"{waiting['reason']}: {waiting.get('message', '')}"
            known = before.get((pod["metadata"]["uid"], container["name"]), 0)
            restarts = container.get("restartCount", 0) - known
            if restarts >= _HOPELESS_RESTARTS and not container.get("ready"):
                return f"container {container['name']} was restarted {restarts} times"
    return None


def _why(api: Api, obj: Object) -> Iterator[str]:
    """What each container that is not ready waits for, and its last lines."""
    if not (obj.get("spec") or {}).get("selector"):
        return
    for pod in api.pods(obj):
        for container in _containers(pod):
            state = container.get("state") or {}
            last = container.get("lastState") or {}
            done = (state.get("terminated") or {}).get("exitCode") == 0
            if container.get("ready") or done:
                continue
            details = state.get("waiting") or state.get("terminated") or last.get("terminated") or {}
            said = ", ".join(
                str(details[name]) for name in ("reason", "exitCode", "message") if name in details
            )
            name = container["name"]
            lines = api.logs(pod, name, lines=_LOG_LINES) or api.logs(
                pod, name, lines=_LOG_LINES, previous=True
            )
            yield f"pod {pod['metadata']['name']}, container {name}: {said or 'not ready'}" + (
                f"\n{lines.rstrip()}" if lines else ""
            )
