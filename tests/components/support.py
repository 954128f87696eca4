"""A pod, a workload of it and the runtime that pods run in, for the tests of pods and of processes."""

from __future__ import annotations

from typing import Any

import pulumi

from components.pods.access import AccessArgs
from components.pods.database_address import DatabaseAddress
from components.pods.pod import HttpCheck, PodArgs
from components.pods.runtime_pod import RuntimeContext
from components.pods.workload import Workload, WorkloadArgs
from tests.components.recorder import Recording, record

DEPLOYMENT = "kubernetes:apps/v1:Deployment"


DATABASE = DatabaseAddress("db.example", 5433, "kilo", "require")


def pod(**more: Any) -> PodArgs:
    given: dict[str, Any] = {
        "image": "registry.example/shop:1.0.0",
        "arguments": ["serve"],
        "ports": {"http": 8080},
        "alive": HttpCheck("/livez", "http"),
        "ready": HttpCheck("/readyz", "http"),
        "cpu_millicores": 250,
        "memory_mebibytes": 256,
    }
    return PodArgs(**{**given, **more})


def workload(access: AccessArgs | None = None, **more: Any) -> Recording:
    return record(
        lambda: Workload(
            "shop",
            WorkloadArgs(
                access=access or AccessArgs(namespace="kilo"),
                pod=pod(**more),
                replicas=2,
                service_ports={"http": 80},
            ),
        )
    )


def template(recording: Recording, type_: str = DEPLOYMENT) -> dict[str, Any]:
    return recording.one(type_).inputs["spec"]["template"]


def runtime_context(checksum: str = "abc", tenants: str = "def") -> RuntimeContext:
    return RuntimeContext(
        namespace="kilo",
        image="registry.example/kilo:0.1.0",
        aws_region="eu-central-1",
        google_project="kilo-dev",
        outputs_checksum=pulumi.Output.from_input(checksum),
        tenants_checksum=pulumi.Output.from_input(tenants),
        database_network="10.0.0.0/16",
        database=DATABASE,
        monitoring_namespace="monitoring",
    )
