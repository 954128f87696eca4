"""Features: parts of the service with routes and a next version of their own.

A tenant's weight for a feature (``ramps`` of its entry) sends that share of its requests *for the feature*
to the feature's next version; everything else of the tenant goes on as before. A request belongs to the
first feature in the stage's list that its tenant has a weight for and whose routes it matches.

Only tenants with such a weight get routes for it, so a stage without features is rendered as ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from kilo.errors import BadInput
from kilo.tenancy import FeatureId, Tenant

if TYPE_CHECKING:
    from kilo.traffic.settings import GatewayFeature

SHADOW = "shadow"
READING_METHODS = ("GET", "HEAD", "OPTIONS")
"""What may be copied without an idempotency key: methods that are safe by RFC 9110, section 9.2.1."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HeaderMatch(_Frozen):
    """A header that has exactly this value."""

    name: Annotated[
        str,
        StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,63}$"),
        Field(description="a header name in lower case"),
    ]
    value: Annotated[
        str,
        StringConstraints(pattern=r"^[!-~]([ -~]{0,198}[!-~])?$"),
        Field(description="what the header has to say, visible ASCII of at most 200 characters"),
    ]


class FeatureRoutes(_Frozen):
    """Which requests belong to a feature; without path and header all of the service's."""

    path: (
        Annotated[
            str,
            StringConstraints(pattern=r"^(/[A-Za-z0-9._~:@!$&'()*+,;=-]+)+$", max_length=200),
            Field(description="a path such as /v1/checkout, without a slash at its end; all below it counts"),
        ]
        | None
    ) = None
    header: HeaderMatch | None = None


_DnsLabel = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"),
    Field(description="a DNS label: lower-case letters, digits and hyphens, at most 63 characters"),
]


class NextService(_Frozen):
    """A Service of the cluster that is there already."""

    name: _DnsLabel
    namespace: _DnsLabel
    port: int = Field(ge=1, le=65_535)

    @property
    def host(self) -> str:
        """Its full name, which resolves the same in every namespace."""
        return f"{self.name}.{self.namespace}.svc.cluster.local"


class NextVersion(_Frozen):
    """What answers a feature's share: another image of the service, or a service that is there already."""

    image: (
        Annotated[
            str,
            StringConstraints(
                pattern=r"^[a-z0-9][a-z0-9./:_-]*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}|@sha256:[0-9a-f]{64})$"
            ),
            Field(description="an image with a tag or, better, a digest: registry/name:tag"),
        ]
        | None
    ) = None
    arguments: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="Its command line instead of the service's own."
    )
    service: NextService | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.image is None) == (self.service is None):
            msg = "a next version is an image, or a service that is there; give one of them"
            raise ValueError(msg)
        if self.service and self.arguments:
            msg = "arguments are those of an image; a service has its own"
            raise ValueError(msg)
        return self


class Feature(FeatureRoutes):
    """One entry under ``features:`` of a stage."""

    id: FeatureId
    next: NextVersion

    @property
    def routes(self) -> FeatureRoutes:
        """Which requests are meant."""
        return FeatureRoutes(path=self.path, header=self.header)


def cluster_name(version: str, tier: str) -> str:
    """Name the cluster of a version and a tier: retry budgets and ceilings are a tier's own."""
    return f"{version}-{tier}"


def next_cluster(feature: str, tier: str) -> str:
    """Name the cluster of a feature's next version for a tier."""
    return f"next/{feature}/{tier}"


def shadow_cluster(feature: str, tenant: str) -> str:
    """Name the cluster that a tenant's copies for a feature go to."""
    return f"shadow/{feature}/{tenant}"


def mirrored(
    tenants: Sequence[Tenant], features: Sequence[GatewayFeature]
) -> Iterator[tuple[Tenant, GatewayFeature]]:
    """Every tenant and feature whose requests are copied."""
    for tenant in tenants:
        for feature in features:
            if tenant.ramps.get(feature.id) == SHADOW:
                yield tenant, feature


def weight_of(tenant: Tenant, feature: str) -> int:
    """The percentage of the tenant's requests for a feature that its next version answers."""
    weight = tenant.ramps.get(feature, 0)
    return weight if isinstance(weight, int) else 0


def check_ramps(tenants: Sequence[Tenant], features: Sequence[GatewayFeature]) -> None:
    """Refuse a weight for a feature that is not there, or beside one of the service; raises BadInput."""
    known = {feature.id for feature in features}
    for tenant in tenants:
        for feature in tenant.ramps:
            if feature not in known:
                msg = (
                    f"tenant {tenant.id}: ramps: there is no feature '{feature}'; "
                    f"features: {', '.join(sorted(known)) or 'none'}"
                )
                raise BadInput(msg)
        if tenant.ramps and tenant.next_weight_percent:
            msg = (
                f"tenant {tenant.id}: ramps beside next_weight_percent {tenant.next_weight_percent}: which "
                "version would have failed could not be told; set one of them to 0"
            )
            raise BadInput(msg)
