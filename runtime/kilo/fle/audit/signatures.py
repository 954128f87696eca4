"""Signatures of people in the log: whoever planned, approved, finalized, rolled back or shredded signed it.

The chain and its checkpoints show that entries are as they were written; these signatures show that the
named people stand behind them, even to an auditor who takes whoever keeps the log, its database and its
checkpoint key for a forger. So the people's public keys must come from elsewhere than the log: from the
stage's configuration under review, or from the people themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from kilo.contract import StackOutputs
from kilo.errors import BadInput
from kilo.fle.audit.log import Entry
from kilo.fle.audit.notes import public_bytes
from kilo.fle.formats import V1
from kilo.fle.importing import import_digest
from kilo.fle.rotation.approval import REQUIRED, statement_of

People = Mapping[str, Sequence[bytes]]
"""Ed25519 public keys by name; several where somebody's key was replaced."""

_BY_ACTOR = ("plan", "approve", "approve-rollback", "finalize", "rollback", "take-as-plain")
_DUAL_CONTROL = ("announce", "run", "finalize")
_UNSIGNED = (
    *("make-key", "adopt-key", "rewrap", "destroy"),
    *("resume", "pause", "backfilled", "activate", "adopt-more", "verify", "rolled-back"),
)
_BY_TWO = ("shred", "import")
_RAMP = tuple(
    f"ramp-{act}"
    for act in ("started", "step", "revert", "paused", "resumed", "reverting", "done", "overridden")
)
"""What :mod:`kilo.traffic.ramps.audit` copies in: gates decide, people sign nothing."""
_PROMOTION = (
    "promotion-live",
    "promotion-breach",
    "promotion-step",
    "promotion-emergency",
    "promotion-evidence",
)
"""What :mod:`kilo.promotion` records; two people sign the emergency path alone."""
PROMOTE_EMERGENCY = "promote-emergency"
"""What is signed to let a promotion pass although its gate says no."""
PROMOTE = "promote"
"""What somebody else than the requester signs before a promotion to another stage than dev begins."""
_SINCE_KEYS_ARE_LOGGED = ("make-key", "adopt-key")
"""The first of these in a log shows that a version wrote it which names the keys that it retires, and has
what lowers protection approved. Entries of before can't be judged by that."""
_CLOCKS = timedelta(hours=1)
"""By how much the clock of whoever writes entries may differ from the database's."""


@dataclass
class _Plan:
    requester: str = ""
    requester_key: bytes = b""
    content: Mapping[str, Any] = field(default_factory=dict[str, Any])
    began: bool = False
    """Whether it was announced or ran."""
    approvers: dict[bytes, str] = field(default_factory=dict[bytes, str])
    against: dict[bytes, str] = field(default_factory=dict[bytes, str])
    """Who approved rolling it back."""

    def others(self) -> list[str]:
        """Who approved it, apart from the requester; two names with one key are one person."""
        return [
            name
            for key, name in self.approvers.items()
            if name != self.requester and key != self.requester_key
        ]


def people_of(outputs: StackOutputs) -> dict[str, list[bytes]]:
    """The keys of the stage's configuration."""
    return {
        each.name: [public_bytes(each.public_key, f"field_encryption.principals[{number}].public_key")]
        for number, each in enumerate(outputs.field_encryption.principals)
    }


def people_from(options: Sequence[str]) -> dict[str, list[bytes]]:
    """Keys given as ``NAME=BASE64``; a name may stand several times.

    Raises:
        BadInput: an option is not of that form.
    """
    people: dict[str, list[bytes]] = {}
    for each in options:
        name, separator, key = each.partition("=")
        if not (name and separator):
            msg = f"--principal: {each!r} is not NAME=BASE64"
            raise BadInput(msg)
        people.setdefault(name, []).append(public_bytes(key, f"--principal {name}"))
    return people


def check_signatures(entries: Sequence[Entry], stage: str, people: People) -> tuple[int, list[str]]:
    """Verify every signature of the log; (how many verify, problems by entry).

    Besides each signature, a step that needs two others' approval must follow two valid ones of its plan.
    """
    found = _Signatures(stage, people)
    for entry in entries:
        try:
            found.look_at(entry.seq, json.loads(entry.text))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            # What is no entry at all is named by the chain's own check.
            continue
    for key, (seq, _) in found.given.items():
        found.problems.append(
            f"entry {seq}: make-key: key {key} has a given secret, and nobody signed its import"
        )
    return found.valid, found.problems


