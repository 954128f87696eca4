"""The stack's outputs: what the program exports and what services read.

``infra`` exports exactly :class:`StackOutputs`, services read exactly it: from a file, from the
environment variable that names the file, or from the ConfigMap that the program mounts into each
workload. Values are references, never secrets. A field is added with a default; a field that is
removed, renamed or retyped raises :data:`CONTRACT_VERSION`, and a test fails until it does.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kilo.environment import OUTPUTS_VARIABLE
from kilo.errors import BadInput, Unreachable
from kilo.tenancy import AggregateName, FieldName, TenantId, TierName

CONTRACT_VERSION = 2
OUTPUTS_MOUNT = "/etc/kilo/outputs.json"
DEFAULT_SCHEMA = "public"
"""Of PostgreSQL: where the platform's tables are when the stage says nothing else."""
CHARTS = "charts"
"""Under which a stage's registry has charts, as ``helm`` is told: ``oci://REGISTRY/charts``."""
SERVICE_CHART = f"{CHARTS}/service"
"""The repository of the paved road's chart, which every stage has."""
AUDIT_PREFIX = "fle-audit/"
"""Where checkpoints of the audit log lie in the audit bucket."""


_MULTI_REGION_KEY = re.compile(
    r"(?P<service>arn:aws[a-z-]*:kms):(?P<region>[a-z0-9-]+):(?P<key>[0-9]{12}:key/mrk-[0-9a-f-]+)"
)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KeyReference(_Model):
    """A KMS key by name; never its material."""

    provider: Literal["aws", "gcp"]
    key: str = Field(description="AWS: the key's ARN. GCP: the CryptoKey's resource name.")
    alias: str
    replicas: tuple[str, ...] = Field(
        default=(),
        description="AWS: ARNs of the same multi-region key in other regions; asked while its own is away.",
    )

    @model_validator(mode="after")
    def _replicas_are_the_same_key(self) -> Self:
        # Else one wrong line hands data keys to another account.
        own = _MULTI_REGION_KEY.fullmatch(self.key)
        seen = {own["region"]} if own else set[str]()
        for replica in self.replicas:
            other = _MULTI_REGION_KEY.fullmatch(replica)
            same = own and other and (own["service"], own["key"]) == (other["service"], other["key"])
            if not same or not other or other["region"] in seen:
                msg = f"replicas: {replica} is no replica in another region of {self.key}"
                raise ValueError(msg)
            seen.add(other["region"])
        return self


class TenantOutputs(_Model):
    """What a service may know of one tenant."""

    tier: TierName
    encryption_key: KeyReference
    encrypted_fields: tuple[FieldName, ...] = ()
    accepting: bool = Field(
        default=True, description="Whether the gateway takes its requests; not while it is offboarded."
    )
    spans_per_second: int = Field(
        default=100, description="What of its spans one service keeps, all copies of it together."
    )


class DatabaseOutputs(_Model):
    """The PostgreSQL database; credentials come from the Secret of the reader's own role."""

    host: str
    port: int
    name: str
    schema_name: str = Field(
        default=DEFAULT_SCHEMA, description="The schema that the platform's tables are in."
    )
    role_secrets: dict[str, str] = Field(
        description="Kubernetes Secret by role: ingest, worker, consumer, cdc, backup."
    )


class BusOutputs(_Model):
    """Where the bus is, NATS JetStream or Kafka by its URL, and the streams that are declared on it."""

    url: str
    stream: str
    subject_prefix: str = Field(description="An event's subject is this, a dot, and its aggregate.")
    heartbeat_stream: str
    duplicate_window_seconds: int
    role_secrets: dict[str, str] = Field(
        default={},
        description="Kubernetes Secret by role: worker, cdc, consumer, reconciler, operator. Each has"
        " KILO_BUS_USER, KILO_BUS_PASSWORD, KILO_BUS_NAME and, as ca.pem, what KILO_BUS_CA names.",
    )


