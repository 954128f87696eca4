"""Jobs and CronJobs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sandbox.cluster.controllers.cronjob import INSTANTIATE, job_from
from sandbox.cluster.objects import Object, find_condition, owned_by
from tests.patience import eventually
from tests.sandbox.cluster.support import NAMESPACE, RunningCluster, job, key, named


def ended(cluster: RunningCluster, name: str, kind: str) -> Object | None:
    return find_condition(cluster.find("Job", name) or {}, kind)


async def test_a_job_that_succeeds_is_complete(cluster: RunningCluster) -> None:
    cluster.apply(job("j", "print('done')"))
    await eventually(lambda: ended(cluster, "j", "Complete"))
    status = cluster.status("Job", "j")
    assert status["succeeded"] == 1
    assert status["completionTime"]
    assert "done" in cluster.log(cluster.pods()[0]["metadata"]["name"])


async def test_a_job_that_fails_is_tried_again_so_often_and_no_more(cluster: RunningCluster) -> None:
    cluster.apply(job("j", "raise SystemExit(1)", backoffLimit=1))
    failed = await eventually(lambda: ended(cluster, "j", "Failed"))
    assert failed["reason"] == "BackoffLimitExceeded"
    assert len(cluster.pods()) == 2


async def test_with_on_failure_the_container_is_tried_again_in_its_pod(cluster: RunningCluster) -> None:
    program = """
import os, pathlib, sys
mark = pathlib.Path(os.environ["HOME"], "tried")
code = 0 if mark.exists() else 1
mark.touch()
sys.exit(code)
"""
    cluster.apply(job("j", program, restart="OnFailure"))
    await eventually(lambda: ended(cluster, "j", "Complete"))
    assert [pod["status"]["containerStatuses"][0]["restartCount"] for pod in cluster.pods()] == [1]


async def test_a_job_that_takes_too_long_is_stopped(cluster: RunningCluster) -> None:
    cluster.apply(job("j", "import time; time.sleep(1000)", activeDeadlineSeconds=1))
    failed = await eventually(lambda: ended(cluster, "j", "Failed"))
    assert failed["reason"] == "DeadlineExceeded"
    await eventually(lambda: not cluster.pods())


async def test_a_finished_job_goes_after_its_time_to_live(cluster: RunningCluster) -> None:
    cluster.apply(job("j", "pass", ttlSecondsAfterFinished=0))
    await eventually(lambda: cluster.find("Job", "j") is None)
    assert not cluster.pods()


def tidy(program: str = "pass", **spec: object) -> Object:
    made = {"schedule": "*/5 * * * *", "jobTemplate": {"spec": job("x", program)["spec"]}, **spec}
    return named("CronJob", "tidy", spec=made)


def missed(cluster: RunningCluster, obj: Object, ago: timedelta) -> None:
    """Store a CronJob as if it had last run ``ago``, as after a time in which the machine was off."""
    cluster.apply({**obj, "spec": {**obj["spec"], "suspend": True}})
    moment = (datetime.now(UTC) - ago).strftime("%Y-%m-%dT%H:%M:%SZ")
    cluster.store.put_status(key("CronJob", "tidy"), {"lastScheduleTime": moment})
    cluster.apply(obj)


def jobs(cluster: RunningCluster) -> list[Object]:
    return list(cluster.store.list("batch/v1", "Job", NAMESPACE))


async def test_runs_that_were_missed_are_made_up_for_once(cluster: RunningCluster) -> None:
    missed(cluster, tidy(), timedelta(hours=2))
    await eventually(lambda: cluster.status("CronJob", "tidy").get("lastSuccessfulTime"))
    assert len(jobs(cluster)) == 1
    assert jobs(cluster)[0]["metadata"]["name"].startswith("tidy-")


async def test_a_run_past_its_starting_deadline_is_left_out(cluster: RunningCluster) -> None:
    missed(cluster, tidy(schedule="0 0 1 1 *", startingDeadlineSeconds=10), timedelta(days=800))
    await eventually(lambda: "active" in cluster.status("CronJob", "tidy"))
    assert not jobs(cluster)


async def test_a_new_cron_job_waits_for_its_first_time(cluster: RunningCluster) -> None:
    cluster.apply(tidy(schedule="0 0 1 1 *"))
    await eventually(lambda: "active" in cluster.status("CronJob", "tidy"))
    assert not jobs(cluster)


async def test_forbid_never_runs_two_at_once(cluster: RunningCluster) -> None:
    slow = tidy("import time; time.sleep(1000)", concurrencyPolicy="Forbid")
    missed(cluster, slow, timedelta(hours=1))
    await eventually(lambda: cluster.status("CronJob", "tidy").get("active"))
    missed(cluster, slow, timedelta(hours=1))
    await eventually(lambda: cluster.status("CronJob", "tidy").get("active"))
    assert len(jobs(cluster)) == 1


async def test_a_run_by_hand_and_the_history_that_is_kept(cluster: RunningCluster) -> None:
    cluster.apply(tidy(schedule="0 0 1 1 *", successfulJobsHistoryLimit=2))
    owner = cluster.find("CronJob", "tidy")
    assert owner is not None
    for number in range(4):
        made = job_from(owner, f"by-hand-{number}", {INSTANTIATE: "manual"})
        assert made["metadata"]["ownerReferences"] == owned_by(owner)
        cluster.resources.create(made)
        await eventually(
            lambda number=number: (
                ended(cluster, f"by-hand-{number}", "Complete")
                or not cluster.find("Job", f"by-hand-{number}")
            )
        )
    await eventually(lambda: len(jobs(cluster)) == 2)
    assert [item["metadata"]["name"] for item in jobs(cluster)] == ["by-hand-2", "by-hand-3"]
