"""A stage's file that names what the bootstrap makes, and the bootstrap's own beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from sandbox.providers.gcp.project import Project

ROOT = Path(__file__).parents[2]
ACCOUNT = "123456789012"
OWN = {
    "aws:region": "eu-central-1",
    "gcp:project": "kilo-dev",
    "gcp:region": "europe-west3",
    "kilo-bootstrap:repository": "kilo-platform/kilo",
    "kilo-bootstrap:state_bucket": "kilo-dev-state-eu",
}
BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/kilo-dev-boundary"


def config() -> dict[str, Any]:
    """dev's, with what the bootstrap asks of it."""
    found: dict[str, Any] = YAML(typ="safe").load(ROOT / "Pulumi.dev.yaml")["config"]
    role = f"arn:aws:iam::{ACCOUNT}:role"
    found["kilo:aws"]["key_administrators"].append(f"{role}/deployer")
    found["kilo:aws"] |= {"key_auditors": [f"{role}/drift"], "permissions_boundary": BOUNDARY}
    project = Project()
    project.name = found["gcp:project"]
    found["kilo:gcp"]["project_number"] = project.number
    return found


def write(directory: Path, found: dict[str, Any]) -> Path:
    """``Pulumi.dev.yaml`` of ``directory``."""
    file = directory / "Pulumi.dev.yaml"
    YAML().dump({"config": found}, file)
    return file
