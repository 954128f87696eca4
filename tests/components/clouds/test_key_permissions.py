"""Rendered key policies, held against the permissions that botocore documents for the provider's calls."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
from botocore import xform_name

from components.clouds.backup_vault import Replica
from sandbox.providers.aws import kms as provider
from tests.components.clouds.test_keys import KEY, REPLICA, replicated
from tests.components.clouds.test_stores import vault
from tests.components.recorder import Recording

SERVICE: Any = botocore.session.get_session().get_service_model("kms")
NEVER_CALLED = {
    # Every symmetric key of the program rotates, so nobody gets the right to end that.
    "DisableKeyRotation",
    # There is no key without its policy in the program.
    "CreateKey",
}
"""What the provider can do and does for no key of the program."""


def documented(operation: str) -> set[str]:
    """The permissions that ``operation`` needs of key policies, as the API's reference has them."""
    text = re.sub(r"<[^>]+>", " ", SERVICE.operation_model(operation).documentation)
    needed = text.partition("Required permissions")[2].partition("Related operations")[0]
    found: list[tuple[str, str]] = re.findall(
        r"(kms:\w+)([^:]*?)(?=kms:|$)", needed.partition("You can use the")[0]
    )
    return {permission for permission, where in found if "IAM policy" not in where}


def called() -> set[str]:
    names = {str(xform_name(name)): str(name) for name in SERVICE.operation_names}
    source = Path(provider.__file__).read_text(encoding="utf-8")
    return {names[call] for call in re.findall(r"\.(\w+)\(", source) if call in names}


def keys_of(recording: Recording) -> Iterator[tuple[str, set[str]]]:
    """Each key with what its administrators may do, of whom the one that deploys is one."""
    for key in (*recording.of(KEY), *recording.of(REPLICA)):
        statements = json.loads(key.inputs["policy"])["Statement"]
        yield (
            key.name,
            {
                action
                for each in statements
                if each["Sid"] in {"Administer", "Replicate"}
                for action in each["Action"]
            },
        )


def test_who_deploys_may_do_to_each_key_what_the_provider_does() -> None:
    calls = called()
    assert {"CreateKey", "ReplicateKey", "PutKeyPolicy", "CreateAlias", "ScheduleKeyDeletion"} <= calls
    assert documented("ReplicateKey") == {"kms:ReplicateKey"}
    assert documented("CreateAlias") == {"kms:CreateAlias"}
    needed = {permission for call in calls - NEVER_CALLED for permission in documented(call)}
    for recording in (replicated(), vault(Replica("eu-west-1", "kilo-replica", "copies"))):
        for name, allowed in keys_of(recording):
            assert needed <= allowed, f"{name}: {needed - allowed} is missing"
