"""The exporter of tenants' objectives: outside the way of requests, so that what is promised is known when
nothing is served.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.pods.config_map import config_map
from components.pods.pod import ConfigFiles
from components.pods.runtime_pod import Process, RuntimeContext, runtime_access, runtime_pod
from components.pods.workload import Workload, WorkloadArgs
from kilo.slo.objectives import OBJECTIVES_FILE

NAME = "objectives-exporter"
PORT = 10_088
_DIRECTORY = "/etc/kilo-objectives"


@dataclass(frozen=True)
class ObjectivesArgs:
    """Where it runs, and the file that it exports."""

    context: RuntimeContext
    objectives: str


class Objectives(pulumi.ComponentResource):
    """The file of objectives and its exporter. A change of the file reaches the pod as it is mounted."""

    def __init__(self, name: str, args: ObjectivesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("kilo:observability:Objectives", name, {}, opts)
        files = {OBJECTIVES_FILE: args.objectives}
        config = config_map(NAME, name, args.context.namespace, files, self, resource=f"{name}-file")
        exporter = Process(
            arguments=["slo", "exporter", "--file", f"{_DIRECTORY}/{OBJECTIVES_FILE}"],
            port=PORT,
            cpu_millicores=20,
            memory_mebibytes=128,
            files=[ConfigFiles(name, _DIRECTORY)],
        )
        Workload(
            NAME,
            WorkloadArgs(
                access=runtime_access(args.context, exporter),
                pod=runtime_pod(args.context, exporter),
                replicas=1,
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[config]),
        )
        self.register_outputs({})
