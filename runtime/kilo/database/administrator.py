"""The administrator's URL, from where its owner keeps it: AWS Secrets Manager.

The Job that migrates the schema reads it by an identity of its own, so that neither the engine nor an object
of the cluster has it. The region is the ambient one (``AWS_REGION``).

https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from kilo.contract import DatabaseOutputs
from kilo.errors import BadInput, CheckFailed, Unreachable

_DEFAULT_PORT = "5432"
_ENCODED = "percent-encode what the password has besides letters and digits"
_FORM = f"it takes postgresql://USER:PASSWORD@HOST:PORT/NAME; {_ENCODED}"
_DENIED = frozenset({"AccessDeniedException", "DecryptionFailure"})


def administrator_url(secret_id: str, database: DatabaseOutputs) -> str:
    """The URL that the secret has, once it is sure that it is of the stage's database.

    Args:
        secret_id: the secret's name, ``kilo:database.url_secret_id`` of the stage's file.
        database: where the stage says its database is.

    Raises:
        BadInput: there is no such secret, it has no value, no URL, or that of another database.
        CheckFailed: the ambient identity may not read it.
        Unreachable: AWS does not answer, or nobody is signed in to it.
    """
    # Without the blanks around it: a file's last newline would become part of the database's name.
    url = _read(secret_id).strip()
    _check_place(secret_id, url, database)
    return url


def _read(secret_id: str) -> str:
    import boto3  # noqa: PLC0415  takes half a second, and only a stage's Job comes here
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        client: Any = boto3.client("secretsmanager")
        found = client.get_secret_value(SecretId=secret_id)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        place = f"secret {secret_id}: secretsmanager:GetSecretValue failed: {code}"
        if code == "ResourceNotFoundException":
            msg = f"{place}; it is not there or has no value: docs/prerequisites.md says how it is given one"
            raise BadInput(msg) from error
        if code in _DENIED:
            msg = (
                f"{place}; who is signed in to AWS here (in a stage the role kilo-STAGE-schema) must be "
                "allowed to read it, and to use the key that encrypts it"
            )
            raise CheckFailed(msg) from error
        raise Unreachable(place) from error
    except BotoCoreError as error:
        msg = f"secret {secret_id}: AWS Secrets Manager does not answer: {error}"
        raise Unreachable(msg) from error
    value = found.get("SecretString")
    if not isinstance(value, str):
        msg = f"secret {secret_id}: its value is binary; put it as text (--secret-string)"
        raise BadInput(msg)
    return value


def _check_place(secret_id: str, url: str, database: DatabaseOutputs) -> None:
    try:
        # As the driver takes it: a query may name another host than stands before it.
        parts = conninfo_to_dict(url) if url.startswith(("postgresql://", "postgres://")) else {}
    except psycopg.ProgrammingError:
        # Its words quote the URL.
        parts = {}
    if not parts.get("user"):
        msg = f"secret {secret_id}: its value is no URL of a PostgreSQL user; {_FORM}"
        raise BadInput(msg)
    pairs = {
        "host": (str(parts.get("host")).lower(), database.host),
        "port": (str(parts.get("port", _DEFAULT_PORT)), str(database.port)),
        "database": (str(parts.get("dbname")), database.name),
    }
    # Only which of them: a character of the password that is not percent-encoded makes a part of it a host.
    if others := [part for part, (found, stated) in pairs.items() if found != stated]:
        msg = (
            f"secret {secret_id}: its URL has another {' and '.join(others)} than the stage's file under "
            f"kilo:database, {database.name} at {database.host}:{database.port}; make them one; {_ENCODED}"
        )
        raise BadInput(msg)
