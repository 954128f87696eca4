"""Who uses the tenants' keys: the platform's own processes and whom the stage names besides."""

from __future__ import annotations

import pulumi

from components.clouds.key_policy import DECRYPT, ENCRYPT, KeyUser
from infra.settings import Settings


def tenant_key_users(
    settings: Settings,
    *,
    ingest: pulumi.Input[str],
    consumer: pulumi.Input[str],
    key_making: pulumi.Input[str],
) -> list[KeyUser]:
    """The users of tenants' keys, given the ARNs of the processes' roles."""
    actions = {"encrypt": ENCRYPT, "decrypt": DECRYPT}
    return [
        KeyUser("Ingest", ingest, DECRYPT),
        KeyUser("Consumer", consumer, DECRYPT),
        # Who may wrap makes keys: no process that serves requests does.
        KeyUser("KeyMaking", key_making, ENCRYPT),
        *(
            KeyUser(
                user.name,
                user.role_arn,
                [action for each in ("encrypt", "decrypt") if each in user.can for action in actions[each]],
                None if user.tenants is None else frozenset(user.tenants),
            )
            for user in settings.aws.key_users
        ),
    ]
