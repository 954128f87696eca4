"""The administrator's URL, from where its owner keeps it: AWS Secrets Manager.

The Job that migrates the schema reads it by an identity of its own, so that neither the engine nor an object
of the cluster has it. The region is the ambient one (``AWS_REGION``).

https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from kilo.contract import DatabaseOutputs
from kilo.errors import BadInput, CheckFailed, Unreachable

_DEFAULT_PORT = 5_432
_FORM = "it takes postgresql://USER:PASSWORD@HOST:PORT/NAME"
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
        msg = f"secret {secret_id}: its value is binary; {_FORM}, as text"
        raise BadInput(msg)
    return value


def _check_place(secret_id: str, url: str, database: DatabaseOutputs) -> None:
    try:
        split = urlsplit(url)
        place = split.hostname or "", split.port or _DEFAULT_PORT, split.path.removeprefix("/")
    except ValueError as error:
        # Its own words quote the URL.
        msg = f"secret {secret_id}: its value is no URL; {_FORM}"
        raise BadInput(msg) from error
    if split.scheme not in {"postgresql", "postgres"} or not split.username:
        msg = f"secret {secret_id}: its value is no URL of a PostgreSQL user; {_FORM}"
        raise BadInput(msg)
    stated = database.host, database.port, database.name
    if (place[0].lower(), *place[1:]) != (stated[0].lower(), *stated[1:]):
        msg = (
            f"secret {secret_id}: its URL is of {_words(*place)}, and kilo:database of the stage's file of "
            f"{_words(*stated)}; make them one"
        )
        raise BadInput(msg)


def _words(host: str, port: int, name: str) -> str:
    return f"{name} at {host}:{port}"
