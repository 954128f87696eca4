"""Dual control: two people other than the requester sign the plan's hash.

Signatures are Ed25519 (RFC 8032) by keys whose public halves are in the stage's configuration, where
changing them takes a reviewed change of code. They verify offline and for as long as the log is kept;
an identity provider's short-lived certificates would need its transparency log reached at every check.
"""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass

import psycopg
import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from psycopg.rows import TupleRow

from kilo.contract import StackOutputs
from kilo.errors import BadInput, CheckFailed
from kilo.fle.audit.notes import public_bytes

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


def check_dual_control(
    connection: psycopg.Connection[TupleRow], outputs: StackOutputs, plan_hash: str, requester: str
) -> list[str]:
    """The approvers' names, when enough valid approvals are there.

    Every signature is verified again, against the configuration of now: a principal that was removed
    since no longer counts. Two names with one key are one person.
    """
    rows = connection.execute(
        "SELECT principal, statement, signature FROM fle_rotation_approvals WHERE plan_hash = %s ORDER BY at",
        (plan_hash,),
    ).fetchall()
    valid: dict[bytes, str] = {}
    own = public_key_of(outputs, requester)
    for principal, statement, signature in rows:
        public = public_key_of(outputs, principal)
        if principal == requester or public == own:
            continue
        verify(outputs, "approve", plan_hash, Approval(principal, statement, bytes(signature)))
        valid[public] = principal
    if len(valid) < REQUIRED:
        have = ", ".join(valid.values()) or "nobody"
        msg = (
            f"plan {plan_hash[:12]} needs {REQUIRED} approvals by others than {requester}; "
            f"{have} approved it so far"
        )
        raise CheckFailed(msg)
    return list(valid.values())


def decode_signature(text: str) -> bytes:
    """Base64 to bytes, for approvals that were signed elsewhere."""
    try:
        return b64decode(text, validate=True)
    except ValueError as error:
        msg = "--signature: not base64"
        raise BadInput(msg) from error
