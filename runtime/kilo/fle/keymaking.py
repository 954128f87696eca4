"""What a key ring writes: new data keys with their wraps, and which fields lie encrypted.

Whatever waits for KMS or the key table asks first whether it may: event loops forbid it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

from kilo.contract import KeyReference
from kilo.fle.errors import KeyDestroyed, KeyTableUnavailable, UnknownTenant
from kilo.fle.keytable import KeyTable, Wrap
from kilo.fle.kms import KmsClients, context_of
from kilo.fle.xaes import KEY_BYTES

_log = logging.getLogger(__name__)


class WouldWait(Exception):
    """The key is not in memory, and :meth:`Keyring.inline` forbids waiting for it."""


class KeyMaking:
    """The part of :class:`kilo.fle.keyring.Keyring` that makes keys."""

    def __init__(
        self, table: KeyTable, kms: KmsClients, references: Mapping[str, tuple[KeyReference, ...]]
    ) -> None:
        self.table, self.kms, self.references = table, kms, references
        self._local = threading.local()

    def make_wraps(self, tenant: str, purpose: str, secret: bytearray) -> Callable[[int], list[Wrap]]:
        """Wrap ``secret`` under every KMS key of the tenant, once the data key's id is known."""

        def wraps(key_id: int) -> list[Wrap]:
            context = context_of(tenant, purpose, key_id)
            return [
                Wrap(each.provider, each.key, self.kms.of(each.provider).wrap(each.key, secret, context))
                for each in self._references(tenant)
            ]

        return wraps

    def create(self, tenant: str, purpose: str, state: str, secret: bytearray | None = None) -> int:
        """Make a data key (format 1 around a given ``secret``, otherwise random) and return its id."""
        self._may_block()
        if self.table.read(tenant).shredded:
            raise KeyDestroyed(tenant, detail="the tenant was shredded")
        material = secret if secret is not None else bytearray(os.urandom(KEY_BYTES))
        try:
            make = self.make_wraps(tenant, purpose, material)
            return self.table.create(tenant, purpose, state, make, 1 if secret is not None else 2)
        finally:
            if secret is None:
                material[:] = bytes(len(material))

    def note_scope(self, tenant: str, known: frozenset[str], field: str) -> None:
        """Note in the key table that values of ``field`` lie encrypted, unless they are ``known``."""
        if field in known:
            return
        self._may_block()
        try:
            self.table.note_scope(tenant, field)
        except KeyTableUnavailable as error:
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

    def _references(self, tenant: str) -> tuple[KeyReference, ...]:
        references = self.references.get(tenant)
        if not references:
            raise UnknownTenant(tenant)
        return references
