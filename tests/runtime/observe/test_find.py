"""Finding an event again by what is known of it, and telling two tenants' apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import typer
from typer.testing import CliRunner

from kilo.errors import BadInput, CheckFailed, Unreachable
from kilo.observe import find
from kilo.observe.trace import life_of, trace
from kilo.outbox import Event, enqueue

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"


def find_json(*arguments: str) -> Any:
    shown = CliRunner().invoke(find.app, ["find", *arguments, "--json"])
    assert shown.exit_code == 0, shown.output
    return json.loads(shown.stdout)


def fingerprints(*arguments: str) -> list[str]:
    return [each["fingerprint"] for each in find_json(*arguments)["events"]]


@pytest.fixture
def filled(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DATABASE_URL", database_url)
    events = [
        Event("acme", "order", "1", "order.paid", {}, "k-1", PARENT),
        Event("acme", "order", "2", "order.made", {}, "k-2"),
        Event("globex", "order", "1", "order.made", {}, "k-1"),
    ]
    for event in events:
        with psycopg.connect(database_url) as connection:
            enqueue(connection, event)
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO events (fingerprint, tenant, aggregate, aggregate_id, kind, payload, received_at)"
            " SELECT 'acme/old', 'acme', 'order', '3', 'order.made', '{}', '2026-01-02 03:04:05Z'"
        )
        connection.execute(
            "INSERT INTO inbox (consumer, fingerprint, created_at, tenant, publisher)"
            " SELECT 'projection', fingerprint, created_at, tenant, 'worker' FROM outbox"
            " WHERE tenant = 'globex'"
        )
        for consumer in ("one", "two"):
            connection.execute(
                "INSERT INTO dead_letters (consumer, fingerprint, tenant, aggregate, aggregate_id, kind,"
                " payload, headers, created_at, position)"
                " SELECT %s, fingerprint, tenant, aggregate, aggregate_id, E'order.\\x1b[2Jmade', '', '{}',"
                " created_at, 1 FROM outbox WHERE fingerprint = 'k-2'",
                (consumer,),
            )
    return database_url


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), ["k-1", "k-2", "k-1", "acme/old"]),
        (("--tenant", "acme"), ["k-2", "k-1", "acme/old"]),
        (("--aggregate-id", "1"), ["k-1", "k-1"]),
        (("--aggregate-id", "1", "--tenant", "globex"), ["k-1"]),
        (("--kind", "order.paid"), ["k-1"]),
        (("--fingerprint", "acme/old"), ["acme/old"]),
        (("--trace", TRACE_ID), ["k-1"]),
        (("--trace", PARENT), ["k-1"]),
        (("--until", "2026-01-02T03:04:06"), ["acme/old"]),
        (("--since", "2026-01-02T03:04:05", "--until", "2026-01-03"), ["acme/old"]),
        (("--since", "2026-01-03", "--tenant", "acme"), ["k-2", "k-1"]),
        (("--tenant", "nobody"), []),
    ],
)
def test_an_event_is_found_by_what_is_known_of_it(arguments: tuple[str, ...], expected: list[str]) -> None:
    assert fingerprints(*arguments) == expected


@pytest.mark.usefixtures("filled")
def test_it_says_where_each_is_and_that_there_are_more() -> None:
    answer = find_json("--limit", "2")
    assert answer["more"] is True
    assert [
        (each["tenant"], each["outbox"], each["consumers"], each["dead_letters"]) for each in answer["events"]
    ] == [("globex", "waiting", ["projection"], []), ("acme", "waiting", [], ["parked"])]
    assert find_json("--tenant", "globex")["more"] is False
    (old,) = find_json("--fingerprint", "acme/old")["events"]
    assert (old["outbox"], old["at"]) == (None, "2026-01-02T03:04:05+00:00")


@pytest.mark.usefixtures("filled")
def test_lines_are_whole_and_steer_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(find.app, ["find", "--limit", "3"]).stdout
    assert "    k-1  waiting in the outbox; handled by projection\n" in shown
    assert "and more: these are the newest 3" in shown
    shown = CliRunner().invoke(find.app, ["find", "--fingerprint", "k-2"]).stdout
    assert "\x1b" not in shown
    assert "k-2  waiting in the outbox; dead letter parked\n" in shown
    assert "no events match" in CliRunner().invoke(find.app, ["find", "--tenant", "nobody"]).stdout


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trace", "XYZ"], "--trace 'XYZ': must be a trace id"),
        (["--tenant", "a b"], "--tenant 'a b': must be 1 to 255 printable"),
        (["--since", "2026-01-02", "--until", "2026-01-01"], "is not before --until"),
    ],
)
def test_bad_input_is_named(arguments: list[str], message: str) -> None:
    error = CliRunner().invoke(find.app, ["find", *arguments]).exception
    assert isinstance(error, BadInput)
    assert message in str(error)


def test_a_search_that_takes_too_long_is_ended(filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "LONGEST_SECONDS", 1)
    with psycopg.connect(filled) as holder:
        # As long as a search that reads whole tables: it waits for this lock.
        holder.execute("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE")
        error = CliRunner().invoke(find.app, ["find"]).exception
    assert isinstance(error, Unreachable)
    assert "narrow it" in str(error)


def call_trace(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(trace)
    return CliRunner().invoke(app, list(arguments))


def test_two_tenants_same_fingerprint_is_traced_apart(filled: str) -> None:
    with psycopg.connect(filled) as connection:
        with pytest.raises(BadInput, match="fingerprint of acme, globex: give one of them as --tenant"):
            life_of(connection, "k-1")
        life: Callable[[str], list[str]] = lambda tenant: [  # noqa: E731
            step.where for step in life_of(connection, "k-1", tenant)
        ]
        assert life("acme") == ["outbox"]
        assert life("globex") == ["outbox", "consumer projection"]
        assert {step.where for step in life_of(connection, "k-2")} == {
            "outbox",
            "consumer one",
            "consumer two",
        }
    assert call_trace("k-1", "--tenant", "acme").exit_code == 0
    missing = call_trace("k-1", "--tenant", "initech").exception
    assert isinstance(missing, CheckFailed)
    assert "of initech" in str(missing)
