"""A preview's resources: its namespace, a database, a bus and a gateway of its own, and the service in it.

::

    HTTP ─> gateway ─> the service ─> database of its own ─> outbox worker ─> bus of its own ─> consumer

The service comes as its chart renders it, as at any stage. All of it is of the namespace and goes with it;
outside of it there is the key of its tenant alone, where the service encrypts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial

import pulumi
from pulumi_kubernetes import core, meta, networking

from components.clouds.cloud_identity import CloudIdentity
from components.pods.access import AccessArgs, To
from components.pods.bus_user import BusUsers
from components.pods.database_address import DatabaseAddress
from components.pods.database_role import URL_KEY
from components.pods.labels import labels, service_host
from components.pods.pod import ConfigFiles, PodArgs, Scratch, SecretKey
from components.pods.runtime_pod import RuntimeContext
from components.pods.task import Task, TaskArgs
from components.processes.consumer import Consumer, ConsumerArgs
from components.processes.database_roles import (
    DatabaseRoles,
    DatabaseRolesArgs,
    GivenAdministrator,
    schema_checksum,
)
from components.processes.key_making import KEY_MAKING, KeyMaking, KeyMakingArgs
from components.processes.message_bus import INCLUDE_ACCESS, MessageBus, MessageBusArgs
from components.processes.outbox import Outbox, OutboxArgs
from components.processes.own_database import DATABASE as DATABASE_NAME
from components.processes.own_database import PORT as DATABASE_PORT
from components.processes.own_database import OwnDatabase, OwnDatabaseArgs
from components.processes.preview_environment import PreviewEnvironment, PreviewEnvironmentArgs
from components.processes.tenant_gateway import LISTENER_PORT, TenantGateway, TenantGatewayArgs, gateway_url
from infra import names
from infra.previews.keys import create_keys
from infra.previews.outputs import bus_outputs, no_key, render_outputs
from infra.previews.service_objects import ServiceObjects
from infra.previews.settings import ADDRESS_OUTPUT, DATABASE_OUTPUT, OUTPUT, PreviewSettings
from kilo.bus.config import CLIENT_PORT, render_nats_config
from kilo.traffic.settings import GatewaySettings, Upstream

DATABASE = "postgres"
SCHEMA = "schema"
SEED = "seed"
_SEED_DIRECTORY = "/etc/seed"
_SEED_FILE = "seed.sql"
_BUS_GIBIBYTES = 2
RESERVED = frozenset(
    {
        DATABASE,
        KEY_MAKING,
        SCHEMA,
        SEED,
        names.BUS,
        names.GATEWAY,
        names.CONSUMER,
        f"{names.OUTBOX}-worker",
        "bus-streams",
    }
)
"""What the other workloads of the namespace are called."""


def deploy(settings: PreviewSettings) -> None:
    """Register everything that the preview consists of, and export what is known of it."""
    database_host = service_host(DATABASE, settings.namespace)
    keys = create_keys(settings, settings.encryption) if settings.encryption else None
    outputs = render_outputs(settings, database_host, keys.reference if keys else no_key(settings))
    environment = PreviewEnvironment(
        settings.name, PreviewEnvironmentArgs(settings.namespace, settings.expires, outputs)
    )
    inside = pulumi.ResourceOptions(depends_on=[environment])
    context = _context(settings, outputs)
    before: list[pulumi.Resource] = [environment]
    migrated: list[pulumi.Resource] = [environment]
    if settings.has_database:
        database = _database(settings, inside)
        pulumi.export(DATABASE_OUTPUT, pulumi.Output.secret(database.admin_url))
        schema = DatabaseRoles(
            "database",
            DatabaseRolesArgs(context, GivenAdministrator(database.admin_url), schema_checksum()),
            pulumi.ResourceOptions(depends_on=[database]),
        )
        bus = _bus(settings, context, inside)
        ready = pulumi.ResourceOptions(depends_on=[schema, bus])
        _events(settings, context, keys.consumer if keys else None, ready)
        migrated.append(schema)
        before += [schema, bus]
        if keys:
            before.append(KeyMaking("key-making", KeyMakingArgs(context, keys.key_making), ready))
    ServiceObjects(
        settings,
        migrations_after=migrated,
        workloads_after=before,
        seed=partial(_seed, settings, settings.seed) if settings.seed and settings.has_database else None,
    )
    if settings.kind == "http":
        _gateway(settings, inside)
    pulumi.export(ADDRESS_OUTPUT, _address(settings))
    pulumi.export(OUTPUT, settings.model_dump(mode="json"))


def _context(settings: PreviewSettings, outputs: pulumi.Output[str]) -> RuntimeContext:
    checksum = outputs.apply(lambda text: hashlib.sha256(text.encode()).hexdigest())
    return RuntimeContext(
        namespace=settings.namespace,
        image=settings.images.runtime,
        aws_region=settings.aws_region,
        google_project="",
        outputs_checksum=checksum,
        tenants_checksum=checksum,
        database_network="",
        database=DatabaseAddress(service_host(DATABASE, settings.namespace), DATABASE_PORT, DATABASE_NAME),
        monitoring_namespace=settings.monitoring_namespace,
        database_workload=DATABASE,
        bus_users=BusUsers("1"),
    )


def _database(settings: PreviewSettings, opts: pulumi.ResourceOptions) -> OwnDatabase:
    clients = [
        SCHEMA,
        KEY_MAKING,
        SEED,
        f"{names.OUTBOX}-worker",
        names.CONSUMER,
        settings.service,
        f"{settings.service}-migrate",
    ]
    args = OwnDatabaseArgs(
        namespace=settings.namespace,
        image=settings.images.runtime,
        service=settings.service,
        clients=clients,
        storage_class=settings.storage_class,
    )
    return OwnDatabase(DATABASE, args, opts)


def _bus(settings: PreviewSettings, context: RuntimeContext, opts: pulumi.ResourceOptions) -> MessageBus:
    return MessageBus(
        names.BUS,
        MessageBusArgs(
            context=context,
            image=settings.images.nats,
            replicas=1,
            storage_gibibytes=_BUS_GIBIBYTES,
            storage_class=settings.storage_class,
            disks_kept=False,
            config=render_nats_config(
                store_directory="/data",
                storage_gibibytes=_BUS_GIBIBYTES,
                cluster_name=settings.name,
                routes=[],
                access=INCLUDE_ACCESS,
            ),
            bus=bus_outputs(settings),
            streams_arguments=["bus", "apply", "--replicas=1", "--retention-days=1", "--max-gibibytes=1"],
            clients=[f"{names.OUTBOX}-worker", names.CONSUMER, settings.service],
        ),
        opts,
    )


def _events(
    settings: PreviewSettings,
    context: RuntimeContext,
    identity: CloudIdentity | None,
    opts: pulumi.ResourceOptions,
) -> None:
    """What publishes the service's events or those that it reads; for the former, somebody who reads them."""
    egress = [To(port=CLIENT_PORT, workload=names.BUS)]
    if settings.announces or settings.kind == "consumer":
        Outbox(names.OUTBOX, OutboxArgs(context, workers=1, bus=egress, reconciles=False), opts)
    if settings.announces:
        Consumer(names.CONSUMER, ConsumerArgs(context, replicas=1, identity=identity, bus=egress), opts)


