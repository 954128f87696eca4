"""The mirror worker: push events from the queue, each copied whole to the secondary registry.

A message is deleted only when its push is in the secondary; while a copy runs its visibility is
extended, and after a failure it comes back by itself, until the queue's redrive policy parks it.
Delivery is at least once and copying is idempotent, so two workers, or one that was killed, do no
harm. Events are best effort at the source, which is why the sweep exists beside this. No failure ends
a thread: each is counted by the loop that it struck, and what failed is tried again.

The lag that is exported counts from the push, not from its event's arrival: the age of the oldest
push seen and not yet mirrored, and a histogram of those that were. A push that is not signed as
required is no lag: it is counted as quarantined.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import boto3
from botocore.config import Config
from prometheus_client import CollectorRegistry

from kilo.contract import RegistriesOutputs
from kilo.errors import BadInput
from kilo.observe import metrics
from kilo.registry.drift import Kind
from kilo.registry.events import PushEvent
from kilo.registry.reference import Reference
from kilo.registry.supervision import attempt, repeat
from kilo.registry.sync import Synchronizer, TagResult

VISIBILITY_SECONDS = 120
RETRY_SECONDS = 20
LONGEST_RETRY_SECONDS = 900
_LONG_POLL_SECONDS = 10
_QUEUE_BACK_OFF_SECONDS = 5.0

LOOPS = ("queue", "push", "visibility", "comparison")
"""What can fail and go on; the label of ``registry_mirror_errors_total``."""

log = logging.getLogger(__name__)


class MirrorMetrics:
    """The mirror's instruments."""

    def __init__(self, registry: CollectorRegistry, repositories: tuple[str, ...]) -> None:
        self.lag = metrics.MIRROR_LAG.create(registry)
        self.duration = metrics.MIRROR_DURATION.create(registry)
        self.copies = metrics.MIRROR_COPIES.create(registry)
        self.sent_bytes = metrics.MIRROR_BYTES.create(registry)
        self.drift = metrics.MIRROR_DRIFT.create(registry)
        self.parked = metrics.MIRROR_PARKED.create(registry)
        self.errors = metrics.MIRROR_ERRORS.create(registry)
        for loop in LOOPS:
            self.errors.labels(loop)
        self.compared_all = metrics.MIRROR_COMPARED_LAST_SUCCESS.create(registry)
        self._lock = threading.Lock()
        self._waiting: dict[str, dict[tuple[str, str | None], float]] = {name: {} for name in repositories}
        for name in repositories:
            self.lag.labels(name).set_function(lambda name=name: self._oldest_waiting_age_seconds(name))

    def count_failure(self, loop: str) -> None:
        """Count a failure that ``loop`` survived."""
        self.errors.labels(loop).inc()

    def count_waiting(self, repository: str, event: PushEvent) -> None:
        """Count a push as waiting from the moment it was made."""
        with self._lock:
            key = (event.detail.digest, event.detail.tag)
            self._waiting.setdefault(repository, {}).setdefault(key, event.time.timestamp())

    def count_mirrored(self, repository: str, event: PushEvent, result: TagResult) -> None:
        """Count a push that is whole in the secondary."""
        with self._lock:
            self._waiting.get(repository, {}).pop((event.detail.digest, event.detail.tag), None)
        self.duration.labels(repository).observe(max(0.0, time.time() - event.time.timestamp()))
        self.sent_bytes.labels(repository).inc(result.copied.sent_bytes)

    def drop_waiting(self, repository: str, event: PushEvent) -> None:
        """Stop counting a push that is not to be copied: its image is not signed as required."""
        with self._lock:
            self._waiting.get(repository, {}).pop((event.detail.digest, event.detail.tag), None)

    def drop_mirrored(self, repository: str, is_mirrored: Callable[[str, str | None], bool]) -> None:
        """Stop counting pushes that somebody else brought over: another worker, the sweep, a person.

        ``is_mirrored`` is asked with the digest and tag of each push that counts as waiting.
        """
        with self._lock:
            waiting = list(self._waiting.get(repository, {}))
        for digest, tag in waiting:
            if is_mirrored(digest, tag):
                with self._lock:
                    self._waiting[repository].pop((digest, tag), None)

    def export_findings(self, repository: str, counts: Mapping[Kind, int], quarantined: int) -> None:
        """Export what a comparison found."""
        for kind in Kind:
            self.drift.labels(repository, kind.label).set(counts.get(kind, 0))
        self.drift.labels(repository, "quarantined").set(quarantined)

    def _oldest_waiting_age_seconds(self, repository: str) -> float:
        with self._lock:
            oldest = min(self._waiting[repository].values(), default=None)
        return max(0.0, time.time() - oldest) if oldest is not None else 0.0


