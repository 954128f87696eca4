"""Finds and changes dead letters; every change is one short transaction a letter or a bounded step."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from kilo.errors import BadInput
from kilo.outbox import strict_json

OPEN_STATES = ("parked", "waiting", "retrying", "replaying")
DONE_STATES = ("replayed", "discarded")
_PRUNE_STEP = 1000
_PAGE = 20


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter; the names are the columns'."""

    id: int
    consumer: str
    state: str
    fingerprint: str
    tenant: str
    aggregate: str
    aggregate_id: str
    kind: str
    payload: bytes
    headers: dict[str, str]
    traceparent: str | None
    created_at: datetime
    error: str
    stack_digest: str
    attempts: int
    first_at: datetime
    last_at: datetime
    replays: int

    @property
    def status(self) -> str:
        """The state in words: one that went by itself was not replayed, and one that waits is held behind."""
        if self.state == "waiting":
            return "held behind"
        return "handled" if self.state == "replayed" and not self.replays else self.state


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are meant; what is left out matches all.

    Attributes:
        ids: these numbers.
        kind: this kind of event.
        tenant: this tenant.
        error: this text stands in the error, or is its stack digest.
        aggregate_id: this thing.
        since: first parked at or after this.
        until: first parked before this.
        states: in one of these states; parked and waiting by default.
    """

    ids: tuple[int, ...] = ()
    kind: str | None = None
    tenant: str | None = None
    error: str | None = None
    aggregate_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    states: tuple[str, ...] = ("parked", "waiting")


class DeadLetters:
    """The dead letters in the database of ``connection``, which is in autocommit mode."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def ids(self, which: Filter) -> list[int]:
        """The numbers of the letters, oldest first."""
        condition, values = _condition(which)
        query = sql.SQL("SELECT id FROM dead_letters WHERE {} ORDER BY id").format(condition)
        return [row[0] for row in self._connection.execute(query, values)]

    def find(self, which: Filter, most: int | None = None) -> Iterator[DeadLetter]:
        """The letters, oldest first, of which a few are in memory at a time: payloads can be large."""
        numbers = self.ids(which)[:most]
        for start in range(0, len(numbers), _PAGE):
            yield from self._page(Filter(tuple(numbers[start : start + _PAGE]), states=which.states))

    def _page(self, which: Filter) -> Iterator[DeadLetter]:
        condition, values = _condition(which)
        query = sql.SQL(
            "SELECT id, consumer, state, fingerprint, tenant, aggregate, aggregate_id, kind, payload,"
            " headers, traceparent, created_at, error, stack_digest, attempts, first_at, last_at, replays"
            " FROM dead_letters WHERE {} ORDER BY id"
        ).format(condition)
        with self._connection.cursor(row_factory=class_row(DeadLetter)) as cursor:
            yield from cursor.execute(query, values)

    def behind(self, letter: DeadLetter) -> int:
        """How many later events of the ordering key are held behind ``letter``."""
        row = self._connection.execute(
            "SELECT count(*) FROM dead_letters WHERE consumer = %s AND tenant = %s AND aggregate = %s"
            " AND aggregate_id = %s AND state = 'waiting' AND id > %s",
            (letter.consumer, letter.tenant, letter.aggregate, letter.aggregate_id, letter.id),
        ).fetchone()
        return int(row[0]) if row else 0

    def replay(self, letter: DeadLetter) -> bool:
        """Ask the consumer to handle ``letter`` again; whether it was parked until now.

        It keeps its fingerprint and trace, takes a new message id, and says of which it is the replay.
        """
        original = letter.headers.get("replay-of") or letter.headers.get("Nats-Msg-Id", letter.fingerprint)
        headers = {
            **letter.headers,
            "Nats-Msg-Id": f"{letter.fingerprint}#replay-{uuid.uuid4().hex[:12]}",
            "replay-of": original,
        }
        done = self._connection.execute(
            "UPDATE dead_letters SET state = 'replaying', replays = replays + 1, headers = %s,"
            " attempts_before = attempts"
            " WHERE id = %s AND state = 'parked'",
            (json.dumps(headers), letter.id),
        )
        return done.rowcount == 1

    def discard(self, letter: DeadLetter) -> bool:
        """Give ``letter`` up for good: it has no effect, then or later; whether it was parked until now."""
        with self._connection.transaction():
            done = self._connection.execute(
                "UPDATE dead_letters SET state = 'discarded', last_at = now()"
                " WHERE id = %s AND state = 'parked'",
                (letter.id,),
            )
            # A later delivery of it must find that it is dealt with.
            self._connection.execute(
                "INSERT INTO inbox (consumer, fingerprint, created_at, tenant, publisher)"
                " SELECT consumer, fingerprint, created_at, tenant, 'discarded' FROM dead_letters"
                " WHERE id = %s AND state = 'discarded' ON CONFLICT DO NOTHING",
                (letter.id,),
            )
        return done.rowcount == 1

    def edit(
        self, letter: DeadLetter, payload: str, by: str, encrypted_fields: frozenset[str] = frozenset()
    ) -> None:
        """Replace the payload of ``letter``, and record who did it with the before and after.

        Args:
            letter: a parked one.
            payload: JSON text.
            by: who does it.
            encrypted_fields: those of the tenant; their values are kept as they lie, or set to null.

        Raises:
            BadInput: ``payload`` is not JSON or has a sensitive value in plain, or the letter is not parked
                any more.
        """
        try:
            _keep_encrypted(strict_json.parse(payload), _parsed(letter.payload), encrypted_fields, "")
        except strict_json.NotStrict as error:
            msg = f"the payload {error}"
            raise BadInput(msg) from error
        with self._connection.transaction():
            row = self._connection.execute(
                "SELECT payload FROM dead_letters WHERE id = %s AND state = 'parked' FOR UPDATE", (letter.id,)
            ).fetchone()
            if row is None:
                msg = f"dead letter {letter.id} is not parked, so it can't be edited"
                raise BadInput(msg)
            self._connection.execute(
                "INSERT INTO dead_letter_edits (dead_letter_id, edited_by, before, after)"
                " VALUES (%s, %s, %s, %s)",
                (letter.id, by, row[0], payload.encode()),
            )
            self._connection.execute(
                "UPDATE dead_letters SET payload = %s WHERE id = %s", (payload.encode(), letter.id)
            )

    def edits(self, letter: DeadLetter) -> list[tuple[datetime, str, bytes, bytes]]:
        """Every edit: when, by whom, before, after."""
        return self._connection.execute(
            "SELECT edited_at, edited_by, before, after FROM dead_letter_edits"
            " WHERE dead_letter_id = %s ORDER BY id",
            (letter.id,),
        ).fetchall()

    def prunable(self, older_than: timedelta, which: Filter) -> int:
        """How many letters of ``which`` were dealt with longer ago than this."""
        condition, values = _condition(which)
        query = sql.SQL("SELECT count(*) FROM dead_letters WHERE {} AND last_at < now() - %(age)s")
        row = self._connection.execute(query.format(condition), {**values, "age": older_than}).fetchone()
        return int(row[0]) if row else 0

    def prune(self, older_than: timedelta, which: Filter = Filter(states=DONE_STATES)) -> Iterator[int]:
        """Delete letters dealt with longer ago than this, in bounded steps; yields each step's count."""
        condition, values = _condition(which)
        query = sql.SQL(
            "DELETE FROM dead_letters WHERE id IN (SELECT id FROM dead_letters"
            " WHERE {} AND last_at < now() - %(age)s ORDER BY id LIMIT %(step)s)"
        ).format(condition)
        while True:
            done = self._connection.execute(query, {**values, "age": older_than, "step": _PRUNE_STEP})
            yield done.rowcount
            if done.rowcount < _PRUNE_STEP:
                return


