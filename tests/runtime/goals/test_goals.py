"""Goals and risks: what is measured, and that nothing unknown is ever green."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from kilo.contract import StackOutputs
from kilo.goals.figures import Looking, lost, outbox_share
from kilo.goals.goals import GOALS, Standing, read_goals
from kilo.goals.measure import Bound, Figure, Measure, Query, Verdict
from kilo.goals.previews import keep_preview, read_previews
from kilo.goals.risks import MITIGATIONS, State, read_risks
from kilo.observe import metrics
from kilo.observe.prometheus import Prometheus
from tests.patience import until

from .conftest import History

Connection = psycopg.Connection[tuple[Any, ...]]
LOST = metrics.OUTBOX_LOST.name


def standings(measure: Measure, looking: Looking) -> dict[str, Standing]:
    return {each.goal.name: each for each in read_goals(measure, looking)}


def events(connection: Connection, count: int, *, tenant: str = "acme", age: int = 120, **how: Any) -> None:
    """Events that were taken in ``age`` seconds ago and, unless ``delivered`` is less, all delivered."""
    delivered, duplicates = how.get("delivered", count), how.get("duplicates", 0)
    for number in range(count):
        fingerprint = f"{tenant}-{age}-{number}"
        connection.execute(
            "INSERT INTO events (fingerprint, tenant, aggregate, aggregate_id, kind, payload, received_at)"
            " VALUES (%s, %s, 'order', '1', 'order.created', '{}', now() - make_interval(secs => %s))",
            (fingerprint, tenant, age),
        )
        if number < delivered:
            connection.execute(
                "INSERT INTO inbox (consumer, fingerprint, created_at, tenant, publisher, duplicates)"
                " VALUES ('events', %s, now(), %s, 'worker', %s)",
                (fingerprint, tenant, duplicates if number == 0 else 0),
            )


def test_events_are_counted_where_they_end(
    history: History, connection: Connection, outputs: StackOutputs
) -> None:
    history.add(LOST, 0)
    prometheus = history.start()
    events(connection, 20, delivered=18)
    found = standings(Measure(prometheus, "kilo", connection), Looking(outputs))
    assert (found["outbox-share"].figure.value, found["outbox-share"].verdict) == (0.9, Verdict.MISSED)
    assert (found["lost"].figure.value, found["lost"].verdict) == (2, Verdict.MISSED)
    assert found["duplicates"].verdict is Verdict.MET
    connection.execute("UPDATE inbox SET duplicates = 1 WHERE fingerprint = 'acme-120-0'")
    found = standings(Measure(prometheus, "kilo", connection), Looking(outputs))
    assert found["duplicates"].verdict is Verdict.MISSED


def test_what_waits_in_the_outbox_is_late_and_not_lost(
    history: History, connection: Connection, outputs: StackOutputs
) -> None:
    history.add(LOST, 0)
    prometheus = history.start()
    events(connection, 1, delivered=0)
    connection.execute(
        "INSERT INTO outbox (aggregate, aggregate_id, kind, payload, fingerprint, tenant)"
        " VALUES ('order', '1', 'order.created', '{}', 'acme-120-0', 'acme')"
    )
    found = standings(Measure(prometheus, "kilo", connection), Looking(outputs))
    assert (found["lost"].figure.value, found["outbox-share"].figure.value) == (0, 0)


def test_the_reconcilers_loss_counts_beside_the_databases(
    history: History, connection: Connection, outputs: StackOutputs
) -> None:
    history.add(LOST, 3)
    prometheus = history.start()
    events(connection, 5)
    found = standings(Measure(prometheus, "kilo", connection), Looking(outputs))
    assert (found["lost"].figure.value, found["lost"].verdict) == (3, Verdict.MISSED)


def test_an_empty_stage_meets_no_goal_of_data(
    history: History, connection: Connection, outputs: StackOutputs
) -> None:
    prometheus = history.start()
    found = standings(Measure(prometheus, "kilo", connection), Looking(outputs))
    assert [name for name, each in found.items() if each.verdict is Verdict.MET] == []
    assert found["outbox-share"].figure.trouble == "no event was taken in within the window"
    assert found["mirror-parity"].figure.trouble.startswith("Prometheus has no sample of registry_compared")


def test_nothing_is_known_where_nobody_answers(outputs: StackOutputs) -> None:
    with Prometheus("http://127.0.0.1:9") as nobody:
        measure = Measure(nobody, "kilo", "DATABASE_URL is not set, so the database was not asked")
        found = standings(measure, Looking(outputs))
        assert {each.verdict for each in found.values()} == {Verdict.UNKNOWN}
        assert all(each.figure.trouble for each in found.values())
        risks = read_risks(measure, outputs)
    assert {each.shown.state for each in risks} <= {State.UNKNOWN, State.ABSENT}
    assert len(risks) == len(MITIGATIONS)


@pytest.mark.parametrize(
    ("ages", "trouble"),
    [((290, 250), " s old"), ((9_000,), "Prometheus has no sample of"), ((-90, 1), "")],
)
def test_a_stale_sample_is_no_figure(history: History, ages: tuple[float, ...], trouble: str) -> None:
    history.add(LOST, 0, ages=ages)
    prometheus = history.start()
    found = Measure(prometheus, "kilo", "none").query(Query(f"max({LOST})", (LOST,)))
    # What Prometheus is to have measured only in a minute and a half it does not give before.
    assert (trouble in found.trouble) if trouble else found.trouble == ""
    assert Bound("==", 0).judge(found) is (Verdict.UNKNOWN if trouble else Verdict.MET)


@pytest.mark.parametrize(("ahead", "said"), [(600, "behind this machine"), (-600, "ahead of this machine")])
def test_a_clock_that_is_wrong_makes_nothing_green(
    history: History, connection: Connection, ahead: float, said: str
) -> None:
    history.add(LOST, 0)
    prometheus = history.start()
    events(connection, 1)
    measure = Measure(prometheus, "kilo", connection, clock=lambda: time.time() + ahead)
    found = measure.query(Query(f"max({LOST})", (LOST,)))
    assert found.value is None
    assert said in found.trouble
    looking = Looking(outputs=None)  # pyright: ignore[reportArgumentType] - not looked at
    share = next(goal for goal in GOALS if goal.name == "outbox-share").look(measure, looking)
    assert said in share.trouble


def test_a_neighbours_series_are_not_this_stages(history: History) -> None:
    history.add(LOST, 0)
    prometheus = history.start()
    found = Measure(prometheus, "other", "none").query(Query(f"max({LOST})", (LOST,)))
    assert found.trouble == f"Prometheus has no sample of {LOST}"


def test_burn_alerts_count_once_they_are_evaluated(history: History, outputs: StackOutputs) -> None:
    prometheus = history.start(rules=True)
    measure = Measure(prometheus, "kilo", "none")
    goal = next(goal for goal in GOALS if goal.name == "burn-alerts")

    def whole() -> Figure | None:
        figure = goal.look(measure, Looking(outputs))
        return figure if figure.value == 0 else None

    found = until(whole)
    assert found.evidence["evaluated"] == 8
    late = Measure(prometheus, "kilo", "none", clock=lambda: time.time() + 3_600)
    assert goal.bound.judge(goal.look(late, Looking(outputs))) is Verdict.MISSED


def test_every_gold_tenant_needs_two_fields_that_lie_encrypted(history: History) -> None:
    outputs = stage_with({"acme": ("email", "phone"), "umbrella": ("email", "phone")})
    coverage = metrics.FLE_COVERAGE.name
    goal = next(goal for goal in GOALS if goal.name == "fle-fields")
    for tenant, field in (("acme", "email"), ("acme", "phone"), ("umbrella", "email")):
        history.add(f'{coverage}{{tenant="{tenant}", field="{field}"}}', 1)
    history.add(f'{coverage}{{tenant="umbrella", field="phone"}}', 0.99)
    prometheus = history.start()
    measure = Measure(prometheus, "kilo", "none")
    assert goal.look(measure, Looking(outputs)).value == 1
    assert goal.look(measure, Looking(stage_with({"acme": ("email", "phone")}))).value == 2
    # What lies encrypted by chance and not by configuration does not count.
    assert goal.look(measure, Looking(stage_with({"acme": ("email",)}))).value == 1
    missing = goal.look(measure, Looking(stage_with({"acme": ("email", "phone"), "new": ("email", "phone")})))
    assert missing.value == 0


def stage_with(gold: dict[str, tuple[str, ...]]) -> StackOutputs:
    from tests.events import make_outputs

    outputs = make_outputs(keys={})
    template = outputs.tenants["acme"]
    tenants = {
        name: template.model_copy(update={"tier": "gold", "encrypted_fields": fields})
        for name, fields in gold.items()
    }
    return outputs.model_copy(update={"tenants": tenants})


def test_a_preview_that_is_not_green_or_not_whole_meets_nothing() -> None:
    goal = next(goal for goal in GOALS if goal.name == "template")
    ready = {"check": "ready", "state": "green"}
    record = {"service": "orders", "seconds": 200.0, "ended_at": time.time(), "checks": [ready]}
    nothing: Any = None

    def judge(*records: dict[str, Any]) -> Verdict:
        return goal.bound.judge(goal.look(nothing, Looking(nothing, previews=records)))

    assert judge(record) is Verdict.MET
    assert judge({**record, "seconds": 601.0}) is Verdict.MISSED
    not_signed = {"check": "signature", "state": "not signed"}
    assert judge({**record, "checks": [ready, not_signed]}) is Verdict.MET
    for bad in (
        {"checks": []},
        {"checks": [not_signed]},
        {"checks": [ready, {"check": "trace", "state": "not checked"}]},
        {"checks": [ready, {"check": "signature", "state": "red"}]},
        {"seconds": "soon"},
    ):
        assert judge({**record, **bad}) is Verdict.UNKNOWN
    assert judge() is Verdict.UNKNOWN


def test_only_records_are_read_and_the_newest_counts(tmp_path: Path) -> None:
    for name, text in {
        "a.json": '{"service": "old", "ended_at": 5}',
        "b.json": '{"service": "new", "ended_at": 9}',
        "c.json": "[1]",
        "d.json": "not JSON",
        "e.json": '{"service": "undated", "ended_at": "soon"}',
        "f.txt": '{"service": "other", "ended_at": 99}',
    }.items():
        (tmp_path / name).write_text(text)
    assert [record["service"] for record in read_previews(tmp_path)] == ["old", "new"]
    (tmp_path / "g.json").write_text('{"service": "just now"}')
    assert read_previews(tmp_path)[-1]["service"] == "just now"
    assert read_previews(tmp_path / "nowhere") == ()


def test_the_last_preview_of_a_service_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "previews"
    for service, seconds in (("orders", 60.0), ("billing", 50.0), ("orders", 40.0)):
        keep_preview(folder, {"service": service, "seconds": seconds, "checks": []})
    assert [(each["service"], each["seconds"]) for each in read_previews(folder)] == [
        ("billing", 50.0),
        ("orders", 40.0),
    ]
    assert {path.name for path in folder.iterdir()} == {"orders.json", "billing.json"}


def test_a_figure_that_is_no_number_is_within_no_bound() -> None:
    assert Bound("<", 5).judge(Figure(float("nan"), None)) is Verdict.MISSED
    assert not Bound(">=", 5).holds(float("inf"))


def test_mitigations_are_looked_for_in_the_stage(
    history: History, connection: Connection, outputs: StackOutputs
) -> None:
    prometheus = history.start()
    measure = Measure(prometheus, "kilo", connection)

    def found() -> dict[str, State]:
        return {each.mitigation.name: each.shown.state for each in read_risks(measure, outputs)}

    assert {found()[name] for name in ("periodic compaction", "indexes", "least privilege")} == {State.HOLDS}
    assert found()["dual control"] is State.ABSENT
    connection.execute("DROP INDEX outbox_waiting_idx")
    connection.execute("GRANT SELECT ON fle_wraps TO kilo_worker")
    try:
        now = found()
    finally:
        connection.execute("REVOKE SELECT ON fle_wraps FROM kilo_worker")
    assert (now["indexes"], now["least privilege"]) == (State.ABSENT, State.ABSENT)


def test_a_key_outside_the_kms_is_found(
    history: History, connection: Connection, outputs: StackOutputs
) -> None:
    prometheus = history.start()
    connection.execute("SET session_replication_role = replica")
    connection.execute(
        "INSERT INTO fle_keys (id, tenant, purpose, format, version, state, message_limit)"
        " VALUES (7, 'acme', 'field-data', 2, 1, 'active', 1000)"
    )
    connection.execute(
        "INSERT INTO fle_wraps (key_id, provider, kms_key, wrapped) VALUES (7, 'aws', 'file:key', '\\x00')"
    )
    risks = read_risks(Measure(prometheus, "kilo", connection), outputs)
    (shown,) = [each.shown for each in risks if each.mitigation.name == "KMS only"]
    assert (shown.state, shown.evidence) == (State.ABSENT, "1 data keys are not wrapped by a KMS key")


def test_a_breach_counts_of_the_tenants_whose_ramp_came_to_its_end(
    history: History, connection: Connection, outputs: StackOutputs
) -> None:
    for series in ('tenant_objective_budget_ratio{tenant="acme"}', 'tenant:requests:rate5m{tenant="acme"}'):
        history.add(series, 1)
    alert = 'ALERTS{{alertname="TenantAvailabilityBurn", alertstate="firing", tenant="{}"}}'
    history.add(alert.format("globex"), 1)
    measure = Measure(history.start(), "kilo", connection)
    goal = next(goal for goal in GOALS if goal.name == "ramp")
    assert goal.look(measure, Looking(outputs)).trouble == "no ramp of a feature has come to its end"
    for tenant, state in (("acme", "done"), ("globex", "reverted")):
        connection.execute(
            "INSERT INTO ramps (stage, tenant, feature, steps, hold_seconds, minimum_requests, weight_before,"
            " weight, started_by, state, ended_at)"
            " VALUES ('test', %s, 'search', '{5}', 1, 1, '0', '0', 'ana', %s, now())",
            (tenant, state),
        )
    assert goal.look(measure, Looking(outputs)).value == 0
    connection.execute("UPDATE ramps SET state = 'done'")
    assert goal.look(measure, Looking(outputs)).value == 1


def test_many_events_are_counted_in_time(
    connection: Connection, outputs: StackOutputs, history: History
) -> None:
    history.add(metrics.OUTBOX_LOST.name, 0)
    connection.execute(
        "INSERT INTO events (fingerprint, tenant, aggregate, aggregate_id, kind, payload, received_at)"
        " SELECT md5(n::text), 'acme', 'order', n::text, 'order.created', '{}', now() - interval '90 s'"
        " FROM generate_series(1, 40000) n"
    )
    connection.execute(
        "INSERT INTO inbox (consumer, fingerprint, created_at, tenant, publisher)"
        " SELECT 'events', md5(n::text), now(), 'acme', 'worker' FROM generate_series(2, 40000) n"
    )
    measure = Measure(history.start(), "kilo", connection)
    looking = Looking(outputs, window_seconds=600)
    assert (lost(measure, looking).trouble, lost(measure, looking).value) == ("", 1.0)
    assert outbox_share(measure, looking).value == 39_999 / 40_000
