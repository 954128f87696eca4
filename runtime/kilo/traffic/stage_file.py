"""Reads the tenants of a stage from its ``Pulumi.<stage>.yaml``, and sets its tiers' timeouts there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from kilo.errors import BadInput
from kilo.tenancy import Tenant, TenantEntry, TierName, TierPolicy
from kilo.traffic.features import Feature


class _Tenancy(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    tenants: list[TenantEntry]
    tiers: dict[TierName, TierPolicy]
    features: list[Feature] = []


def load_tenants(path: Path) -> tuple[list[Tenant], list[Feature]]:
    """Read ``kilo:tenants``, ``kilo:tiers`` and ``kilo:features`` of a stage's file.

    Raises:
        BadInput: the file can't be read, is not YAML, or has an invalid tenant, tier or feature.
    """
    tenancy = _load(path)
    return [entry.resolve(tenancy.tiers[entry.tier]) for entry in tenancy.tenants], tenancy.features


def load_tiers(path: Path) -> dict[TierName, TierPolicy]:
    """Read ``kilo:tiers`` of a stage's file; raises BadInput as ``load_tenants`` does."""
    return _load(path).tiers


def set_timeouts(path: Path, timeouts_ms: Mapping[TierName, int]) -> None:
    """Write tiers' ``timeout_ms`` into a stage's file, and leave every other character as it is.

    Raises:
        BadInput: the file is none of a stage's.
    """
    _load(path)
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    tiers: Any = YAML().load(text)["config"]["kilo:tiers"]
    for tier, timeout in timeouts_ms.items():
        row, column = tiers[tier].lc.value("timeout_ms")
        old = str(tiers[tier]["timeout_ms"])
        line = lines[row]
        lines[row] = f"{line[:column]}{timeout}{line[column + len(old) :]}"
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text("".join(lines), encoding="utf-8")
    fresh.chmod(path.stat().st_mode)
    fresh.replace(path)


def _load(path: Path) -> _Tenancy:
    try:
        document: Any = YAML(typ="safe").load(path)
    except OSError as error:
        msg = f"{path}: can't be read ({error.strerror}); name a stage's file, such as Pulumi.dev.yaml"
        raise BadInput(msg) from error
    except YAMLError as error:
        msg = f"{path}: not YAML: {error}"
        raise BadInput(msg) from error
    config = document.get("config") if isinstance(document, dict) else None
    settings = config if isinstance(config, dict) else {}
    found = {name: settings[f"kilo:{name}"] for name in _Tenancy.model_fields if f"kilo:{name}" in settings}
    try:
        tenancy = _Tenancy.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        msg = f"{path}: config.kilo:{place}: {first['msg']}"
        raise BadInput(msg) from error
    for number, entry in enumerate(tenancy.tenants):
        if entry.tier not in tenancy.tiers:
            msg = f"{path}: config.kilo:tenants.{number}.tier: {entry.tier} is not among kilo:tiers"
            raise BadInput(msg)
    return tenancy
