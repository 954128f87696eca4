"""One unwrapped data key in memory: its cipher, and the messages it may still encrypt.

No key here shows in ``repr`` or a pickle. What can't be promised in Python: the interpreter and the
SDKs copy bytes as they like, so copies of a key can outlive ours in freed memory, and a core dump of a
running process holds the keys in use. Services run with core dumps off for that reason.
"""

from __future__ import annotations

import os
import threading
from binascii import b2a_base64
from collections import deque
from collections.abc import Callable, Sequence
from hmac import digest as hmac_digest
from itertools import count, islice
from typing import NoReturn

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kilo.fle.formats import (
    SUITE_AES_SIV,
    SUITE_KC_XAES,
    V1,
    V2_HEADER,
    RowId,
    header,
    length_prefixed,
    row_data,
)
from kilo.fle.keytable import KeyRow
from kilo.fle.usage import uses_of
from kilo.fle.xaes import SHARED, KcXaes256Gcm

_V1_BYTE = b"\x01"
_SIV_INFO = b"kilo field v2 aes-siv"
_INDEX_INFO = b"kilo field index v2"
_EVIDENCE_INFO = b"kilo field v2 evidence"


TICKET_BYTES = 4096
"""What one ticket covers: a value counts as one message for each 4 KiB that it begins, so that one counter
bounds messages and bytes alike, and the limits that depend on blocks hold too."""


Extend = Callable[["DataKey", int], None]
Write = Callable[[bytes, RowId], str]


