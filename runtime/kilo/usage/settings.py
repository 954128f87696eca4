"""``kilo:usage`` of a stage's file: how long usage is kept, and what it costs."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Price = Annotated[Decimal, Field(ge=0, le=1_000_000, max_digits=16, decimal_places=8)]
"""In the stage's currency; zero for what costs nothing."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Prices(_Model):
    """What a tenant pays for, and how much for how many of it. Write them in quotes, to be exact."""

    million_requests: Price = Decimal(0)
    received_gigabyte: Price = Field(default=Decimal(0), description="10^9 bytes of requests' bodies.")
    sent_gigabyte: Price = Field(default=Decimal(0), description="10^9 bytes of answers' bodies.")
    million_events: Price = Decimal(0)
    million_encryptions: Price = Field(default=Decimal(0), description="Fields encrypted or decrypted.")
    thousand_kms_calls: Price = Decimal(0)
    stored_gigabyte_month: Price = Field(default=Decimal(0), description="10^9 bytes for 730 hours.")
    shared_month: Price = Field(
        default=Decimal(0),
        description="What the stage costs whoever uses it: shared out as the tenants' own costs are.",
    )


class UsageSettings(_Model):
    """Usage is collected where a stage's file has this."""

    hours_keep_days: int = Field(default=35, ge=2, le=3_650, description="How long hours are told apart.")
    days_keep_days: int = Field(default=400, ge=2, le=36_500, description="How long days are.")
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] = Field(
        default="EUR", description="ISO 4217, such as EUR"
    )
    prices: Prices = Prices()
