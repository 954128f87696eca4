"""The typed model of a stage's configuration, and the rules that a stage must keep.

``Pulumi.<stage>.yaml`` is read whole and checked whole before anything is registered: a mistake
names the file, the YAML path, what was wrong and what would be right, and all mistakes are
reported at once. Limits are those of the clouds: S3 and Cloud Storage bucket naming, KMS waiting
periods, object lock retention, JetStream's replica counts.

Settings hold no secret. Where one is needed, they name where it lies.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from infra.cloud_settings import (
    Audit,
    Aws,
    Backups,
    Gcp,
    Registry,
    Section,
)
from infra.kafka_settings import Kafka
from infra.promotion_settings import Promotion
from infra.setting_types import (
    Certificates,
    DatabaseName,
    DnsLabel,
    FreezeWindow,
    HostName,
    Image,
    LabelName,
    LabelValue,
    Network,
    RateLimitService,
    SchemaName,
    SecretId,
    SslMode,
    Url,
)
from kilo.contract import DEFAULT_SCHEMA, FieldEncryptionOutputs
from kilo.tenancy import AggregateName, Tenant, TenantEntry, TenantId, TierName, TierPolicy
from kilo.traffic.features import Feature
from kilo.traffic.identity import Identity, TesterAccess, Tls
from kilo.traffic.settings import TierTraffic
from kilo.usage.settings import UsageSettings

TIERS: tuple[TierName, ...] = ("gold", "silver", "bronze")


class Images(Section):
    """Container images, pinned. The platform's own is ``runtime``; the rest have tested defaults."""

    runtime: Image
    nats: Image = "docker.io/library/nats:2.15.1-alpine"
    envoy: Image = "docker.io/envoyproxy/envoy:v1.40.0"
    debezium: Image = "quay.io/debezium/server:3.6.0.Final"
    collector: Image = "docker.io/otel/opentelemetry-collector-contrib:0.161.0"
    rate_limits: Image = "docker.io/envoyproxy/ratelimit:3fb70258"
    rate_limits_store: Image = "docker.io/valkey/valkey:8.1.3-alpine"


class Credentials(Section):
    """All passwords of a server, and its certificates if the program makes them, as one generation."""

    generation: int = Field(
        default=1, ge=1, le=1_000_000, description="A higher number makes all of them anew, by one at a time."
    )
    former_accepted: bool = Field(
        default=False,
        description="The generation before is accepted as well, while processes take up this one.",
    )


class Database(Section):
    """PostgreSQL that is there already: where it is, and the name of the secret with its administrator's URL.

    The program never reads that secret; the Job that migrates the schema does, inside the cluster.
    """

    url_secret_id: SecretId
    host: HostName
    port: int = Field(default=5_432, ge=1, le=65_535)
    name: DatabaseName
    sslmode: SslMode = "prefer"
    """How far processes go to have TLS, as libpq calls it."""
    ca: Certificates | None = Field(
        default=None, description="By which of its certificates the server is known, where sslmode says so."
    )
    network: Network = Field(default="10.0.0.0/8", description="Where the database is, for network policies.")
    schema_name: SchemaName = DEFAULT_SCHEMA
    """The schema that the platform's tables are in; chosen once, with the database."""
    credentials: Credentials = Credentials()
    """Of the platform's roles. The administrator's is in the secret."""


class Bus(Section):
    """NATS JetStream, deployed with the stage, or with ``kafka`` one that is there already."""

    kafka: Kafka | None = None
    replicas: Literal[1, 3, 5] = 1
    storage_gib: int = Field(default=10, ge=1, le=16_384)
    storage_class: str | None = None
    duplicate_window_seconds: int = Field(default=120, ge=1, le=86_400)
    retention_days: int = Field(default=7, ge=1, le=365)
    credentials: Credentials = Credentials()

    @property
    def msk_cluster(self) -> str | None:
        """The ARN of the Kafka of Amazon that knows its users by IAM, if the bus is one."""
        return self.kafka.access.msk_cluster if self.kafka and self.kafka.access else None


class Outbox(Section):
    """The outbox: its workers, and which aggregates go by CDC instead of by them."""

    workers: int = Field(
        default=1, ge=0, le=16, description="a whole number; with 0 events wait in the table until it goes on"
    )
    cdc_aggregates: tuple[AggregateName, ...] = ()
    cdc_paused: bool = Field(
        default=False, description="Stops the connector; its slot keeps what is written until it goes on."
    )
    payload_limit_bytes: int = Field(default=262_144, ge=1_024, le=1_000_000)
    fingerprint_window_days: int = Field(default=7, ge=1, le=90)


class Gateway(Section):
    """Envoy, the entrance for HTTP traffic."""

    replicas: int = Field(default=1, ge=1, le=50)
    capacity_requests_per_second: int = Field(ge=1, le=1_000_000)
    tenant_header: Annotated[
        str,
        StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,63}$"),
        Field(description="a header name in lower case"),
    ] = "x-tenant-id"
    identity: Identity | None = None
    """Without one the header is believed from anybody, which only dev may do."""
    testers: TesterAccess | None = None
    tls: Tls | None = None
    """Without it, TLS ends in front of the gateway."""
    rate_limit_service: RateLimitService | None = None
    """Counts tenants' limits over all gateways: deployed with them, or one that is there. Without it, each
    gateway has an equal part."""
    tiers: dict[TierName, TierTraffic] = {}
    """Retry budgets, ceilings, ejection and hedging of a tier, where they differ."""
    limits_enforced: bool = True
    """False lets every tenant through its limit and still counts, without a restart."""
    shedding_enabled: bool = True
    """False switches adaptive concurrency off, without a restart."""


