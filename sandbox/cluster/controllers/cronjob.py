"""CronJobs: Jobs on a schedule.

https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/. A run that was missed while the
machine was off is made up for once, if the starting deadline still allows it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from croniter import croniter
from typing_extensions import override

from sandbox.cluster.controllers.controller import Controller
from sandbox.cluster.objects import (
    Key,
    Object,
    find_condition,
    is_deleting,
    key_of,
    owned_by,
    parse_timestamp,
)

INSTANTIATE = "cronjob.kubernetes.io/instantiate"
"""The annotation of a Job that was made from a CronJob by hand, as ``kubectl create job --from`` sets it."""
_LONGEST_SLEEP = 3600.0


class CronJobController(Controller):
    """Creates Jobs when they are due."""

    api_version = "batch/v1"
    kind = "CronJob"

    @override
    def reconcile(self, obj: Object) -> float | None:
        if is_deleting(obj):
            return None
        jobs = self.controlled(obj, "batch/v1", "Job")
        self._forget(obj, jobs)
        again = None if obj["spec"].get("suspend") else self._start_due(obj, jobs)
        self._report(obj)
        return again

    def _start_due(self, obj: Object, jobs: list[Object]) -> float:
        spec, now = obj["spec"], datetime.now(UTC)
        status = obj.get("status") or {}
        since = parse_timestamp(status.get("lastScheduleTime") or obj["metadata"]["creationTimestamp"])
        zone = ZoneInfo(spec.get("timeZone") or "Etc/UTC")
        due = croniter(spec["schedule"], now.astimezone(zone)).get_prev(datetime)
        if due > since:
            deadline = spec.get("startingDeadlineSeconds")
            if deadline is None or (now - due).total_seconds() <= deadline:
                self._start(obj, jobs, due)
        following = croniter(spec["schedule"], now.astimezone(zone)).get_next(datetime)
        return min(max((following - now).total_seconds(), 0.05), _LONGEST_SLEEP)

    def _start(self, obj: Object, jobs: list[Object], due: datetime) -> None:
        running = [job for job in jobs if not _ended(job) and not is_deleting(job)]
        policy = obj["spec"]["concurrencyPolicy"]
        if policy == "Forbid" and running:
            return
        if policy == "Replace":
            for job in running:
                self.resources.delete(key_of(job))
        # Named by the minute it is due, as upstream, so that two starts of one run meet.
        name = f"{obj['metadata']['name']}-{int(due.timestamp()) // 60}"
        if not self.store.get(Key("batch/v1", "Job", obj["metadata"]["namespace"], name)):
            self.resources.create(job_from(obj, name))
        moment = due.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.store.put_status(key_of(obj), {**(obj.get("status") or {}), "lastScheduleTime": moment})

    def _forget(self, obj: Object, jobs: list[Object]) -> None:
        limits = (("Complete", "successfulJobsHistoryLimit"), ("Failed", "failedJobsHistoryLimit"))
        for kind, limit in limits:
            ended = [job for job in jobs if find_condition(job, kind) and not is_deleting(job)]
            for job in ended[: max(0, len(ended) - obj["spec"][limit])]:
                self.resources.delete(key_of(job))

    def _report(self, obj: Object) -> None:
        jobs = self.controlled(obj, "batch/v1", "Job")
        status = dict((self.store.get(key_of(obj)) or {}).get("status") or {})
        status["active"] = [
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "name": job["metadata"]["name"],
                "uid": job["metadata"]["uid"],
            }
            for job in jobs
            if not _ended(job)
        ]
        done: Iterable[str] = (
            job["status"]["completionTime"] for job in jobs if find_condition(job, "Complete")
        )
        if latest := max(done, default=None):
            status["lastSuccessfulTime"] = latest
        self.store.put_status(key_of(obj), status)


def job_from(cron_job: Object, name: str, annotations: dict[str, str] | None = None) -> Object:
    """A Job of the CronJob's template."""
    template = copy.deepcopy(cron_job["spec"]["jobTemplate"])
    metadata = template.get("metadata") or {}
    made = {
        "name": name,
        "namespace": cron_job["metadata"]["namespace"],
        "labels": metadata.get("labels") or {},
        "annotations": {**(metadata.get("annotations") or {}), **(annotations or {})},
        "ownerReferences": owned_by(cron_job),
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": made, "spec": template["spec"]}


def _ended(job: Object) -> bool:
    return bool(find_condition(job, "Complete") or find_condition(job, "Failed"))
