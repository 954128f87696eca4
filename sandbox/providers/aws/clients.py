"""Clients of the AWS APIs, for the one configuration that a provider process has."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from kilo.errors import BadInput
from sandbox.providers.base import ResourceType
from sandbox.providers.here import is_here
from sandbox.providers.values import Properties
from sandbox.stages import ACCOUNT_VARIABLE

ENDPOINT_VARIABLE = "AWS_ENDPOINT_URL"


class Session:
    """The provider's region, default tags and clients."""

    def __init__(self) -> None:
        self.region = os.environ.get("AWS_REGION") or "us-east-1"
        self.default_tags: dict[str, str] = {}
        self._clients: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()

    def configure(self, arguments: Properties) -> None:
        """Take the provider's configuration.

        Raises:
            BadInput: no endpoint on this machine is set, and a real cloud is never reached by mistake; or the
                account is none of ``allowedAccountIds``.
        """
        endpoint = os.environ.get(ENDPOINT_VARIABLE, "")
        if not is_here(endpoint):
            msg = (
                f"{ENDPOINT_VARIABLE} must be an address on this machine, and is "
                f'{endpoint or "not set"}: run `eval "$(kilo env)"`, or remove .kilo/bin/pulumi-resource-aws '
                "to use the official provider"
            )
            raise BadInput(msg)
        self.region = arguments.get("region") or self.region
        tags = arguments.get("defaultTags")
        if isinstance(tags, str):
            tags = json.loads(tags)
        self.default_tags = dict((tags or {}).get("tags") or {})
        allowed = arguments.get("allowedAccountIds") or []
        self.refuse_other_accounts(json.loads(allowed) if isinstance(allowed, str) else allowed)

    def client(self, service: str, region: str | None = None) -> Any:
        """A client, made once a service and region, since making one costs more than a call."""
        key = service, region or self.region
        with self._lock:
            if key not in self._clients:
                config = Config(
                    retries={"mode": "standard", "max_attempts": 3},
                    max_pool_connections=64,
                    s3={"addressing_style": "path"},
                )
                self._clients[key] = boto3.client(key[0], region_name=key[1], config=config)
            return self._clients[key]

    @property
    def account(self) -> str:
        """The account's 12 digits."""
        return self.client("sts").get_caller_identity()["Account"]

    def refuse_other_accounts(self, allowed: Sequence[str]) -> None:
        """Do as the official provider does with ``allowedAccountIds``.

        Raises:
            BadInput: the sandbox stands in for none of them.
        """
        if allowed and self.stood_in_for not in allowed:
            msg = f"AWS account ID not allowed: {self.stood_in_for}; allowed: {', '.join(allowed)}"
            raise BadInput(msg)

    @property
    def stood_in_for(self) -> str:
        """The account of the stage at hand; what moto has is in its own one account for all of them."""
        return os.environ.get(ACCOUNT_VARIABLE) or self.account


SESSION = Session()


class AwsType(ResourceType):
    """A resource type of AWS: regional, and tagged where ``tagged`` says so."""

    service: str
    tagged = False
    server_chosen = ("region", "tagsAll")

    def client(self, properties: Mapping[str, Any], service: str | None = None) -> Any:
        """The type's own client in the resource's region."""
        return SESSION.client(service or self.service, properties.get("region"))

    def preview_outputs(self, inputs: Properties) -> Properties:
        """Region and tags are known before the resource is."""
        outputs: Properties = {"region": inputs.get("region") or SESSION.region}
        if self.tagged:
            outputs["tagsAll"] = all_tags(inputs)
        return outputs


def all_tags(inputs: Properties) -> dict[str, Any]:
    """The resource's tags over the provider's default ones."""
    tags = inputs.get("tags") or {}
    return {**SESSION.default_tags, **tags} if isinstance(tags, dict) else tags


def tag_list(inputs: Properties) -> list[dict[str, str]]:
    """Tags in the form that most of the APIs take."""
    return [{"Key": key, "Value": value} for key, value in all_tags(inputs).items()]


def tag_outputs(live: Mapping[str, str], known: Properties) -> Properties:
    """``tags`` and ``tagsAll`` from the live ones; the provider's default tags are not the resource's own."""
    own = known.get("tags") or {}
    mine = {k: v for k, v in live.items() if not k.startswith("aws:")}
    tags = {k: v for k, v in mine.items() if k in own or SESSION.default_tags.get(k) != v}
    return {"tags": tags or None, "tagsAll": mine}


def tag_changes(old: Properties, new: Properties) -> tuple[dict[str, str], list[str]]:
    """Tags to set and keys to take away."""
    before, after = old.get("tagsAll") or {}, all_tags(new)
    return {k: v for k, v in after.items() if before.get(k) != v}, [k for k in before if k not in after]


def error_code(error: ClientError) -> str:
    """The API's own name of the error."""
    return error.response.get("Error", {}).get("Code", "")


@contextmanager
def unless_gone(*codes: str) -> Generator[None]:
    """Take an API's "no such thing" for an answer."""
    try:
        yield
    except ClientError as error:
        if error_code(error) not in codes:
            raise
