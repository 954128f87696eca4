"""What is shortened so that an alert can be waited for, and nothing else: every query asks the same.

A stage is deployed as it is, and its objects are then changed in the cluster. Detection times are printed as
measured, beside what the waits as deployed add to them.
"""

from __future__ import annotations

import re
from typing import Any

LASTING_SECONDS = 2
"""Every ``for:`` that is longer."""
GROUPING = {"groupWait": "1s", "groupInterval": "1s"}
"""How long Alertmanager gathers."""
EVALUATION, SCRAPE = "2s", "2s"
WINDOWS = {
    "FleDecryptFailures": ("10m", "1m"),
    "GatewayConfigRejected": ("15m", "1m"),
    "ConsumerStalled": ("5m", "1m"),
    "LimitsUncounted": ("5m", "1m"),
    # `kilo up` asks for each tenant, and is answered.
    "TenantUnserved": ("30m", "5m"),
}
"""How far back these look, which is how long they go on after their cause has ended."""
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_AS_IT_IS = ("kilo-tenant-sums", "kilo-tenant-month")
"""Groups of records whose steps are part of what they mean."""


def seconds(duration: str) -> int:
    """A Prometheus duration of one unit."""
    return int(duration[:-1]) * _UNITS[duration[-1]]


def shorten_rules(spec: dict[str, Any]) -> None:
    """Shorten a PrometheusRule in place."""
    for group in spec["groups"]:
        if group["name"] not in _AS_IT_IS:
            group["interval"] = EVALUATION
        for rule in group["rules"]:
            if (name := rule.get("alert")) is None:
                continue
            rule["for"] = f"{min(seconds(rule['for']), LASTING_SECONDS)}s"
            if name in WINDOWS:
                rule["expr"] = _window(rule["expr"], *WINDOWS[name])


def _window(query: str, deployed: str, shorter: str) -> str:
    query = re.sub(rf"\[{deployed}\]", f"[{shorter}]", query)
    query = re.sub(rf"(\boffset |:rate){deployed}\b", rf"\g<1>{shorter}", query)
    # Growth asks whether a process is younger than the window, and a rate is made a count by it.
    return re.sub(rf"(?<=[-<*] ){seconds(deployed)}\b", str(seconds(shorter)), query)


def shorten_routes(spec: dict[str, Any]) -> None:
    """Shorten an AlertmanagerConfig in place.

    Groups of another name besides: what a receiver was told of before is told again.
    """
    for route in (spec["route"], *spec["route"]["routes"]):
        route.update(GROUPING, groupBy=sorted({*route["groupBy"], "stage", "severity"}))
