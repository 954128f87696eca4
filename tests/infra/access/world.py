"""Every policy that a stage's program renders, as one world that calls can be asked of.

The recorder's answers are short ARNs (``arn:aws:sqs:::NAME``); they become AWS' own, in the stage's account.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from infra.__main__ import deploy
from infra.configuration import read_stage_file
from infra.settings import Settings
from tests.components.recorder import Recording, multi_region_key_arn, record
from tests.infra.access.evaluator import World

ROOT = Path(__file__).parents[3]
HOME = "eu-central-1"
_RECORDED_ACCOUNT = "123456789012"
_WHOLE = {
    "iam": "arn:aws:iam::{account}:role/",
    "sqs": f"arn:aws:sqs:{HOME}:{{account}}:",
    "ecr": f"arn:aws:ecr:{HOME}:{{account}}:repository/",
    "cloudwatch": f"arn:aws:events:{HOME}:{{account}}:rule/",
    "kms": f"arn:aws:kms:{HOME}:{{account}}:key/",
}


@dataclass(frozen=True)
class Stage:
    """A stage's policies, and how its things are called."""

    name: str
    account: str
    issuer: str
    world: World
    google: Mapping[str, list[Mapping[str, Any]]]
    """Bindings by bucket or repository."""
    keys: Mapping[str, str]
    """ARNs of the keys and their replicas by the resource's name."""
    policies: int

    def role(self, name: str) -> str:
        """The ARN of a process' role."""
        return f"arn:aws:iam::{self.account}:role/kilo-{self.name}-{name}"

    def arn(self, service: str, name: str) -> str:
        """The ARN of a queue, a repository or a rule."""
        return _WHOLE[service].format(account=self.account) + name


@cache
def stage(name: str) -> Stage:
    """What ``Pulumi.NAME.yaml`` renders."""
    return rendered(read_stage_file(ROOT / f"Pulumi.{name}.yaml"))


def rendered(settings: Settings) -> Stage:
    """What a stage of these settings has of policies."""
    name = settings.stage
    recording = record(lambda: deploy(settings), stack=name)
    trust = recording.of("aws:iam/role:Role")[0].inputs["assumeRolePolicy"]
    found = re.search(r'"(arn:aws:iam::(\d{12}):oidc-provider/[^"]+)"', trust)
    assert found, trust
    return _Reader(recording, found[2]).stage(name, found[1])


class _Reader:
    def __init__(self, recording: Recording, account: str) -> None:
        self._recording = recording
        self._account = account
        self._policies = 0

    def stage(self, name: str, issuer: str) -> Stage:
        world = World()
        keys: dict[str, str] = {}
        google: dict[str, list[Mapping[str, Any]]] = {}
        for resource in self._recording.resources:
            inputs = resource.inputs
            match resource.type:
                case "aws:iam/role:Role":
                    self._put(world, f"arn:aws:iam:::{inputs['name']}", inputs["assumeRolePolicy"])
                case "aws:iam/rolePolicy:RolePolicy":
                    role = self._whole(f"arn:aws:iam:::{inputs['role']}")
                    world.identities.setdefault(role, []).append(self._read(inputs["policy"]))
                case "aws:s3/bucketPolicy:BucketPolicy":
                    self._put(world, f"arn:aws:s3:::{inputs['bucket']}", inputs["policy"])
                case "aws:sqs/queuePolicy:QueuePolicy":
                    queue = inputs["queueUrl"].rpartition("/")[2]
                    self._put(world, f"arn:aws:sqs:::{queue}", inputs["policy"])
                case "aws:kms/key:Key":
                    multi = inputs.get("multiRegion")
                    arn = multi_region_key_arn(resource.name) if multi else f"arn:aws:kms:::{resource.name}"
                    keys[resource.name] = self._put(world, arn, inputs["policy"])
                case "aws:kms/replicaKey:ReplicaKey":
                    whose = inputs["primaryKeyArn"].partition(f":{_RECORDED_ACCOUNT}:")[2]
                    arn = f"arn:aws:kms:{inputs['region']}:{self._account}:{whose}"
                    keys[resource.name] = self._put(world, arn, inputs["policy"])
                case "gcp:storage/bucketIAMMember:BucketIAMMember":
                    google.setdefault(inputs["bucket"], []).append(inputs)
                case "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember":
                    google.setdefault(inputs["repository"], []).append(inputs)
                case other:
                    # Whatever else carries a policy would go unasked.
                    held = [value for value in inputs.values() if isinstance(value, str)]
                    assert not any('"Statement"' in value for value in held), other
                    assert not re.search(r"^gcp:.*[Ii]am", other), other
        return Stage(name, self._account, issuer, world, google, keys, self._policies)

    def _put(self, world: World, arn: str, policy: str) -> str:
        world.resources[self._whole(arn)] = self._read(policy)
        return self._whole(arn)

    def _read(self, policy: str) -> dict[str, Any]:
        self._policies += 1
        return json.loads(self._whole(policy))

    def _whole(self, text: str) -> str:
        for service, prefix in _WHOLE.items():
            text = text.replace(f"arn:aws:{service}:::", prefix.format(account=self._account))
        return text.replace(f":{_RECORDED_ACCOUNT}:", f":{self._account}:")
