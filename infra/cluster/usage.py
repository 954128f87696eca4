"""What tenants use: the counter of the platform's own counts. Collectors stand beside the gateways."""

from __future__ import annotations

import pulumi

from components.pods.runtime_pod import RuntimeContext
from components.processes.usage import COUNTER, UsageCounter, UsageCounterArgs
from infra.settings import Settings


def create_usage(settings: Settings, context: RuntimeContext, opts: pulumi.ResourceOptions) -> None:
    """Register the counter, if the stage collects usage."""
    if settings.usage:
        UsageCounter(COUNTER, UsageCounterArgs(context, settings.monitoring.prometheus_url), opts)
