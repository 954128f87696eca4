"""A KMS key in each region where it lies: its own first and, while that does not answer, its replicas.

Replicas are copies of one multi-region key, so what one wraps every other opens. A refusal of the key's own
region is an answer: whoever disables the key there or denies its use stops it, and no replica is asked. A
replica's refusal counts only once the own region could not be asked either. A region that did not answer is
asked last for half a minute, so that not every key waits for it anew.

Left out: replicas that the stage's outputs don't name, and learning of them from KMS.
https://docs.aws.amazon.com/kms/latest/developerguide/multi-region-keys-overview.html
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from kilo.contract import KeyReference
from kilo.fle.errors import FieldError, KmsThrottled, KmsUnavailable
from kilo.fle.kms import Context, KmsClients

_log = logging.getLogger(__name__)
_AWAY_SECONDS = 30.0
T = TypeVar("T")


class Regions:
    """Wraps and unwraps where a key can be reached.

    Args:
        kms: KMS clients under the principal's credentials.
        clock: seconds that only grow.
    """

    def __init__(self, kms: KmsClients, clock: Callable[[], float] = monotonic) -> None:
        self.kms, self.clock = kms, clock
        self._away: dict[str, float] = {}

    def wrap(self, reference: KeyReference, secret: bytes | bytearray, context: Context) -> bytes:
        """As :meth:`kilo.fle.kms.Kms.wrap`, in the first region that answers."""
        service = self.kms.of(reference.provider)
        return self._ask(reference, lambda key: service.wrap(key, secret, context))

    def unwrap(self, reference: KeyReference, wrapped: bytes, context: Context) -> bytearray:
        """As :meth:`kilo.fle.kms.Kms.unwrap`, in the first region that answers."""
        service = self.kms.of(reference.provider)
        return self._ask(reference, lambda key: service.unwrap(key, wrapped, context))

    def _ask(self, reference: KeyReference, call: Callable[[str], T]) -> T:
        if not reference.replicas:
            return call(reference.key)
        passing: FieldError | None = None
        refused: FieldError | None = None
        for key in sorted((reference.key, *reference.replicas), key=self._is_away):
            try:
                return call(key)
            except (KmsUnavailable, KmsThrottled) as error:
                self._note(key, error)
                passing = passing or error
            except FieldError as error:
                refused = error
                if key == reference.key:
                    break
        else:
            # What the own region would say of a replica's refusal is not known, and may yet be heard.
            refused = passing or refused
        assert refused is not None  # noqa: S101 - each key was asked and none answered
        raise refused

    def _note(self, key: str, error: FieldError) -> None:
        if isinstance(error, KmsThrottled):
            return
        if not self._is_away(key):
            _log.warning(
                "KMS in %s does not answer (%s): other regions are asked", _region(key), error.detail
            )
        self._away[_region(key)] = self.clock() + _AWAY_SECONDS

    def _is_away(self, key: str) -> bool:
        return self.clock() < self._away.get(_region(key), 0.0)


def _region(key: str) -> str:
    return key.split(":")[3]
