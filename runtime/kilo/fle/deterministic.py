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

from base64 import urlsafe_b64encode
from collections.abc import Sequence
from contextlib import suppress
from hmac import digest

from psycopg import sql

from kilo.fle.cipher import FieldCipher
from kilo.fle.errors import FieldError
from kilo.fle.formats import associated_data, length_prefixed, to_text
from kilo.fle.frames import clears_frames
from kilo.fle.keyring import Keyring
from kilo.fle.normalisation import Normalisation, NotNormalisable, normalise, normalise_before
from kilo.fle.text import bytes_of


def token_v1(key: bytes, value: str) -> str:
    """The sprint's token: base64url(HMAC-SHA256(key, value)), without padding; nothing is normalised."""
    return _base64url(digest(key, value.encode(), "sha256"))


def token_mark(kind: Normalisation) -> str:
    """What a token of today begins with: ``3.`` where the normalisation is in its second version."""
    return "2." if kind == "text" else "3."


MARKS = ("2.", "3.")
"""What tokens begin with that name their index version; those of v1 name none."""


def make_token(index_key: bytes, version: int, kind: Normalisation, value: str, bits: int = 256) -> str:
    """``MARK.<index version>.<base64url>`` of the first ``bits`` bits of the keyed hash."""
    if kind == "text":
        return make_token_before(index_key, version, kind, value, bits)
    return _token(f"3.{version}", index_key, f"{kind}-2", normalise(kind, value), bits)


def make_token_before(
    index_key: bytes, version: int, kind: Normalisation, value: str, bits: int = 256
) -> str:
    """The token by the first version of the normalisation: ``2.<index version>.<base64url>``."""
    return _token(f"2.{version}", index_key, kind, normalise_before(kind, value), bits)


def _token(head: str, index_key: bytes, kind: str, normalised: str, bits: int) -> str:
    context = length_prefixed(kind.encode(), bits.to_bytes(2, "big"))
    mac = digest(index_key, context + normalised.encode(), "sha256")
    kept = mac[: (bits + 7) // 8]
    if bits % 8:
        kept = kept[:-1] + bytes((kept[-1] & (0xFF << 8 - bits % 8) & 0xFF,))
    return f"{head}.{_base64url(kept)}"


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

    @clears_frames
    def token(self, tenant: str, value: str) -> str:
        """The token to store: that of the active index version, whatever became of older ones."""
        try:
            version, key = self.keyring.index_key(tenant, self.table, self.field)
            return make_token(key, version, self.kind, value, self.bits)
        except FieldError as error:
            problem = error.at(tenant, self.field)
        raise problem

    @clears_frames
    def tokens(self, tenant: str, value: str) -> list[str]:
        """The tokens under which ``value`` can be found: the active version's first, then older ones.

        They take every index key that tokens may be under: without one of them, rows would be missed in
        silence. Rotating the index key (``reindex``) mends that.
        """
        try:
            keys = self.keyring.index_keys(tenant, self.table, self.field)
            found = [make_token(key, version, self.kind, value, self.bits) for version, key in keys]
            # What the first normalisation did not take, it has written nowhere.
            with suppress(NotNormalisable):
                found += [
                    make_token_before(key, version, self.kind, value, self.bits) for version, key in keys
                ]
            return list(dict.fromkeys(found))
        except FieldError as error:
            problem = error.at(tenant, self.field)
        raise problem

    @clears_frames
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

    @clears_frames
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

    @clears_frames
    def condition(self, column: str | Sequence[str], tenant: str, plaintext: str | bytes) -> sql.Composed:
        """``column IN (new, old, …)`` as a psycopg fragment; rows that match hold this value and no other."""
        return _is_one_of(column, self.values(tenant, plaintext))


def _is_one_of(column: str | Sequence[str], values: Sequence[str]) -> sql.Composed:
    name = sql.Identifier(column) if isinstance(column, str) else sql.Identifier(*column)
    return sql.SQL("{} IN ({})").format(name, sql.SQL(", ").join([sql.Literal(each) for each in values]))


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
