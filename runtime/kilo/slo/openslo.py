"""Objectives as OpenSLO documents, out and in.

Format: OpenSLO v1, https://github.com/OpenSLO/OpenSLO. One ``SLO`` a tenant and objective, over 30 rolling
days, whose service is the tenant. Taken in are ratios of requests with one target each: an availability,
or with ``value`` (milliseconds) a latency. Left out: everything of OpenSLO that a tenant's ``objective`` does
not say (alert policies, composite and time-slice objectives), which is refused rather than dropped.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any

from ruamel.yaml import YAML, YAMLError

from kilo.errors import BadInput
from kilo.observe import foreign
from kilo.observe.objectives import BUDGET_DAYS
from kilo.slo.status import Standing
from kilo.tenancy import Objective

_API = "openslo/v1"
_REQUESTS, _COUNT = foreign.GATEWAY_REQUESTS.name, foreign.GATEWAY_DURATION_COUNT.name
_BUCKET = foreign.GATEWAY_DURATION_BUCKET.name


def render_openslo(standings: Iterable[Standing], namespace: str) -> str:
    """The documents of objectives, as YAML."""
    text = io.StringIO()
    yaml = YAML()
    yaml.explicit_start = True
    yaml.width = 1_000
    for each in sorted(standings, key=lambda each: (each.tenant, each.objective)):
        yaml.dump(_document(each, namespace), text)
    return text.getvalue()


def _document(standing: Standing, namespace: str) -> dict[str, Any]:
    tenant = standing.tenant
    whose = f'namespace="{namespace}", tenant="{tenant}"'
    if standing.objective == "latency":
        good = f'sum(rate({_BUCKET}{{{whose}, le="{standing.threshold_ms}"}}[5m]))'
        total = f"sum(rate({_COUNT}{{{whose}}}[5m]))"
        objective: dict[str, Any] = {
            "displayName": f"faster than {standing.threshold_ms} ms",
            "op": "lte",
            "value": standing.threshold_ms,
            "target": standing.target,
        }
    else:
        good = f'sum(rate({_REQUESTS}{{{whose}, status!~"5..|429"}}[5m]))'
        total = f'sum(rate({_REQUESTS}{{{whose}, status!="429"}}[5m]))'
        objective = {"displayName": "served", "target": standing.target}
    return {
        "apiVersion": _API,
        "kind": "SLO",
        "metadata": {
            "name": f"{tenant}-{standing.objective}",
            "labels": {"objective": [standing.objective]},
        },
        "spec": {
            "service": tenant,
            "description": f"What {tenant} is promised of {standing.objective}.",
            "indicator": {
                "metadata": {"name": f"{tenant}-{standing.objective}"},
                "spec": {"ratioMetric": {"counter": True, "good": _metric(good), "total": _metric(total)}},
            },
            "timeWindow": [{"duration": f"{BUDGET_DAYS}d", "isRolling": True}],
            "budgetingMethod": "Occurrences",
            "objectives": [objective],
        },
    }


def _metric(query: str) -> dict[str, Any]:
    return {"metricSource": {"type": "Prometheus", "spec": {"query": query}}}


def read_openslo(text: str, place: str) -> dict[str, Objective]:
    """The objective of each tenant that the documents speak of.

    Raises:
        BadInput: a document is no OpenSLO v1 objective of this kind, or a tenant lacks one of its two.
    """
    try:
        documents = [each for each in YAML(typ="safe").load_all(text) if each is not None]
    except YAMLError as error:
        msg = f"{place}: not YAML: {str(error).splitlines()[0]}"
        raise BadInput(msg) from error
    found: dict[str, dict[str, float]] = {}
    for number, document in enumerate(documents, start=1):
        where = f"{place}: document {number}"
        if not isinstance(document, Mapping) or document.get("apiVersion") != _API:
            msg = f"{where}: apiVersion is not {_API}"
            raise BadInput(msg)
        if document.get("kind") == "Service":
            continue
        tenant, values = _read(document, where)
        if twice := found.setdefault(tenant, {}).keys() & values.keys():
            msg = f"{where}: {tenant} has a second {sorted(twice)[0]}"
            raise BadInput(msg)
        found[tenant] |= values
    return {tenant: _objective(tenant, values, place) for tenant, values in found.items()}


def _read(document: Mapping[str, Any], where: str) -> tuple[str, dict[str, float]]:
    try:
        kind, spec = document["kind"], document["spec"]
        tenant, (objective,), (window,) = spec["service"], spec["objectives"], spec["timeWindow"]
        percent = round(float(objective["target"]) * 100, 7)
        threshold = int(objective["value"]) if "value" in objective else None
    except (KeyError, TypeError, ValueError) as error:
        msg = (
            f"{where}: {type(error).__name__}: {error}; kind, spec.service, one of spec.objectives with its "
            "target and one of spec.timeWindow are needed"
        )
        raise BadInput(msg) from error
    if kind != "SLO":
        msg = f"{where}: kind {kind}: an SLO is needed"
        raise BadInput(msg)
    if window != {"duration": f"{BUDGET_DAYS}d", "isRolling": True}:
        msg = f"{where}: spec.timeWindow: {{duration: {BUDGET_DAYS}d, isRolling: true}} is needed"
        raise BadInput(msg)
    if spec.get("budgetingMethod", "Occurrences") != "Occurrences":
        msg = f"{where}: spec.budgetingMethod: only Occurrences is counted"
        raise BadInput(msg)
    if spec.get("alertPolicies"):
        msg = f"{where}: spec.alertPolicies: alerts come from the platform; leave it out"
        raise BadInput(msg)
    if threshold is None:
        return tenant, {"availability_percent": percent}
    return tenant, {"latency_percent": percent, "latency_threshold_ms": threshold}


def _objective(tenant: str, values: Mapping[str, float], place: str) -> Objective:
    if missing := sorted(Objective.model_fields.keys() - values.keys()):
        msg = f"{place}: {tenant}: {', '.join(missing)}: no document says it"
        raise BadInput(msg)
    try:
        return Objective.model_validate(values)
    except ValueError as error:
        msg = f"{place}: {tenant}: {str(error).splitlines()[2].strip()}"
        raise BadInput(msg) from error