def promotion_content(details: Mapping[str, Any], stage: str, requester: str) -> dict[str, Any]:
    """What is signed of a promotion: what goes from where to ``stage``, and who asks for it."""
    return {
        **{name: details[name] for name in ("from", "release", "changes")},
        "to": stage,
        "requester": requester,
    }


class _Signatures:
    def __init__(self, stage: str, people: People) -> None:
        self.stage, self.people = stage, people
        self.plans: dict[str, _Plan] = {}
        self.due: dict[int, datetime] = {}
        """When the waiting period of each retired key is over."""
        self.imported: dict[str, set[int]] = {}
        self.formats: dict[int, int] = {}
        self.given: dict[int, tuple[int, str]] = {}
        """Keys around a given secret whose import is to come: the entry of their making, their digest."""
        self.strict = False
        self.valid = 0
        self.problems: list[str] = []

    def look_at(self, seq: int, content: Mapping[str, Any]) -> None:
        action, actor, details = content["action"], content["actor"], content["details"]
        self.strict = self.strict or action in _SINCE_KEYS_ARE_LOGGED
        if action in _RAMP:
            return
        if action not in {*_BY_ACTOR, *_DUAL_CONTROL, *_UNSIGNED, *_BY_TWO, *_PROMOTION}:
            self._say(seq, action, "no command does that: the entry is invented")
        elif action in _PROMOTION:
            self._promotion(seq, content)
        elif action == "shred":
            self._by_two(seq, "shred", details, str(details.get("keys_digest")))
        elif action == "destroy":
            self._destroy(seq, content)
        elif action in _SINCE_KEYS_ARE_LOGGED:
            self.formats[details["key"]] = details["format"]
            if (action, details["format"]) == ("make-key", V1):
                self.given[details["key"]] = seq, details["digest"]
        elif action == "import":
            self._import(seq, content["subject"], details)
        elif isinstance(digest := details.get("plan"), str):
            self._step(seq, content, digest)
        elif action in {*_BY_ACTOR, *_DUAL_CONTROL}:
            self._say(seq, action, "it names no plan")
        elif actor == "":
            self._say(seq, action, "it names nobody")

    def _step(self, seq: int, content: Mapping[str, Any], digest: str) -> None:
        action, actor, details = content["action"], content["actor"], content["details"]
        plan = self.plans.setdefault(digest, _Plan())
        if action in _BY_ACTOR:
            # Of what is taken as plain, the digest is part of what was signed.
            signed = f"{action}:{details['digest']}" if action == "take-as-plain" else action
            key = self._verify(seq, signed, digest, actor, details.get("signature"))
            if action == "plan":
                plan.requester, plan.requester_key = actor, key or b""
                plan.content = details.get("content") or {}
                self._check_content(seq, digest, actor, details)
            elif key is not None and action in {"approve", "approve-rollback"}:
                (plan.approvers if action == "approve" else plan.against)[key] = actor
            elif action == "rollback":
                self._check_rollback(seq, actor, digest, plan, details)
        if action in _DUAL_CONTROL:
            # A third approval stands in for a requester who has left.
            needed = REQUIRED if plan.requester_key or not self.strict else REQUIRED + 1
            if len(others := plan.others()) < needed:
                self._say(
                    seq,
                    action,
                    f"plan {digest[:12]} has {len(others)} valid approvals before it instead of {needed}"
                    f" ({', '.join(others) or 'nobody'})",
                )
            plan.began = plan.began or action in {"announce", "run"}
        if action in {"finalize", "rolled-back"}:
            self._retire(content, plan)

    def _check_rollback(
        self, seq: int, actor: str, digest: str, plan: _Plan, details: Mapping[str, Any]
    ) -> None:
        old, new = (self.formats.get(details.get(each) or 0, 0) for each in ("old_key_id", "new_key_id"))
        lowers = plan.content.get("kind") == "adopt" or 0 < old < new
        if not (self.strict and plan.began and lowers):
            return
        others = [name for name in plan.against.values() if name != actor]
        if len(others) < REQUIRED:
            self._say(
                seq,
                "rollback",
                f"it lowers protection, and {len(others)} others approved rolling back plan {digest[:12]}"
                f" instead of {REQUIRED}",
            )

    def _retire(self, content: Mapping[str, Any], plan: _Plan) -> None:
        details = content["details"]
        days = details.get("destroy_after_days", plan.content.get("destroy_after_days", 0))
        finalized = content["action"] == "finalize"
        keys = details.get("retired")
        if keys is None:
            # As versions wrote it that did not name the keys.
            keys = {details.get("old_key_id" if finalized else "new_key_id")}
            keys |= self.imported.get(content["subject"], set()) if finalized else set()
        over = datetime.fromisoformat(content["at"]) + timedelta(days=days) - _CLOCKS
        self.due |= {key: over for key in keys if key is not None}

    def _destroy(self, seq: int, content: Mapping[str, Any]) -> None:
        at = datetime.fromisoformat(content["at"])
        for key in content["details"]["keys"]:
            if key not in self.due:
                self._say(seq, "destroy", f"no signed entry before it retired key {key}")
            elif at < self.due[key]:
                self._say(seq, "destroy", f"the waiting period of key {key} was not over")

    def _import(self, seq: int, subject: str, details: Mapping[str, Any]) -> None:
        key = details["key"]
        self.imported.setdefault(subject, set()).add(key)
        # Keys whose making is in no log are from versions that asked for no signatures.
        if key in self.given:
            _, digest = self.given.pop(key)
            self._by_two(seq, "import", details, import_digest(subject.removeprefix("tenant/"), digest))

    def _emergency(self, seq: int, requester: str, details: Mapping[str, Any]) -> None:
        """Two others than the requester signed the release and the reason."""
        own = set(self.people.get(requester, ()))
        signed: Mapping[str, Any] = details.get("approvals") or {}
        others = {
            name: signature
            for name, signature in signed.items()
            if name != requester and not own & set(self.people.get(name, ()))
        }
        self._by_two(seq, PROMOTE_EMERGENCY, {"approvals": others}, str(details.get("digest")))

    def _promotion(self, seq: int, content: Mapping[str, Any]) -> None:
        action, actor, details = content["action"], content["actor"], content["details"]
        if action == "promotion-emergency":
            self._emergency(seq, actor, details)
        elif (action, details.get("act")) == ("promotion-step", "begun") and details.get("from") is not None:
            self._approved(seq, actor, details)

    def _approved(self, seq: int, requester: str, details: Mapping[str, Any]) -> None:
        """Somebody else than the requester signed what is promoted from another stage."""
        digest = sha256(rfc8785.dumps(promotion_content(details, self.stage, requester))).hexdigest()
        signed: Mapping[str, Any] = details.get("approvals") or {}
        own = set(self.people.get(requester, ()))
        keys = {
            self._verify(seq, PROMOTE, digest, name, each)
            for name, each in signed.items()
            if name != requester
        }
        if not keys - {None} - own:
            self._say(seq, PROMOTE, f"nobody else than {requester} approved it")

    def _by_two(self, seq: int, action: str, details: Mapping[str, Any], digest: str) -> None:
        """Two people signed ``action`` on what ``digest`` stands for."""
        signed: Mapping[str, Any] = details.get("approvals") or {}
        keys = {
            key
            for name, signature in signed.items()
            if (key := self._verify(seq, action, digest, name, signature))
        }
        if len(keys) < REQUIRED:
            self._say(seq, action, f"{len(keys)} people signed it instead of {REQUIRED}")

    def _verify(self, seq: int, action: str, digest: str, name: str, signature: object) -> bytes | None:
        """The key under which ``name`` signed ``action``; ``None`` when that is not shown."""
        if not isinstance(signature, str) or not signature:
            self._say(seq, action, f"the signature of {name} is missing")
            return None
        if name not in self.people:
            self._say(seq, action, f"signed by {name}, whose public key is not known: give --principal")
            return None
        try:
            raw = bytes.fromhex(signature)
        except ValueError:
            raw = b""
        statement = statement_of(self.stage, action, digest, name).encode()
        for key in self.people[name]:
            try:
                Ed25519PublicKey.from_public_bytes(key).verify(raw, statement)
            except InvalidSignature:
                continue
            self.valid += 1
            return key
        self._say(seq, action, f"the signature of {name} does not verify")
        return None

    def _check_content(self, seq: int, digest: str, actor: str, details: Mapping[str, Any]) -> None:
        content = details.get("content")
        if content is None:
            if self.strict:
                self._say(seq, "plan", "it does not say what was planned")
            return
        if sha256(rfc8785.dumps(content)).hexdigest() != digest:
            self._say(seq, "plan", "the plan is not the one whose hash was signed")
        elif content.get("requester") != actor:
            self._say(seq, "plan", f"the plan was requested by {content.get('requester')}, not {actor}")

    def _say(self, seq: int, action: str, problem: str) -> None:
        self.problems.append(f"entry {seq}: {action}: {problem}")
