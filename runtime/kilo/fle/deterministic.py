"""Search by exact match: index tokens over encrypted fields.

A token is a keyed hash of the normalised value. It leaks what any deterministic scheme leaks: which
rows are equal, and how often each value occurs; where values are few or guessable by their frequency
(a country, a sex, a birth year), a token says almost what the plain value says. ``bits`` cuts tokens
to buckets, so that several values share one and the reader filters after decryption. Whoever holds the
index key can test guesses, so it is derived apart from data keys, a tenant and a field each.

``docs/fle-format.md`` has the construction and its vectors. Left out: ranges, prefixes and sorting,
whose leakage gives the values away.
"""

from __future__ import annotations

import re
import unicodedata
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from hmac import digest
from typing import Literal

from psycopg import sql

from kilo.fle.cipher import FieldCipher
from kilo.fle.errors import FieldError
from kilo.fle.formats import associated_data, length_prefixed, to_text
from kilo.fle.keyring import Keyring
from kilo.fle.text import bytes_of

Normalisation = Literal["email", "phone", "text"]

_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_PHONE_SEPARATORS = str.maketrans("", "", " \t-./()\u00a0\u2010\u2011\u2012\u2013")


class NotNormalisable(FieldError):
    """The value is no e-mail address, or no phone number in international form."""

    reason = "not-normalisable"
    text = "the value can't be normalised for the index"


def token_v1(key: bytes, value: str) -> str:
    """The sprint's token: base64url(HMAC-SHA256(key, value)), without padding; nothing is normalised."""
    return _base64url(digest(key, value.encode(), "sha256"))


def normalise(kind: Normalisation, value: str) -> str:
    """Bring values that mean the same to the same text.

    ``email``: NFKC, without surrounding space, lower case; the domain in ASCII (IDNA, RFC 3490). Most
    mail systems ignore the local part's case, and an index that does not finds too little. ``phone``:
    E.164 (ITU-T), a plus sign and 7 to 15 digits; separators go and a leading ``00`` becomes the plus.
    A number without its country can't be searched for. ``text``: NFKC alone.

    Raises:
        NotNormalisable: the value is not of that kind.
    """
    folded = unicodedata.normalize("NFKC", value)
    if kind == "text":
        return folded
    if kind == "email":
        local, at, domain = folded.strip().lower().rpartition("@")
        if not at or not local or not domain or any(each.isspace() for each in local + domain):
            raise NotNormalisable(detail="an e-mail address has a local part, @ and a domain")
        try:
            return f"{local}@{domain.encode('idna').decode('ascii')}"
        except UnicodeError:
            pass
        raise NotNormalisable(detail="the domain is not valid")
    digits = folded.strip().translate(_PHONE_SEPARATORS)
    number = "+" + digits[2:] if digits.startswith("00") else digits
    if not _E164.fullmatch(number):
        raise NotNormalisable(detail="a phone number needs its country code, as in +46 70 123 45 67")
    return number


def make_token(index_key: bytes, version: int, kind: Normalisation, value: str, bits: int = 256) -> str:
    """``2.<index version>.<base64url>`` of the first ``bits`` bits of the keyed hash."""
    context = length_prefixed(kind.encode(), bits.to_bytes(2, "big"))
    mac = digest(index_key, context + normalise(kind, value).encode(), "sha256")
    kept = mac[: (bits + 7) // 8]
    if bits % 8:
        kept = kept[:-1] + bytes((kept[-1] & (0xFF << 8 - bits % 8) & 0xFF,))
    return f"2.{version}.{_base64url(kept)}"


class BlindIndex:
    """Tokens of one field, for writing them beside the encrypted value and for searching.

    Args:
        keyring: where the tenants' index root keys come from.
        table: the table (or aggregate) of the field.
        field: the field.
        kind: how values are normalised.
        bits: length of a token, 8 to 256; fewer bits leak less and match more.
    """

    def __init__(
        self, keyring: Keyring, table: str, field: str, kind: Normalisation = "text", bits: int = 256
    ) -> None:
        if not 8 <= bits <= 256:
            msg = f"bits must be from 8 to 256, not {bits}"
            raise ValueError(msg)
        self.keyring, self.table, self.field, self.bits = keyring, table, field, bits
        self.kind: Normalisation = kind

    def token(self, tenant: str, value: str) -> str:
        """The token to store: that of the active index version."""
        return self.tokens(tenant, value)[0]

    def tokens(self, tenant: str, value: str) -> list[str]:
        """The tokens under which ``value`` can lie: the active version's first, then older ones."""
        try:
            return [
                make_token(key, version, self.kind, value, self.bits)
                for version, key in self.keyring.index_keys(tenant, self.table, self.field)
            ]
        except FieldError as error:
            problem = error.at(tenant, self.field)
        raise problem

    def condition(self, column: str | Sequence[str], tenant: str, value: str) -> sql.Composed:
        """``column IN (new, old, …)`` as a psycopg fragment, so that a search works during a rotation.

        With fewer bits than 256 the rows that match must be decrypted and compared.
        """
        return _is_one_of(column, self.tokens(tenant, value))


class DeterministicColumn:
    """Search in a column that :meth:`FieldCipher.encrypt_deterministic` writes, while keys are rotated too.

    Args:
        cipher: bound to the table.
        field: the field.
    """

    def __init__(self, cipher: FieldCipher, field: str) -> None:
        self.cipher, self.field = cipher, field

    def values(self, tenant: str, plaintext: str | bytes) -> list[str]:
        """What ``plaintext`` is stored as: under the active data key, then under each that is still read."""
        data = bytes_of(tenant, self.field, plaintext)
        try:
            keys = self.cipher.keyring.search_keys(tenant)
        except FieldError as error:
            problem = error.at(tenant, self.field)
        else:
            table = self.cipher.table
            return [
                to_text(
                    key.seal_deterministic(data, associated_data(key.siv_header, tenant, table, self.field))
                )
                for key in keys
            ]
        raise problem

    def condition(self, column: str | Sequence[str], tenant: str, plaintext: str | bytes) -> sql.Composed:
        """``column IN (new, old, …)`` as a psycopg fragment; rows that match hold this value and no other."""
        return _is_one_of(column, self.values(tenant, plaintext))


def _is_one_of(column: str | Sequence[str], values: Sequence[str]) -> sql.Composed:
    name = sql.Identifier(column) if isinstance(column, str) else sql.Identifier(*column)
    return sql.SQL("{} IN ({})").format(name, sql.SQL(", ").join([sql.Literal(each) for each in values]))


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
