"""Reads ``kilo:usage`` and the tenants of a stage from its ``Pulumi.<stage>.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from kilo.errors import BadInput
from kilo.traffic.stage_file import load_tenants
from kilo.usage.settings import UsageSettings


def load_usage(path: Path) -> tuple[UsageSettings, list[str]]:
    """The stage's settings of usage, and its tenants.

    Raises:
        BadInput: the file is none of a stage's, or has no ``kilo:usage`` or a wrong one.
    """
    tenants, _ = load_tenants(path)
    try:
        document: Any = YAML(typ="safe").load(path)
    except (OSError, YAMLError) as error:
        msg = f"{path}: can't be read: {error}"
        raise BadInput(msg) from error
    given = document["config"].get("kilo:usage")
    if given is None:
        msg = f"{path}: config.kilo:usage: missing; without it nothing is collected and nothing has a price"
        raise BadInput(msg)
    try:
        settings = UsageSettings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(["usage", *(str(part) for part in first["loc"])])
        msg = f"{path}: config.kilo:{place}: {first['msg']}"
        raise BadInput(msg) from error
    return settings, [tenant.id for tenant in tenants]
