"""Dual control: two people other than the requester sign the plan's hash.

Signatures are Ed25519 (RFC 8032) by keys whose public halves are in the stage's configuration, where
changing them takes a reviewed change of code. They verify offline and for as long as the log is kept;
an identity provider's short-lived certificates would need its transparency log reached at every check.
"""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from psycopg.rows import TupleRow

from kilo.contract import StackOutputs
from kilo.errors import BadInput, CheckFailed
from kilo.fle.audit.notes import public_bytes

if TYPE_CHECKING:
    from kilo.fle.rotation.record import Rotation

REQUIRED = 2


@dataclass(frozen=True, slots=True)
class Approval:
    """One person's signature under one plan."""

    principal: str
    statement: str
    signature: bytes


def statement_of(stage: str, action: str, plan_hash: str, principal: str) -> str:
    """The signed text. It names the action, so that a signature for one is none for another."""
    content = {"stage": stage, "action": action, "plan": plan_hash, "principal": principal}
    return rfc8785.dumps(content).decode()


def public_key_of(outputs: StackOutputs, principal: str) -> bytes:
    """The principal's public key from the stage's configuration."""
    for number, each in enumerate(outputs.field_encryption.principals):
        if each.name == principal:
            return public_bytes(each.public_key, f"field_encryption.principals[{number}].public_key")
    known = ", ".join(each.name for each in outputs.field_encryption.principals) or "none"
    msg = f"--as: {principal} may not request or approve rotations on stage {outputs.stage} (known: {known})"
    raise BadInput(msg)


def sign(
    outputs: StackOutputs, action: str, plan_hash: str, principal: str, key: Ed25519PrivateKey
) -> Approval:
    """Sign ``action`` on a plan as ``principal``; the key must be the one that the configuration knows."""
    if key.public_key().public_bytes_raw() != public_key_of(outputs, principal):
        msg = f"--signing-key: not the key of {principal}"
        raise BadInput(msg)
    statement = statement_of(outputs.stage, action, plan_hash, principal)
    return Approval(principal, statement, key.sign(statement.encode()))


def verify(outputs: StackOutputs, action: str, plan_hash: str, approval: Approval) -> None:
    """Raise :class:`CheckFailed` unless ``approval`` is that principal's signature under that plan."""
    public = public_key_of(outputs, approval.principal)
    if approval.statement != statement_of(outputs.stage, action, plan_hash, approval.principal):
        msg = f"the approval of {approval.principal} is for something else than plan {plan_hash[:12]}"
        raise CheckFailed(msg)
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(approval.signature, approval.statement.encode())
    except InvalidSignature:
        msg = f"the signature of {approval.principal} under plan {plan_hash[:12]} is wrong"
        raise CheckFailed(msg) from None


def _known_key(outputs: StackOutputs, principal: str) -> bytes | None:
    """The principal's public key; ``None`` for somebody who has left the configuration."""
    known = {each.name for each in outputs.field_encryption.principals}
    return public_key_of(outputs, principal) if principal in known else None


def is_same_person(outputs: StackOutputs, one: str, other: str) -> bool:
    """Whether two names are one person's: the same, or with the same key."""
    key = _known_key(outputs, one)
    return one == other or (key is not None and key == _known_key(outputs, other))


def count(
    connection: psycopg.Connection[TupleRow], outputs: StackOutputs, rotation: Rotation, action: str, but: str
) -> tuple[dict[str, str], list[str]]:
    """Who signed ``action`` on a rotation's plan, and whose row does not count and why.

    Every signature is verified again, against the configuration of now. Somebody who was removed since no
    longer counts, and neither does whatever else was written into the table; none of it is in anybody's way.
    Two names with one key are one person, and ``but`` does not count.

    Returns:
        Signatures in hexadecimal by name, and reasons.
    """
    rows = connection.execute(
        "SELECT principal, statement, signature FROM fle_rotation_approvals"
        " WHERE plan_hash = %s AND action = %s ORDER BY at",
        (rotation.plan_hash, action),
    ).fetchall()
    valid: dict[bytes, tuple[str, str]] = {}
    ignored: list[str] = []
    own = _known_key(outputs, but)
    for principal, statement, signature in rows:
        public = _known_key(outputs, principal)
        if public is None:
            ignored.append(f"{principal} is not among the stage's principals")
        elif principal != but and public != own:
            try:
                verify(outputs, action, rotation.plan_hash, Approval(principal, statement, bytes(signature)))
            except CheckFailed as error:
                ignored.append(str(error))
            else:
                valid[public] = (principal, bytes(signature).hex())
    return dict(valid.values()), ignored


def check_plan(
    connection: psycopg.Connection[TupleRow], outputs: StackOutputs, rotation: Rotation
) -> dict[str, str]:
    """The approvers' signatures by name, when the plan is its requester's and two others approved it.

    A requester who has left the configuration since can't be asked again: a third approval stands in.

    Raises:
        CheckFailed: the plan is not signed by its requester, or approvals are missing.
    """
    requester, needed = rotation.plan.requester, REQUIRED
    if _known_key(outputs, requester) is None:
        needed += 1
    else:
        statement = statement_of(outputs.stage, "plan", rotation.plan_hash, requester)
        try:
            verify(outputs, "plan", rotation.plan_hash, Approval(requester, statement, rotation.signature))
        except CheckFailed:
            msg = (
                f"{rotation.name} is not signed by {requester}, in whose name it was put into the database; "
                "roll it back and plan anew"
            )
            raise CheckFailed(msg) from None
    return _enough(connection, outputs, rotation, "approve", requester, needed=needed)


def check_rollback(
    connection: psycopg.Connection[TupleRow], outputs: StackOutputs, rotation: Rotation, principal: str
) -> dict[str, str]:
    """The signatures by name of two others than ``principal`` under rolling the rotation back."""
    return _enough(connection, outputs, rotation, "approve-rollback", principal)


def _enough(
    connection: psycopg.Connection[TupleRow],
    outputs: StackOutputs,
    rotation: Rotation,
    action: str,
    but: str,
    *,
    needed: int = REQUIRED,
) -> dict[str, str]:
    valid, ignored = count(connection, outputs, rotation, action, but)
    if len(valid) >= needed:
        return valid
    what = "rolling back " if action == "approve-rollback" else ""
    not_counted = f" (not counted: {'; '.join(ignored)})" if ignored else ""
    msg = (
        f"{what}{rotation.name} needs {needed} approvals by others than {but}; "
        f"{', '.join(valid) or 'nobody'} approved it so far{not_counted}"
    )
    raise CheckFailed(msg)


def keep(
    connection: psycopg.Connection[TupleRow], plan_hash: str, action: str, signed: Approval, public: bytes
) -> bool:
    """Store a signature under a plan; whether it is another than the one that is there."""
    return bool(
        connection.execute(
            "INSERT INTO fle_rotation_approvals"
            " (plan_hash, action, principal, public_key, statement, signature)"
            " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (plan_hash, action, principal) DO UPDATE"
            " SET public_key = excluded.public_key, statement = excluded.statement,"
            " signature = excluded.signature, at = now()"
            " WHERE fle_rotation_approvals.signature <> excluded.signature",
            (plan_hash, action, signed.principal, public.hex(), signed.statement, signed.signature),
        ).rowcount
    )


def decode_signature(text: str) -> bytes:
    """Base64 to bytes, for approvals that were signed elsewhere."""
    try:
        return b64decode(text, validate=True)
    except ValueError as error:
        msg = "--signature: not base64"
        raise BadInput(msg) from error
