"""The way of an event: ingest writes it with its outbox row, the worker or change capture publishes it, and a
consumer has its effect.
"""

from __future__ import annotations

import pulumi

from components.pods.bus_user import BusUsers
from components.pods.runtime_pod import DATABASE_CA, RuntimeContext
from components.processes.change_capture import OFFSETS_FILE, TUNNEL_URL, ChangeCapture, ChangeCaptureArgs
from components.processes.consumer import Consumer, ConsumerArgs
from components.processes.ingest import FeatureVersion, Ingest, IngestArgs
from components.processes.key_making import KeyMaking, KeyMakingArgs
from components.processes.outbox import Outbox, OutboxArgs
from infra import names
from infra.cluster.bus import bus_egress
from infra.identities import Identities
from infra.outputs import bus_outputs, outbox_outputs
from infra.settings import Settings
from kilo.bus.cloudevents import source_of
from kilo.cdc.properties import ConnectorSettings, render_properties


def create_events(
    settings: Settings, context: RuntimeContext, identities: Identities, opts: pulumi.ResourceOptions
) -> Ingest:
    """Register ingest, both publishers and the consumer; ingest is what the gateway leads to."""
    egress = bus_egress(settings)
    keys = KeyMaking("key-making", KeyMakingArgs(context=context, identity=identities.key_making), opts)
    ingest = Ingest(
        names.INGEST,
        IngestArgs(
            context=context,
            replicas=settings.ingest.replicas,
            identity=identities.ingest,
            gateway=names.GATEWAY,
            next_image=settings.ingest.next_image,
            features={
                names.feature(feature.id): FeatureVersion(feature.next.image, feature.next.arguments)
                for feature in settings.features
                if feature.next.image
            },
        ),
        pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[keys])),
    )
    Outbox(names.OUTBOX, OutboxArgs(context=context, workers=settings.outbox.workers, bus=egress), opts)
    ChangeCapture(
        names.CHANGE_CAPTURE,
        ChangeCaptureArgs(
            context=context,
            image=settings.images.debezium,
            properties=_debezium_properties(settings, context.bus_users),
            bus=egress,
            tunnel=settings.bus.kafka is None,
            paused=settings.outbox.cdc_paused,
        ),
        opts,
    )
    Consumer(
        names.CONSUMER,
        ConsumerArgs(
            context=context,
            replicas=settings.consumer.replicas,
            identity=identities.consumer,
            bus=egress,
        ),
        opts,
    )
    return ingest


def _database_tls(settings: Settings) -> dict[str, str]:
    database = settings.database
    if database.sslmode == "prefer":
        return {}
    found = {"sslmode": database.sslmode}
    return found | {"sslrootcert": DATABASE_CA} if database.ca else found


def _debezium_properties(settings: Settings, users: BusUsers | None) -> str:
    """``application.properties``."""
    return render_properties(
        ConnectorSettings(
            bus=bus_outputs(settings),
            outbox=outbox_outputs(settings),
            offsets_file=OFFSETS_FILE,
            schema=settings.database.schema_name,
            database_tls=_database_tls(settings),
            source=source_of(settings.stage),
            bus_shown=users.shown if users else None,
            bus_url=None if settings.bus.kafka else TUNNEL_URL,
        )
    )
