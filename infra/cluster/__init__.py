"""Cluster: the stage's namespace and the platform's own processes.

Takes the settings, the identities, the clouds and the outputs; gives the namespace, in which all of it
stands. Each module here is one part of the picture, with the renderings of its config files.
"""

from __future__ import annotations

import pulumi

from components.pods.runtime_pod import RuntimeContext
from components.pods.stage_namespace import StageNamespace, StageNamespaceArgs
from infra.clouds import Clouds
from infra.cluster.bus import bus_users, create_bus
from infra.cluster.database import create_database, database_address
from infra.cluster.events import create_events
from infra.cluster.gateway import create_gateway
from infra.cluster.objectives import create_objectives
from infra.cluster.rate_limits import create_rate_limits
from infra.cluster.schedules import create_schedules
from infra.cluster.traces import collector_url, create_traces
from infra.cluster.usage import create_usage
from infra.identities import Identities
from infra.outputs import Outputs
from infra.settings import Settings


def create_cluster(
    settings: Settings, identities: Identities, clouds: Clouds, outputs: Outputs
) -> StageNamespace:
    """Register the namespace and all that runs in it."""
    namespace = create_namespace(settings, outputs.json)
    context = RuntimeContext(
        namespace=settings.namespace,
        image=settings.images.runtime,
        aws_region=settings.aws.region,
        google_project=settings.gcp.project,
        outputs_checksum=outputs.checksum,
        tenants_checksum=outputs.tenants_checksum,
        database_network=settings.database.network,
        database=database_address(settings.database),
        monitoring_namespace=settings.monitoring.namespace,
        collector_url=collector_url(settings),
        database_generation=settings.database.credentials.generation,
        bus_users=bus_users(settings, identities),
    )
    inside = pulumi.ResourceOptions(depends_on=[namespace])
    create_traces(settings, inside)
    bus = create_bus(settings, context, inside)
    database = create_database(settings, context, identities.schema, inside)
    ready = pulumi.ResourceOptions(depends_on=[namespace, bus, database])
    ingest = create_events(settings, context, identities, ready)
    reached = pulumi.ResourceOptions(depends_on=[namespace, database]) if settings.usage else inside
    create_rate_limits(settings, inside)
    create_gateway(settings, ingest.workloads, reached)
    create_usage(settings, context, ready)
    create_objectives(settings, context, inside)
    create_schedules(settings, context, identities, clouds, inside=inside, ready=ready)
    return namespace


def create_namespace(settings: Settings, outputs_json: pulumi.Input[str]) -> StageNamespace:
    """Register the namespace with what every process of the stage reads."""
    return StageNamespace(
        "namespace",
        StageNamespaceArgs(
            namespace=settings.namespace,
            stage=settings.stage,
            outputs_json=outputs_json,
            database_ca=settings.database.ca,
            google_identity_provider=settings.gcp.workload_identity_provider,
        ),
    )
