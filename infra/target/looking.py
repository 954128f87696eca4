"""``kilo check --cloud``: asks the clouds and the cluster of a stage with who runs it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import typer

from infra.settings import Settings
from infra.target.kubeconfig import Cluster
from infra.target.prerequisites import Finding, of_aws, of_cluster, of_google
from kilo.errors import CheckFailed, KiloError
from kilo.tables import print_table

_SERVICE_USAGE = "https://serviceusage.googleapis.com"
_SECONDS = 20


def look(settings: Settings, context: str | None, *, as_json: bool) -> None:
    """Print what is there and what isn't.

    Raises:
        CheckFailed: something is missing, or may not be looked at.
    """
    found = list(_everything(settings, context))
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found], indent=2))
    else:
        rows = [(each.state, each.where, each.what, each.advice) for each in found]
        print_table(["state", "where", "what", "advice"], rows)
    if wanting := [each for each in found if each.state != "there"]:
        msg = f"{settings.stage}: {len(wanting)} of {len(found)} are not known to be there"
        raise CheckFailed(msg)


def _everything(settings: Settings, context: str | None) -> Iterator[Finding]:
    import boto3  # noqa: PLC0415  takes a second, which a check of files alone need not

    session: Any = boto3.Session(region_name=settings.aws.region)
    yield from of_aws(settings, session.client)
    yield from of_google(settings, _service_usage)
    try:
        cluster = Cluster(context)
    except KiloError as error:
        yield Finding("Kubernetes", f"context {context or 'of the kubeconfig'}", "unknown", str(error))
    else:
        yield from of_cluster(settings, cluster)


def _service_usage(path: str) -> tuple[int, Mapping[str, Any]]:
    from google.auth import default  # noqa: PLC0415  comes with the extra `gcp`
    from google.auth.transport.requests import AuthorizedSession  # noqa: PLC0415

    credentials: Any = default(scopes=["https://www.googleapis.com/auth/cloud-platform.read-only"])[0]
    answer = AuthorizedSession(credentials).get(f"{_SERVICE_USAGE}{path}", timeout=_SECONDS)
    return answer.status_code, answer.json()
