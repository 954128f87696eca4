"""Comparing both registries now and then, for the drift metrics that alerts look at.

In the mirror worker rather than in the sweep: a CronJob is gone before anything could scrape it.
"""

from __future__ import annotations

import logging
import threading
import time

from runtime.contract import RegistriesOutputs
from runtime.registry.client import Registries
from runtime.registry.drift import Kind, compare
from runtime.registry.mirror import MirrorMetrics, Sides

log = logging.getLogger(__name__)


def watch_drift(
    outputs: RegistriesOutputs, instruments: MirrorMetrics, every_seconds: float, stopping: threading.Event
) -> None:
    """Compare every repository of ``outputs`` each ``every_seconds`` until ``stopping`` is set."""
    sides = Sides(outputs)
    while True:
        registries = Registries(connections=4)
        reached = True
        for name in sides.repositories:
            source, destination = sides.pair(name)
            comparison = compare(registries, source, destination, blobs=False, jobs=2)
            instruments.compared(name, comparison)
            reached = reached and not comparison.counts()[Kind.UNREACHABLE]
            for finding in comparison.findings:
                log.warning(
                    "%s %s:%s %s", finding.kind.value, finding.repository, finding.tag, finding.detail
                )
        if reached:
            instruments.sweep.set(time.time())
        if stopping.wait(every_seconds):
            return
