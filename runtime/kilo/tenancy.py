"""The tenant list: one entry a tenant, from which everything per tenant is rendered.

An entry under ``tenants:`` in a stage's configuration gives that tenant its KMS key, encrypted
fields, routes, limits, timeouts, objectives, alerts and sampling allowance. What an entry leaves
out comes from its tier, so that a new tenant is one short entry.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

TenantId = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"),
    Field(description="lower-case letters, digits and inner hyphens, at most 40 characters"),
]
"""A DNS label of at most 40 characters (RFC 1123), so that it can name a resource in every cloud."""

FieldName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$"),
    Field(description="lower-case letters, digits and underscores, at most 63 characters"),
]
AggregateName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$"),
    Field(description="lower-case letters, digits, underscores and hyphens, at most 63 characters"),
]
"""An outbox aggregate: one token of a NATS subject, so no dot, space or wildcard."""

TierName = Literal["gold", "silver", "bronze"]

FeatureId = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,28}[a-z0-9])?$"),
    Field(description="lower-case letters, digits and inner hyphens, at most 30 characters"),
]
"""Short enough that a workload can be named after it."""
Shadow = Literal["shadow"]
RampWeight = Annotated[
    Shadow | Annotated[int, Field(ge=0, le=100)],
    Field(description="a whole percentage of 0 to 100, or shadow: requests are copied, answers thrown away"),
]
Ramps = dict[FeatureId, RampWeight]
"""Of a tenant's requests for each feature, the percentage that its next version answers."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RateLimit(_Frozen):
    """A token bucket, as Envoy's local rate limit has it."""

    requests_per_second: int = Field(ge=1, le=100_000)
    burst: int = Field(ge=1, le=1_000_000)

    @model_validator(mode="after")
    def _burst_holds_a_second(self) -> Self:
        if self.burst < self.requests_per_second:
            msg = f"burst ({self.burst}) must be at least requests_per_second ({self.requests_per_second})"
            raise ValueError(msg)
        return self


class Objective(_Frozen):
    """Service level objectives over a 30-day window."""

    availability_percent: float = Field(gt=0, lt=100)
    latency_threshold_ms: int = Field(ge=1, le=60_000)
    latency_percent: float = Field(gt=0, lt=100)


class TierPolicy(_Frozen):
    """What every tenant of a tier has unless its own entry says otherwise."""

    encrypted_fields: tuple[FieldName, ...] = ()
    kms_key: Literal["own", "shared"] = Field(
        default="own", description="A KMS key of its own, or the one that tenants of this setting share."
    )
    limit: RateLimit
    timeout_ms: int = Field(ge=10, le=60_000)
    retries: int = Field(ge=0, le=5)
    objective: Objective
    spans_per_second: int = Field(ge=1, le=100_000)


class TenantEntry(_Frozen):
    """One entry under ``tenants:``; every omitted setting comes from the tier."""

    id: TenantId
    tier: TierName
    encrypted_fields: tuple[FieldName, ...] | None = None
    kms_key: Literal["own", "shared"] | None = None
    limit: RateLimit | None = None
    timeout_ms: int | None = Field(default=None, ge=10, le=60_000)
    retries: int | None = Field(default=None, ge=0, le=5)
    objective: Objective | None = None
    spans_per_second: int | None = Field(default=None, ge=1, le=100_000)
    next_weight_percent: int = Field(default=0, ge=0, le=100)
    ramps: Ramps = {}
    accepting: bool = True

    def resolve(self, policy: TierPolicy) -> Tenant:
        """Fill what the entry leaves out from its tier's ``policy``."""
        own = self.model_dump(exclude_none=True, exclude={"id", "tier", "next_weight_percent"})
        return Tenant.model_validate(
            {
                **policy.model_dump(),
                **own,
                "id": self.id,
                "tier": self.tier,
                "next_weight_percent": self.next_weight_percent,
            }
        )


class Tenant(TierPolicy):
    """A tenant with every setting resolved."""

    id: TenantId
    tier: TierName
    next_weight_percent: int = Field(
        default=0, ge=0, le=100, description="Share of this tenant's requests that go to the next version."
    )
    ramps: Ramps = Field(default={}, description="The same for each of the stage's features.")
    accepting: bool = Field(
        default=True, description="False gives it no route: the gateway knows no such tenant."
    )
