"""Approvals of promotions: somebody else than whoever asks signs what is promoted, with its digests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import rfc8785

from kilo.contract import StackOutputs
from kilo.errors import CheckFailed
from kilo.fle.audit.signatures import PROMOTE, promotion_content
from kilo.fle.rotation.approval import Approval, is_same_person, public_key_of, statement_of, verify
from kilo.promotion.record import Course


def digest_of(details: Mapping[str, Any], stage: str, requester: str) -> str:
    """What stands for a promotion in signatures; ``details`` are those of its entry in the audit log."""
    return sha256(rfc8785.dumps(promotion_content(details, stage, requester))).hexdigest()


def approve(
    outputs: StackOutputs, requester: str, digest: str, approvals: Sequence[Approval]
) -> dict[str, str]:
    """The signatures in hexadecimal by name, when somebody else than the requester gave one.

    Args:
        outputs: of the stage that is promoted to, whose principals may ask and approve.
        requester: who asks.
        digest: by :func:`digest_of`.
        approvals: what was given.

    Raises:
        BadInput: somebody is not among the stage's principals.
        CheckFailed: a signature is of something else, or its giver asks for the promotion.
    """
    public_key_of(outputs, requester)
    for each in approvals:
        verify(outputs, PROMOTE, digest, each)
        if is_same_person(outputs, each.principal, requester):
            msg = f"{each.principal} asks for the promotion, so somebody else must approve it"
            raise CheckFailed(msg)
    if not approvals:
        msg = f"a promotion to {outputs.stage} needs somebody else's approval: --approver NAME=KEYFILE"
        raise CheckFailed(msg)
    return {each.principal: each.signature.hex() for each in approvals}


def check_approved(outputs: StackOutputs, course: Course) -> None:
    """See to it that a half-finished promotion is what somebody else approved, before it is gone on with.

    Raises:
        BadInput: whoever asked or approved has left the stage's principals.
        CheckFailed: it is not.
    """
    details = {
        "from": course.source,
        "release": course.release,
        "changes": [each.document() for each in course.forward],
    }
    digest = digest_of(details, outputs.stage, course.requester)
    given: list[Approval] = []
    for name, signature in course.approvals.items():
        try:
            raw = bytes.fromhex(signature)
        except ValueError:
            raw = b""
        given.append(Approval(name, statement_of(outputs.stage, PROMOTE, digest, name), raw))
    approve(outputs, course.requester, digest, given)