class Service(Section):
    """How many of a runtime service run."""

    replicas: int = Field(default=1, ge=1, le=50)


class Ingest(Service):
    """The ingest service, and the version under trial that tenants' ``next_weight_percent`` points to."""

    next_image: Image | None = None
    keep_days: int | None = Field(default=None, ge=1, le=36_500)
    """How long the table `events` keeps a row; for good when it is left out."""


SpanName = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class Alerts(Section):
    """Where alerts go. The URL lies in a Secret of the stage's namespace, under the key ``url``."""

    webhook_secret: DnsLabel


class Traces(Section):
    """A collector for spans. Without ``backend_url`` it writes them into a file of its pod."""

    backend_url: Url | None = None


class Monitoring(Section):
    """Prometheus, which the cluster brings, and what is shown and alerted on."""

    prometheus_url: Url
    namespace: DnsLabel = "monitoring"
    gateway_scrape_seconds: int = Field(
        default=15,
        ge=1,
        le=60,
        description="How often gateways are asked; a ramp's step lasts several times that.",
    )
    alerts: Alerts | None = None
    labels: dict[LabelName, LabelValue] = Field(
        default={},
        description="Labels by which the cluster's operator selects monitors and rules, such as release.",
    )
    traces: Traces | None = None
    key_spans: tuple[SpanName, ...] = Field(
        default=(),
        max_length=50,
        description="Names of spans that the sampling guard keeps before all others.",
    )


class Previews(Section):
    """Environments of pull requests, each a stack of its own (``kilo preview``)."""

    lifetime_hours: int = Field(
        default=72, ge=1, le=720, description="How long one stands unless it is said when it is made."
    )
    domain: Annotated[
        str | None,
        StringConstraints(pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}$"),
        Field(description="a domain such as preview.example.com"),
    ] = None
    """Each is reached from outside as NAME.DOMAIN, by an Ingress of its own; without it inside alone."""
    ingress_class: DnsLabel | None = None
    storage_class: str | None = None


class Tiers(Section):
    """What each tier promises to its tenants."""

    gold: TierPolicy
    silver: TierPolicy
    bronze: TierPolicy

    def policy(self, tier: TierName) -> TierPolicy:
        """The policy of ``tier``."""
        return {"gold": self.gold, "silver": self.silver, "bronze": self.bronze}[tier]


StageName = Annotated[
    str,
    StringConstraints(pattern=r"^(dev|stage|prod)(-[2-9]|-[1-9][0-9])?$"),
    Field(description="dev, stage or prod, or a further stack of its tenants such as prod-2"),
]


class Settings(Section):
    """Everything that a stage is configured with."""

    stage: StageName
    namespace: DnsLabel = "kilo"
    protect: bool = Field(
        default=True, description="Keep keys, locked buckets and registries when the stack is destroyed."
    )
    policy_enforcement: Literal["mandatory", "unprotected", "advisory"] = Field(
        default="mandatory",
        description="Whether a broken rule of the policy pack stops the deployment: all, all but that of "
        "protection, or none.",
    )
    key_deletion_window_days: int = Field(default=30, ge=7, le=30)
    requests_percent: int = Field(
        default=100,
        ge=10,
        le=100,
        description="How much of the usual processor time and memory pods ask for; limits stay.",
    )
    aws: Aws
    gcp: Gcp
    images: Images
    tiers: Tiers
    tenants: tuple[TenantEntry, ...] = Field(min_length=1)
    database: Database
    bus: Bus = Bus()
    outbox: Outbox = Outbox()
    gateway: Gateway
    ingest: Ingest = Ingest()
    features: tuple[Feature, ...] = ()
    freezes: tuple[FreezeWindow, ...] = ()
    """When no ramp goes forward and nothing is promoted here, in UTC."""
    promotion: Promotion = Promotion()
    consumer: Service = Service()
    registry: Registry
    backups: Backups
    audit: Audit
    field_encryption: FieldEncryptionOutputs = FieldEncryptionOutputs()
    monitoring: Monitoring
    usage: UsageSettings | None = None
    """Without it nothing is collected."""
    previews: Previews = Previews()

    @property
    def is_prod(self) -> bool:
        """Whether this is prod, or a further stack of its tenants."""
        return self.stage.partition("-")[0] == "prod"

    @property
    def is_dev(self) -> bool:
        """Whether this is dev, or a further stack of its tenants."""
        return self.stage.partition("-")[0] == "dev"

    @property
    def resolved_tenants(self) -> tuple[Tenant, ...]:
        """The tenants with what their tier says filled in."""
        return tuple(entry.resolve(self.tiers.policy(entry.tier)) for entry in self.tenants)

    @property
    def tenant_ids(self) -> tuple[TenantId, ...]:
        """The tenants' ids in the order of the configuration."""
        return tuple(entry.id for entry in self.tenants)
