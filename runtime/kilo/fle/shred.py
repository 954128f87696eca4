"""Destroying keys: those whose waiting period is over, and all of a tenant's at once.

A data key is gone when its wraps are: nobody has its plaintext, and no KMS can be asked for it. Backups
of the database still hold wraps until they expire; to make those useless as well, an administrator
schedules the deletion of the tenant's KMS key, which the SDK's own identity may not do.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import psycopg
from psycopg.rows import TupleRow

from kilo.contract import StackOutputs
from kilo.errors import BadInput, CheckFailed
from kilo.fle.audit.log import append
from kilo.fle.rotation.approval import Approval, public_key_of, verify

_SHREDDED = """
INSERT INTO fle_tenants (tenant, shredded_at) VALUES (%s, now())
ON CONFLICT (tenant) DO UPDATE SET shredded_at = coalesce(fle_tenants.shredded_at, excluded.shredded_at)
"""


def keys_digest(connection: psycopg.Connection[TupleRow], tenant: str) -> str:
    """What approvers of a shredding sign: a hash over the tenant's name and its keys' numbers."""
    ids = [
        row[0]
        for row in connection.execute("SELECT id FROM fle_keys WHERE tenant = %s ORDER BY id", (tenant,))
    ]
    return sha256(f"{tenant}\n{ids}".encode()).hexdigest()


def shred(
    connection: psycopg.Connection[TupleRow],
    outputs: StackOutputs,
    tenant: str,
    approvals: Sequence[Approval],
) -> list[int]:
    """Destroy every wrap of every data and index key of ``tenant``; returns the keys' ids.

    Two people must have signed ``shred`` over :func:`keys_digest`. Nothing that the tenant encrypted can
    be read again; processes that hold its keys in memory forget them within the cache's age.
    """
    digest = keys_digest(connection, tenant)
    people = {public_key_of(outputs, each.principal): each.principal for each in approvals}
    if len(people) < 2:
        msg = "shredding a tenant needs two people: give --approver twice"
        raise CheckFailed(msg)
    for each in approvals:
        verify(outputs, "shred", digest, each)
    ids = _destroy(connection, "tenant = %s AND state <> 'destroyed'", tenant)
    if not ids:
        msg = f"tenant {tenant} has no keys to destroy"
        raise BadInput(msg)
    connection.execute(_SHREDDED, (tenant,))
    signed = {each.principal: each.signature.hex() for each in approvals}
    details = {"keys": ids, "approvals": signed, "keys_digest": digest}
    append(connection, sorted(people.values())[0], "shred", f"tenant/{tenant}", details)
    return ids


def destroy_due(connection: psycopg.Connection[TupleRow], actor: str) -> list[int]:
    """Destroy the keys that were retired and whose waiting period is over; returns their ids."""
    tenants = connection.execute(
        "SELECT DISTINCT tenant FROM fle_keys WHERE state = 'retired' AND destroy_after <= now() ORDER BY 1"
    ).fetchall()
    done: list[int] = []
    for (tenant,) in tenants:
        ids = _destroy(connection, "tenant = %s AND state = 'retired' AND destroy_after <= now()", tenant)
        append(connection, actor, "destroy", f"tenant/{tenant}", {"keys": ids})
        done += ids
    return done


def _destroy(connection: psycopg.Connection[TupleRow], condition: str, tenant: str) -> list[int]:
    rows = connection.execute(
        f"SELECT id FROM fle_keys WHERE {condition} ORDER BY id FOR UPDATE".encode(),  # noqa: S608 - ours
        (tenant,),
    ).fetchall()
    ids: list[int] = [row[0] for row in rows]
    connection.execute("DELETE FROM fle_wraps WHERE key_id = ANY(%s)", (ids,))
    connection.execute("UPDATE fle_keys SET state = 'destroyed' WHERE id = ANY(%s)", (ids,))
    return ids
