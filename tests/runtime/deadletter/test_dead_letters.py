"""Replay, edit, discard, prune: one effect an event, in its aggregate's order, however often asked."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from kilo.deadletter import DeadLetters, Filter
from kilo.deadletter.cli import app
from kilo.errors import BadInput
from tests.events import make_outputs
from tests.runtime.conftest import BusServer
from tests.runtime.consumer.support import Running, a_message, make


async def parked(database_url: str, bus: BusServer) -> Running:
    """Event 1 of aggregate a is parked, 2 and 3 are held behind it, 4 of b went through."""
    one = make(database_url, bus)
    one.handle_with_effects()
    one.fail[1] = RuntimeError("down")
    messages = [a_message(n, "a") for n in (1, 2, 3)]
    await one.publish([*messages, a_message(4, "b")])
    async with one.running():
        await one.until(
            "SELECT state FROM dead_letters ORDER BY id", [("parked",), ("waiting",), ("waiting",)]
        )
        await one.until("SELECT n FROM effects", [(4,)])
    one.fail.clear()
    return one


async def test_a_replay_has_one_effect_and_those_behind_follow_in_order(
    database_url: str, bus: BusServer
) -> None:
    one = await parked(database_url, bus)
    with psycopg.connect(database_url, autocommit=True) as connection:
        letters = DeadLetters(connection)
        (letter,) = letters.find(Filter(states=("parked",)))
        assert letters.behind(letter) == 2
        assert letters.replay(letter)
        assert not letters.replay(letter)
    async with one.running():
        await one.until("SELECT n FROM effects ORDER BY serial", [(4,), (1,), (2,), (3,)])
        await one.until("SELECT DISTINCT state FROM dead_letters", [("replayed",)])
        await one.publish([a_message(1, "a", message_id="once-more")])
        await one.until("SELECT duplicates FROM inbox WHERE fingerprint = 'acme/1'", [(1,)])
    assert one.effects() == [4, 1, 2, 3]
    replayed = next(event for event in one.seen if event.fingerprint == "acme/1")
    assert replayed.replay_of == "acme/1"
    assert replayed.headers["Nats-Msg-Id"].startswith("acme/1#replay-")


async def test_a_replay_that_fails_again_is_parked_again(database_url: str, bus: BusServer) -> None:
    one = await parked(database_url, bus)
    one.fail[1] = ZeroDivisionError("still down")
    with psycopg.connect(database_url, autocommit=True) as connection:
        letters = DeadLetters(connection)
        assert letters.replay(next(letters.find(Filter())))
    async with one.running():
        await one.until(
            "SELECT state, split_part(error, ' ', 1), attempts FROM dead_letters ORDER BY id LIMIT 1",
            [("parked", "ZeroDivisionError", 6)],
        )
    assert one.effects() == [4]


async def test_a_discarded_event_never_has_an_effect(database_url: str, bus: BusServer) -> None:
    one = await parked(database_url, bus)
    with psycopg.connect(database_url, autocommit=True) as connection:
        letters = DeadLetters(connection)
        assert letters.discard(next(letters.find(Filter())))
    async with one.running():
        await one.until("SELECT n FROM effects ORDER BY serial", [(4,), (2,), (3,)])
        await one.publish([a_message(1, "a", message_id="once-more")])
        await one.until("SELECT duplicates FROM inbox WHERE fingerprint = 'acme/1'", [(1,)])
    assert one.effects() == [4, 2, 3]


async def test_an_edit_is_recorded_and_replayed(database_url: str, bus: BusServer) -> None:
    one = await parked(database_url, bus)
    with psycopg.connect(database_url, autocommit=True) as connection:
        letters = DeadLetters(connection)
        (letter,) = letters.find(Filter(states=("parked",)))
        with pytest.raises(BadInput, match="not JSON"):
            letters.edit(letter, "{", "ana")
        letters.edit(letter, '{"n": 1, "mended": true}', "ana")
        ((_, by, before, after),) = letters.edits(letter)
        assert (by, before, after) == ("ana", b'{"n": 1}', b'{"n": 1, "mended": true}')
        letters.replay(letter)
    async with one.running():
        await one.until("SELECT count(*) FROM effects", [(4,)])
    assert next(event.payload for event in one.seen if event.fingerprint == "acme/1") == {
        "n": 1,
        "mended": True,
    }


def a_letter(url: str, payload: str, state: str = "parked", tenant: str = "globex") -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO dead_letters (consumer, state, fingerprint, tenant, aggregate, aggregate_id, kind,"
            " payload, headers, created_at, position) VALUES ('c', %s, 'globex/1', %s, 'order', '1',"
            " 'order.paid', %s, '{}', now(), 1)",
            (state, tenant, payload.encode()),
        )


def test_an_edit_leaves_no_sensitive_value_in_plain(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = make_outputs(keys=dict.fromkeys(("acme", "globex", "initech"), "key"))
    (tmp_path / "outputs.json").write_text(outputs.model_dump_json())
    monkeypatch.setenv("KILO_OUTPUTS", str(tmp_path / "outputs.json"))
    monkeypatch.setenv("DATABASE_URL", database_url)
    lies = '{"email": "sealed", "to": [{"email": "sealed too"}], "total": 1}'
    a_letter(database_url, lies)
    edit = partial(CliRunner().invoke, app)
    for plain, place in (
        ('{"email": "ana@example.com"}', "payload/email: is encrypted"),
        ('{"email": "sealed too"}', "payload/email: is encrypted"),
        ('{"to": [{"email": "sealed"}]}', "payload/to/0/email: is encrypted"),
        ('{"from": {"email": "sealed"}}', "payload/from/email: is encrypted"),
    ):
        result = edit(["edit", "1", "--payload", plain])
        assert isinstance(result.exception, BadInput)
        assert place in str(result.exception)
        assert "ana@" not in str(result.exception)
    mended = lies.replace('"total": 1', '"total": 2')
    assert json.loads(edit(["edit", "1", "--json", "--payload", mended]).stdout) == {"edited": 1}
    assert edit(["edit", "1", "--payload", '{"email": null}']).exit_code == 0
    with psycopg.connect(database_url) as connection:
        stored = connection.execute("SELECT before, after FROM dead_letter_edits ORDER BY id").fetchall()
    assert stored == [(lies.encode(), mended.encode()), (mended.encode(), b'{"email": null}')]


async def test_the_command_line_finds_replays_and_prunes(
    database_url: str, bus: BusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await parked(database_url, bus)
    monkeypatch.setenv("DATABASE_URL", database_url)
    run = CliRunner().invoke
    listed = json.loads(run(app, ["list", "--json", "--error", "RuntimeError"]).stdout)
    assert [(each["fingerprint"], each["payload"]) for each in listed] == [("acme/1", '{"n": 1}')]
    assert run(app, ["list", "--kind", "nothing.such"]).stdout == "no dead letters\n"
    dry = json.loads(run(app, ["replay", "--dry-run", "--json"]).stdout)
    assert dry == {"matched": 1, "replay": 0, "dry_run": True}
    done = json.loads(run(app, ["replay", "--json", "--rate", "1000"]).stdout)
    assert done == {"matched": 1, "replay": 1, "dry_run": False}
    async with one.running():
        await one.until("SELECT count(*) FROM effects", [(4,)])

    def prune(*arguments: str) -> dict[str, object]:
        return json.loads(run(app, ["prune", "--json", *arguments]).stdout)

    assert prune("--days", "1") == {"matched": 0, "pruned": 0, "dry_run": False}
    assert prune("--days", "0", "--kind", "other.kind") == {"matched": 0, "pruned": 0, "dry_run": False}
    assert prune("--days", "0", "--dry-run") == {"matched": 3, "pruned": 0, "dry_run": True}
    assert prune("--days", "0", "--tenant", "acme") == {"matched": 3, "pruned": 3, "dry_run": False}


@pytest.mark.parametrize("command", [["replay", "77"], ["discard", "1", "77"], ["show", "77"]])
def test_a_letter_that_is_not_there_is_a_mistake(
    database_url: str, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    a_letter(database_url, "{}")
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, BadInput)
    assert "no dead letter 77:" in str(result.exception)
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT state FROM dead_letters").fetchall() == [("parked",)]


def test_a_list_of_eighty_columns_cuts_nothing_and_says_what_is_true(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("COLUMNS", "80")
    a_letter(database_url, "{}")
    long = "order-" + "9" * 60
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "UPDATE dead_letters SET error = 'CheckViolation (SQLSTATE 23514) table orders at billing.py:17"
            ' in bill\', headers = \'{"kind": "order.paid", "tenant": "globex"}\', aggregate_id = %s',
            (long,),
        )
        connection.execute(
            "INSERT INTO dead_letters (consumer, state, fingerprint, tenant, aggregate, aggregate_id, kind,"
            " payload, headers, created_at, position, attempts) SELECT 'c', state, 'globex/' || state,"
            " 'globex', 'order', '2', 'order.paid', '{}', '{}', now(), 1, 1"
            " FROM unnest('{waiting,replayed}'::text[]) AS state"
        )
    run = CliRunner().invoke
    listed = run(app, ["list", "--all"]).stdout
    for whole in (long, "CheckViolation (SQLSTATE 23514) table orders at billing.py:17 in bill"):
        assert whole in listed
    lines = [line.split() for line in listed.splitlines()]
    assert any(line[:3] == ["2", "held", "behind"] for line in lines)
    assert any(line[:2] == ["3", "handled"] for line in lines)
    shown = run(app, ["show", "1"]).stdout
    assert "kind: order.paid" in shown
    assert "{'" not in shown


def test_discarding_everything_has_to_be_meant(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    result = CliRunner().invoke(app, ["discard"])
    assert isinstance(result.exception, BadInput)


def test_pruning_takes_bounded_steps(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO dead_letters (consumer, state, fingerprint, tenant, aggregate, aggregate_id, kind,"
            " payload, headers, created_at, position, last_at) SELECT 'c', 'replayed', n::text, 't', 'a',"
            " '1', 'k', '', '{}', now(), n, now() - interval '2 days' FROM generate_series(1, 2500) n"
        )
        assert list(DeadLetters(connection).prune(timedelta(days=1))) == [1000, 1000, 500]