class OutboxOutputs(_Model):
    """Which publisher carries which aggregates. Aggregates not listed go by the worker."""

    table: str
    cdc_aggregates: tuple[AggregateName, ...] = ()
    publication: str
    replication_slot: str
    payload_limit_bytes: int
    fingerprint_window_days: int
    events_keep_days: int | None = Field(
        default=None, description="How long ingest's own rows are kept; for good without it."
    )


class GatewayOutputs(_Model):
    """The entrance for HTTP traffic."""

    url: str
    tenant_header: str


class RegistryOutputs(_Model):
    """One side of the mirrored registry."""

    provider: Literal["aws", "gcp"]
    url: str = Field(description="Host and path prefix to which a repository's name is appended.")
    location: str


class SignerIdentity(_Model):
    """Who a keyless signature must be by, as the signing certificate has it."""

    subject: str = Field(
        min_length=1, description="An e-mail address or URI; '*' stands for any characters, slashes included."
    )
    issuer: str = Field(min_length=1, description="The OIDC issuer that vouches for the subject.")


class SignersOutputs(_Model):
    """Who must have signed an image before it is mirrored: any one of these. None: nothing is asked."""

    keys: tuple[str, ...] = Field(default=(), description="Public keys in PEM form.")
    identities: tuple[SignerIdentity, ...] = ()
    trusted_root: str | None = Field(
        default=None,
        description="The trusted root (JSON) of a Sigstore of your own; else that of the public-good one.",
    )


class RegistriesOutputs(_Model):
    """Both sides of the mirrored registry and the queue of the primary's push events."""

    primary: RegistryOutputs
    secondary: RegistryOutputs
    repositories: tuple[str, ...]
    push_queue_url: str
    push_dead_letter_queue_url: str = Field(
        default="", description="Where pushes end that could not be mirrored."
    )
    signers: SignersOutputs = SignersOutputs()
    replicas: tuple[RegistryOutputs, ...] = Field(
        default=(), description="The primary in other regions of its cloud, which copies to them itself."
    )


class BucketOutputs(_Model):
    """An object-locked bucket."""

    provider: Literal["aws", "gcp"]
    bucket: str
    location: str
    lock_mode: Literal["governance", "compliance", "unlocked", "locked"]
    retention_days: int


class BackupOutputs(_Model):
    """Both backup stores and the key under which backups are encrypted before they leave."""

    primary: BucketOutputs
    secondary: BucketOutputs
    replica: BucketOutputs | None = Field(
        default=None, description="A copy of the primary store in another region, made by the cloud."
    )
    encryption_key: KeyReference
    encryption_key_replica: KeyReference | None = Field(
        default=None, description="The same key in another region, for when the first is lost."
    )
    signing_key: KeyReference | None = Field(
        default=None, description="Signs backups' manifests; a key of ECC_NIST_P256."
    )
    signing_key_replica: KeyReference | None = Field(
        default=None, description="The same key in another region, for when the first is lost."
    )

    @property
    def buckets(self) -> dict[str, BucketOutputs]:
        """Both stores by their names."""
        return {"primary": self.primary, "secondary": self.secondary}


class RotationPrincipal(_Model):
    """Somebody who may request or approve key rotations, known by a public key."""

    name: str = Field(pattern=r"^[a-z][a-z0-9.-]{0,62}$")
    public_key: str = Field(description="Ed25519, base64 of the 32 bytes (RFC 8032).")


class TokenColumn(_Model):
    """Where a field's index tokens lie, and how its blind index makes them."""

    column: str = Field(description="A text column beside the field's.")
    kind: Literal["email", "phone", "text"] = Field(default="text", description="How values are normalised.")
    bits: int = Field(default=256, ge=8, le=256, description="Length of a token.")


