"""Each roll-back of the table on a real stage under load: off, then on again, and no event amiss."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

import httpx
import pytest

from kilo.fle.formats import inspect
from kilo.traffic.shedding import SHEDDING_KEY
from tests.accept.commands import SETTLED
from tests.e2e.conftest import PATIENCE
from tests.patience import until
from tests.promotions.stage import HOLD, PromotedStage

pytestmark = pytest.mark.timeout(3 * PATIENCE)

ARRIVED = """
SELECT count(*), count(*) FILTER (WHERE i.received_at > to_timestamp(%s)), array_agg(DISTINCT i.publisher)
FROM events e LEFT JOIN inbox i USING (fingerprint, tenant)
WHERE e.received_at BETWEEN to_timestamp(%s) AND to_timestamp(%s)
"""
REHEARSE = ("promote", "rehearse", "-s", "dev", "--json", *HOLD, "--row")
GOLD = ("acme", "umbrella")
WAITS = ("--settle-seconds", "5", "--in-flight-days", "0")
GOES_BACK = "SELECT 1 FROM fle_rotations WHERE state = 'rolling-back'"


def test_events_wait_while_worker_and_connector_are_off(stage: PromotedStage) -> None:
    with stage.flow():
        done = stage.rehearsed(stage.started(*REHEARSE, "dev"))
    [(sent, later, publishers)] = stage.sql(ARRIVED, done.off, *done.span)
    assert sent == later > 0
    assert publishers == ["cdc", "worker"]


def test_keys_are_back_once_fields_are_off_and_what_is_encrypted_stays_so(stage: PromotedStage) -> None:
    with stage.flow():
        until(lambda: stage.values("umbrella", 0, time.time()), seconds=PATIENCE)
    asked = ("plan", "--tenant", "umbrella", *stage.signed("ana"), *WAITS, "--json")
    plan = str(json.loads(rotate(stage, *asked))["plan"])
    for who in ("bo", "cy"):
        rotate(stage, "approve", plan, *stage.signed(who))
    rotate(stage, "run", plan)
    # It would go on with the key that it has for minutes, and values be brought after it for as long.
    stage.restart("ingest serve")
    with stage.flow():
        rekey = ("--rekey", plan, *stage.signed("ana"))
        running = stage.started(*REHEARSE, "stage", *rekey, program=SETTLED)
        until(lambda: fields(stage) == {"acme": [], "umbrella": []}, "fields are not off", seconds=PATIENCE)
        until(lambda: stage.sql(GOES_BACK), "keys do not go back", seconds=PATIENCE)
        stage.restart("ingest serve")
        done = stage.rehearsed(running)
    assert fields(stage) == {"acme": ["email", "phone"], "umbrella": ["email", "phone"]}
    back = done.held["rekey"]
    assert (back["under_newer"], back["converted"]) == (0, back["same"])
    assert back["converted"] > 0
    assert done.returned["rekey"] == {"ended": True}
    # Values in the clear beside encrypted ones are what a reader refuses.
    stored = stage.values("umbrella", 0, time.time())
    assert {inspect(value).key_id for value in stored} == {back["older_key"]}


def fields(stage: PromotedStage) -> dict[str, list[str]]:
    """What pods are told to encrypt for gold's tenants."""
    tenants = stage.told("kilo-outputs", "outputs.json")["tenants"]
    return {name: tenants[name]["encrypted_fields"] for name in GOLD}


def rotate(stage: PromotedStage, *arguments: str) -> str:
    return stage.ok("fle", "rotate", *arguments, program=SETTLED)


def test_weights_are_reverted_and_shedding_is_off(stage: PromotedStage) -> None:
    with stage.flow(), asking(stage) as answers:
        until(lambda: any(next_ for _, next_ in answers), seconds=PATIENCE)
        running = stage.started(*REHEARSE, "prod")
        until(lambda: not sheds(stage), "shedding was not switched off", seconds=PATIENCE)
        done = stage.rehearsed(running)
        after = time.time()
        until(lambda: any(at > after and next_ for at, next_ in answers), seconds=PATIENCE)
    since, end = done.span
    meanwhile = [next_ for at, next_ in answers if since < at < end]
    assert meanwhile
    assert not any(meanwhile)
    assert sheds(stage)


def sheds(stage: PromotedStage) -> bool:
    """Whether the gateway is told to shed."""
    return stage.told("gateway-envoy", "runtime.json")["resources"][0]["layer"][SHEDDING_KEY]


@contextmanager
def asking(stage: PromotedStage) -> Generator[list[tuple[float, bool]]]:
    """Requests of a feature: when each was sent, and whether the next version answered."""
    gateway, over = stage.outputs["gateway"], threading.Event()
    headers = {gateway["tenant_header"]: "acme", "x-kilo-rehearsal": "yes"}
    answers: list[tuple[float, bool]] = []

    def ask() -> None:
        while not over.wait(0.2):
            began = time.time()
            answer = httpx.get(f"{gateway['url']}/v1/rehearsal", headers=headers, timeout=PATIENCE)
            answers.append((began, answer.status_code == 202))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        over.set()
        thread.join()
