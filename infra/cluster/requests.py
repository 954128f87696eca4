"""What pods ask a node for, where a stage asks for less than usual.

A scheduler counts requests and a node shares by them; what a container may use at most is its limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pulumi
from pulumi_kubernetes import core

_AMOUNT = re.compile(r"(\d+)(m|Mi)")
_WORKLOADS = ("Deployment", "StatefulSet", "Job", "CronJob")


def ask_for(percent: int) -> None:
    """Have every workload that is registered from here on ask for ``percent`` of its requests."""
    if percent == 100:
        return

    def changed(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
        if not args.type_.startswith("kubernetes:") or args.type_.rpartition(":")[2] not in _WORKLOADS:
            return None
        for container in _containers(args.props["spec"]):
            requests = container.resources.requests
            container.resources = core.v1.ResourceRequirementsArgs(
                requests={name: less(amount, percent) for name, amount in requests.items()},
                limits=container.resources.limits,
            )
        return pulumi.ResourceTransformationResult(args.props, args.opts)

    pulumi.runtime.register_stack_transformation(changed)


def less(amount: str, percent: int) -> str:
    """``percent`` of an amount in millicores or mebibytes, 1 at least."""
    match = _AMOUNT.fullmatch(amount)
    if match is None:
        msg = f"{amount}: no amount in m or Mi"
        raise ValueError(msg)
    return f"{max(1, int(match[1]) * percent // 100)}{match[2]}"


def _containers(spec: Any) -> Iterator[Any]:
    pod = (spec.job_template.spec if hasattr(spec, "job_template") else spec).template.spec
    yield from pod.containers
    yield from pod.init_containers or ()
