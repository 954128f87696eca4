"""The events that a tour sends: made up for the stage's tenants, or read from a file."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kilo.errors import BadInput
from kilo.outbox import strict_json

REQUIRED = ("tenant", "aggregate", "aggregate_id", "kind", "payload")
KEY = "idempotency_key"
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

    ``body`` is the JSON text that is sent.
    """

    tenant: str
    idempotency_key: str
    body: str
    place: str

    def content(self) -> Any:
        """The body as Python values, every number exact."""
        return strict_json.parse(self.body)


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


def read_events(path: Path, payload_limit_bytes: int) -> list[Event]:
    """Events of a file of newline-delimited JSON, one object a line with at least :data:`REQUIRED`.

    An ``idempotency_key`` in the object is used; a line without one gets one of its own. Values go out
    as they were written, numbers to their last digit.

    Args:
        path: of the file.
        payload_limit_bytes: what the stage takes of a payload, as JSON in UTF-8.

    Raises:
        BadInput: the file can't be read, or a line is not such an object or has too large a payload; the
            message names line and field.
    """
    try:
        # Editors of Windows write a byte order mark, which is no JSON.
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        msg = f"--events {path}: can't be read ({error.strerror}); name a file of newline-delimited JSON"
        raise BadInput(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path}: not UTF-8 at byte {error.start}"
        raise BadInput(msg) from error
    events = list(_parse(path, text, payload_limit_bytes))
    if not events:
        msg = f"{path}: no events; give one JSON object a line with {', '.join(REQUIRED)}"
        raise BadInput(msg)
    return events


def _parse(path: Path, text: str, payload_limit_bytes: int) -> Iterator[Event]:
    run = uuid.uuid4().hex[:12]
    # Only a newline ends a line: U+2028 and its like may stand in a JSON string as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        value = _object(line, place)
        size = len(strict_json.write(value["payload"]).encode())
        if size > payload_limit_bytes:
            msg = f"{place}: payload: {size:,} bytes of JSON; the stage takes at most {payload_limit_bytes:,}"
            raise BadInput(msg)
        body = strict_json.write({name: value[name] for name in REQUIRED if name != "tenant"})
        yield Event(value["tenant"], value.get(KEY) or f"{run}-{number}", body, place)


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        value = strict_json.parse(line)
    except strict_json.NotStrict as error:
        at = f"{error.pointer.removeprefix('/').replace('/', '.')}: " if error.pointer else ""
        msg = f"{place}: {at}{error.problem}"
        raise BadInput(msg) from error
    if not isinstance(value, dict):
        msg = f"{place}: must be a JSON object, and is {type(value).__name__}"
        raise BadInput(msg)
    if missing := [name for name in REQUIRED if name not in value]:
        msg = f"{place}: {', '.join(missing)} missing; an event has {', '.join(REQUIRED)}"
        raise BadInput(msg)
    if unknown := sorted(value.keys() - {*REQUIRED, KEY}):
        msg = f"{place}: {unknown[0]} is unknown; an event has {', '.join(REQUIRED)}, and perhaps {KEY}"
        raise BadInput(msg)
    for name in ("tenant", KEY):
        if not isinstance(value.get(name, ""), str):
            msg = f"{place}: {name} must be a string, and is {strict_json.write(value[name])}"
            raise BadInput(msg)
    return value