class EncryptedTable(_Model):
    """A table whose columns hold encrypted fields, as rotation and the coverage report walk it."""

    table: str = Field(description="The table's name in the database.")
    context: str = Field(description="The name that the cipher binds values to (its ``table``).")
    row_column: str = "id"
    tenant_column: str = "tenant"
    columns: dict[FieldName, str] = Field(
        default_factory=dict,
        description="Column by field. ``payload.email`` is the key ``email`` of jsonb column ``payload``.",
    )
    documents: dict[str, tuple[FieldName, ...]] = Field(
        default_factory=dict,
        description="Fields by jsonb column in which they lie at any depth. Such a value's row is the row's "
        "identity, followed by the JSON pointer of the object that holds it (empty for the document itself).",
    )
    tokens: dict[FieldName, TokenColumn] = Field(
        default_factory=dict,
        description="Index tokens by field, one of `columns`: rotating the index key rewrites them.",
    )

    @model_validator(mode="after")
    def _tokens_have_values(self) -> Self:
        if missing := self.tokens.keys() - self.columns.keys():
            msg = f"tokens: {', '.join(sorted(missing))} is not among the columns of table {self.table}"
            raise ValueError(msg)
        return self


class FieldEncryptionOutputs(_Model):
    """Who rotates field encryption keys, what is rotated, and whether rotation is switched on."""

    rotation_enabled: bool = False
    principals: tuple[RotationPrincipal, ...] = ()
    tables: tuple[EncryptedTable, ...] = ()
    audit_public_key: str = Field(
        default="", description="Ed25519, base64: verifies the audit log's signed checkpoints."
    )
    destroy_after_days: int = Field(default=30, ge=7, le=365)
    second_keys: dict[TenantId, KeyReference] = Field(
        default_factory=dict,
        description="A further KMS key by tenant, in another region or cloud, that wraps its data keys too.",
    )
    in_flight_days: int = Field(
        default=0,
        ge=0,
        le=365,
        description="How long encrypted values lie where rotation can't reach them, as on the bus; "
        "an old key stays readable for as long.",
    )


class MonitoringOutputs(_Model):
    """Where the platform's own metrics are."""

    prometheus_url: str
    key_spans: tuple[str, ...] = Field(
        default=(), description="Names of spans that the sampling guard keeps before all others."
    )


class StackOutputs(_Model):
    """Everything that a stage tells the services that run on it."""

    contract_version: Literal[2] = CONTRACT_VERSION
    stage: str
    namespace: str
    tenants: dict[TenantId, TenantOutputs]
    database: DatabaseOutputs
    bus: BusOutputs
    outbox: OutboxOutputs
    gateway: GatewayOutputs
    registries: RegistriesOutputs
    backups: BackupOutputs
    audit: BucketOutputs = Field(description="Where checkpoints of the key-rotation audit log are locked.")
    field_encryption: FieldEncryptionOutputs = FieldEncryptionOutputs()
    monitoring: MonitoringOutputs


def load_outputs(path: str | Path | None = None) -> StackOutputs:
    """Read the outputs from ``path``, or from the file that ``KILO_OUTPUTS`` names.

    Raises:
        Unreachable: the stage's own file does not exist or can't be read.
        BadInput: so it is with ``path``, or the file is not JSON, or not of this contract.
    """
    source = Path(path or os.environ.get(OUTPUTS_VARIABLE) or OUTPUTS_MOUNT)
    try:
        text = source.read_text(encoding="utf-8")
    except OSError as error:
        msg = f"{source}: stack outputs can't be read ({error.strerror})"
        if path is not None:
            raise BadInput(msg) from error
        msg += f"; name the file with {OUTPUTS_VARIABLE}, or bring the dev stage of this checkout up: kilo up"
        raise Unreachable(msg) from error
    try:
        # A later program of the same version may export more; whoever reads takes what it knows.
        return StackOutputs.model_validate(json.loads(text), extra="ignore")
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        msg = f"{source}: {place}: {first['msg']} (contract version {CONTRACT_VERSION})"
        raise BadInput(msg) from error
    except ValueError as error:
        msg = f"{source}: not JSON: {error}"
        raise BadInput(msg) from error
