"""Jobs: pods that run to their end, tried again a limited number of times.

Not here: indexed completions, pod failure policies, success policies; a Job that asks for one is refused.
https://kubernetes.io/docs/concepts/workloads/controllers/job/
"""

from __future__ import annotations

from typing_extensions import override

from sandbox.cluster.controllers.controller import Controller
from sandbox.cluster.controllers.pods import from_template, is_active
from sandbox.cluster.objects import (
    Object,
    condition,
    is_deleting,
    key_of,
    name_suffix,
    seconds_since,
    timestamp,
    with_transitions,
)

_FIRST_DELAY, _LAST_DELAY = 1.0, 60.0


class JobController(Controller):
    """Creates a Job's pods and says how it ended."""

    api_version = "batch/v1"
    kind = "Job"

    @override
    def reconcile(self, obj: Object) -> float | None:
        if is_deleting(obj):
            return None
        status = obj.get("status") or {}
        if ended := status.get("completionTime") or _failed_at(status):
            return self._expire(obj, ended)
        if obj["spec"].get("suspend"):
            self._end_pods(obj)
            return None
        return self._drive(obj, status)

    def _drive(self, obj: Object, status: Object) -> float | None:
        spec = obj["spec"]
        pods = self.controlled(obj, "v1", "Pod")
        active = [pod for pod in pods if is_active(pod)]
        succeeded = [pod for pod in pods if _phase(pod) == "Succeeded"]
        failed = [pod for pod in pods if _phase(pod) == "Failed"]
        started = status.get("startTime") or timestamp()
        counts: Object = {
            "active": len(active),
            "ready": sum(1 for pod in active if _phase(pod) == "Running"),
            "succeeded": len(succeeded),
            "failed": len(failed),
            "startTime": started,
        }
        # With OnFailure containers are restarted within a pod, and each restart counts as a failure.
        tries = len(failed) + sum(_restarts(pod) for pod in active)
        deadline = spec.get("activeDeadlineSeconds")
        left = deadline - seconds_since(started) if deadline is not None else None
        if len(succeeded) >= spec["completions"]:
            self._finish(
                obj, counts, "Complete", "CompletionsReached", "Reached expected number of succeeded pods"
            )
        elif left is not None and left <= 0:
            message = "Job was active longer than specified deadline"
            self._finish(obj, counts, "Failed", "DeadlineExceeded", message)
        elif tries > spec["backoffLimit"]:
            message = "Job has reached the specified backoff limit"
            self._finish(obj, counts, "Failed", "BackoffLimitExceeded", message)
        else:
            delay = self._start(obj, active, succeeded, failed)
            self.store.put_status(key_of(obj), counts)
            return min((wait for wait in (left, delay) if wait is not None), default=None)
        return 0.0

    def _start(
        self, obj: Object, active: list[Object], succeeded: list[Object], failed: list[Object]
    ) -> float | None:
        """Start missing pods; the seconds to wait until the next may start."""
        spec, name = obj["spec"], obj["metadata"]["name"]
        missing = min(spec["parallelism"], spec["completions"] - len(succeeded)) - len(active)
        if missing <= 0:
            return None
        if failed:
            delay = min(_FIRST_DELAY * 2 ** (len(failed) - 1), _LAST_DELAY)
            waited = min(seconds_since(_ended_at(pod)) for pod in failed)
            if waited < delay:
                return delay - waited
        for _ in range(missing):
            self.resources.create(from_template(obj, spec["template"], f"{name}-{name_suffix()}", {}))
        return None

    def _finish(self, obj: Object, counts: Object, kind: str, reason: str, message: str) -> None:
        conditions = [condition(kind, holds=True, reason=reason, message=message)]
        status = {**counts, "active": 0, "conditions": with_transitions(conditions, None)}
        if kind == "Complete":
            status["completionTime"] = timestamp()
        self.store.put_status(key_of(obj), status)
        self._end_pods(obj)

    def _end_pods(self, obj: Object) -> None:
        for pod in self.controlled(obj, "v1", "Pod"):
            if is_active(pod):
                self.resources.delete(key_of(pod))

    def _expire(self, obj: Object, ended: str) -> float | None:
        seconds = obj["spec"].get("ttlSecondsAfterFinished")
        if seconds is None:
            return None
        left = seconds - seconds_since(ended)
        if left > 0:
            return left
        self.resources.delete(key_of(obj))
        return None


def _failed_at(status: Object) -> str | None:
    found = (c for c in status.get("conditions") or () if c["type"] == "Failed" and c["status"] == "True")
    return next((item["lastTransitionTime"] for item in found), None)


def _phase(pod: Object) -> str:
    return (pod.get("status") or {}).get("phase", "Pending")


def _restarts(pod: Object) -> int:
    listed = (pod.get("status") or {}).get("containerStatuses") or ()
    return sum(item["restartCount"] for item in listed)


def _ended_at(pod: Object) -> str:
    listed = (pod.get("status") or {}).get("containerStatuses") or ()
    ends = [item["state"].get("terminated", {}).get("finishedAt") for item in listed]
    return max((end for end in ends if end), default=pod["metadata"]["creationTimestamp"])
