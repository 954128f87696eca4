"""The events that a tour sends: made up for the stage's tenants, or read from a file."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.errors import BadInput, Unreachable

REQUIRED = ("tenant", "aggregate", "aggregate_id", "kind", "payload")
_CUSTOMERS = (
    ("Zoë Müller", "zoe.mueller@example.com", "+4915112345678", "Köln"),
    ("Amélie Fournier", "amelie.fournier@example.org", "+33612345678", "Besançon"),
    ("田中 陽菜", "hina.tanaka@example.jp", "+819012345678", "大阪"),
    ("Seán Ó Briain", "sean.obriain@example.ie", "+353861234567", "Gaillimh"),
    ("Łukasz Wójcik", "lukasz.wojcik@example.pl", "+48512345678", "Łódź"),
)
_KINDS = ("order.created", "payment.captured", "order.shipped", "customer.updated")


@dataclass(frozen=True)
class Event:
    """One event as a client has it.

    ``body`` is the JSON text that is sent: what was in a file goes out as it was written there.
    """

    tenant: str
    idempotency_key: str
    body: str
    place: str

    def content(self) -> Any:
        """The body as Python values; whole numbers of any size stay exact."""
        return json.loads(self.body)


def make_events(tenants: Sequence[str], count: int, run: str | None = None) -> list[Event]:
    """``count`` events of customers who order, pay, wait and move, spread over the tenants.

    Events of one order follow each other, since order is kept per aggregate. ``run`` sets this tour's
    idempotency keys apart from every other's.
    """
    run = run or uuid.uuid4().hex[:12]
    return [_event(tenants[index // len(_KINDS) % len(tenants)], index, run) for index in range(count)]


def _event(tenant: str, index: int, run: str) -> Event:
    number, step = divmod(index, len(_KINDS))
    kind = _KINDS[step]
    aggregate = kind.partition(".")[0]
    name, email, phone, city = _CUSTOMERS[number % len(_CUSTOMERS)]
    payload: dict[str, Any] = {
        "customer": {"name": name, "address": {"city": city, "lines": ["Hauptstraße 1", ""]}},
        "email": email,
        "phone": phone,
        "amount_minor": 1_999 + index,
        # Larger than a double can hold: it must come out as it went in.
        "ledger_entry": 9_007_199_254_740_993 + index,
        "items": [{"sku": f"SKU-{index % 7}", "quantity": 1 + index % 3, "gift": index % 5 == 0}],
        "note": 'quotes " and \\ and emoji 🚚',
        "coupon": None,
    }
    body = {"aggregate": aggregate, "aggregate_id": f"{run}-{number}", "kind": kind, "payload": payload}
    return Event(tenant, f"{run}-{index}", json.dumps(body, ensure_ascii=False), f"event {index + 1}")


def read_events(path: Path) -> list[Event]:
    """Events of a file of newline-delimited JSON, one object a line with at least :data:`REQUIRED`.

    An ``idempotency_key`` in the object is used; a line without one gets one of its own.

    Raises:
        Unreachable: the file can't be read.
        BadInput: a line is not such an object; the message names the line and the field.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        msg = f"{path}: can't be read ({error.strerror})"
        raise Unreachable(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path}: not UTF-8 at byte {error.start}"
        raise BadInput(msg) from error
    events = list(_parse(path, text))
    if not events:
        msg = f"{path}: no events; give one JSON object a line with {', '.join(REQUIRED)}"
        raise BadInput(msg)
    return events


def _parse(path: Path, text: str) -> Iterator[Event]:
    run = uuid.uuid4().hex[:12]
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        value = _object(line, place)
        missing = [name for name in REQUIRED if name not in value]
        if missing:
            msg = f"{place}: {', '.join(missing)} missing; an event has {', '.join(REQUIRED)}"
            raise BadInput(msg)
        if not isinstance(value["tenant"], str):
            msg = f"{place}: tenant must be a string, and is {json.dumps(value['tenant'])}"
            raise BadInput(msg)
        body = {name: value[name] for name in REQUIRED if name != "tenant"}
        key = value.get("idempotency_key") or f"{run}-{number}"
        yield Event(value["tenant"], str(key), json.dumps(body, ensure_ascii=False), place)


def _object(line: str, place: str) -> Mapping[str, Any]:
    try:
        value = json.loads(line, object_pairs_hook=_without_duplicates)
    except ValueError as error:
        msg = f"{place}: not JSON: {error}"
        raise BadInput(msg) from error
    if not isinstance(value, dict):
        msg = f"{place}: must be a JSON object, and is {type(value).__name__}"
        raise BadInput(msg)
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        msg = f"key {twice!r} stands twice in one object"
        raise ValueError(msg)
    return found
