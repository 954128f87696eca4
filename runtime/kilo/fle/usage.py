"""What the keysets of this process did, as metrics: operations, and keys found in memory or fetched.

An operation costs a microsecond, and a labelled counter of the metrics library as much again. So keysets
count with ``itertools.count``, whose ``next`` is one step for the interpreter, and the counts are read
when Prometheus asks. Encryptions are what keys count anyway for their limits: a value counts once for each
4 KiB that it begins.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Iterator
from itertools import count, islice
from typing import Protocol

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from kilo.observe.metrics import FLE_DATA_KEY_CACHE, FLE_OPERATIONS, CounterMetric


class Counting(Protocol):
    """A data key, as far as its messages go."""

    tickets: count[int]


class Uses:
    """A tenant's counts; ``decrypts`` and ``fetches`` are raised by ``next``."""

    __slots__ = ("_before", "_gone", "_keys", "decrypts", "fetches")

    def __init__(self) -> None:
        self.decrypts, self.fetches = count(), count()
        self._keys: weakref.WeakSet[Counting] = weakref.WeakSet()
        self._gone = deque[int]()
        self._before = 0

    def watch(self, key: Counting) -> None:
        """Count what ``key`` encrypts."""
        self._keys.add(key)

    def forget(self, key: Counting) -> None:
        """Keep the count of a key that leaves the memory; safe at any moment that the interpreter chooses."""
        self._gone.append(value_of(key.tickets))

    def encrypts(self) -> int:
        """Messages that were encrypted, by keys that are in memory and by those that were."""
        while self._gone:
            self._before += self._gone.popleft()
        return self._before + sum(value_of(key.tickets) for key in list(self._keys))


_tenants: dict[str, Uses] = {}


def uses_of(tenant: str) -> Uses:
    """The counts of ``tenant``, which all keysets of the process share."""
    return _tenants.setdefault(tenant, Uses())


def raise_by(counter: count[int], times: int) -> None:
    """Raise ``counter`` as often as that."""
    deque(islice(counter, times), maxlen=0)


def value_of(counter: count[int]) -> int:
    """How often ``counter`` was raised; reading it any other way would raise it."""
    return int(repr(counter)[len("count(") : -1])


class UsageCollector(Collector):
    """Hands the counts to Prometheus."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The counters as they are now."""
        operations, cache = _family(FLE_OPERATIONS), _family(FLE_DATA_KEY_CACHE)
        for tenant, uses in list(_tenants.items()):
            encrypts, decrypts = uses.encrypts(), value_of(uses.decrypts)
            operations.add_metric([tenant, "encrypt"], encrypts)
            operations.add_metric([tenant, "decrypt"], decrypts)
            cache.add_metric([tenant, "hit"], encrypts + decrypts)
            cache.add_metric([tenant, "miss"], value_of(uses.fetches))
        yield operations
        yield cache


def _family(metric: CounterMetric) -> CounterMetricFamily:
    return CounterMetricFamily(metric.name, metric.help, labels=metric.labels)


REGISTRY.register(UsageCollector())
# What the parent counted, the parent exports.
os.register_at_fork(after_in_child=_tenants.clear)
