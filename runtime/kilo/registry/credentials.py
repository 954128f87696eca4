"""Who we are to a registry: Docker's configuration, the cloud's own identity, or nobody.

In this order: ``auths`` of ``$DOCKER_CONFIG/config.json``; for Amazon ECR an authorization token of
the ambient AWS identity; for Google Artifact Registry an access token of the ambient Google
identity; otherwise anonymous. A cloud's token is never sent over plain HTTP. Credential helpers
are left out: workloads have an identity of their own, and a person's ``docker login`` writes
``auths`` where no helper is configured.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from kilo.errors import BadInput
from kilo.registry.errors import AccessDenied

_ECR = re.compile(r"(?P<account>\d{12})\.dkr\.ecr(-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?")
_ARTIFACT_REGISTRY = re.compile(r"([a-z0-9-]+-docker\.pkg\.dev|([a-z]+\.)?gcr\.io)")


@dataclass(frozen=True, slots=True)
class Login:
    """A user name and a password for HTTP Basic or a token exchange."""

    username: str
    password: str = field(repr=False)

    def basic(self) -> str:
        """The value of a Basic Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def find_login(host: str, *, encrypted: bool, environment: Mapping[str, str] = os.environ) -> Login | None:
    """Find the login for ``host``; None means anonymous.

    Raises:
        BadInput: Docker's configuration can't be understood.
        AccessDenied: the cloud gave no token to the ambient identity.
    """
    login = _docker_login(host, environment)
    if login or not encrypted:
        return login
    if match := _ECR.fullmatch(host):
        return _ecr_login(match["account"], match["region"])
    if _ARTIFACT_REGISTRY.fullmatch(host):
        return _google_login(host)
    return None


def _docker_login(host: str, environment: Mapping[str, str]) -> Login | None:
    directory = environment.get("DOCKER_CONFIG") or str(Path.home() / ".docker")
    path = Path(directory) / "config.json"
    try:
        auths = json.loads(path.read_text(encoding="utf-8")).get("auths", {})
        entry = cast("dict[str, dict[str, str]]", auths).get(host)
        if not entry or not entry.get("auth"):
            return None
        username, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
    except OSError:
        return None
    except (ValueError, AttributeError, binascii.Error) as error:
        msg = f"{path}: auths.{host}.auth: can't be read ({type(error).__name__}); run docker login again"
        raise BadInput(msg) from error
    return Login(username, password.rstrip("\0"))


def _ecr_login(account: str, region: str) -> Login:
    import boto3  # noqa: PLC0415 - only where ECR is spoken to
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        answer = boto3.client("ecr", region_name=region).get_authorization_token(registryIds=[account])
    except (BotoCoreError, ClientError) as error:
        msg = f"ECR of {account} in {region}: no authorization token for the ambient AWS identity: {error}"
        raise AccessDenied(msg) from error
    token = base64.b64decode(answer["authorizationData"][0]["authorizationToken"]).decode()
    username, _, password = token.partition(":")
    return Login(username, password)


def _google_login(host: str) -> Login:
    import google.auth  # noqa: PLC0415 - only where Artifact Registry is spoken to
    from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415
    from google.auth.transport.requests import Request  # noqa: PLC0415

    try:
        identity, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
        identity.refresh(Request())
    except GoogleAuthError as error:
        msg = f"{host}: no access token for the ambient Google identity: {error}"
        raise AccessDenied(msg) from error
    return Login("oauth2accesstoken", str(identity.token))
