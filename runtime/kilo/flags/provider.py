"""The OpenFeature provider: https://openfeature.dev/specification/sections/providers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from kilo.context import NoTenant, current_tenant
from kilo.errors import Unreachable
from kilo.extras import requires
from kilo.flags.weights import Weights, bucket_of

with requires("flags"):
    from openfeature.evaluation_context import EvaluationContext
    from openfeature.exception import ErrorCode, ProviderNotReadyError
    from openfeature.flag_evaluation import FlagResolutionDetails, FlagValueType, Reason
    from openfeature.provider import AbstractProvider, Metadata

NEXT, STABLE = "next", "stable"

Value = TypeVar("Value")


class StageFlags(AbstractProvider):
    """Flags of the stage's features.

    A boolean flag says whether the feature is on; as text it is ``next`` or ``stable``. The tenant is the
    attribute ``tenant``, else that of the request (:mod:`kilo.context`); the targeting key is what the
    gateway goes by, the idempotency key. A weight of 0 or 100 needs no key.

    Args:
        path: of the file of weights; by default what ``KILO_FLAGS`` names, else where the chart mounts it.
        weights: instead of a path, such as with another interval.
    """

    def __init__(self, path: str | Path | None = None, *, weights: Weights | None = None) -> None:
        super().__init__()
        self._weights = weights or Weights(path)

    def get_metadata(self) -> Metadata:
        """The provider's name."""
        return Metadata("kilo")

    def initialize(self, evaluation_context: EvaluationContext) -> None:
        """Read the weights.

        Raises:
            ProviderNotReadyError: they can't be read; flags have their defaults until they can.
        """
        try:
            self._weights.load()
        except Unreachable as error:
            raise ProviderNotReadyError(str(error)) from error

    def resolve_boolean_details(
        self,
        flag_key: str,
        default_value: bool,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[bool]:
        """Whether the feature is on."""
        found = self._decide(flag_key, evaluation_context)
        if isinstance(found, FlagResolutionDetails):
            return _default(default_value, found)
        variant, reason = found
        return FlagResolutionDetails(variant == NEXT, variant=variant, reason=reason)

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        """``next`` or ``stable``."""
        found = self._decide(flag_key, evaluation_context)
        if isinstance(found, FlagResolutionDetails):
            return _default(default_value, found)
        variant, reason = found
        return FlagResolutionDetails(variant, variant=variant, reason=reason)

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        """No feature has a number."""
        return _mismatch(default_value)

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        """No feature has a number."""
        return _mismatch(default_value)

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Sequence[FlagValueType] | Mapping[str, FlagValueType],
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Sequence[FlagValueType] | Mapping[str, FlagValueType]]:
        """No feature has an object."""
        return _mismatch(default_value)

    def _decide(
        self, flag: str, context: EvaluationContext | None
    ) -> tuple[str, Reason] | FlagResolutionDetails[None]:
        tenant = _tenant(context)
        if tenant is None:
            return _error(ErrorCode.INVALID_CONTEXT, "no tenant: give the attribute tenant, or act for one")
        weight = self._weights.of(flag, tenant)
        if weight is None:
            if self._weights.ready:
                return _error(ErrorCode.FLAG_NOT_FOUND, f"the stage has no feature {flag}")
            return _error(ErrorCode.PROVIDER_NOT_READY, f"{self._weights.path} could not be read yet")
        if weight <= 0 or weight >= 100:
            return (NEXT if weight > 0 else STABLE), Reason.STATIC
        key = context.targeting_key if context is not None else None
        if not key:
            return _error(ErrorCode.TARGETING_KEY_MISSING, "give the idempotency key as the targeting key")
        return (NEXT if bucket_of(key) < weight else STABLE), Reason.SPLIT


def _tenant(context: EvaluationContext | None) -> str | None:
    if context is not None and "tenant" in context.attributes:
        return str(context.attributes["tenant"])
    try:
        return current_tenant()
    except NoTenant:
        return None


def _error(code: ErrorCode, message: str) -> FlagResolutionDetails[None]:
    return FlagResolutionDetails(None, error_code=code, error_message=message, reason=Reason.ERROR)


def _default(value: Value, error: FlagResolutionDetails[None]) -> FlagResolutionDetails[Value]:
    return FlagResolutionDetails(
        value, error_code=error.error_code, error_message=error.error_message, reason=Reason.ERROR
    )


def _mismatch(value: Value) -> FlagResolutionDetails[Value]:
    message = "a feature is on or off: ask for a boolean, or a string (next, stable)"
    return FlagResolutionDetails(
        value, error_code=ErrorCode.TYPE_MISMATCH, error_message=message, reason=Reason.ERROR
    )
