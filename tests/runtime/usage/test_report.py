"""What the commands say of the tables: rows, files, notes, and costs that sum to the whole."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kilo.cli import main
from kilo.usage.costs import SKUS, make_bill, split
from kilo.usage.focus import COLUMNS
from kilo.usage.report import Used
from kilo.usage.settings import Prices
from kilo.usage.stage_file import load_usage
from tests.events import make_outputs
from tests.runtime.usage.test_exactly_once import role_url

_ROOT = Path(__file__).parents[3]
_REQUESTS = "INSERT INTO {} VALUES (%s, %s, %s, 'POST', %s, 'stable', %s, %s, %s, %s)"
_MEASURES = "INSERT INTO {} VALUES (%s, %s, %s, %s, %s)"
Run = Callable[..., tuple[int, str, str]]
_busy = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Whatever else runs on the machine."""


def used_of(connection: psycopg.Connection[Any], day: str, tenant: str, requests: int, **more: Any) -> None:
    """Put a day's use into both tables."""
    row = (more.get("route", "api"), more.get("status", "2xx"), more.get("shed", ""), requests, requests * 10)
    for table, time in (("usage_requests", f"{day}T05:00Z"), ("usage_request_days", day)):
        connection.execute(_REQUESTS.format(table).encode(), (time, tenant, *row, requests * 20))
    for table, time in (("usage_measures", f"{day}T05:00Z"), ("usage_measure_days", day)):
        for measure, kind, amount in more.get("measures", ()):
            connection.execute(_MEASURES.format(table).encode(), (time, tenant, measure, kind, amount))


