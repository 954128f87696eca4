"""Renders the configuration of Debezium Server, and of a connector for a Kafka Connect installation; pure.

Every setting here was needed: see the remarks. Secrets stand as ``${DATABASE_PASSWORD}`` and the like,
which Debezium Server reads from its environment (SmallRye Config) and Kafka Connect from its
``EnvVarConfigProvider``. Settings: https://debezium.io/documentation/reference/stable/connectors/postgresql.html,
https://debezium.io/documentation/reference/stable/operations/debezium-server.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from kilo.bus import cloudevents
from kilo.bus.access import OAUTHBEARER, SCRAM, Shown
from kilo.contract import DEFAULT_SCHEMA, BusOutputs, OutboxOutputs

CONNECTOR_PATH = "/livez/connector"
"""Where ``kilo cdc watch`` answers the connector's liveness probe."""
ALLOWED_URLS = "org.apache.kafka.sasl.oauthbearer.allowed.urls"
"""The system property without which Java's client of Kafka asks no endpoint for a token."""

_QUEUE_BYTES = 64 * 1024 * 1024
"""Of events that Debezium holds ready, as it estimates them: an eighth of its heap (512 MiB), since an event
lies there in several forms until the bus has acknowledged it."""

_HEADERS = (
    ("message_id", "Nats-Msg-Id"),
    ("fingerprint", "fingerprint"),
    ("kind", "kind"),
    ("tenant", "tenant"),
    ("aggregate_id", "aggregate-id"),
    ("created_at", "created-at"),
    ("traceparent", "traceparent"),
)
"""Outbox columns and the header each becomes: those that the worker sends."""
_ENCODED = {"id": "ce_id", "subject": "ce_subject"}
"""Attributes whose columns may hold what NATS' binding wants percent-encoded, and the columns that do so."""


@dataclass(frozen=True, slots=True)
class ConnectorSettings:
    """What Debezium reads and where it writes."""

    bus: BusOutputs
    outbox: OutboxOutputs
    offsets_file: str = "/debezium/data/offsets.dat"
    schema: str = DEFAULT_SCHEMA
    source: str = cloudevents.SOURCE
    """Of the events, as CloudEvents have it."""
    bus_shown: Shown | None = None
    """What the bus wants to see, if anything: BUS_USER and BUS_PASSWORD of Debezium's environment, or
    BUS_CERTIFICATE and BUS_KEY (PEM; the key as PKCS#8). For tokens BUS_USER and BUS_PASSWORD are the
    client's, BUS_TOKEN_URL the endpoint (:data:`ALLOWED_URLS` has to name it too), BUS_TOKEN_SCOPE the scope
    if there is one, and BUS_TOKEN_CA the file of authorities of that endpoint. Amazon's tokens are signed by
    its own library (``software.amazon.msk:aws-msk-iam-auth``), which Debezium does not come with. To Kafka it
    comes over TLS with one whom the file BUS_CA vouches for."""
    bus_url: str | None = None
    """Where Debezium reaches NATS, if not by the bus's own URL: through ``kilo cdc watch --tunnel-port``."""
    database_tls: Mapping[str, str] = field(default_factory=dict[str, str])
    """``sslmode`` and ``sslrootcert`` as libpq has them, of which Debezium's driver knows no variables."""

    @property
    def on_kafka(self) -> bool:
        """Whether the bus is Kafka, by its URL."""
        return self.bus.url.startswith("kafka://")


def _transform_of(header: str) -> str:
    """The name of the transform that adds ``header``."""
    return re.sub("[^a-z]", "", header)


_OAUTH = "org.apache.kafka.common.security.oauthbearer"
_VERSION = f"{cloudevents.PREFIX}specversion"
_CONSTANTS = ("publisher", *(name for name in cloudevents.constants(cloudevents.SOURCE) if name != _VERSION))
_CHAIN = ("version", "versionheader", "outbox", *map(_transform_of, _CONSTANTS))
"""The transforms, in their order."""
_ROUTED = "${routedByValue}"
"""The transform's own placeholder, for the aggregate."""