def _seed(settings: PreviewSettings, text: str, after: Sequence[pulumi.Resource]) -> pulumi.Resource:
    """Run the service's own seed, as the owner of its tables. A change of it runs it again."""
    opts = pulumi.ResourceOptions(depends_on=after)
    digest = hashlib.sha256(text.encode()).hexdigest()
    files = core.v1.ConfigMap(
        SEED,
        metadata=meta.v1.ObjectMetaArgs(name=SEED, namespace=settings.namespace, labels=labels(SEED)),
        data={_SEED_FILE: text},
        opts=opts,
    )
    return Task(
        SEED,
        TaskArgs(
            access=AccessArgs(settings.namespace, egress=[To(port=DATABASE_PORT, workload=DATABASE)]),
            pod=PodArgs(
                image=settings.images.runtime,
                arguments=["db", "run", f"{_SEED_DIRECTORY}/{_SEED_FILE}"],
                secrets={URL_KEY: SecretKey(f"{settings.service}-database-owner", URL_KEY)},
                files=[ConfigFiles(SEED, _SEED_DIRECTORY)],
                scratch=[Scratch("/tmp", 64)],  # noqa: S108  the pod's own
                annotations={"kilo.dev/seed-checksum": digest},
                cpu_millicores=50,
                memory_mebibytes=128,
            ),
            attempts=2,
        ),
        opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[files])),
    )


def _gateway(settings: PreviewSettings, opts: pulumi.ResourceOptions) -> None:
    """A gateway of its own, by the stage's rules, and a way in from outside where the stage has a domain."""
    upstream = Upstream(host=service_host(settings.service, settings.namespace), port=settings.port)
    gateway = TenantGateway(
        names.GATEWAY,
        TenantGatewayArgs(
            namespace=settings.namespace,
            image=settings.images.envoy,
            tenants=[settings.tenant],
            settings=GatewaySettings(stable=upstream, tenant_header=settings.tenant_header),
            upstreams=[settings.service],
            monitoring_namespace=settings.monitoring_namespace,
        ),
        opts,
    )
    if settings.domain is None:
        return
    backend = networking.v1.IngressBackendArgs(
        service=networking.v1.IngressServiceBackendArgs(
            name=names.GATEWAY, port=networking.v1.ServiceBackendPortArgs(number=LISTENER_PORT)
        )
    )
    networking.v1.Ingress(
        names.GATEWAY,
        metadata=meta.v1.ObjectMetaArgs(
            name=names.GATEWAY, namespace=settings.namespace, labels=labels(names.GATEWAY)
        ),
        spec=networking.v1.IngressSpecArgs(
            ingress_class_name=settings.ingress_class,
            rules=[
                networking.v1.IngressRuleArgs(
                    host=f"{settings.name}.{settings.domain}",
                    http=networking.v1.HTTPIngressRuleValueArgs(
                        paths=[
                            networking.v1.HTTPIngressPathArgs(path="/", path_type="Prefix", backend=backend)
                        ]
                    ),
                )
            ],
        ),
        opts=pulumi.ResourceOptions(depends_on=[gateway]),
    )


def _address(settings: PreviewSettings) -> str:
    """Where it is reached; nowhere for what answers no requests."""
    if settings.kind != "http":
        return ""
    if settings.domain:
        return f"http://{settings.name}.{settings.domain}"
    return gateway_url(names.GATEWAY, settings.namespace)
