"""The settings of a Kafka that is there already: where it is, and who the stage's processes are to it."""

from __future__ import annotations

from pydantic import Field

from infra.cloud_settings import Section
from infra.setting_types import Broker, DnsLabel, HttpsUrl, MskClusterArn, Network, Scope
from kilo.bus.access import Shown
from kilo.bus.roles import BusRole, bus_secrets


class Tokens(Section):
    """An OAuth 2 token endpoint, at which each role is a client with an id and a secret."""

    endpoint: HttpsUrl
    scope: Scope | None = None
    network: Network = Field(default="10.0.0.0/8", description="Where it is, for network policies.")


class KafkaAccess(Section):
    """Who the stage's processes are to a Kafka with TLS. Each role has a Secret of the stage's namespace,
    which whoever manages its users makes: `ca.pem` with KILO_BUS_USER and KILO_BUS_PASSWORD, with `tls.crt`
    and `tls.key`, for tokens with KILO_BUS_USER, KILO_BUS_PASSWORD and `token-ca.pem`, or alone."""

    shown: Shown = Field(
        default="password",
        description="A password, by SASL/SCRAM-SHA-512 over TLS, a certificate (mTLS), a token of an OAuth "
        "issuer, by SASL/OAUTHBEARER over TLS, or one of AWS IAM, for Amazon's managed Kafka (MSK).",
    )
    tokens: Tokens | None = None
    """Where processes get their tokens, for `shown: token`."""
    msk_cluster: MskClusterArn | None = None
    """The cluster that roles of the stage may use, for `shown: aws-msk-iam`."""
    secrets: dict[BusRole, DnsLabel] = Field(
        default={}, description="The Secret of a role, where it is not called bus-ROLE."
    )
    generation: int = Field(
        default=1,
        ge=1,
        le=1_000_000,
        description="Another number replaces the pods, which read their Secrets when they start.",
    )

    @property
    def secret_names(self) -> dict[BusRole, str]:
        """The Secret of each role."""
        return {**bus_secrets(), **self.secrets}

    @property
    def msk_region(self) -> str | None:
        """Where the cluster of Amazon is."""
        return self.msk_cluster.split(":")[3] if self.msk_cluster else None


class Kafka(Section):
    """A Kafka that is there already."""

    brokers: tuple[Broker, ...] = Field(min_length=1)
    network: Network = Field(default="10.0.0.0/8", description="Where it is, for network policies.")
    access: KafkaAccess | None = None
    """Without it the brokers are spoken to plainly, and by nobody in particular."""
    unguarded: bool = Field(
        default=False,
        description="Says for stage and prod that a Kafka without TLS and users is meant.",
    )
