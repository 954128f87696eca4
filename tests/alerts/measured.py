"""How long each alert took from its cause to the receiver, and from its end to the word of it."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field

from kilo.observe.alertmanager import render_routes
from kilo.observe.prometheus import Prometheus
from kilo.observe.rules import every_alert
from tests.alerts.receiver import PATIENCE_SECONDS, Receiver
from tests.alerts.shortened import LASTING_SECONDS, seconds

_LASTING_SECONDS = {alert.name: seconds(alert.lasting) for alert in reversed(every_alert())}
_SEVERITY = {alert.name: alert.severity for alert in reversed(every_alert())}


def _grouping_seconds(name: str) -> int:
    """How long Alertmanager gathers as deployed."""
    route = render_routes("")["route"]
    return seconds((route["routes"][0] if _SEVERITY[name] == "page" else route)["groupWait"])


@dataclass
class Told:
    """One alert's times, in seconds."""

    name: str
    labels: dict[str, str]
    detected: float
    mended_at: float
    resolved: float | None = None


@dataclass
class Measured:
    """What the receiver was told of, and when."""

    receiver: Receiver
    prometheus_url: str
    told: list[Told] = field(default_factory=list[Told])

    def prove(
        self,
        *names: str,
        fault: Sequence[AbstractContextManager[object]] = (),
        began: float | None = None,
        **labels: str,
    ) -> None:
        """Cause a fault, wait until ``names`` are told of, and mend it.

        Args:
            names: of the alerts.
            fault: begins where each is entered, and is mended where it is left.
            began: when the fault did, where it is there already.
            labels: of the alerts.
        """
        if began is None:
            # What still fires of an earlier fault would not be told anew.
            self.wait_for_silence(names, labels)
            began = time.monotonic()
        with ExitStack() as causes:
            for cause in fault:
                causes.enter_context(cause)
            detected = [self.receiver.wait("firing", name, began, labels) for name in names]
        now = time.monotonic()
        self.told += [Told(*each, now) for each in zip(names, [labels] * len(names), detected, strict=True)]

    def wait_for_silence(self, names: Collection[str], labels: Mapping[str, str]) -> None:
        """Wait until no such alert fires or is pending."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        with Prometheus(self.prometheus_url) as prometheus:
            while any(
                each["labels"]["alertname"] in names and labels.items() <= each["labels"].items()
                for each in prometheus.get("alerts")["alerts"]
            ):
                assert time.monotonic() < deadline, f"{', '.join(names)} fires before its fault"
                time.sleep(1)

    def resolve(self) -> None:
        """Wait until the receiver was told that each is over."""
        for each in self.told:
            each.resolved = self.receiver.wait("resolved", each.name, each.mended_at, each.labels)

    def table(self) -> list[str]:
        """A line an alert; the last column is what the waits as deployed add to both."""
        head = f"{'alert':<28}{'severity':<10}{'told after':>11}{'resolved after':>16}{'as deployed +':>15}"
        return [head, *(self._row(each) for each in self.told)]

    def _row(self, each: Told) -> str:
        held = _LASTING_SECONDS[each.name]
        added = max(0, held - LASTING_SECONDS) + _grouping_seconds(each.name) - 1
        resolved = "-" if each.resolved is None else f"{each.resolved:.0f} s"
        severity = _SEVERITY[each.name]
        return f"{each.name:<28}{severity:<10}{each.detected:>9.0f} s{resolved:>16}{added:>13} s"
