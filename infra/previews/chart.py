"""The service's objects: the paved road's chart with the service's own values, as a preview has them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from infra import names
from infra.previews.program import DATABASE
from kilo.bus.roles import bus_secret
from kilo.errors import BadInput, Unreachable
from kilo.scaffold.template import Service


def read_values(service: Service) -> dict[str, Any]:
    """The values that the service deploys with.

    Raises:
        BadInput: they can't be read.
    """
    path = service.directory / "deploy" / "values.yaml"
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path}: can't be read ({type(error).__name__}); kilo svc update brings it back"
        raise BadInput(msg) from error
    except (yaml.YAMLError, RecursionError) as error:
        msg = f"{path}: not YAML; helm lint says where"
        raise BadInput(msg) from error
    if not isinstance(found, dict):
        msg = f"{path}: not a mapping; charts/service/values.yaml says what may stand there"
        raise BadInput(msg)
    return found


def preview_values(
    values: Mapping[str, Any], service: str, image: str, monitoring: Mapping[str, Any], *, database: bool
) -> dict[str, Any]:
    """``values`` with what is different in a preview: one copy of one image, a database in the namespace."""
    repository, _, digest = image.partition("@")
    network = dict(values.get("network") or {})
    merged = {
        **values,
        "image": {**(values.get("image") or {}), "repository": repository, "digest": digest},
        "replicas": 1,
        "autoscaling": {"enabled": False},
        "canary": {"digest": ""},
        # Nobody's traffic is to be kept while it stops.
        "probes": {**(values.get("probes") or {}), "drainSeconds": 0},
        "monitoring": {**(values.get("monitoring") or {}), **monitoring},
    }
    if database:
        own = values.get("database") or {}
        merged["database"] = {
            **own,
            "secret": f"{service}-database",
            "network": "",
            "migrate": {**(own.get("migrate") or {}), "secret": f"{service}-database-owner"},
        }
        network["to"] = [*(network.get("to") or []), {"workload": DATABASE, "port": 5432}]
    if values.get("kind") == "consumer":
        merged["bus"] = {"secret": bus_secret("consumer")}
    if values.get("kind", "http") == "http":
        network["from"] = sorted({*(network.get("from") or []), names.GATEWAY})
    merged["network"] = network
    return merged


def render(chart: Path, service: str, namespace: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The objects that the chart makes of ``values``.

    Raises:
        BadInput: the chart refuses the values.
        Unreachable: there is no helm.
    """
    with tempfile.TemporaryDirectory(prefix="kilo-preview-") as folder:
        file = Path(folder, "values.yaml")
        file.write_text(yaml.safe_dump(dict(values)), encoding="utf-8")
        command = [_helm(), "template", service, str(chart), "--values", str(file), "--namespace", namespace]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = "; ".join(lines[-3:]).removeprefix("Error:").strip()
        msg = f"deploy/values.yaml: the chart refuses it: {reason}"
        raise BadInput(msg)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [each for each in yaml.load_all(done.stdout, loader) if each]


def _helm() -> str:
    if found := shutil.which("helm"):
        return found
    # The checkout's own, built once.
    done = subprocess.run(
        [sys.executable, "-m", "kilo.cli", "toolchain", "helm", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        msg = "helm: not on PATH, and kilo toolchain helm did not bring it; the lines above say why"
        raise Unreachable(msg)
    return str(json.loads(done.stdout)["helm"])