@pytest.fixture
def run(
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """The command line, as somebody with the role's credentials calls it."""
    outputs = tmp_path / "outputs.json"
    outputs.write_text(
        make_outputs("nats://127.0.0.1:1").model_copy(update={"stage": "dev"}).model_dump_json(),
        encoding="utf-8",
    )
    monkeypatch.setenv("KILO_OUTPUTS", str(outputs))
    monkeypatch.setenv("DATABASE_URL", role_url(database_url, "kilo_usage"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(_ROOT)

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["usage", *arguments])
        text, error = capsys.readouterr()
        return code, text, error

    return call


@pytest.fixture
def filled(database_url: str) -> str:
    with psycopg.connect(database_url, autocommit=True) as connection:
        used_of(
            connection,
            "2026-03-01",
            "acme",
            1_000,
            measures=[
                ("events", "order.paid", 700),
                ("events", "order.sent", 200),
                ("encryptions", "encrypt", 50),
                ("kms_calls", "decrypt", 3),
                ("key_look_ups", "hit", 99),
                ("key_look_ups", "miss", 1),
                ("stored_byte_hours", "events", 5 * 10**9),
            ],
        )
        used_of(connection, "2026-03-02", "acme", 10, status="4xx", shed="overload")
        used_of(connection, "2026-03-02", "globex", 7, status="5xx", route="reads")
        used_of(connection, "2026-03-02", "", 3, status="4xx", route="unknown-tenant")
        used_of(connection, "2026-02-28", "acme", 5_000)
    return database_url


_MARCH = ("--since", "2026-03-01", "--until", "2026-03-31")


def test_a_report_has_what_each_tenant_used(run: Run, filled: str) -> None:
    code, text, _ = run("report", *_MARCH, "--json")
    assert code == 0
    nobody, acme, globex = json.loads(text)
    assert (nobody["tenant"], nobody["requests"]) == ("", 3)
    assert acme == {
        "tenant": "acme",
        "requests": 1_010,
        "failed": 0,
        "shed": 10,
        "received": 10_100,
        "sent": 20_200,
        "events": 900,
        "encryptions": 50,
        "kms_calls": 3,
        "hit_ratio": 0.99,
        "stored_gigabyte_hours": "5.00",
    }
    assert (globex["failed"], globex["hit_ratio"]) == (7, None)


def test_a_table_fits_a_terminal(run: Run, filled: str) -> None:
    code, text, _ = run("report", *_MARCH)
    assert code == 0
    assert "1,010" in text.replace("\n", "")
    assert max(map(len, text.splitlines())) <= 80
    assert "(none)" in text


@pytest.mark.parametrize("by", ["tenant,day", "tenant,hour", "route,status", "version", "day"])
def test_rows_by_anything_sum_to_the_same(run: Run, filled: str, by: str) -> None:
    _, text, _ = run("report", *_MARCH, "--by", by, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert sum(int(row["requests"]) for row in rows) == 1_020
    assert sum(int(row["sent"]) for row in rows) == 20_400
    assert list(rows[0])[: len(by.split(","))] == by.split(",")


def test_one_tenant_is_reported_alone(run: Run, filled: str) -> None:
    _, text, _ = run("report", *_MARCH, "--tenant", "globex", "--json")
    assert [row["tenant"] for row in json.loads(text)] == ["globex"]


def test_parquet_has_the_rows_of_the_other_formats(run: Run, filled: str, tmp_path: Path) -> None:
    from arro3.io import read_parquet

    file = tmp_path / "usage.parquet"
    assert run("report", *_MARCH, "--format", "parquet", "-o", str(file))[0] == 0
    table = read_parquet(file).read_all()
    found = {name: table.column(name).to_pylist() for name in table.schema.names}
    assert found["tenant"] == ["", "acme", "globex"]
    assert found["requests"] == [3, 1_010, 7]
    assert found["stored_gigabyte_hours"][1] == Decimal(5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", "--by", "person"], "--by person: it takes tenant, day, hour"),
        (["report", "--by", "day,hour"], "day or hour but not both"),
        (["report", "--since", "yesterday"], "--since yesterday: not a day; it takes one such as 2026-03-31"),
        (["report", "--since", "2026-03-02", "--until", "2026-03-01"], "is before --since"),
        (["report", "--format", "parquet"], "a terminal can't show it"),
        (["report", "--format", "csv", "-o", "/nowhere/x.csv"], "/nowhere/x.csv: can't be written"),
        (["report", "-s", "prod"], "--stage prod: the environment is that of dev"),
        (["export"], "say --focus"),
        (["export", "--focus", "--month", "March"], "--month March: not a month"),
        (["export", "--focus", "--format", "table"], "too many columns"),
    ],
)
def test_a_mistake_is_one_line(run: Run, filled: str, arguments: list[str], said: str) -> None:
    code, text, error = run(*arguments)
    assert (code, text) == (2, "")
    assert said in error
    assert "Traceback" not in error


def test_a_database_that_is_away_or_old_is_said(
    run: Run, monkeypatch: pytest.MonkeyPatch, empty_database_url: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    code, _, error = run("report")
    assert code == 3
    assert "kilo db migrate" in error
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:hidden@127.0.0.1:1/x")
    code, _, error = run("report")
    assert code == 3
    assert "hidden" not in error


def test_a_tenant_at_three_times_its_usual_is_noted(run: Run, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        for day in range(1, 11):
            used_of(connection, f"2026-03-{day:02}", "acme", 1_000 + day)
            used_of(connection, f"2026-03-{day:02}", "small", 2)
            used_of(connection, f"2026-03-{day:02}", "steady", 5_000)
        used_of(connection, "2026-03-11", "acme", 3_400)
        used_of(connection, "2026-03-11", "small", 900)
        used_of(connection, "2026-03-11", "steady", 14_000)
        used_of(connection, "2026-03-11", "new", 90_000)
    _, _, notes = run("report", "--since", "2026-03-11", "--until", "2026-03-11")
    assert (
        notes == "note: acme asked 3.4 times its usual on 2026-03-11: 3,400 requests, usually 1,006 a day\n"
    )


def test_focus_rows_sum_to_the_whole(run: Run, filled: str) -> None:
    code, text, said = run("export", "--focus", "-s", "dev", "--month", "2026-03")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0]) == [name for name, _ in COLUMNS]
    whole = sum(Decimal(row["BilledCost"]) for row in rows)
    assert said == f"{whole:,.2f} EUR for 2026-03, {len(rows)} rows\n"
    assert whole >= 900
    settings, tenants = load_usage(_ROOT / "Pulumi.dev.yaml")
    assert {row["SubAccountId"] for row in rows} <= {*tenants}
    events = next(row for row in rows if (row["SubAccountId"], row["SkuId"]) == ("acme", "million_events"))
    assert Decimal(events["ConsumedQuantity"]) == 900
    assert Decimal(events["ListCost"]) == Decimal("0.0009") * settings.prices.million_events
    assert events["BillingPeriodStart"] == "2026-03-01T00:00:00Z"
    assert events["ChargePeriodEnd"] == "2026-04-01T00:00:00Z"


_amounts = st.integers(0, 10**13)
_use = st.builds(
    Used,
    requests=_amounts,
    received=_amounts,
    sent=_amounts,
    events=_amounts,
    encryptions=_amounts,
    kms_calls=_amounts,
    stored_byte_hours=st.integers(0, 10**16).map(Decimal),
)
_price = st.decimals(0, 1_000, places=4)
_names = st.sampled_from(["", "acme", "globex", "initech", "umbrella"])


@_busy
@given(
    st.dictionaries(_names, _use),
    st.lists(_names.filter(bool), min_size=1),
    st.builds(Prices, **dict.fromkeys([*(sku.id for sku in SKUS), "shared_month"], _price)),
)
def test_parts_are_the_whole_to_the_cent(used: dict[str, Used], tenants: list[str], prices: Prices) -> None:
    bill = make_bill(used, tenants, prices)
    assert sum(bill.own.values()) + sum(bill.shared.values()) == bill.whole
    assert min([*bill.own.values(), *bill.shared.values()]) >= 0
    assert "" not in bill.shared
    exact = prices.shared_month + sum(
        sku.quantity(each) * sku.price(prices) for sku in SKUS for each in used.values()
    )
    # Each of the prices and the shared cost is rounded once.
    assert abs(Decimal(bill.whole) / 100 - exact) <= Decimal("0.005") * (len(SKUS) + 1) + Decimal("1e-6")


@_busy
@given(
    st.integers(0, 10**9),
    st.dictionaries(st.text(max_size=3), st.integers(0, 10**6).map(Decimal), min_size=1),
)
def test_a_part_is_the_share_within_a_cent(cents: int, weights: dict[str, Decimal]) -> None:
    parts = split(cents, weights)
    assert sum(parts.values()) == cents
    if whole := sum(weights.values()):
        assert all(abs(parts[name] - cents * weights[name] / whole) < 1 for name in weights)
    else:
        assert max(parts.values()) - min(parts.values()) <= 1
