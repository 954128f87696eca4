"""Comparing both registries now and then, for the metrics that alerts look at.

In the mirror worker rather than in the sweep: a CronJob is gone before anything could scrape it. A sweep
that does not run, or does not manage, shows here as what is still missing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from kilo.contract import RegistriesOutputs
from kilo.errors import CheckFailed, KiloError
from kilo.registry.client import Registries
from kilo.registry.drift import Comparison, Kind, compare
from kilo.registry.graph import RepositoryView
from kilo.registry.mirror import MirrorMetrics, Sides
from kilo.registry.reference import Reference
from kilo.registry.sync import Policy

_PATIENCE_SECONDS = 60.0
_PARKED = "ApproximateNumberOfMessages"

log = logging.getLogger(__name__)


class Watch:
    """Compares every repository of a stage and looks at its dead-letter queue."""

    def __init__(
        self, outputs: RegistriesOutputs, instruments: MirrorMetrics, policy: Policy | None = None
    ) -> None:
        self._sides = Sides(outputs)
        self._instruments = instruments
        self._policy = policy
        self._dead_letters = outputs.push_dead_letter_queue_url
        self._queue: Any = boto3.client("sqs", region_name=outputs.primary.location)

    def run(self, every_seconds: float, stopping: threading.Event) -> None:
        """Look each ``every_seconds`` until ``stopping`` is set."""
        while True:
            self.look()
            if stopping.wait(every_seconds):
                return

    def look(self) -> None:
        """Compare all repositories once and export what is found."""
        registries = Registries(connections=4, patience_seconds=_PATIENCE_SECONDS)
        compared = [self._compare(registries, name) for name in self._sides.repositories]
        if all(compared):
            self._instruments.compared_all.set(time.time())
        if self._dead_letters:
            try:
                answer = self._queue.get_queue_attributes(
                    QueueUrl=self._dead_letters, AttributeNames=[_PARKED]
                )
                self._instruments.parked.set(int(answer["Attributes"][_PARKED]))
            except (BotoCoreError, ClientError) as error:
                log.warning("dead-letter queue: %s", error)

    def _compare(self, registries: Registries, name: str) -> bool:
        """Compare one repository; says whether all of it could be."""
        source, destination = self._sides.pair(name)
        comparison = compare(registries, source, destination, blobs=False, jobs=2)
        refused = self._refused(registries, source, comparison)
        differing = [finding for finding in comparison.findings if finding.tag not in refused]
        counts = Counter(finding.kind for finding in differing)
        self._instruments.compared(name, counts, len(refused))
        for finding in differing:
            log.warning("%s %s:%s %s", finding.kind.value, finding.repository, finding.tag, finding.detail)
        for tag in sorted(refused):
            log.warning("QUARANTINED %s:%s is not signed as required", source.name, tag)
        here, there = registries.repository(source), registries.repository(destination)

        def is_settled(digest: str, tag: str | None) -> bool:
            try:
                found = there.resolve(tag or digest)
                return (found is not None and found[0] == digest) or here.resolve(tag or digest) is None
            except KiloError:
                return False

        self._instruments.settle(name, is_settled)
        return not counts[Kind.UNREACHABLE]

    def _refused(self, registries: Registries, source: Reference, comparison: Comparison) -> set[str]:
        """Tags that the secondary lacks because their image is not signed as required."""
        policy = self._policy
        if policy is None:
            return set()
        view = RepositoryView(registries.repository(source))

        def is_refused(tag: str) -> bool:
            try:
                found = view.repository.resolve(tag)
                if found is not None:
                    policy.check(view, view.graph(*found))
            except CheckFailed:
                return True
            except KiloError:
                return False
            return False

        missing = {finding.tag for finding in comparison.findings if finding.kind is Kind.MISSING}
        return {tag for tag in missing if is_refused(tag)}
