"""What the sandbox reads from the stages' own files, to stand in for what they name.

The program itself reports what is wrong with a stage's file; here a wrong one counts as empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

_ACCOUNT = "123456789012"
"""The AWS account that moto answers for."""


def stage_config(project: Path, stage: str) -> Mapping[str, Any]:
    """The ``config:`` of a stage's file; empty when it can't be read."""
    try:
        return YAML(typ="safe").load(project / f"Pulumi.{stage}.yaml")["config"]
    except (OSError, YAMLError, KeyError, TypeError):
        return {}


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
