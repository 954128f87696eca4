"""The service that takes events over HTTP and writes them with their outbox row in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi

from components.clouds.cloud_identity import CloudIdentity
from components.pods.access import From
from components.pods.runtime_pod import HTTP, Process, RuntimeContext, runtime_access, runtime_pod
from components.pods.workload import Workload, WorkloadArgs

PORT = 10_081
NEXT_SUFFIX = "-next"


@dataclass(frozen=True)
class IngestArgs:
    """Where it runs, how many, for whom, and the version under trial if there is one."""

    context: RuntimeContext
    replicas: int
    identity: CloudIdentity
    gateway: str
    """The workload that may connect."""
    next_image: str | None = None
    features: Mapping[str, FeatureVersion] = field(default_factory=dict)
    """Next versions of features, by workload."""


@dataclass(frozen=True)
class FeatureVersion:
    """What runs beside the service for one feature."""

    image: str
    arguments: Sequence[str] | None = None
    """Its command line, instead of the service's own."""


class Ingest(pulumi.ComponentResource):
    """The ingest service, and its next version and those of features beside it during a ramp."""

    workloads: tuple[str, ...]
    """The workloads that the gateway connects to."""

    def __init__(self, name: str, args: IngestArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("kilo:events:Ingest", name, {}, opts)
        self._run(name, args, args.context)
        self.workloads = (name,)
        if args.next_image:
            trial = f"{name}{NEXT_SUFFIX}"
            self._run(trial, args, args.context.with_image(args.next_image))
            self.workloads = (name, trial)
        for workload, version in args.features.items():
            self._run(workload, args, args.context.with_image(version.image), version.arguments)
            self.workloads += (workload,)
        self.register_outputs({"workloads": list(self.workloads)})

    def _run(
        self, name: str, args: IngestArgs, context: RuntimeContext, arguments: Sequence[str] | None = None
    ) -> None:
        process = Process(
            arguments=arguments or ["ingest", "serve"],
            port=PORT,
            # With a command line of its own it is another program, and gets nothing of the service's rights.
            database_role=None if arguments else "ingest",
            identity=None if arguments else args.identity,
            reads_tenants=arguments is None,
            cpu_millicores=250,
            memory_mebibytes=384,
            copies=args.replicas,
        )
        Workload(
            name,
            WorkloadArgs(
                access=runtime_access(context, process, ingress=[From(port=PORT, workload=args.gateway)]),
                pod=runtime_pod(context, process),
                replicas=args.replicas,
                service_ports={HTTP: PORT},
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
