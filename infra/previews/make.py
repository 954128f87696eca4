"""Says what the preview of a service is to be: from its folder, the stage's file and the image."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from infra.previews.chart import preview_values, read_values, render
from infra.previews.keys import SERVICE, role_name
from infra.previews.request import Target, read_seed, read_smoke
from infra.previews.settings import (
    TENANT,
    EncryptionSettings,
    Images,
    PreviewSettings,
    namespace_of,
    stack_of,
)
from infra.settings import Settings
from kilo.scaffold.template import Service
from kilo.tenancy import Tenant, TenantEntry

_TIER = "silver"
_DEFAULT_PORT = 8_080


def describe(
    target: Target, service: Service, pull_request: int, image: str, lifetime: timedelta | None
) -> PreviewSettings:
    """The preview of ``service`` as it is now.

    Raises:
        BadInput: the service's folder or the stage's file holds a mistake.
    """
    stage = target.settings()
    answers = service.answers
    kind = str(answers["kind"])
    has_database = kind == "consumer" or bool(answers.get("database"))
    name = f"pr-{pull_request}-{service.name}"
    values = preview_values(
        read_values(service),
        service.name,
        image,
        {"namespace": stage.monitoring.namespace, "labels": dict(stage.monitoring.labels)},
        database=has_database,
    )
    encryption = _encryption(stage) if answers.get("encrypted") else None
    if encryption:
        role = role_name(stack_of(target.stage, name), SERVICE)
        values["identity"] = {"awsRoleArn": f"arn:aws:iam::{stage.aws.account_id}:role/{role}"}
        values["environment"] = {**(values.get("environment") or {}), "AWS_DEFAULT_REGION": stage.aws.region}
    smoke = read_smoke(service)
    return PreviewSettings.model_validate(
        {
            "name": name,
            "pull_request": pull_request,
            "stage": target.stage,
            "service": service.name,
            "kind": kind,
            "has_database": has_database,
            "announces": kind != "consumer" and has_database and bool(answers.get("outbox")),
            "image": image,
            "port": values.get("port", _DEFAULT_PORT),
            "expires_at": datetime.now(UTC) + (lifetime or timedelta(hours=stage.previews.lifetime_hours)),
            "tenant": _tenant(stage, encrypts=encryption is not None),
            "encryption": encryption,
            "tenant_header": stage.gateway.tenant_header,
            "images": Images(runtime=stage.images.runtime, nats=stage.images.nats, envoy=stage.images.envoy),
            "aws_region": stage.aws.region,
            "monitoring_namespace": stage.monitoring.namespace,
            "prometheus_url": stage.monitoring.prometheus_url,
            "domain": stage.previews.domain,
            "ingress_class": stage.previews.ingress_class,
            "storage_class": stage.previews.storage_class,
            "seed": read_seed(service) if has_database else None,
            "smoke": [each.model_dump() for each in smoke.requests] if smoke else [],
            "objects": render(
                target.project / "charts" / "service", service.name, namespace_of(name), values
            ),
        }
    )


def _tenant(stage: Settings, *, encrypts: bool) -> Tenant:
    """The one tenant of a preview, with what the stage promises to an ordinary one.

    Where the service encrypts, all is encrypted that is for any tier, so that this is tried as well.
    """
    fields = stage.tiers.policy("gold").encrypted_fields if encrypts else ()
    entry = TenantEntry(id=TENANT, tier=_TIER, kms_key="own", encrypted_fields=fields)
    return entry.resolve(stage.tiers.policy(_TIER))


def _encryption(stage: Settings) -> EncryptionSettings:
    return EncryptionSettings(
        oidc_provider_arn=stage.aws.oidc_provider_arn, key_administrators=stage.aws.key_administrators
    )