class DataKey:
    """What the keys of both formats have in common: identity and message counting."""

    __slots__ = ("__weakref__", "_lock", "format", "granted", "header", "key_id", "tenant", "tickets", "uses")

    def __init__(self, row: KeyRow, head: bytes) -> None:
        self.key_id, self.tenant, self.format, self.header = row.id, row.tenant, row.format, head
        # next() on a count is one step for the interpreter, so threads never get the same ticket.
        self.tickets = count()
        self.granted = 0
        self._lock = threading.Lock()
        self.uses = uses_of(row.tenant)
        self.uses.watch(self)

    def take(self, messages: int, extend: Extend) -> None:
        """Count ``messages`` encryptions before they happen; ``extend`` is asked when none are left."""
        deque(islice(self.tickets, messages - 1), maxlen=0)
        ticket = next(self.tickets)
        if ticket >= self.granted:
            extend(self, ticket)

    def extend(self, ticket: int, reserve: Callable[[DataKey], int]) -> None:
        """Reserve messages until ``ticket`` is covered."""
        with self._lock:
            while ticket >= self.granted:
                self.granted += reserve(self)

    def writer(self, place: bytes, large: Callable[[int], None], extend: Extend) -> Write:
        """What encrypts one value and its row to text, for a ``place``, and counts it.

        A closure: at a microsecond a value, each call and each attribute that is not looked up shows.

        Args:
            place: what is bound besides the row (:func:`kilo.fle.formats.associated_data`).
            large: told the size of a value that takes more than one ticket.
            extend: asked when no message is left.
        """
        raise NotImplementedError

    def seal_many(self, datas: Sequence[bytes], place: bytes, row_ids: Sequence[RowId]) -> list[bytes]:
        """Encrypt a column of values."""
        raise NotImplementedError

    def __del__(self) -> None:
        self.uses.forget(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(key_id={self.key_id}, tenant={self.tenant!r})"

    def __reduce__(self) -> NoReturn:
        msg = "a key can't be pickled"
        raise TypeError(msg)


class GcmKey(DataKey):
    """A given key of format v1. It binds neither place nor row: that is what v1 lacks."""

    __slots__ = ("_gcm",)

    def __init__(self, row: KeyRow, secret: bytearray) -> None:
        super().__init__(row, _V1_BYTE)
        self._gcm = AESGCM(secret)

    def writer(self, place: bytes, large: Callable[[int], None], extend: Extend) -> Write:
        """See :class:`DataKey`; neither ``place`` nor the row is bound."""
        encrypt, tickets, join, most = self._gcm.encrypt, self.tickets, b"".join, TICKET_BYTES

        def write(data: bytes, row_id: RowId) -> str:
            if len(data) > most:
                large(len(data))
            ticket = next(tickets)
            if ticket >= self.granted:
                extend(self, ticket)
            nonce = os.urandom(12)
            sealed = encrypt(nonce, data, None)
            raw = join((_V1_BYTE, nonce, sealed[-16:], sealed[:-16]))
            return b2a_base64(raw, newline=False).decode()

        return write

    def seal_many(self, datas: Sequence[bytes], place: bytes, row_ids: Sequence[RowId]) -> list[bytes]:
        """See :class:`DataKey`; ``place`` and ``row_ids`` are not used."""
        encrypt, drawn = self._gcm.encrypt, os.urandom(12 * len(datas))
        nonces = [drawn[at : at + 12] for at in range(0, len(drawn), 12)]
        seals = [encrypt(nonce, data, None) for nonce, data in zip(nonces, datas, strict=True)]
        return [
            _V1_BYTE + nonce + sealed[-16:] + sealed[:-16]
            for nonce, sealed in zip(nonces, seals, strict=True)
        ]

    def open(self, raw: bytes) -> bytes:
        """Decrypt a v1 value; raises ``InvalidTag``."""
        return self._gcm.decrypt(raw[1:13], raw[29:] + raw[13:29], None)

    def open_many(self, raws: Sequence[bytes]) -> list[bytes]:
        """Decrypt v1 values; raises ``InvalidTag``, without saying for which."""
        decrypt = self._gcm.decrypt
        return [decrypt(raw[1:13], raw[29:] + raw[13:29], None) for raw in raws]


class XaesKey(DataKey):
    """A key of format v2, for KC-XAES-256-GCM and AES-SIV.

    The SIV key and that of evidence are derived (HKDF-SHA256, RFC 5869), so that no two algorithms share key
    material.
    """

    __slots__ = ("_evidence", "_siv", "_xaes", "siv_header")

    def __init__(self, row: KeyRow, secret: bytearray) -> None:
        super().__init__(row, header(SUITE_KC_XAES, row.id))
        self.siv_header = header(SUITE_AES_SIV, row.id)
        self._xaes = KcXaes256Gcm(secret)
        self._siv = AESSIV(HKDF(SHA256(), 64, None, _SIV_INFO).derive(secret))
        self._evidence = HKDF(SHA256(), 32, None, _EVIDENCE_INFO).derive(secret)

    def writer(self, place: bytes, large: Callable[[int], None], extend: Extend) -> Write:
        """See :class:`DataKey`."""
        sealer, tickets, head, join, most = (
            self._xaes.sealer,
            self.tickets,
            self.header,
            b"".join,
            TICKET_BYTES,
        )
        seal, until = sealer(), SHARED

        def write(data: bytes, row_id: RowId) -> str:
            nonlocal seal, until
            if len(data) > most:
                large(len(data))
            ticket = next(tickets)
            if ticket >= self.granted:
                extend(self, ticket)
            # Tickets only grow, so of all threads together no more values share a half than one counts.
            if ticket >= until:
                seal, until = sealer(), ticket + SHARED
            nonce, sealed, commitment = seal(data, place + row_data(row_id))
            raw = join((head, nonce, commitment, sealed[-16:], sealed[:-16]))
            return b2a_base64(raw, newline=False).decode()

        return write

    def seal_many(self, datas: Sequence[bytes], place: bytes, row_ids: Sequence[RowId]) -> list[bytes]:
        """See :class:`DataKey`."""
        head = self.header
        return [
            head + nonce + commitment + sealed[-16:] + sealed[:-16]
            for nonce, sealed, commitment in self._xaes.seal_many(
                datas, [place + row_data(row) for row in row_ids]
            )
        ]

    def open(self, raw: bytes, associated: bytes) -> bytes:
        """Decrypt a v2 value; raises ``CommitmentMismatch`` or ``InvalidTag``."""
        return self._xaes.open(raw[6:30], raw[78:] + raw[62:78], raw[30:62], associated)

    def open_many(self, raws: Sequence[bytes], place: bytes, row_ids: Sequence[RowId]) -> list[bytes]:
        """Decrypt a column of v2 values; raises as :meth:`open` does, without saying for which."""
        return self._xaes.open_many(
            [
                (raw[6:30], raw[78:] + raw[62:78], raw[30:62], place + row_data(row))
                for raw, row in zip(raws, row_ids, strict=True)
            ]
        )

    def seal_deterministic(self, data: bytes, place: bytes) -> bytes:
        """Encrypt with AES-SIV: equal values of a place give equal results."""
        return self.siv_header + self._siv.encrypt(data, [place])

    def open_deterministic(self, raw: bytes, place: bytes) -> bytes:
        """Decrypt what :meth:`seal_deterministic` made; raises ``InvalidTag``."""
        return self._siv.decrypt(raw[V2_HEADER:], [place])

    def evidence_key(self, plan_hash: str) -> bytes:
        """The key, 32 bytes, of one rotation's digests of plaintexts."""
        return hmac_digest(self._evidence, plan_hash.encode(), "sha256")


def data_key(row: KeyRow, secret: bytearray) -> GcmKey | XaesKey:
    """The key of the row's format."""
    return GcmKey(row, secret) if row.format == V1 else XaesKey(row, secret)


def derive_index_key(root: bytes | bytearray, tenant: str, table: str, field: str) -> bytes:
    """The index key of one field (HKDF-SHA256, RFC 5869, without salt: the root key is uniform)."""
    info = length_prefixed(_INDEX_INFO, tenant.encode(), table.encode(), field.encode())
    return HKDF(SHA256(), 32, None, info).derive(bytes(root))
