"""The way back of keys in a rehearsal: values go under a newer data key, and come back under the older one.

People have planned and approved the rotation (`kilo fle rotate plan`, `approve`); whoever rehearses signs
that it is rolled back. Each step may be done again from whatever state the rotation is in. The rotation's
end, after which the newer key is retired, waits for processes and the bus to let go of that key.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kilo.contract import StackOutputs
from kilo.errors import BadInput, CheckFailed
from kilo.fle.cipher import FieldCipher
from kilo.fle.rotation.approval import check_plan
from kilo.fle.rotation.record import Rotation, find
from kilo.fle.rotation.steps import Rotations

_PAUSE_SECONDS = 2.0
_BACK = ("rolling-back", "rolled-back")


@dataclass(frozen=True)
class Rekey:
    """One rotation of kind rekey, forward and back.

    Attributes:
        plan: its hash.
        principal: who signs that it is rolled back, with ``key``.
    """

    rotations: Rotations
    plan: str
    principal: str
    key: Ed25519PrivateKey

    @classmethod
    def of(cls, outputs: StackOutputs, url: str, plan: str, principal: str, key: Ed25519PrivateKey) -> Rekey:
        """The rotation of ``plan``, which must be one that goes forward and back.

        Raises:
            BadInput: there is no such plan, it is of another kind, or it has ended.
            CheckFailed: it was not approved.
        """
        found = cls(
            Rotations(outputs, url, FieldCipher.from_outputs(outputs, url, table="", principal="cli")),
            plan,
            principal,
            key,
        )
        rotation = found._find()
        if rotation.plan.kind != "rekey" or rotation.state == "finalized":
            msg = f"--rekey: {rotation.name} is {rotation.plan.kind} and {rotation.state}; plan a rekey anew"
            raise BadInput(msg)
        with found.rotations.connect() as connection:
            check_plan(connection, outputs, rotation)
        return found

    @property
    def tenant(self) -> str:
        """Whose key it is."""
        return self._find().plan.tenant

    def forward(self) -> None:
        """Bring values under the newer key, unless they are on their way back already.

        Raises:
            CheckFailed: values can't be decrypted.
        """
        if self._find().state in {*_BACK, "verified"}:
            return
        _, failed = self.rotations.run(self.plan, self.principal, lambda _: None)
        if failed:
            msg = f"{len(failed)} values can't be decrypted and were left as they are: {failed[0]}"
            raise CheckFailed(msg)

    def back(self) -> Mapping[str, Any]:
        """Bring all of them back, read each under the older key, and say what was found.

        Raises:
            CheckFailed: a value is not back, or does not read as it did.
        """
        if self._find().state == "rolled-back":
            msg = f"--rekey: plan {self.plan[:12]} was ended before its values were read; plan a rekey anew"
            raise CheckFailed(msg)
        self.rotations.begin_rollback(self.plan, self.principal, self.key)
        while True:
            self.rotations.run(self.plan, self.principal, lambda _: None)
            rotation = self._find()
            with self.rotations.connect() as connection:
                left = self.rotations.left(connection, rotation)
            # Until then a process may write under the newer key, which it has in memory.
            if rotation.settled and not left:
                break
            time.sleep(_PAUSE_SECONDS)
        return {"plan": rotation.plan_hash, **self.rotations.verify_back(self.plan)}

    def end(self) -> Mapping[str, Any]:
        """Retire the newer key, or say why that must wait."""
        if self._find().state == "rolled-back":
            return {"ended": True}
        self.rotations.run(self.plan, self.principal, lambda _: None)
        try:
            self.rotations.end_rollback(self.plan, self.principal)
        except CheckFailed as error:
            return {"ended": False, "waits": f"{error}: `kilo fle rotate rollback {self.plan[:12]}`"}
        return {"ended": True}

    def _find(self) -> Rotation:
        with self.rotations.connect() as connection:
            return find(connection, self.plan)