class Sides:
    """Which repository of the primary is which of the secondary."""

    def __init__(self, outputs: RegistriesOutputs) -> None:
        self._primary, self._secondary = outputs.primary.url, outputs.secondary.url
        self._path = outputs.primary.url.partition("/")[2]
        self.repositories = outputs.repositories

    def pair(self, name: str) -> tuple[Reference, Reference]:
        """Both sides' references of the repository ``name``, which is without the registry's prefix."""
        return Reference.parse(f"{self._primary}/{name}"), Reference.parse(f"{self._secondary}/{name}")

    def name_of(self, registry_path: str) -> str:
        """The name of the repository that an event calls by its path in the registry.

        Raises:
            BadInput: no mirrored repository has that path.
        """
        name = registry_path.removeprefix(f"{self._path}/") if self._path else registry_path
        if name not in self.repositories:
            msg = f"push event: detail.repository-name: {registry_path!r} is not mirrored"
            raise BadInput(msg)
        return name


class Mirror:
    """Drains the push queue."""

    def __init__(
        self,
        outputs: RegistriesOutputs,
        synchronizer: Synchronizer,
        instruments: MirrorMetrics,
        *,
        jobs: int = 4,
    ) -> None:
        self._sides = Sides(outputs)
        self._queue_url = outputs.push_queue_url
        self._synchronizer = synchronizer
        self._metrics = instruments
        self._jobs = jobs
        self._queue: Any = boto3.client(
            "sqs",
            region_name=outputs.primary.location,
            config=Config(retries={"mode": "standard", "max_attempts": 3}, max_pool_connections=jobs + 2),
        )
        self._under_way: list[Future[bool]] = []
        self.ready = False

    def run(self, stopping: threading.Event) -> None:
        """Work until ``stopping`` is set; what is under way then is finished first."""
        with ThreadPoolExecutor(self._jobs, thread_name_prefix="push") as executor:
            while not stopping.is_set():
                if not attempt(
                    "queue", lambda: self._receive_messages(executor, stopping), self._metrics.count_failure
                ):
                    self.ready = False
                    stopping.wait(_QUEUE_BACK_OFF_SECONDS)

    def _receive_messages(self, executor: ThreadPoolExecutor, stopping: threading.Event) -> None:
        """Take as many messages as there are hands free, and begin their copies."""
        self._under_way = [work for work in self._under_way if not work.done()]
        free = self._jobs - len(self._under_way)
        if free == 0:
            stopping.wait(0.05)
            return
        answer = self._queue.receive_message(
            QueueUrl=self._queue_url,
            MaxNumberOfMessages=min(free, 10),
            WaitTimeSeconds=1 if self._under_way else _LONG_POLL_SECONDS,
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
            VisibilityTimeout=VISIBILITY_SECONDS,
        )
        self.ready = True
        for message in answer.get("Messages", []):
            work = executor.submit(
                attempt,
                "push",
                lambda message=message: self._handle_message(message),
                self._metrics.count_failure,
            )
            self._under_way.append(work)

    def _handle_message(self, message: dict[str, Any]) -> None:
        """Mirror one message's push, and delete the message; one that fails comes back by itself."""
        handle = message["ReceiptHandle"]
        event = PushEvent.parse(message["Body"])
        if not event.is_push or self._mirror(event, self._keeper(handle)):
            self._queue.delete_message(QueueUrl=self._queue_url, ReceiptHandle=handle)
            return
        # Sooner than the visibility that a copy under way needs, so that the goal can still be met.
        self._queue.change_message_visibility(
            QueueUrl=self._queue_url, ReceiptHandle=handle, VisibilityTimeout=_retry_seconds(message)
        )

    def _mirror(self, event: PushEvent, keep: Callable[[], None]) -> bool:
        name = self._sides.name_of(event.detail.repository)
        self._metrics.count_waiting(name, event)
        source, destination = self._sides.pair(name)
        stop = threading.Event()
        every = VISIBILITY_SECONDS / 3
        keeper = threading.Thread(
            target=repeat, args=("visibility", keep, every, stop, self._metrics.count_failure), daemon=True
        )
        keeper.start()
        try:
            result = self._synchronizer.sync_push(source, destination, event.detail.digest, event.detail.tag)
        finally:
            stop.set()
        self._metrics.copies.labels(name, result.outcome).inc()
        fields = (
            result.outcome,
            name,
            event.detail.tag or event.detail.digest,
            time.time() - event.time.timestamp(),
        )
        for error in result.left_out:
            log.warning("left out of %s %s: %s", name, event.detail.tag or event.detail.digest, error)
        if result.outcome in {"quarantined", "deferred"}:
            self._metrics.drop_waiting(name, event)
        if result.error is not None:
            log.warning("%s %s %s after %.1f s: %s", *fields, result.error)
            return False
        if result.outcome == "deferred":
            log.info("%s %s %s after %.1f s", *fields)
            return True
        self._metrics.count_mirrored(name, event, result)
        log.info("%s %s %s after %.1f s", *fields)
        return True

    def _keeper(self, handle: str) -> Callable[[], None]:
        def extend() -> None:
            self._queue.change_message_visibility(
                QueueUrl=self._queue_url, ReceiptHandle=handle, VisibilityTimeout=VISIBILITY_SECONDS
            )

        return extend


def _retry_seconds(message: dict[str, Any]) -> int:
    """Until a message comes back: soon at first, so that the goal can still be met, then ever later.

    With ten deliveries an outage of an hour parks nothing.
    """
    deliveries = int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1))
    return min(RETRY_SECONDS * 2 ** min(deliveries - 1, 10), LONGEST_RETRY_SECONDS)
