"""One tenant's keys in memory, and the bounds of the cache that holds them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple, NoReturn

from kilo.errors import BadInput
from kilo.fle.datakey import GcmKey, Write, XaesKey
from kilo.fle.errors import FieldError
from kilo.fle.keytable import TenantRows
from kilo.fle.usage import Uses

MOST_SERVED_SECONDS = 1200.0
"""How long a key may serve from memory, an outage included."""


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """How long and how much a key serves from memory.

    Attributes:
        max_age_seconds: a key's age at which it is fetched again; the time in which a revocation takes hold.
        outage_seconds: how much longer it serves while KMS or the key table does not answer.
        retry_seconds: how often a fetch is tried during an outage.
        negative_seconds: how long a refusal is remembered.
        max_messages: messages a key encrypts before it is fetched again.
        max_bytes: bytes a key encrypts before it is fetched again; each value counts in steps of 4 KiB.
        max_tenants: tenants held at once; the least recently fetched goes first.
        reserve_messages: messages reserved in the key table at a time; a crash forfeits what is left.
    """

    max_age_seconds: float = 300
    outage_seconds: float = 900
    retry_seconds: float = 5
    negative_seconds: float = 10
    max_messages: int = 1 << 27
    max_bytes: int = 1 << 36
    max_tenants: int = 2048
    reserve_messages: int = 1 << 18

    def __post_init__(self) -> None:
        """Refuse a process that would go on with a key for longer than rotations wait for it."""
        served = self.max_age_seconds + self.outage_seconds
        if served > MOST_SERVED_SECONDS:
            msg = (
                f"CacheLimits: max_age_seconds + outage_seconds is {served:g}; "
                f"a key may serve from memory for {MOST_SERVED_SECONDS:g} s, for which rotations wait"
            )
            raise BadInput(msg)


@dataclass(frozen=True, slots=True)
class Writer:
    """How a field is encrypted: a value by ``write``, a column by ``key`` for ``place``."""

    write: Write
    key: GcmKey | XaesKey
    place: bytes


class Reader(NamedTuple):
    """A key that decrypts a field's values, and the field's associated data up to the row."""

    key: XaesKey
    place: bytes
    uses: count[int]


class Keyset:
    """One tenant's keys as they were fetched. Replaced whole, never changed by readers."""

    __slots__ = (
        "deadlines",
        "digests",
        "fetched_at",
        "fresh_until",
        "index",
        "index_keys",
        "index_writers",
        "keys",
        "looked_at",
        "messages",
        "outage",
        "readers",
        "rows",
        "serve_until",
        "uses",
        "v1",
        "v1_refused",
        "writer",
        "writers",
    )

    def __init__(self, rows: TenantRows, uses: Uses, now: float, limits: CacheLimits) -> None:
        self.rows, self.uses = rows, uses
        self.keys: dict[int, GcmKey | XaesKey] = {}
        self.index: dict[int, bytearray] = {}
        self.index_keys: dict[tuple[str, str], list[tuple[int, bytes]]] = {}
        self.index_writers: dict[tuple[str, str], tuple[int, bytes]] = {}
        self.writer: GcmKey | XaesKey | None = None
        self.digests: dict[int, bytes] = {}
        """Of the secrets that keys were unwrapped to: unwrapping one again must give the same."""
        self.deadlines: dict[int, float] = {}
        """How long keys serve that KMS did not answer for at the last fetch."""
        self.fetched_at = self.looked_at = now
        self.fresh_until = now + limits.max_age_seconds
        self.serve_until = self.fresh_until + limits.outage_seconds
        self.messages = 0
        self.outage: FieldError | None = None
        """Why the last fetch failed, while these keys serve on."""
        # What a cipher prepares for a field is kept here, so that it never outlives the keys.
        self.v1: list[GcmKey] | None = None
        self.v1_refused: FieldError | None = None
        """Why not all of the tenant's keys of format 1 are among them."""
        self.writers: defaultdict[str, dict[str, Writer]] = defaultdict(dict)
        """By table and field: two look-ups by a name are quicker than one by a pair."""
        self.readers: dict[tuple[str, str, bytes], Reader] = {}

    def at(self, now: float, limits: CacheLimits) -> Keyset:
        """What of it still serves at ``now``: the keys whose deadline is not over."""
        left = Keyset(self.rows, self.uses, self.fetched_at, limits)
        over = {key_id for key_id, until in self.deadlines.items() if now >= until}
        left.digests, left.messages = self.digests, self.messages
        left.deadlines = {key_id: until for key_id, until in self.deadlines.items() if key_id not in over}
        left.keys = {key_id: key for key_id, key in self.keys.items() if key_id not in over}
        left.index = {key_id: bytearray(root) for key_id, root in self.index.items() if key_id not in over}
        left.writer = self.writer if self.writer is None or self.writer.key_id not in over else None
        return left

    def __del__(self) -> None:
        for root in self.index.values():
            root[:] = bytes(len(root))

    def __repr__(self) -> str:
        return f"Keyset({len(self.keys)} keys)"

    def __reduce__(self) -> NoReturn:
        msg = "keys can't be pickled"
        raise TypeError(msg)
