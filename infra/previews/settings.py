"""What a preview consists of: all that its program reads, and all that is known of it afterwards.

The stack exports this document, so that whoever lists, extends or collects previews needs neither the
service nor the machine that made them. It holds no secret.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kilo.tenancy import Tenant

TENANT = "preview"
"""The one tenant of a preview; no stage may have one of this name in its gateway for it to mean anything."""
CONFIG_KEY = "preview"
OUTPUT = "preview"
ADDRESS_OUTPUT = "address"
DATABASE_OUTPUT = "database_url"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Images(_Model):
    """What its pods run, besides the service."""

    runtime: str
    nats: str
    envoy: str


class EncryptionSettings(_Model):
    """For a service with encrypted fields: the preview tenant's own key, and who may have to do with it."""

    oidc_provider_arn: str
    key_administrators: tuple[str, ...]


class PreviewSettings(_Model):
    """One preview."""

    name: str = Field(description="pr-NUMBER-SERVICE")
    pull_request: int
    stage: str
    service: str
    kind: Literal["http", "consumer", "job"]
    has_database: bool
    announces: bool = Field(description="Whether it writes events.")
    image: str
    """The service's, with its digest."""
    port: int
    expires_at: datetime
    tenant: Tenant
    tenant_header: str
    images: Images
    aws_region: str
    encryption: EncryptionSettings | None = None
    monitoring_namespace: str
    prometheus_url: str
    domain: str | None = None
    ingress_class: str | None = None
    storage_class: str | None = None
    seed: str | None = Field(default=None, description="SQL that is run after the service's migrations.")
    smoke: tuple[dict[str, Any], ...] = ()
    objects: tuple[dict[str, Any], ...] = Field(description="The service's, as its chart renders them.")

    @property
    def namespace(self) -> str:
        """The namespace that holds all of it."""
        return namespace_of(self.name)

    @property
    def stack(self) -> str:
        """The engine's stack."""
        return stack_of(self.stage, self.name)

    @property
    def expires(self) -> str:
        """When it is over, as people and Kubernetes read it."""
        return self.expires_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def namespace_of(name: str) -> str:
    """The namespace of the preview ``name``: at most 63 characters for the longest of each part."""
    return f"preview-{name}"


def stack_of(stage: str, name: str) -> str:
    """The stack of the preview ``name``."""
    return f"{stack_prefix(stage)}{name}"


def stack_prefix(stage: str) -> str:
    """What the stacks of a stage's previews begin with."""
    return f"preview-{stage}-"
