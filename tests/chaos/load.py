"""Events under load, each sent until it is acknowledged, and what became of them in the end."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx
import psycopg

from tests.events import Platform

TENANT = "globex"
_GIVE_UP_SECONDS = 300

# Every effect of the sample consumer, with its time and in its order; a projection keeps only the last.
_EFFECTS = """
CREATE TABLE effects (serial bigserial, fingerprint text, ordering_key text,
    at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
    INSERT INTO effects (fingerprint, ordering_key) VALUES (NEW.last_fingerprint, NEW.aggregate_id);
    RETURN NEW;
END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE ON projection FOR EACH ROW EXECUTE FUNCTION note();
"""
_LATENCIES = """
SELECT o.publisher, percentile_disc(ARRAY[0.5, 0.99, 1])
    WITHIN GROUP (ORDER BY extract(epoch FROM at - created_at))
FROM effects JOIN outbox o USING (fingerprint) GROUP BY 1 ORDER BY 1
"""


class Writer(threading.Thread):
    """Sends numbered events of one aggregate, each until it is acknowledged; odd ones go by CDC."""

    def __init__(self, url: str, ordering_key: int, stopping: threading.Event, pause_seconds: float) -> None:
        super().__init__(daemon=True)
        self._url, self._ordering_key, self._stopping, self._pause = (
            url,
            ordering_key,
            stopping,
            pause_seconds,
        )
        self.acknowledged: list[str] = []
        self.failed_tries = 0
        self.gave_up = False

    def run(self) -> None:
        number = 0
        with httpx.Client(timeout=10) as client:
            while not self._stopping.is_set() and not self.gave_up:
                if self._send(client, number):
                    number += 1
                else:
                    self.gave_up = True
                time.sleep(self._pause)

    def _send(self, client: httpx.Client, number: int) -> bool:
        aggregate, key = "payment" if self._ordering_key % 2 else "order", f"{self._ordering_key}-{number}"
        body = {
            "aggregate": aggregate,
            "aggregate_id": str(self._ordering_key),
            "kind": f"{aggregate}.made",
            "payload": {"number": number, "email": "ana@example.com"},
        }
        headers = {"x-tenant-id": TENANT, "idempotency-key": key}
        deadline = time.monotonic() + _GIVE_UP_SECONDS
        while time.monotonic() < deadline:
            try:
                answer = client.post(f"{self._url}/v1/events", json=body, headers=headers)
            except httpx.HTTPError:
                answer = None
            if answer is not None and answer.status_code in {200, 201}:
                self.acknowledged.append(f"{TENANT}/{key}")
                return True
            if answer is not None and answer.status_code < 500:
                raise AssertionError(answer.text)
            self.failed_tries += 1
            time.sleep(0.1)
        return False


@dataclass(frozen=True, slots=True)
class Sample:
    """How far everything was at a moment, ``seconds`` after the start; none where nobody answered."""

    seconds: float
    acknowledged: int
    effects: int | None
    waiting: int | None
    oldest_seconds: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the events.

    Attributes:
        acknowledged: events that ingest acknowledged.
        effects: effects of the consumer.
        lost: acknowledged events without an effect.
        doubled: events with more than one effect.
        out_of_order: effects of an aggregate that came after a later one's.
        parked: dead letters that are open.
        unexpected: effects of events that were never acknowledged; writers send until they are, so none.
        duplicates_suppressed: deliveries that the inbox dropped.
        republished: events that the reconciler published again.
        by_publisher: effects by worker and cdc.
        latency_seconds: from an event's creation to its effect, by publisher: p50, p99, maximum.
    """

    acknowledged: int
    effects: int
    lost: int
    doubled: int
    out_of_order: int
    parked: int
    unexpected: int
    duplicates_suppressed: int
    republished: int
    by_publisher: dict[str, int]
    latency_seconds: dict[str, list[float]]

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, doubled, turned round or left over."""
        return not any((self.lost, self.doubled, self.out_of_order, self.parked, self.unexpected))


@dataclass
class Load:
    """Writers against a platform, and samples of how it does.

    Args:
        platform: with ingest running.
        ordering_keys: aggregates, each with a writer of its own.
        pause_seconds: of each writer between two events.
    """

    platform: Platform
    ordering_keys: int = 20
    pause_seconds: float = 0.0
    samples: list[Sample] = field(default_factory=list[Sample])
    writers: list[Writer] = field(default_factory=list[Writer])

    def start(self) -> None:
        """Begin to write and to sample."""
        self.platform.sql(_EFFECTS)
        self._stopping, self._done = threading.Event(), threading.Event()
        self._started = time.monotonic()
        url = self.platform.ingest_url
        self.writers = [
            Writer(url, ordering_key, self._stopping, self.pause_seconds)
            for ordering_key in range(self.ordering_keys)
        ]
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        for thread in (*self.writers, self._sampler):
            thread.start()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    def stop_writing(self) -> None:
        """Let every writer finish the event that it is at."""
        self._stopping.set()
        for writer in self.writers:
            writer.join()

    def settled(self) -> bool:
        """Whether every acknowledged event has had its effect, and every row is dispatched."""
        sample = self._take_sample()
        return sample.effects is not None and sample.waiting == 0 and sample.effects >= sample.acknowledged

    def stop_sampling(self) -> None:
        """End the samples."""
        self._done.set()
        self._sampler.join()

    def outcome(self) -> Outcome:
        """Count everything."""
        sql = self.platform.sql
        acknowledged = {key for writer in self.writers for key in writer.acknowledged}
        rows = sql("SELECT fingerprint, ordering_key FROM effects ORDER BY serial")
        times = Counter(fingerprint for fingerprint, _ in rows)
        out_of_order = 0
        newest: dict[str, int] = {}
        for fingerprint, ordering_key in rows:
            number = int(fingerprint.rpartition("-")[2])
            out_of_order += number < newest.get(ordering_key, -1)
            newest[ordering_key] = max(number, newest.get(ordering_key, -1))
        return Outcome(
            acknowledged=len(acknowledged),
            effects=len(rows),
            lost=len(acknowledged - times.keys()),
            doubled=sum(count > 1 for count in times.values()),
            out_of_order=out_of_order,
            parked=sql("SELECT count(*) FROM dead_letters WHERE state NOT IN ('replayed', 'discarded')")[0][
                0
            ],
            unexpected=len(times.keys() - acknowledged),
            duplicates_suppressed=int(sql("SELECT coalesce(sum(duplicates), 0) FROM inbox")[0][0]),
            republished=int(sql("SELECT coalesce(sum(republished), 0) FROM outbox_reconciler")[0][0]),
            by_publisher=dict(sql("SELECT publisher, count(*) FROM outbox GROUP BY 1 ORDER BY 1")),
            latency_seconds={
                publisher: [round(float(each), 3) for each in values] for publisher, values in sql(_LATENCIES)
            },
        )

    def _sample(self) -> None:
        while not self._done.wait(1.0):
            self.samples.append(self._take_sample())

    def _take_sample(self) -> Sample:
        acknowledged = sum(len(writer.acknowledged) for writer in self.writers)
        try:
            with psycopg.connect(self.platform.url, connect_timeout=2, autocommit=True) as connection:
                connection.execute("SET statement_timeout = '2s'")
                row = connection.execute(
                    "SELECT (SELECT count(*) FROM effects), count(*),"
                    " coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8"
                    " FROM outbox WHERE dequeued_at IS NULL"
                ).fetchone()
        except psycopg.Error:
            row = None
        return Sample(self.seconds, acknowledged, *(row or (None, None, None)))
