"""The emergency path: a promotion that passes although its gate says no, because two others signed for it.

What they sign names the release, where it goes, why, who asks and until when, so that one emergency is none
for another. It is an entry of the audit log of the stage that the release comes from, and every look
verifies the signatures again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import psycopg
import rfc8785
from psycopg.rows import TupleRow

from kilo.contract import StackOutputs
from kilo.errors import BadInput, CheckFailed
from kilo.fle.audit.log import append, read
from kilo.fle.audit.signatures import PROMOTE_EMERGENCY, check_signatures, people_of
from kilo.fle.rotation.approval import REQUIRED, Approval, is_same_person, public_key_of, verify

ACTION = "promotion-emergency"
LONGEST_HOURS = 24
"""For how long an emergency may be in force."""
_LEAST_REASON = 10
"""Characters: a word is no reason."""


def content_of(  # noqa: PLR0917
    stage: str, to: str, release: str, requester: str, reason: str, until: float
) -> dict[str, Any]:
    """What is signed; ``until`` is in seconds since the epoch.

    Raises:
        BadInput: the reason is too short, or it would be in force for too long.
    """
    if len(reason.strip()) < _LEAST_REASON:
        msg = f"--reason: say in {_LEAST_REASON} characters or more why the gate can't be waited for"
        raise BadInput(msg)
    if not 0 < until - time.time() <= LONGEST_HOURS * 3_600:
        msg = f"--hours: an emergency is in force for at most {LONGEST_HOURS} hours"
        raise BadInput(msg)
    return {
        "from": stage,
        "to": to,
        "release": release,
        "requester": requester,
        "reason": reason,
        "until": datetime.fromtimestamp(until, UTC).isoformat(timespec="seconds"),
    }


def digest_of(content: dict[str, Any]) -> str:
    """What stands for it in signatures."""
    return sha256(rfc8785.dumps(content)).hexdigest()


def declare(
    connection: psycopg.Connection[TupleRow],
    outputs: StackOutputs,
    content: dict[str, Any],
    approvals: Sequence[Approval],
) -> None:
    """Record an emergency that two others than its requester signed.

    Raises:
        BadInput: somebody is not among the stage's principals.
        CheckFailed: a signature is not of this content, or fewer than two others signed.
    """
    digest, requester = digest_of(content), content["requester"]
    public_key_of(outputs, requester)
    others: dict[bytes, Approval] = {}
    for approval in approvals:
        verify(outputs, PROMOTE_EMERGENCY, digest, approval)
        if is_same_person(outputs, approval.principal, requester):
            msg = f"{approval.principal} asks for the emergency, so others must approve it"
            raise CheckFailed(msg)
        others[public_key_of(outputs, approval.principal)] = approval
    if len(others) < REQUIRED:
        named = ", ".join(each.principal for each in others.values()) or "nobody"
        msg = f"an emergency needs {REQUIRED} approvals by others than {requester}; {named} approved it"
        raise CheckFailed(msg)
    details = {
        "digest": digest,
        "content": content,
        "reason": content["reason"],
        "approvals": {each.principal: each.signature.hex() for each in others.values()},
    }
    append(connection, requester, ACTION, f"promotion/{outputs.stage}/{content['to']}", details)


def in_force(
    connection: psycopg.Connection[TupleRow], outputs: StackOutputs, to: str, release: str
) -> dict[str, Any] | None:
    """The emergency under which this very release may pass now, or None."""
    entries = read(connection)
    _, problems = check_signatures(entries, outputs.stage, people_of(outputs))
    bad = {problem.partition(":")[0] for problem in problems}
    for entry in reversed(entries):
        fields = json.loads(entry.text)
        if fields.get("action") != ACTION or f"entry {entry.seq}" in bad:
            continue
        content = fields["details"].get("content")
        if not isinstance(content, dict) or digest_of(content) != fields["details"].get("digest"):
            continue
        until = datetime.fromisoformat(str(content.get("until")))
        asked = (outputs.stage, to, release, fields["actor"])
        named = tuple(content.get(name) for name in ("from", "to", "release", "requester"))
        if named == asked and datetime.now(UTC) < until:
            return {**content, "approvers": sorted(fields["details"]["approvals"]), "entry": entry.seq}
    return None
