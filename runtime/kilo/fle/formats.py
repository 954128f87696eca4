"""The encrypted value's formats: bytes to text and back, and nothing of keys.

v1 is the sprint's: base64(0x01 | iv 12 | tag 16 | ciphertext), AES-256-GCM, no associated data.
v2 is base64(0x02 | suite | key id 4 | …). Suite 0x01, KC-XAES-256-GCM: nonce 24 | commitment 32 |
tag 16 | ciphertext. Suite 0x02, AES-SIV-512 (RFC 5297): synthetic IV 16 | ciphertext.

``docs/fle-format.md`` is the specification. Base64 is canonical (RFC 4648, section 4, with padding and
with zero trailing bits), so that no two texts stand for one value and each flipped bit is noticed.
"""

from __future__ import annotations

import re
import string
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from kilo.fle.errors import FieldError, NotBase64, PlaintextFound, TooShort, UnknownSuite, UnknownVersion

V1 = 1
V2 = 2
SUITE_KC_XAES = 1
SUITE_AES_SIV = 2

V1_MINIMUM = 1 + 12 + 16
V2_HEADER = 6
V2_MINIMUM = V2_HEADER + 24 + 32 + 16
SIV_MINIMUM = V2_HEADER + 16
MAXIMUM_PLAINTEXT = 1 << 20
"""A field's largest plaintext in bytes: a field is a field, not a file."""

_DOMAIN = b"kilo field v2"


class DocumentRow(NamedTuple):
    """The identity of an object inside a JSON document: the document's row, and the object's JSON pointer
    (RFC 6901), empty for the document itself."""

    row: str
    pointer: str

    def __str__(self) -> str:
        return self.row + self.pointer


RowId = str | int | UUID | DocumentRow
"""A row's identity. Numbers and UUIDs are bound by their usual text, so ``7`` and ``"7"`` are one row, and so
are a UUID and its text in capitals."""
_ROW_TYPES = frozenset((str, int, UUID))
_UUID_CHARACTERS = 36
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


_ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
_LAST = (frozenset(_ALPHABET[::4]), frozenset(_ALPHABET[::16]))
"""The last characters before one and before two paddings whose spare bits are zero."""


def to_text(raw: bytes) -> str:
    """Encode as canonical base64."""
    return b2a_base64(raw, newline=False).decode("ascii")


def to_bytes(text: str) -> bytes:
    """Decode canonical base64.

    Raises:
        PlaintextFound: it is not base64 and does not begin like an encrypted value.
        NotBase64: it begins like one, but is not canonical base64.
    """
    try:
        raw = a2b_base64(text, strict_mode=True)
    except (Base64Error, ValueError):
        # The first bytes 0x01 and 0x02 give "AQ" to "Av" in base64.
        looks_encrypted = text[:1] == "A" and "Q" <= text[1:2] <= "v"
        raise (NotBase64 if looks_encrypted else PlaintextFound)() from None
    # Only a padded last group has bits to spare, which strict mode does not look at.
    if text[-1:] == "=" and text[-2 if text[-2] != "=" else -3] not in _LAST[text[-2] == "="]:
        raise NotBase64
    return raw


def length_prefixed(*parts: bytes) -> bytes:
    """Join ``parts`` so that no two lists give the same bytes: each after its length in four bytes."""
    return b"".join([len(part).to_bytes(4, "big") + part for part in parts])


def header(suite: int, key_id: int) -> bytes:
    """The first six bytes of a v2 value."""
    return bytes((V2, suite)) + key_id.to_bytes(4, "big")


def associated_data(head: bytes, tenant: str, table: str, column: str) -> bytes:
    """All associated data but the row: format version, suite, key id, tenant, table and column."""
    return length_prefixed(_DOMAIN, head, tenant.encode(), table.encode(), column.encode())


def row_data(row_id: RowId) -> bytes:
    """The row's part of the associated data: each part of the identity after its length.

    Raises:
        TypeError: it is no row's identity, such as the ``None`` of a row that has no key yet.
    """
    kind: type = type(row_id)
    if kind not in _ROW_TYPES:
        if isinstance(row_id, DocumentRow):
            return length_prefixed(row_id.row.encode(), row_id.pointer.encode())
        if kind is bool or not issubclass(kind, (str, int, UUID)):
            msg = f"a row's identity is text, a whole number or a UUID, not {kind.__name__}"
            raise TypeError(msg)
    row = str(row_id)
    if len(row) == _UUID_CHARACTERS and kind is not UUID and _UUID.fullmatch(row):
        row = row.lower()
    data = row.encode()
    # Not length_prefixed(): at this speed a call shows.
    return len(data).to_bytes(4, "big") + data


def older_row_data(row_id: RowId) -> list[bytes]:
    """How values of before bound the same row, where that was otherwise.

    A document's row and pointer were one text, so that two places could share it; a UUID's text was bound as
    it was spelled. Such values stay readable until a rotation (``rekey``) has written them anew.
    """
    if isinstance(row_id, DocumentRow):
        return [length_prefixed(str(row_id).encode())]
    text = str(row_id)
    if not isinstance(row_id, int) and _UUID.fullmatch(text):
        return [length_prefixed(each.encode()) for each in {text, text.upper()} - {text.lower()}]
    return []


@dataclass(frozen=True, slots=True)
class Inspection:
    """What an encrypted value says of itself without any key."""

    version: int
    suite: str
    key_id: int | None
    plaintext_bytes: int
    overhead_bytes: int


_CLASS_V1 = (V1, 0)


def classify(raw: bytes) -> tuple[int, int]:
    """The (version, suite) of a decoded value whose length is enough for them; v1 has suite 0.

    Raises:
        TooShort: shorter than the format's shortest value.
        UnknownVersion: the first byte is no version that we read.
        UnknownSuite: the second byte is no suite that we read.
    """
    size = len(raw)
    if size < SIV_MINIMUM:
        raise TooShort
    if raw[0] == V1:
        if size < V1_MINIMUM:
            raise TooShort
        return _CLASS_V1
    if raw[0] != V2:
        raise UnknownVersion(detail=f"0x{raw[0]:02x}")
    if raw[1] == SUITE_KC_XAES:
        if size < V2_MINIMUM:
            raise TooShort
    elif raw[1] != SUITE_AES_SIV:
        raise UnknownSuite(detail=f"0x{raw[1]:02x}")
    return V2, raw[1]


def inspect(text: str) -> Inspection:
    """Describe an encrypted value; raises as :func:`to_bytes` and :func:`classify` do."""
    raw = to_bytes(text)
    version, suite = classify(raw)
    if version == V1:
        return Inspection(V1, "AES-256-GCM", None, len(raw) - V1_MINIMUM, V1_MINIMUM)
    name, overhead = (
        ("KC-XAES-256-GCM", V2_MINIMUM) if suite == SUITE_KC_XAES else ("AES-SIV-512", SIV_MINIMUM)
    )
    return Inspection(V2, name, int.from_bytes(raw[2:6], "big"), len(raw) - overhead, overhead)


def is_encrypted(text: str) -> bool:
    """Whether ``text`` has the form of an encrypted value. It says nothing of whether it is authentic."""
    try:
        inspect(text)
    except FieldError:
        return False
    return True
