"""Counts published events by publisher: the worker counts its own, the reconciler change capture's."""

from __future__ import annotations

from prometheus_client import REGISTRY, Counter

from kilo.observe.metrics import OUTBOX_PUBLISHED

_published = OUTBOX_PUBLISHED.create(REGISTRY)


def outbox_published(publisher: str) -> Counter:
    """The counter of ``worker`` or ``cdc``."""
    return _published.labels(publisher)
