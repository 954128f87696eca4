"""Grafana dashboards, rendered as the JSON that Grafana's dashboard sidecar loads.

Stage and tenants are variables of the page, so a dashboard does not grow with them. Left out: colours and
thresholds, since it is the alerts that say when a value is bad.

Format: Grafana's classic dashboard model, schema version 39
(https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/).
"""

from __future__ import annotations

import json
from typing import Any

from kilo.observe import foreign, metrics
from kilo.observe.annotations import ANNOTATIONS, Annotation
from kilo.observe.pages import PAGES
from kilo.observe.panels import Page, Panel
from kilo.observe.rules import recorded_names
from kilo.observe.scope import NAMESPACE_VARIABLE, scoped

_COLUMNS = 2
_WIDTH, _HEIGHT = 24 // _COLUMNS, 8
_SOURCE = {"type": "prometheus", "uid": "${source}"}


def render_dashboards() -> dict[str, str]:
    """Render every dashboard, by file name."""
    return {f"{page.file}.json": json.dumps(_render(page), indent=1) + "\n" for page in PAGES}


def _render(page: Page) -> dict[str, Any]:
    return {
        "uid": f"kilo-{page.file}",
        "title": f"Kilo / {page.title}",
        "tags": ["kilo"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": _variables(page)},
        "annotations": {"list": [_annotation(each) for each in ANNOTATIONS]},
        "panels": [_panel(number, panel) for number, panel in enumerate(page.panels)],
    }


def _annotation(annotation: Annotation) -> dict[str, Any]:
    """https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/annotate-visualizations/"""
    return {
        "name": annotation.name,
        "datasource": _SOURCE,
        "enable": True,
        "iconColor": "blue",
        "expr": scoped(f"({annotation.query}) * 1000", NAMESPACE_VARIABLE, recorded_names()),
        # The value is the moment, in milliseconds.
        "useValueForTime": True,
        "step": "60s",
        "titleFormat": annotation.name,
        "textFormat": annotation.text,
    }


def _variables(page: Page) -> list[dict[str, Any]]:
    source = {"name": "source", "label": "Data source", "type": "datasource", "query": "prometheus"}
    namespace = {
        "name": "namespace",
        "label": "Stage",
        "type": "query",
        "datasource": _SOURCE,
        "query": f"label_values({metrics.OBJECTIVE_BUDGET.name}, namespace)",
        "refresh": 1,
        "sort": 1,
    }
    if not page.tenants:
        return [source, namespace]
    tenants = {
        "name": "tenant",
        "label": "Tenant",
        "type": "query",
        "datasource": _SOURCE,
        "query": f'label_values({foreign.GATEWAY_REQUESTS.name}{{{NAMESPACE_VARIABLE}, tenant!=""}}, tenant)',
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": "All", "value": "$__all"},
    }
    return [source, namespace, tenants]


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, _COLUMNS)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": _SOURCE,
        "gridPos": {"h": _HEIGHT, "w": _WIDTH, "x": column * _WIDTH, "y": row * _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": _SOURCE,
                "expr": scoped(query, NAMESPACE_VARIABLE, recorded_names()),
                "legendFormat": legend,
            }
            for place, (legend, query) in enumerate(panel.queries.items())
        ],
    }
