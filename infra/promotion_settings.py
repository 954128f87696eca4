"""What a stage's file says of promotions: the table of gates, as data.

A row of the table belongs to a stage: what a promotion to it switches on, how long it looks on afterwards,
and what its roll-back switches off. Without ``actions`` the row is the one of the stage's name.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from infra.cloud_settings import Section

SettingName = Annotated[
    str,
    StringConstraints(
        pattern=r"^(outbox\.(workers|cdc_paused)|tiers\.(gold|silver|bronze)\.encrypted_fields"
        r"|registry\.mirroring|gateway\.shedding_enabled|ramps(\.[a-z]([a-z0-9-]{0,61}[a-z0-9])?)?)$"
    ),
    Field(
        description="outbox.workers, outbox.cdc_paused, tiers.TIER.encrypted_fields, registry.mirroring, "
        "gateway.shedding_enabled, ramps (every tenant's weight for every feature) or ramps.FEATURE"
    ),
]
SettingValue = (
    bool | int | tuple[Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$")], ...]
)


class PromotionAction(Section):
    """A setting that a promotion switches on, and its roll-back off."""

    setting: SettingName
    on: SettingValue | None = Field(
        default=None, description="Set where the setting is off; without it a promotion leaves it alone."
    )
    steps: tuple[Annotated[int, Field(ge=1, le=100)], ...] | None = Field(
        default=None,
        min_length=1,
        description="Of weights, in place of `on`: what they are set to one after the other, each looked at "
        "for verify_minutes.",
    )
    off: SettingValue | None = Field(
        default=None, description="Set by the roll-back; without it the roll-back leaves it alone."
    )

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        if self.steps is None:
            return self
        if not self.setting.startswith("ramps") or self.on is not None:
            msg = "steps are of weights (ramps or ramps.FEATURE), and stand in place of `on`"
            raise ValueError(msg)
        if list(self.steps) != sorted(set(self.steps)):
            msg = f"steps {', '.join(map(str, self.steps))}: each must be more than the one before it"
            raise ValueError(msg)
        return self


def _row(*actions: tuple[str, SettingValue | None, SettingValue | None]) -> tuple[PromotionAction, ...]:
    return tuple(PromotionAction(setting=setting, on=on, off=off) for setting, on, off in actions)


ROWS = {
    "dev": _row(("outbox.workers", 1, 0), ("outbox.cdc_paused", False, True)),
    "stage": _row(
        ("tiers.gold.encrypted_fields", ("email", "phone"), ()), ("registry.mirroring", True, None)
    ),
    "prod": _row(("ramps", None, 0), ("gateway.shedding_enabled", True, False)),
}
"""The table of section 7 of the sprint's plan."""


class Promotion(Section):
    """What a release needs before it is promoted to this stage, and what the promotion does here."""

    soak_hours: float | None = Field(
        default=None, gt=0, le=720, description="24 without it, and 48 for what goes to prod."
    )
    soak_factor: float = Field(
        default=1, gt=0, le=1, description="Multiplies soak times, for rehearsals; never in prod."
    )
    verify_minutes: float = Field(
        default=60,
        gt=0,
        le=10_080,
        description="How long a promotion looks on after it was carried out, before it counts as good.",
    )
    require_digests: bool = Field(
        default=True, description="Whether every image must be known by its digest; always in prod."
    )
    error_percent: float = Field(default=1, ge=0, le=100, description="Of a tenant's requests in 5 minutes.")
    throttled_percent: float = Field(default=1, ge=0, le=100, description="Below which a tenant's 429s stay.")
    actions: tuple[PromotionAction, ...] | None = Field(
        default=None, description="What it switches on, and its roll-back off; else the table's row."
    )

    def row(self, stage: str) -> tuple[PromotionAction, ...]:
        """The actions of ``stage``, whose further stacks have its row."""
        return ROWS[stage.partition("-")[0]] if self.actions is None else self.actions
