"""What the sandbox reads from the stages' own files, to stand in for what they name.

The program itself reports what is wrong with a stage's file; here a wrong one counts as empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

DEV = "dev"
"""The stage that runs in the sandbox."""
_ACCOUNT = "123456789012"
"""The AWS account that moto answers for."""
ACCOUNT_VARIABLE = "KILO_SANDBOX_ACCOUNT"
PROJECT_NUMBER_VARIABLE = "KILO_SANDBOX_PROJECT_NUMBER"


def stage_config(project: Path, stage: str) -> Mapping[str, Any]:
    """The ``config:`` of a stage's file; empty when it can't be read."""
    try:
        return YAML(typ="safe").load(project / f"Pulumi.{stage}.yaml")["config"]
    except (OSError, YAMLError, KeyError, TypeError):
        return {}


def contexts_of(project: Path) -> list[str]:
    """The contexts of the kubeconfig that the stages name."""
    named = (stage_config(project, stage).get("kubernetes:context") for stage in stages(project))
    return [str(context) for context in named if context]


def identity_of(project: Path, stage: str) -> dict[str, str]:
    """The variables by which the sandbox's providers stand in for a stage's own account and project."""
    config = stage_config(project, stage)
    gcp = config.get("kilo:gcp")
    found: dict[str, str] = {}
    with suppress(KeyError, TypeError):
        found[ACCOUNT_VARIABLE] = str(config["kilo:aws"]["account_id"])
    if isinstance(gcp, Mapping):
        pool = str(gcp.get("workload_identity_provider", "")).split("/")
        number = gcp.get("project_number") or (pool[1] if len(pool) > 1 else None)
        if number:
            found[PROJECT_NUMBER_VARIABLE] = str(number)
    return found


def region_of(project: Path, stage: str) -> str:
    """The stage's AWS region, AWS's own default where its file names none."""
    return str(stage_config(project, stage).get("aws:region", "us-east-1"))


def stages(project: Path) -> list[str]:
    """The stages that have a file."""
    files = sorted(project.glob("Pulumi.*.yaml"))
    return [file.name.removeprefix("Pulumi.").removesuffix(".yaml") for file in files]


def write_registries_conf(path: Path, project: Path, primary: str, secondary: str) -> None:
    """Send the registries of every stage's regions to the sandbox's own (containers-registries.conf(5))."""
    entries: list[str] = []
    for stage in stages(project):
        config = stage_config(project, stage)
        if "aws:region" in config:
            host = f"{_ACCOUNT}.dkr.ecr.{config['aws:region']}.amazonaws.com"
            entries.append(_entry(host, primary))
        if "gcp:region" in config:
            entries.append(_entry(f"{config['gcp:region']}-docker.pkg.dev", secondary))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(dict.fromkeys(entries)), encoding="utf-8")


def _entry(prefix: str, url: str) -> str:
    location = url.removeprefix("http://")
    return f'[[registry]]\nprefix = "{prefix}"\nlocation = "{location}"\ninsecure = true\n'