def _parsed(payload: bytes) -> Any:
    try:
        return strict_json.parse(payload)
    except strict_json.NotStrict:
        return None


def _keep_encrypted(new: Any, old: Any, fields: frozenset[str], pointer: str) -> None:
    """Refuse a value of one of ``fields`` that does not lie in ``old`` at the same place.

    Raises:
        BadInput: naming the place.
    """
    if isinstance(new, dict):
        before = old if isinstance(old, dict) else {}
        for name, value in new.items():
            if name in fields and isinstance(value, str) and before.get(name) != value:
                msg = (
                    f"payload{pointer}/{name}: is encrypted for this tenant and bound to its place: keep the"
                    " value that `kilo dlq show` prints, or set it to null"
                )
                raise BadInput(msg)
            _keep_encrypted(value, before.get(name), fields, f"{pointer}/{name}")
    elif isinstance(new, list):
        before = old if isinstance(old, list) else []
        for n, value in enumerate(new):
            _keep_encrypted(value, before[n] if n < len(before) else None, fields, f"{pointer}/{n}")


def _condition(which: Filter) -> tuple[sql.Composed, dict[str, Any]]:
    conditions: dict[str, LiteralString] = {
        "states": "state = ANY(%(states)s)",
        "ids": "id = ANY(%(ids)s)",
        "kind": "kind = %(kind)s",
        "tenant": "tenant = %(tenant)s",
        "error": "(position(%(error)s IN error) > 0 OR stack_digest = %(error)s)",
        "aggregate_id": "aggregate_id = %(aggregate_id)s",
        "since": "first_at >= %(since)s",
        "until": "first_at < %(until)s",
    }
    given = {name: getattr(which, name) for name in conditions}
    values = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in given.items()
        if value not in (None, ())
    }
    return sql.SQL(" AND ").join(sql.SQL(conditions[name]) for name in values), values
