"""What each tenant is promised, as a file for the process that exports it.

The program renders the tenants' objectives and limits into the file, :mod:`kilo.slo.exporter` makes series of
it, and rules join those by tenant and so never name one: a tenant's change reaches them with the next scrape.
Tenants that share a promise share an entry of the file: a ConfigMap has room for ten thousand of them.

Left out: who has no objective. Every tenant has one, from its tier.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from kilo.errors import BadInput
from kilo.tenancy import Objective, Tenant, TenantId

OBJECTIVES_FILE = "objectives.json"


class Promise(BaseModel):
    """An objective and a limit, and the tenants that have both."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    objective: Objective
    requests_per_second: int
    tenants: tuple[TenantId, ...]


class _Promises(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    promises: tuple[Promise, ...]


def render_objectives(tenants: Sequence[Tenant]) -> str:
    """Render the file of all tenants' objectives, as JSON; the same for the same tenants in any order."""
    groups: dict[tuple[Objective, int], list[str]] = {}
    for tenant in sorted(tenants, key=lambda each: each.id):
        groups.setdefault((tenant.objective, tenant.limit.requests_per_second), []).append(tenant.id)
    promises = [
        {"objective": objective.model_dump(), "requests_per_second": limit, "tenants": names}
        for (objective, limit), names in groups.items()
    ]
    return json.dumps({"promises": promises}, separators=(",", ":")) + "\n"


def read_objectives(path: Path) -> tuple[Promise, ...]:
    """Read what :func:`render_objectives` made.

    Raises:
        BadInput: the file can't be read, or says something else.
    """
    try:
        return _Promises.model_validate_json(path.read_bytes()).promises
    except OSError as error:
        msg = f"{path}: {error.strerror or error}; the program renders it as {OBJECTIVES_FILE}"
        raise BadInput(msg) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the document"
        msg = f"{path}: {place}: {first['msg']}"
        raise BadInput(msg) from error


def error_budget(percent: float) -> float:
    """The share of requests that may be bad, of an objective in percent: 99.9 leaves 0.001."""
    return round(1 - percent / 100, 9)
