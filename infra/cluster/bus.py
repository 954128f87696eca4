"""The message bus: NATS JetStream deployed with the stage, or a Kafka that is there already."""

from __future__ import annotations

from urllib.parse import urlsplit

import pulumi

from components.pods.access import CLOUD_APIS_PORT, To
from components.pods.bus_user import BusUsers
from components.pods.runtime_pod import RuntimeContext
from components.processes.message_bus import (
    DATA_DIRECTORY,
    INCLUDE_ACCESS,
    INCLUDE_ROUTE_ACCESS,
    ExistingBus,
    ExistingBusArgs,
    MessageBus,
    MessageBusArgs,
    member_host,
)
from infra import names
from infra.identities import Identities
from infra.outputs import bus_outputs
from infra.settings import Settings
from kilo.bus.config import CLIENT_PORT, ROUTE_PORT, render_nats_config


def create_bus(
    settings: Settings, context: RuntimeContext, opts: pulumi.ResourceOptions
) -> MessageBus | ExistingBus:
    """Register the bus with its streams."""
    bus = settings.bus
    if bus.kafka:
        return ExistingBus(
            names.KAFKA, ExistingBusArgs(context, bus_egress(settings), _streams_arguments(settings)), opts
        )
    return MessageBus(
        names.BUS,
        MessageBusArgs(
            context=context,
            image=settings.images.nats,
            replicas=bus.replicas,
            storage_gibibytes=bus.storage_gib,
            storage_class=bus.storage_class,
            config=_nats_config(settings),
            bus=bus_outputs(settings),
            streams_arguments=_streams_arguments(settings),
            clients=names.BUS_CLIENTS,
            # A quorum that survives a node. Elsewhere a cluster may have fewer nodes than members.
            apart=settings.is_prod,
            generation=bus.credentials.generation,
            former_accepted=bus.credentials.former_accepted,
        ),
        opts,
    )


def bus_users(settings: Settings, identities: Identities) -> BusUsers | None:
    """The users that pods are; ``None`` where the bus knows none."""
    credentials = settings.bus.credentials
    if settings.bus.kafka is None:
        former = " and the former" if credentials.former_accepted else ""
        return BusUsers(f"{credentials.generation}{former}")
    access = settings.bus.kafka.access
    if access is None:
        return None
    return BusUsers(
        str(access.generation),
        access.secret_names,
        access.shown,
        named=False,
        token_url=access.tokens and access.tokens.endpoint,
        token_scope=access.tokens and access.tokens.scope,
        aws_region=access.msk_region,
        identities=identities.bus,
    )


def bus_egress(settings: Settings) -> list[To]:
    """What a client of the bus connects to."""
    kafka = settings.bus.kafka
    if kafka is None:
        return [To(port=CLIENT_PORT, workload=names.BUS)]
    ports = sorted({int(broker.rpartition(":")[2]) for broker in kafka.brokers})
    reached = [To(port=port, network=kafka.network) for port in ports]
    if kafka.access and (tokens := kafka.access.tokens):
        reached.append(To(port=urlsplit(tokens.endpoint).port or CLOUD_APIS_PORT, network=tokens.network))
    return reached


def _nats_config(settings: Settings) -> str:
    """``nats.conf``. A single member has nobody to route to."""
    bus = settings.bus
    members = [member_host(names.BUS, index, settings.namespace) for index in range(bus.replicas)]
    return render_nats_config(
        store_directory=DATA_DIRECTORY,
        storage_gibibytes=bus.storage_gib,
        cluster_name=f"kilo-{settings.stage}",
        routes=[f"nats-route://{host}:{ROUTE_PORT}" for host in members] if bus.replicas > 1 else [],
        access=INCLUDE_ACCESS,
        route_access=INCLUDE_ROUTE_ACCESS,
    )


def _streams_arguments(settings: Settings) -> list[str]:
    """The command line that declares the streams."""
    bus = settings.bus
    limits = {"replicas": bus.replicas, "retention-days": bus.retention_days}
    if bus.kafka is None:
        # The rest of the disk is for heartbeats and the server's own bookkeeping.
        limits["max-gibibytes"] = max(1, bus.storage_gib * 3 // 4)
    return ["bus", "apply", *(f"--{name}={value}" for name, value in limits.items())]
