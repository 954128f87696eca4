"""Makes the data keys that tenants with encrypted fields don't have yet, once an `up` that changes tenants.

No process that serves requests may make keys: this Job may encrypt under the tenants' KMS keys and add to the
key table, and can read neither events nor what is encrypted in them.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.clouds.cloud_identity import CloudIdentity
from components.pods.runtime_pod import Process, RuntimeContext, runtime_access, runtime_pod
from components.pods.task import Task, TaskArgs

KEY_MAKING = "key-making"


@dataclass(frozen=True)
class KeyMakingArgs:
    """Where it runs, and as whom."""

    context: RuntimeContext
    identity: CloudIdentity


class KeyMaking(pulumi.ComponentResource):
    """The Job that makes keys. ``pulumi up`` waits until it has."""

    def __init__(self, name: str, args: KeyMakingArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("kilo:data:KeyMaking", name, {}, opts)
        process = Process(
            arguments=["fle", "keys", "make"],
            database_role="keymaker",
            identity=args.identity,
            reads_tenants=True,
            cpu_millicores=100,
            memory_mebibytes=256,
        )
        Task(
            KEY_MAKING,
            TaskArgs(
                access=runtime_access(args.context, process),
                pod=runtime_pod(args.context, process),
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
