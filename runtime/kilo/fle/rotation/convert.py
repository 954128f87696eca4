"""Converting one column of a batch: which values change, into what, and the proof that nothing was lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kilo.errors import CheckFailed
from kilo.fle.cipher import FieldCipher
from kilo.fle.datakey import TICKET_BYTES, GcmKey, XaesKey
from kilo.fle.errors import FieldError, NotText
from kilo.fle.formats import V1, Inspection, RowId, associated_data, inspect, to_text
from kilo.fle.rotation.evidence import Evidence

_HEADER_CHARACTERS = 8
"""In base64: the six bytes that say version, suite and key."""


@dataclass(frozen=True, slots=True)
class Goal:
    """Where values shall lie: under ``key_id``, or plain when it is ``None``.

    Attributes:
        key_id: the key, or ``None``.
        plain_fields: the fields whose plain values are encrypted as well.
        left: the fields whose values stay as they are.
    """

    key_id: int | None
    plain_fields: frozenset[str] = frozenset()
    left: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Converted:
    """The new values of a column at positions ``at``, and the evidence of each."""

    at: list[int]
    new: list[str]
    evidence: list[bytes]
    failed: list[str]


@dataclass(frozen=True, slots=True)
class Checked:
    """A stored value that reads: whether it lies encrypted, and its evidence."""

    encrypted: bool
    evidence: bytes


class _Opened(NamedTuple):
    """What there is to convert: positions, plaintexts, whether each was deterministic; what did not open."""

    at: list[int]
    plain: list[bytes]
    deterministic: list[bool]
    failed: list[str]


class Converter:
    """Converts values of one tenant towards ``goal``.

    Args:
        cipher: bound to the table's context.
        tenant: whose values.
        goal: where they shall lie.
        evidence_key: of the rotation.
        plain: digests of stored texts that look encrypted and are taken as plain.
    """

    def __init__(
        self,
        cipher: FieldCipher,
        tenant: str,
        goal: Goal,
        evidence_key: bytes,
        plain: frozenset[bytes] = frozenset(),
    ) -> None:
        self.cipher, self.tenant, self.goal, self.plain = cipher, tenant, goal, plain
        self._evidence = Evidence(evidence_key, cipher.table)

    def key(self) -> GcmKey | XaesKey | None:
        """The key that values shall lie under; ``None`` when they shall be plain."""
        if self.goal.key_id is None:
            return None
        return self.cipher.keyring.reader(self.tenant, self.goal.key_id)[0]

    def convert(self, name: str, rows: Sequence[RowId], values: Sequence[str | None]) -> Converted:
        """Convert a column.

        Each new value is decrypted again and compared before it is handed out.

        Raises:
            CheckFailed: a new value does not read as the old one did.
        """
        key = self.key()
        opened = self._open_alike(key, name, rows, values) or self._open_each(key, name, rows, values)
        at, plain, deterministic, failed = opened
        names = [rows[position] for position in at]
        new = self._seal(key, name, names, plain, deterministic)
        back = (
            self._read_back(name, names, new, alike=not any(deterministic))
            if key
            else [value.encode() for value in new]
        )
        if back != plain:
            msg = f"field {name}: a new value does not read as the old one did; nothing was written"
            raise CheckFailed(msg)
        return Converted(at, new, self._evidence.of_column(name, names, new, plain), failed)

    def _open_alike(
        self, key: GcmKey | XaesKey | None, name: str, rows: Sequence[RowId], values: Sequence[str | None]
    ) -> _Opened | None:
        """Open a column that lies under one key at once; ``None`` when it does not, or one does not open."""
        if key is None or self.plain or name in self.goal.left:
            return None
        at = [position for position, value in enumerate(values) if value is not None]
        stored = [value for value in values if value is not None]
        if len({value[:_HEADER_CHARACTERS] for value in stored}) != 1:
            return None
        found = _inspect(stored[0])
        if found is None or found.suite != "KC-XAES-256-GCM":
            return None
        if found.key_id == key.key_id:
            return _Opened([], [], [], [])
        try:
            plain = self.cipher.decrypt_column_bytes(
                self.tenant, name, [rows[position] for position in at], stored
            )
        except FieldError:
            return None
        return _Opened(at, plain, [False] * len(at), [])

    def _open_each(
        self, key: GcmKey | XaesKey | None, name: str, rows: Sequence[RowId], values: Sequence[str | None]
    ) -> _Opened:
        at: list[int] = []
        failed: list[str] = []
        plain: list[bytes] = []
        deterministic: list[bool] = []
        for position, value in enumerate(values):
            if value is None:
                continue
            found = self._inspect(name, rows[position], value)
            if not self._concerns(name, found, key):
                continue
            try:
                data = (
                    self.cipher.decrypt_stored(self.tenant, name, rows[position], value)
                    if found
                    else value.encode()
                )
                if key is None:
                    self._check_text(name, data)
            except FieldError as error:
                failed.append(f"row {rows[position]}: {error}")
                continue
            at.append(position)
            plain.append(data)
            deterministic.append(found is not None and found.suite == "AES-SIV-512")
        return _Opened(at, plain, deterministic, failed)

    def check(self, name: str, row: RowId, value: str) -> Checked | None:
        """Decrypt one stored value; ``None`` when it can't be."""
        found = self._inspect(name, row, value)
        if found is None:
            if self.goal.key_id is not None and _inspect(value) is not None:
                # Where it shall lie encrypted, a text that is taken as plain is not there yet.
                return None
            data = value.encode()
        else:
            try:
                data = self.cipher.decrypt_stored(self.tenant, name, row, value)
            except FieldError:
                return None
        return Checked(found is not None, self._evidence.of_column(name, [row], [value], [data])[0])

    def _inspect(self, name: str, row: RowId, value: str) -> Inspection | None:
        """What the value says of itself; ``None`` for a plain one, and for one that is taken as plain."""
        found = _inspect(value)
        if found is not None and self.plain and self._evidence.stored(name, row, value) in self.plain:
            return None
        return found

    def _read_back(self, name: str, rows: Sequence[RowId], new: Sequence[str], *, alike: bool) -> list[bytes]:
        if alike:
            return self.cipher.decrypt_column_bytes(self.tenant, name, rows, new)
        return [
            self.cipher.decrypt_stored(self.tenant, name, row, value)
            for row, value in zip(rows, new, strict=True)
        ]

    def _check_text(self, name: str, data: bytes) -> None:
        try:
            data.decode()
        except UnicodeDecodeError:
            pass
        else:
            return
        raise NotText(self.tenant, name, detail="it can't lie in plain in a text column")

    def _concerns(self, name: str, found: Inspection | None, key: GcmKey | XaesKey | None) -> bool:
        if name in self.goal.left:
            return False
        if found is None:
            return key is not None and name in self.goal.plain_fields
        if key is None:
            return True
        if found.version == V1:
            return key.format != V1
        return found.key_id != key.key_id

    def _seal(
        self,
        key: GcmKey | XaesKey | None,
        name: str,
        rows: Sequence[RowId],
        plain: Sequence[bytes],
        deterministic: Sequence[bool],
    ) -> list[str]:
        if key is None:
            return [each.decode() for each in plain]
        if not plain:
            return []
        key.take(sum(max(1, -(-len(each) // TICKET_BYTES)) for each in plain), self.cipher.keyring.extend)
        context = self.cipher.table
        place = associated_data(key.header, self.tenant, context, name)
        sealed = [to_text(raw) for raw in key.seal_many(plain, place, rows)]
        if isinstance(key, XaesKey) and any(deterministic):
            # A value that could be searched for stays so.
            place = associated_data(key.siv_header, self.tenant, context, name)
            for position, wanted in enumerate(deterministic):
                if wanted:
                    sealed[position] = to_text(key.seal_deterministic(plain[position], place))
        return sealed


def _inspect(value: str) -> Inspection | None:
    """What the value says of itself; ``None`` for a plain one."""
    try:
        return inspect(value)
    except FieldError:
        return None
