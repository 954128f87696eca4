"""What a dashboard is made of: pages, panels, and the shapes that their queries share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TENANT = 'tenant=~"$tenant"'
"""Narrows a query to the tenants that the viewer chose."""


@dataclass(frozen=True, slots=True)
class Panel:
    """A graph: its unit is Grafana's, its queries stand by their legends."""

    title: str
    unit: str
    queries: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Page:
    """A dashboard; with ``tenants`` the viewer chooses among them."""

    file: str
    title: str
    panels: Sequence[Panel]
    tenants: bool = False


def rate(metric: str, by: str = "", matcher: str = "") -> str:
    """The rate of a counter over five minutes, summed."""
    selector = f"{metric}{{{matcher}}}" if matcher else metric
    return f"sum by ({by}) (rate({selector}[5m]))" if by else f"sum(rate({selector}[5m]))"


def quantile(share: float, histogram: str, by: str = "") -> str:
    """A quantile of a histogram over five minutes."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({histogram}_bucket[5m])))"


def since(timestamp: str, by: str) -> str:
    """Seconds since the newest of a gauge's timestamps."""
    return f"time() - max by ({by}) ({timestamp})" if by else f"time() - max({timestamp})"


def largest(metric: str, by: str, matcher: str = "") -> str:
    """The largest value of a gauge."""
    return f"max by ({by}) ({metric}{{{matcher}}})" if matcher else f"max by ({by}) ({metric})"
