"""The kinds of words that a stage's file is made of: names, schedules, addresses.

Each says in its description what would be right, for messages about a mistake and for the reference.
Limits are those of the clouds and of Kubernetes.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    GetPydanticSchema,
    StringConstraints,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from kilo.errors import KiloError
from kilo.traffic.features import NextService
from kilo.traffic.ramps.freeze import Freezes

DEPLOYED = "deployed"

DnsLabel = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"),
    Field(description="a DNS label: lower-case letters, digits and hyphens, at most 63 characters"),
]
RepositoryName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9]+([._-][a-z0-9]+)*(/[a-z0-9]+([._-][a-z0-9]+)*)*$", max_length=200),
    Field(description="a repository name such as shop/orders, lower case"),
]
AwsRegion = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z]{2}(-(gov|iso[a-z]?))?-[a-z]+-[1-9]$"),
    Field(description="an AWS region such as eu-central-1"),
]
GcpRegion = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z]+-[a-z]+[1-9][0-9]?$"),
    Field(description="a Google Cloud region such as europe-west3"),
]
IamArn = Annotated[
    str,
    StringConstraints(pattern=r"^arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/[A-Za-z0-9+=,.@_/-]+$"),
    Field(description="an IAM role or user ARN such as arn:aws:iam::123456789012:role/key-administrator"),
]
GoogleMember = Annotated[
    str,
    StringConstraints(pattern=r"^(user|group|serviceAccount):[a-z0-9._%+-]+@[a-z0-9-]+(\.[a-z0-9-]+)+$"),
    Field(description="a person, group or service account such as group:restorers@example.com"),
]
IamPolicyArn = Annotated[
    str,
    StringConstraints(pattern=r"^arn:aws[a-z-]*:iam::[0-9]{12}:policy/[A-Za-z0-9+=,.@_/-]+$"),
    Field(description="an IAM policy's ARN such as arn:aws:iam::123456789012:policy/kilo-prod-boundary"),
]
OidcProviderArn = Annotated[
    str,
    StringConstraints(
        pattern=r"^arn:aws[a-z-]*:iam::[0-9]{12}:oidc-provider/[a-z0-9.-]+(/[A-Za-z0-9._/-]+)?$"
    ),
    Field(description="the ARN of the cluster's IAM OIDC provider"),
]
WorkloadIdentityPool = Annotated[
    str,
    StringConstraints(
        pattern=r"^projects/[0-9]+/locations/global/workloadIdentityPools/[a-z0-9-]{4,32}/providers/[a-z0-9-]{4,32}$"
    ),
    Field(description="projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER"),
]
Image = Annotated[
    str,
    StringConstraints(
        pattern=r"^[a-z0-9][a-z0-9./:_-]*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}|@sha256:[0-9a-f]{64})$"
    ),
    Field(
        description="an image with a tag or, better, a digest: registry/name:tag or registry/name@sha256:…"
    ),
]
LabelName = Annotated[
    str,
    StringConstraints(
        pattern=r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
    ),
    Field(description="a Kubernetes label such as release or app.kubernetes.io/instance"),
]
LabelValue = Annotated[
    str,
    StringConstraints(pattern=r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$"),
    Field(description="at most 63 letters, digits, dots, hyphens and underscores"),
]
CronSchedule = Annotated[
    str,
    StringConstraints(pattern=r"^(\S+ ){4}\S+$"),
    Field(description="a cron schedule of five fields such as '15 2 * * *'"),
]
SchemaName = Annotated[
    str,
    # pydantic's expressions do not look ahead: what follows is a name without p first, with p, and with pg.
    StringConstraints(
        pattern=r"^([a-oq-z_][a-z0-9_]{0,62}|p([a-fh-z0-9_][a-z0-9_]{0,61})?|pg([a-z0-9][a-z0-9_]{0,60})?)$"
    ),
    Field(description="a schema's name: lower-case letters, digits and _, no pg_ before it"),
]
HostName = Annotated[
    str,
    StringConstraints(
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$", max_length=253
    ),
    Field(description="a host name such as kilo.abc123.eu-central-1.rds.amazonaws.com, or an IPv4 address"),
]
DatabaseName = Annotated[
    str,
    # It stands in URLs as it is.
    StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$"),
    Field(description="a database's name of letters, digits and _ . -, at most 63"),
]
SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
"""https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-SSLMODE-STATEMENTS"""
SecretId = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9/_+=.@-]{1,512}$"),
    Field(description="the name of a secret in AWS Secrets Manager such as kilo/dev/database-url"),
]
Url = Annotated[
    str,
    StringConstraints(pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?$"),
    Field(description="an http or https URL without a query"),
]

HttpsUrl = Annotated[
    str,
    StringConstraints(
        pattern=r"^https://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[1-9][0-9]{0,4})?(/[A-Za-z0-9._~/-]*)?$"
    ),
    Field(description="an https URL without a user and a query"),
]
Scope = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9._:/-]+( [A-Za-z0-9._:/-]+)*$"),
    Field(description="scopes separated by a space, of letters, digits and . _ : / -"),
]
MskClusterArn = Annotated[
    str,
    StringConstraints(
        pattern=r"^arn:aws[a-z-]*:kafka:[a-z0-9-]+:[0-9]{12}:cluster/[A-Za-z0-9-]{1,64}/[0-9a-f-]+$"
    ),
    Field(
        description="the ARN of a cluster of Amazon's managed Kafka such as "
        "arn:aws:kafka:eu-central-1:123456789012:cluster/events/8a4b6d1e-2f6f-4d3a-9b0e-0c1d2e3f4a5b-2"
    ),
]


def _certificates(text: str) -> str:
    # Whoever reads only the file needs no cryptography.
    from cryptography.x509 import load_pem_x509_certificates  # noqa: PLC0415

    try:
        load_pem_x509_certificates(text.encode())
    except ValueError as error:
        msg = "certificates in PEM form are needed, each from -----BEGIN CERTIFICATE-----"
        raise ValueError(msg) from error
    return text


Certificates = Annotated[str, AfterValidator(_certificates)]


def _bucket_name(name: str) -> str:
    """Hold ``name`` to the rules that S3 and Cloud Storage share, without dots (they break TLS names)."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", name):
        msg = "a bucket name has 3 to 63 lower-case letters, digits and inner hyphens"
        raise ValueError(msg)
    reserved = ("xn--", "sthree-", "amzn-s3-demo-", "goog")
    if name.startswith(reserved) or name.endswith(("-s3alias", "--ol-s3", "--x-s3")) or "google" in name:
        msg = f"a bucket name can't start with {', '.join(reserved)}, contain google or end like an S3 alias"
        raise ValueError(msg)
    return name


