"""The whole program as it is recorded, stage by stage, and what its pods are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from infra.__main__ import deploy
from infra.configuration import read_stage_file
from tests.components.recorder import Recording, record

ROOT = Path(__file__).parents[2]
STAGES = ("dev", "stage", "prod")
WORKLOADS = (
    "kubernetes:apps/v1:Deployment",
    "kubernetes:apps/v1:StatefulSet",
    "kubernetes:batch/v1:Job",
    "kubernetes:batch/v1:CronJob",
)


@cache
def program(stage: str) -> Recording:
    settings = read_stage_file(ROOT / f"Pulumi.{stage}.yaml")
    return record(lambda: deploy(settings), stack=stage)


def pods(recording: Recording) -> Iterator[tuple[str, dict[str, Any]]]:
    for type_ in WORKLOADS:
        for workload in recording.of(type_):
            spec = workload.inputs["spec"]
            if "jobTemplate" in spec:
                spec = spec["jobTemplate"]["spec"]
            yield workload.name, spec["template"]["spec"]


def secret_keys(pod: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """The keys of Secrets that a pod's containers have in their environment."""
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        for variable in container["env"]:
            if key := variable.get("valueFrom", {}).get("secretKeyRef"):
                yield key


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    elif isinstance(value, str):
        yield value
