"""Puts into the sandbox's Secrets Manager what a stage expects to find there.

On the clouds the database's owner puts its administrator's URL there. Here ``dev``, whose Job reads it, gets
that of the sandbox's own PostgreSQL. The others get one that leads nowhere: programs of before December 2026,
which are rehearsed as well, read it themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3

from sandbox.stages import DEV, stage_config, stages

NOWHERE = "postgresql://preview:preview@database.invalid:5432/kilo"
"""``.invalid`` never resolves (RFC 2606)."""


def put_stage_secrets(project: Path, endpoint: str, database_url: str, elsewhere: str = NOWHERE) -> None:
    """Create or update the secret that each ``Pulumi.<stage>.yaml`` names as its database's URL.

    ``dev`` gets ``database_url``, the other stages ``elsewhere``.

    A stage file that can't be read is left alone: the program itself reports what is wrong with it.
    """
    for stage in stages(project):
        config = stage_config(project, stage)
        database = config.get("kilo:database")
        if isinstance(database, dict) and "url_secret_id" in database and "aws:region" in config:
            url = database_url if stage == DEV else elsewhere
            _put(endpoint, config["aws:region"], database["url_secret_id"], url)


def _put(endpoint: str, region: str, name: str, value: str) -> None:
    client: Any = boto3.client(
        "secretsmanager",
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id="sandbox",
        aws_secret_access_key="sandbox",  # noqa: S106  any is accepted
    )
    try:
        if client.get_secret_value(SecretId=name)["SecretString"] != value:
            client.put_secret_value(SecretId=name, SecretString=value)
    except client.exceptions.ResourceNotFoundException:
        client.create_secret(Name=name, SecretString=value)
