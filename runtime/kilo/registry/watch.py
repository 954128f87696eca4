"""Comparing both registries now and then, for the metrics that alerts look at.

In the mirror worker rather than in the sweep: a CronJob is gone before anything could scrape it. A sweep
that does not run, or does not manage, shows here as what is still missing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from functools import partial
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from kilo.contract import RegistriesOutputs
from kilo.errors import CheckFailed, KiloError
from kilo.registry.client import Registries
from kilo.registry.drift import Comparison, Finding, Kind, compare
from kilo.registry.errors import Unreadable, Untrustworthy
from kilo.registry.graph import RepositoryView
from kilo.registry.mirror import MirrorMetrics, Sides
from kilo.registry.reference import Reference
from kilo.registry.supervision import attempt, repeat
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
        """Compare each ``every_seconds`` until ``stopping`` is set."""
        repeat("comparison", self.compare_all, every_seconds, stopping, self._instruments.count_failure)

    def compare_all(self) -> None:
        """Compare all repositories once and export what is found. One that fails does not stop the others."""
        registries = Registries(connections=4, patience_seconds=_PATIENCE_SECONDS)
        complete: list[str] = []

        def compare_one(name: str) -> None:
            if self._compare(registries, name):
                complete.append(name)

        for name in self._sides.repositories:
            attempt("comparison", partial(compare_one, name), self._instruments.count_failure)
        if len(complete) == len(self._sides.repositories):
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
        quarantined = self._quarantined(registries, source, comparison)
        differing = [finding for finding in comparison.findings if finding not in quarantined]
        counts = Counter(finding.kind for finding in differing)
        self._instruments.export_findings(name, counts, len({finding.tag for finding in quarantined}))
        for finding in differing:
            log.warning("%s %s:%s %s", finding.kind.value, finding.repository, finding.tag, finding.detail)
        for finding in quarantined:
            what = f" its attachment {finding.attachment}" if finding.attachment else ""
            log.warning("QUARANTINED %s:%s%s is not signed as required", source.name, finding.tag, what)
        here, there = registries.repository(source), registries.repository(destination)

        def is_mirrored(digest: str, tag: str | None) -> bool:
            try:
                found = there.resolve(tag or digest)
                return (found is not None and found[0] == digest) or here.resolve(tag or digest) is None
            except KiloError:
                return False

        self._instruments.drop_mirrored(name, is_mirrored)
        return not counts[Kind.UNREACHABLE]

    def _quarantined(
        self, registries: Registries, source: Reference, comparison: Comparison
    ) -> list[Finding]:
        """What the secondary lacks because it is not signed as required: images, and attachments that run."""
        policy = self._policy
        lacking = [f for f in comparison.findings if f.kind in {Kind.MISSING, Kind.MISSING_ATTESTATION}]
        if policy is None or not lacking:
            return []
        view = RepositoryView(registries.repository(source))
        refused = {tag: _refused(policy, view, tag) for tag in {finding.tag for finding in lacking}}
        return [
            finding
            for finding in lacking
            if (names := refused[finding.tag]) is None or finding.attachment in names
        ]


def _refused(policy: Policy, view: RepositoryView, tag: str) -> set[str] | None:
    """The tag's attachments that the policy refuses; None where it refuses the image itself."""
    try:
        found = view.repository.resolve(tag)
        if found is None:
            return set()
        graph = view.graph(*found)
        kept = graph.leave_out(policy.check(view, graph))
    except CheckFailed as error:
        return set() if isinstance(error, Unreadable | Untrustworthy) else None
    except KiloError:
        return set()
    return {name for _, name, _ in graph.attachments()} - {name for _, name, _ in kept.attachments()}
