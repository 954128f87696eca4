"""Bringing in a tenant's key of format v1, whose secret somebody has had in a file.

Whoever knows that file reads, and forges, what lies under the key; where the tenant has no other key yet, all
that is written from then on. So two people sign the very secret, by its digest, and the audit log holds both
signatures beside the key's making. `kilo fle audit verify` names a key of format v1 without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

from kilo.contract import StackOutputs
from kilo.errors import CheckFailed
from kilo.fle.keytable import DATA
from kilo.fle.rotation.approval import REQUIRED, Approval, public_key_of, verify
from kilo.fle.wraps import secret_digest

if TYPE_CHECKING:
    from kilo.fle.keyring import Keyring

ACTION = "import"


def import_digest(tenant: str, digest: str) -> str:
    """What approvers of an import sign: a hash over the tenant's name and the secret's ``digest`` (hex)."""
    return sha256(f"{ACTION}\n{tenant}\n{digest}".encode()).hexdigest()


def import_key(
    keyring: Keyring, outputs: StackOutputs, tenant: str, secret: bytearray, approvals: Sequence[Approval]
) -> tuple[int, str]:
    """Add ``secret`` (32 bytes) as a key of format v1; its number, and the state that it has.

    Raises:
        CheckFailed: fewer than two people signed, or another process made the tenant's first key meanwhile.
        SecretInUse: it is the secret of another key.
    """
    digest = secret_digest(secret).hex()
    wanted = import_digest(tenant, digest)
    people = {public_key_of(outputs, each.principal): each.principal for each in approvals}
    if len(people) < REQUIRED:
        msg = "importing a key needs two people: give --approver twice"
        raise CheckFailed(msg)
    for each in approvals:
        verify(outputs, ACTION, wanted, each)
    state = "retiring" if keyring.table.read(tenant).active(DATA) else "active"
    entry = {
        "format": 1,
        "state": state,
        "import_digest": wanted,
        "approvals": {each.principal: each.signature.hex() for each in approvals},
    }
    key_id = keyring.create(tenant, DATA, state, secret, entry=(min(people.values()), ACTION, entry))
    made = next(row for row in keyring.table.read(tenant).keys if row.id == key_id)
    if made.digest != bytes.fromhex(digest):
        msg = f"{tenant} was given its first key by another process meanwhile; import it again"
        raise CheckFailed(msg)
    return key_id, state