BucketName = Annotated[str, AfterValidator(_bucket_name)]


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError as error:
        msg = f"{error}; a network such as 10.0.0.0/16 is needed"
        raise ValueError(msg) from error


Network = Annotated[str, AfterValidator(_network)]


def _broker(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", host) or not re.fullmatch(r"[1-9][0-9]*", port):
        msg = "a broker is a host and a port such as kafka-0.example:9092"
        raise ValueError(msg)
    if int(port) > 65_535:
        msg = "a port is at most 65535"
        raise ValueError(msg)
    return value


Broker = Annotated[str, AfterValidator(_broker)]


def _freeze_window(text: str) -> str:
    try:
        Freezes([text])
    except KiloError as error:
        raise ValueError(str(error)) from error
    return text


FreezeWindow = Annotated[str, AfterValidator(_freeze_window)]


def _deployed_or_there(value: object, there: core_schema.ValidatorFunctionWrapHandler) -> object:
    if value == DEPLOYED:
        return value
    if isinstance(value, str):
        msg = f"use {DEPLOYED}, or the name, namespace and port of one that is there"
        raise ValueError(msg)  # noqa: TRY004  what pydantic takes for a mistake
    return there(value)


def _service_schema(_: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
    # Of a union, pydantic names the member in the place of a mistake, which the file does not have.
    return core_schema.no_info_wrap_validator_function(_deployed_or_there, handler(NextService))


def _service_json_schema(schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
    return {"anyOf": [{"const": DEPLOYED}, handler(schema)]}


RateLimitService = Annotated[
    NextService | Literal["deployed"], GetPydanticSchema(_service_schema, _service_json_schema)
]
