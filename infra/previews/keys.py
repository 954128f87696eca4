"""The KMS key of a preview's tenant, for a service that encrypts: its own, which its own processes use."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.clouds.cloud_identity import CloudIdentity, CloudIdentityArgs
from components.clouds.key_policy import DECRYPT, ENCRYPT, KeyUser
from components.clouds.tenant_keys import TenantKeys, TenantKeysArgs
from components.processes.key_making import KEY_MAKING
from infra import names
from infra.previews.settings import TENANT, EncryptionSettings, PreviewSettings

SERVICE = "service"


@dataclass(frozen=True)
class Keys:
    """The key by name, and who uses it."""

    reference: Mapping[str, Any]
    key_making: CloudIdentity
    consumer: CloudIdentity


def create_keys(settings: PreviewSettings, encryption: EncryptionSettings) -> Keys:
    """Register the key and its users. It goes with the preview, after the shortest time that KMS has."""

    def identity(name: str, service_account: str) -> CloudIdentity:
        return CloudIdentity(
            name,
            CloudIdentityArgs(
                namespace=settings.namespace,
                service_accounts=[service_account],
                role_name=role_name(settings.stack, name),
                oidc_provider_arn=encryption.oidc_provider_arn,
            ),
        )

    service = identity(SERVICE, settings.service)
    consumer, making = identity(names.CONSUMER, names.CONSUMER), identity(KEY_MAKING, KEY_MAKING)
    keys = TenantKeys(
        "tenant-keys",
        TenantKeysArgs(
            tenants=[TENANT],
            alias_prefix=f"alias/kilo/{settings.stack}",
            administrators=encryption.key_administrators,
            users=[
                KeyUser("Service", service.role_arn, DECRYPT),
                KeyUser("Consumer", consumer.role_arn, DECRYPT),
                KeyUser("KeyMaking", making.role_arn, ENCRYPT),
            ],
            deletion_window_days=7,
            protect=False,
            tags={"project": "kilo", "stage": settings.stage, "preview": settings.name},
        ),
    ).keys[TENANT]
    return Keys({"provider": "aws", "key": keys.arn, "alias": keys.alias}, making, consumer)


def role_name(stack: str, identity: str) -> str:
    """The IAM role of a preview's identity: of at most 64 characters, however long the service's name is."""
    return f"kilo-preview-{hashlib.sha256(stack.encode()).hexdigest()[:16]}-{identity}"
