"""The rules between settings of a Kafka; see :mod:`infra.rules`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from infra.settings import Settings

Violation = tuple[str, str]
"""A YAML path and a message."""


def brings_what_nats_is_given(settings: Settings) -> Iterator[Violation]:
    """What only the NATS of a stage has is left out."""
    if settings.bus.kafka is None:
        return
    for name, what in (
        ("storage_gib", "it is the disk of the NATS that is deployed otherwise"),
        ("duplicate_window_seconds", "Kafka knows no message ids, and the inbox drops duplicates"),
        ("credentials", "they are those of the NATS that is deployed otherwise"),
    ):
        if name in settings.bus.model_fields_set:
            yield f"bus.{name}", f"{what}; leave it out beside bus.kafka"
    for broker, count in Counter(settings.bus.kafka.brokers).items():
        if count > 1:
            yield "bus.kafka.brokers", f"broker '{broker}' is listed {count} times; list it once"


def knows_who_comes(settings: Settings) -> Iterator[Violation]:
    """It lets nobody in whom it does not know, and knows each role as another."""
    kafka, path = settings.bus.kafka, "bus.kafka.access"
    if kafka is None:
        return
    if kafka.access is None:
        if not settings.is_dev and not kafka.unguarded:
            yield (
                path,
                "whoever reaches its brokers could read and forge all tenants' events; give the Secrets of "
                "its users, see docs/outbox.md, or say unguarded: true",
            )
        return
    if kafka.unguarded:
        yield "bus.kafka.unguarded", "it is guarded, as access says; leave it out"
    if kafka.access.shown == "aws-msk-iam":
        return  # whose Secrets hold nothing of a user
    names = Counter(kafka.access.secret_names.values())
    for role, name in kafka.access.secrets.items():
        if names[name] > 1:
            yield f"{path}.secrets.{role}", f"'{name}' is another role's as well; give each a user of its own"


def takes_what_is_shown(settings: Settings) -> Iterator[Violation]:
    """Tokens have where they come from, and processes what signs them."""
    if settings.bus.kafka is None or settings.bus.kafka.access is None:
        return
    access, path = settings.bus.kafka.access, "bus.kafka.access"
    for way, name, given in (
        ("token", "tokens", access.tokens),
        ("aws-msk-iam", "msk_cluster", access.msk_cluster),
    ):
        if access.shown == way and given is None:
            yield f"{path}.{name}", f"'{way}' needs it; give it, see docs/outbox.md"
        if access.shown != way and given is not None:
            yield f"{path}.{name}", f"it is for shown: {way}, and shown is '{access.shown}'; leave it out"
    own_image = "debezium" in settings.images.model_fields_set
    if (
        access.shown == "aws-msk-iam"
        and access.msk_cluster
        and not own_image
        and not settings.outbox.cdc_paused
    ):
        yield (
            "images.debezium",
            "Debezium's own image can't sign tokens of AWS; give one with aws-msk-iam-auth, see "
            "docs/outbox.md, or say outbox.cdc_paused: true",
        )
