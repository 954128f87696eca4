"""Making data keys, adopting those from before there were digests, and wrapping them again.

A key is made with its wraps, the digest of its secret and an audit entry in one transaction. Whoever makes
keys needs the right to encrypt under the tenant's KMS key, and no process that serves requests has it.
Whatever waits for KMS or the key table asks first whether it may: event loops forbid it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

from kilo.contract import KeyReference
from kilo.fle.errors import KeyDestroyed, KeyTableDenied, KeyTableUnavailable
from kilo.fle.keytable import KeyRow, KeyTable, NewEntry
from kilo.fle.kms import KmsClients
from kilo.fle.wraps import Wraps, secret_digest
from kilo.fle.xaes import KEY_BYTES

_log = logging.getLogger(__name__)


class WouldWait(Exception):
    """The key is not in memory, and :meth:`Keyring.inline` forbids waiting for it."""


class KeyMaking:
    """The part of :class:`kilo.fle.keyring.Keyring` that makes keys."""

    def __init__(
        self, table: KeyTable, kms: KmsClients, references: Mapping[str, tuple[KeyReference, ...]]
    ) -> None:
        self.table, self.wraps = table, Wraps(kms, references)
        self._local = threading.local()

    def create(
        self,
        tenant: str,
        purpose: str,
        state: str,
        secret: bytearray | None = None,
        *,
        entry: NewEntry | None = None,
    ) -> int:
        """Make a data key (format 1 around a given ``secret``, otherwise random) and return its id.

        ``entry`` is what the audit log says besides (:meth:`KeyTable.create`).

        Raises:
            SecretInUse: ``secret`` is that of another key.
        """
        self._may_block()
        if self.table.read(tenant).shredded:
            raise KeyDestroyed(tenant, detail="the tenant was shredded")
        material = secret if secret is not None else bytearray(os.urandom(KEY_BYTES))
        try:
            new = KeyRow(
                0, tenant, purpose, 1 if secret is not None else 2, 0, state, (), secret_digest(material)
            )
            return self.table.create(new, lambda row: self.wraps.wrap(row, material), entry)
        finally:
            if secret is None:
                material[:] = bytes(len(material))

    def rewrap(self, tenant: str, before: Sequence[KeyReference] = ()) -> list[int]:
        """Wrap every key of ``tenant`` anew under its KMS keys of now; returns their ids.

        ``before`` are the tenant's former KMS keys, whose wraps are to be believed this once. A key that
        has no digest yet stays as it is: :meth:`adopt` is for those.
        """
        return self._wrap_again([row for row in self.table.read(tenant).keys if row.digest], before)

    def adopt(self, tenant: str) -> list[int]:
        """Give the keys of ``tenant`` from before there were digests theirs, and bind their wraps fully.

        Returns their ids. It takes the right to decrypt and to encrypt under the tenant's KMS key, and no key
        can come to need it any more: the key table refuses a new row without a digest.

        Raises:
            SecretInUse: two keys have one secret, as when a v1 key was imported twice.
        """
        return self._wrap_again([row for row in self.table.read(tenant).keys if not row.digest])

    def _wrap_again(self, rows: Sequence[KeyRow], before: Sequence[KeyReference] = ()) -> list[int]:
        done: list[int] = []
        for row in rows:
            if not row.wraps or row.state in {"retired", "destroyed"}:
                continue
            secret = self.wraps.unwrap(row, before)
            try:
                full = row.with_digest(secret_digest(secret))
                if self.table.replace_wraps(row, self._checked(full, secret)):
                    done.append(row.id)
            finally:
                secret[:] = bytes(len(secret))
        self.clear()
        return done

    def _checked(self, row: KeyRow, secret: bytearray) -> KeyRow:
        """The row with new wraps, each of which was opened once: what they replace is gone for good."""
        made = self.wraps.wrap(row, secret)
        for each in made:
            opened = self.wraps.unwrap(row.with_wraps((each,)))
            opened[:] = bytes(len(opened))
        return row.with_wraps(tuple(made))

    def clear(self) -> None:
        """Forget every key; the next use fetches again."""
        raise NotImplementedError

    def note_scope(self, tenant: str, known: frozenset[str], field: str) -> None:
        """Note in the key table that values of ``field`` are stored encrypted, unless they are ``known``."""
        if field in known:
            return
        self._may_block()
        try:
            self.table.note_scope(tenant, field)
        except (KeyTableUnavailable, KeyTableDenied) as error:
            # In an outage encryption goes on; the next fetch of keys tries again.
            _log.warning("%s/%s: not noted as encrypted: %s", tenant, field, error)

    @contextmanager
    def inline(self) -> Generator[None]:
        """Within, whatever would wait for KMS or the database raises :class:`WouldWait` instead."""
        self._local.inline = True
        try:
            yield
        finally:
            self._local.inline = False

    def _may_block(self) -> None:
        if getattr(self._local, "inline", False):
            raise WouldWait