def render_properties(settings: ConnectorSettings) -> str:
    """Render ``application.properties`` for Debezium Server."""
    # SmallRye Config would take the transform's placeholder for one of its own.
    transforms = {
        name: value.replace("${", "$${")
        for name, value in _transforms(settings, to_kafka=settings.on_kafka).items()
    }
    lines = [f"debezium.source.{name}={value}" for name, value in _source(settings).items()]
    lines += [f"debezium.{name}={value}" for name, value in _sink(settings).items()]
    lines += [
        f"debezium.source.offset.storage.file.filename={settings.offsets_file}",
        "debezium.source.offset.storage=org.apache.kafka.connect.storage.FileOffsetBackingStore",
        "debezium.source.offset.flush.interval.ms=1000",
        "debezium.format.key=simplestring",
        "debezium.format.value=simplestring",
        # Without this converter header values arrive as JSON, in quotes.
        "debezium.format.header=json",
        "debezium.format.header.class=org.apache.kafka.connect.storage.StringConverter",
        f"debezium.transforms={','.join(_CHAIN)}",
        *(f"debezium.transforms.{name}={value}" for name, value in transforms.items()),
        "quarkus.log.level=WARN",
        "quarkus.log.console.json=false",
    ]
    return "\n".join(lines) + "\n"


def render_connector(settings: ConnectorSettings) -> str:
    """Render ``connector.json`` for a Kafka Connect installation that has Debezium's PostgreSQL connector."""
    source = _source(settings)
    config = {
        **{name: value.replace("${", "${env:") for name, value in source.items()},
        "tasks.max": "1",
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": "org.apache.kafka.connect.storage.StringConverter",
        "header.converter": "org.apache.kafka.connect.storage.StringConverter",
        "transforms": ",".join(_CHAIN),
        **{f"transforms.{name}": value for name, value in _transforms(settings, to_kafka=True).items()},
    }
    return json.dumps({"name": settings.outbox.replication_slot, "config": config}, indent=2) + "\n"


def _source(settings: ConnectorSettings) -> dict[str, str]:
    outbox, bus = settings.outbox, settings.bus
    return {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "database.hostname": "${DATABASE_HOST}",
        "database.port": "${DATABASE_PORT}",
        "database.dbname": "${DATABASE_NAME}",
        "database.user": "${DATABASE_USER}",
        "database.password": "${DATABASE_PASSWORD}",
        **{f"database.{name}": value for name, value in settings.database_tls.items()},
        "topic.prefix": bus.subject_prefix,
        "plugin.name": "pgoutput",
        "table.include.list": f"{settings.schema}.{outbox.table}",
        # What any role writes by pg_logical_emit_message comes beside the table's rows, of any size.
        "message.prefix.exclude.list": ".*",
        # Publication and slot are declared by the database's migration, never by the connector.
        "publication.name": outbox.publication,
        "publication.autocreate.mode": "disabled",
        "slot.name": outbox.replication_slot,
        "slot.drop.on.stop": "false",
        "snapshot.mode": "no_data",
        "tombstones.on.delete": "false",
        # By default the slot never advances while the table is quiet, and WAL piles up.
        "lsn.flush.mode": "connector_and_driver",
        # So the slot runs ahead of the stored offset, which by default stops the connector for good. The slot
        # holds what was not confirmed, after a restore of the database too; a stored offset may not.
        "offset.mismatch.strategy": "trust_slot",
        "heartbeat.interval.ms": "5000",
        "topic.heartbeat.prefix": "heartbeat",
        # 500 ms by default, which would be most of an event's latency.
        "poll.interval.ms": "10",
        "max.batch.size": "4096",
        "max.queue.size": "16384",
        # By default the queue is bounded in events alone.
        "max.queue.size.in.bytes": str(_QUEUE_BYTES),
        "provide.transaction.metadata": "false",
        "errors.max.retries": "-1",
        # 10 s by default, for which change capture stands still after every lost database connection.
        "retriable.restart.connector.wait.ms": "1000",
        # Waited on top of it, doubled with every failure in the connector's life, to 10 s by default.
        "errors.retry.delay.max.ms": "1000",
        # 10 s by default between two tries at a slot that a lost connection of its own still holds.
        "slot.retry.delay.ms": "1000",
        # 10 s by default; several have to fit into the server's patience (wal_sender_timeout of the role).
        "status.update.interval.ms": "5000",
    }


def _sink(settings: ConnectorSettings) -> dict[str, str]:
    bus = settings.bus
    if settings.on_kafka:
        return {
            "sink.type": "kafka",
            "sink.kafka.producer.bootstrap.servers": bus.url.split("://")[-1],
            "sink.kafka.producer.enable.idempotence": "true",
            "sink.kafka.producer.acks": "all",
            "sink.kafka.producer.key.serializer": "org.apache.kafka.common.serialization.StringSerializer",
            "sink.kafka.producer.value.serializer": "org.apache.kafka.common.serialization.StringSerializer",
            **{f"sink.kafka.producer.{name}": value for name, value in _kafka_access(settings).items()},
        }
    return {
        "sink.type": "nats-jetstream",
        "sink.nats-jetstream.url": settings.bus_url or bus.url,
        "sink.nats-jetstream.create-stream": "false",
        # Synchronous publishing manages a third of the throughput.
        "sink.nats-jetstream.async.enabled": "true",
    } | (
        {
            "sink.nats-jetstream.auth.user": "${BUS_USER}",
            "sink.nats-jetstream.auth.password": "${BUS_PASSWORD}",
        }
        if settings.bus_shown
        else {}
    )


