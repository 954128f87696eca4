"""The reference of metrics and alerts."""

from __future__ import annotations

from kilo.observe.metrics import CATALOGUE
from kilo.observe.rules import every_alert
from reference.tables import HEAD, table


def metrics_page() -> str:
    """The page of metrics."""
    rows = [
        (f"`{each.name}`", each.kind, ", ".join(f"`{name}`" for name in each.labels), each.help)
        for each in sorted(CATALOGUE.values(), key=lambda each: each.name)
    ]
    return (
        f"{HEAD}# Metrics\n\nWhat the platform's processes export at `/metrics`, read from "
        "`runtime/kilo/observe/metrics.py`; a test holds every query of rules and dashboards against it. "
        "[Observability](../observability.md) says what they are for.\n\n"
        + table(["metric", "kind", "labels", "what it says"], rows)
    )


def alerts_page() -> str:
    """The page of alerts."""
    alerts = sorted({each.name: each for each in every_alert()}.values(), key=lambda each: each.name)
    rows = [
        (f"[{each.name}](../runbooks/{each.name}.md)", each.severity, each.lasting, f"`{each.summary}`")
        for each in alerts
    ]
    return (
        f"{HEAD}# Alerts\n\nA *page* wakes a person now, a *ticket* waits for the working day. Each leads to "
        "its runbook.\n\n" + table(["alert", "severity", "after", "what it says"], rows)
    )
