"""What tenants are promised, as series that the rules join."""

from __future__ import annotations

import pulumi

from components.pods.runtime_pod import RuntimeContext
from components.processes.objectives import Objectives, ObjectivesArgs
from infra.settings import Settings
from kilo.slo.objectives import render_objectives


def create_objectives(settings: Settings, context: RuntimeContext, opts: pulumi.ResourceOptions) -> None:
    """Register the exporter of every tenant's objective and limit."""
    Objectives(
        "objectives",
        ObjectivesArgs(context=context, objectives=render_objectives(settings.resolved_tenants)),
        opts,
    )
