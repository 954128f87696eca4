"""The table of promotions for one stage: what its row switches on and off, and what is carried over."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from infra.promotion.stage_file import PromotionFile
from infra.promotion_settings import PromotionAction
from infra.settings import Images, Settings
from kilo.contract import StackOutputs
from kilo.errors import CheckFailed, KiloError
from kilo.promotion.gates import GateSettings
from kilo.promotion.record import Change, Value
from kilo.registry.client import Registries
from kilo.registry.reference import Reference
from kilo.traffic.ramps.freeze import Freezes

_PATIENCE_SECONDS = 30
_RAMPS = "ramps"


def gate_of(settings: Settings) -> GateSettings:
    """What a stage asks of what is promoted to it."""
    wanted = settings.promotion
    return GateSettings(
        soak_hours=wanted.soak_hours or (48.0 if settings.is_prod else 24.0),
        soak_factor=wanted.soak_factor,
        require_digests=wanted.require_digests,
        error_share=wanted.error_percent / 100,
        throttled_share=wanted.throttled_percent / 100,
        frozen=Freezes(settings.freezes).reason(time.time()),
    )


def on_values(file: PromotionFile) -> dict[str, Value]:
    """What a promotion sets: the row's settings that are off. What runs already is left as it is."""
    wanted: dict[str, Value] = {}
    for action in _row(file):
        on = action.steps[-1] if action.steps else action.on
        if on is None:
            continue
        for setting in _expanded(file, action):
            before = file.value(setting)
            lowers = bool(action.steps) and isinstance(before, int) and before > int(str(on))
            if not lowers and action.off in (None, before):
                wanted[setting] = on
    return wanted


def steps_of(file: PromotionFile) -> dict[str, tuple[Value, ...]]:
    """The steps by which a promotion raises weights, without those that a weight has passed already."""
    found: dict[str, tuple[Value, ...]] = {}
    for action in _row(file):
        for setting in _expanded(file, action) if action.steps else ():
            before = file.value(setting)
            passed = before if isinstance(before, int) else 0
            found[setting] = tuple(step for step in action.steps or () if step > passed)
    return found


def off_values(file: PromotionFile) -> dict[str, Value]:
    """What a roll-back sets."""
    return off_of_row(file, _row(file))


def off_of_row(file: PromotionFile, row: Sequence[PromotionAction]) -> dict[str, Value]:
    """What the roll-back of a row sets in a stage's file."""
    return {
        setting: action.off for action in row if action.off is not None for setting in _expanded(file, action)
    }


def _row(file: PromotionFile) -> Sequence[PromotionAction]:
    return file.settings.promotion.row(file.settings.stage)


def _expanded(file: PromotionFile, action: PromotionAction) -> Iterable[str]:
    """The settings of one action: of a feature's weights, one a tenant that has any or is to have one."""
    name, _, feature = action.setting.partition(".")
    if name != _RAMPS:
        return [action.setting]
    features = [feature] if feature else [each.id for each in file.settings.features]
    return [
        f"tenants.{tenant.id}.ramps.{each}"
        for tenant in file.settings.tenants
        for each in features
        if each in tenant.ramps or feature
    ]


def images_of(changes: Iterable[Change]) -> list[str]:
    """The images that a promotion carries."""
    return [str(each.after) for each in changes if each.setting.startswith("images.")]


def carried(
    source: Settings, running: Mapping[str, str | None], theirs: StackOutputs, ours: StackOutputs
) -> dict[str, Value]:
    """The images of what is live in a stage, by digest, as the stage that they go to names them.

    Args:
        source: the file of the stage that they come from.
        running: the images that run there, with their digests where those are known.
        theirs: the outputs of that stage.
        ours: the outputs of the stage that they go to.

    Raises:
        CheckFailed: the file names an image that does not run, or the other stage's registry lacks one.
    """
    before, after = (f"{each.registries.primary.url}/" for each in (theirs, ours))
    registries = Registries(patience_seconds=_PATIENCE_SECONDS)
    found: dict[str, Value] = {}
    for name in Images.model_fields:
        image = str(getattr(source.images, name))
        if image not in running:
            if name != "runtime" and not any(_name(each) == _name(image) for each in running):
                continue  # Nothing of it is deployed, as no NATS is beside Kafka.
            msg = f"Pulumi.{source.stage}.yaml names {image}, which is not what runs in {source.stage}"
            raise CheckFailed(msg)
        digest = running[image]
        pinned = f"{_name(image)}@{digest}" if digest else image
        if pinned.startswith(before):
            pinned = f"{after}{pinned.removeprefix(before)}"
            _must_be_there(registries, pinned, digest)
        found[f"images.{name}"] = pinned
    return found


def _must_be_there(registries: Registries, image: str, digest: str | None) -> None:
    reference = Reference.parse(image)
    try:
        there = registries.repository(reference).resolve(digest or reference.tag or "latest")
    except KiloError as error:
        msg = f"{image}: the registry of the stage that it goes to does not say whether it has it ({error})"
        raise CheckFailed(msg) from error
    if there is None or (digest is not None and there[0] != digest):
        msg = f"{image}: the registry of the stage that it goes to does not have it; mirror it first"
        raise CheckFailed(msg)


def _name(image: str) -> str:
    """An image without tag and digest."""
    head, _, last = image.partition("@")[0].rpartition("/")
    return f"{head}/{last.partition(':')[0]}" if head else last.partition(":")[0]