def _kafka_access(settings: ConnectorSettings) -> dict[str, str]:
    """What :mod:`kilo.bus.kafka_access` is for librdkafka."""
    if settings.bus_shown is None:
        return {}
    believed = {"ssl.truststore.type": "PEM", "ssl.truststore.location": "${BUS_CA}"}
    if settings.bus_shown == "certificate":
        return believed | {
            "security.protocol": "SSL",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.certificate.chain": "${BUS_CERTIFICATE}",
            "ssl.keystore.key": "${BUS_KEY}",
        }
    by_sasl = believed | {"security.protocol": "SASL_SSL"}
    if settings.bus_shown == "aws-msk-iam":
        return by_sasl | {
            "sasl.mechanism": "AWS_MSK_IAM",
            "sasl.jaas.config": "software.amazon.msk.auth.iam.IAMLoginModule required;",
            "sasl.client.callback.handler.class": "software.amazon.msk.auth.iam.IAMClientCallbackHandler",
        }
    if settings.bus_shown == "token":
        return by_sasl | {
            "sasl.mechanism": OAUTHBEARER,
            "sasl.login.callback.handler.class": f"{_OAUTH}.OAuthBearerLoginCallbackHandler",
            "sasl.oauthbearer.token.endpoint.url": "${BUS_TOKEN_URL}",
            "sasl.oauthbearer.client.credentials.client.id": "${BUS_USER}",
            "sasl.oauthbearer.client.credentials.client.secret": "${BUS_PASSWORD}",
            "sasl.oauthbearer.scope": "${BUS_TOKEN_SCOPE:}",
            "sasl.jaas.config": f"{_OAUTH}.OAuthBearerLoginModule required"
            ' ssl.truststore.type="PEM" ssl.truststore.location="${BUS_TOKEN_CA}";',
        }
    return by_sasl | {
        "sasl.mechanism": SCRAM,
        "sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required"
        ' username="${BUS_USER}" password="${BUS_PASSWORD}";',
    }


def _transforms(settings: ConnectorSettings, *, to_kafka: bool) -> dict[str, str]:
    prefix = cloudevents.KAFKA_PREFIX if to_kafka else cloudevents.PREFIX
    encoded: dict[str, str] = {} if to_kafka else _ENCODED
    headers = (
        *_HEADERS,
        *((encoded.get(name, column), prefix + name) for column, name in cloudevents.COLUMNS),
    )
    topic = f"{settings.bus.subject_prefix}.{_ROUTED}"
    if to_kafka:
        # One topic with one partition, so that a consumer's position is one number.
        headers, topic = (*headers, ("aggregate", "aggregate")), settings.bus.subject_prefix
    placement = ",".join(f"{column}:header:{header}" for column, header in headers)
    constants = {"publisher": "cdc"} | cloudevents.constants(settings.source)
    return {
        # InsertHeader takes 1.0 for a number and writes it as 1; a field keeps it as text. There is one only
        # before the router, which makes a text of the event.
        "version.type": "org.apache.kafka.connect.transforms.InsertField$Value",
        "version.static.field": "specversion",
        "version.static.value": constants[_VERSION],
        "versionheader.type": "org.apache.kafka.connect.transforms.HeaderFrom$Value",
        "versionheader.fields": "specversion",
        "versionheader.headers": f"{prefix}specversion",
        "versionheader.operation": "copy",
        "outbox.type": "io.debezium.transforms.outbox.EventRouter",
        "outbox.table.field.event.id": "fingerprint",
        "outbox.table.field.event.key": "ordering_key",
        "outbox.table.field.event.payload": "payload",
        "outbox.route.by.field": "aggregate",
        "outbox.route.topic.replacement": topic,
        "outbox.table.fields.additional.placement": placement,
    } | {
        f"{_transform_of(header)}.{name}": value
        for header, literal in ((header, constants[header]) for header in _CONSTANTS)
        for name, value in (
            ("type", "org.apache.kafka.connect.transforms.InsertHeader"),
            ("header", header.replace(cloudevents.PREFIX, prefix)),
            ("value.literal", literal),
        )
    }
