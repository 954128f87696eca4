"""How a process shows who it is to Kafka: what :mod:`kilo.bus.access` says, as librdkafka takes it.

With a user it is SASL/SCRAM-SHA-512 over TLS, with a certificate TLS of both sides, with tokens
SASL/OAUTHBEARER over TLS, with a file of authorities alone TLS, and with none of them plain. A password or
token never goes over a connection without TLS, and a password in SCRAM not over the other either.

librdkafka fetches an issuer's tokens itself, and Amazon's are signed here. Either way it asks for the next
when four fifths of one's time are over, and shows it to brokers that it is connected to.
"""

from __future__ import annotations

import time
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    TopicMetadata,  # pyright: ignore[reportPrivateImportUsage]
)

from kilo.bus.access import (
    AWS_REGION_VARIABLE,
    CA_VARIABLE,
    CERTIFICATE_VARIABLE,
    KEY_VARIABLE,
    OAUTHBEARER,
    PASSWORD_VARIABLE,
    SCRAM,
    TOKEN_URL_VARIABLE,
    USER_VARIABLE,
    Access,
)
from kilo.bus.port import BusError
from kilo.errors import BadInput
from kilo.extras import requires

_NO_TLS = {KafkaError._SSL}  # pyright: ignore[reportPrivateUsage]
_NOT_LET_IN = {
    KafkaError._AUTHENTICATION,  # pyright: ignore[reportPrivateUsage]
    KafkaError.SASL_AUTHENTICATION_FAILED,
}
_NO_ANSWER = {
    KafkaError._TRANSPORT,  # pyright: ignore[reportPrivateUsage]
    KafkaError._TIMED_OUT,  # pyright: ignore[reportPrivateUsage]
}
_REFUSED_SECONDS = 2.0
"""For how long a client that is refused goes on: in a cluster, one broker may be wrong about it."""

_NO_TOKEN = "Failed to acquire SASL OAUTHBEARER token"  # noqa: S105  what librdkafka says


def client_settings(access: Access) -> dict[str, Any]:
    """Settings of a producer, consumer or administrator.

    Raises:
        BadInput: a user or certificate without the authorities that vouch for whom it is shown to, or a file
            that is none of certificates.
        BusError: there is no AWS identity to sign a token with.
    """
    if access.ca_file is None:
        if shown := (
            (access.user and USER_VARIABLE)
            or (access.certificate_file and CERTIFICATE_VARIABLE)
            or (access.aws_region and AWS_REGION_VARIABLE)
        ):
            msg = f"{CA_VARIABLE}: not set while {shown} is; name the file of the authorities of Kafka"
            raise BadInput(msg)
        return {}
    access.tls()  # says of a file that is none what librdkafka only says of a connection
    settings: dict[str, Any] = {"security.protocol": "SSL", "ssl.ca.location": access.ca_file}
    if access.certificate_file and access.key_file:
        settings |= {
            "ssl.certificate.location": access.certificate_file,
            "ssl.key.location": access.key_file,
        }
    if access.aws_region:
        msk_token(access.aws_region)  # says what librdkafka calls an exception of its callback
        settings |= {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": OAUTHBEARER,
            "oauth_cb": lambda _, region=access.aws_region: msk_token(region),
        }
    elif access.token_url:
        settings |= {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": OAUTHBEARER,
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": access.token_url,
            "sasl.oauthbearer.client.id": access.user,
            "sasl.oauthbearer.client.secret": access.password,
            **({"sasl.oauthbearer.scope": access.token_scope} if access.token_scope else {}),
            **({"https.ca.location": access.token_ca_file} if access.token_ca_file else {}),
        }
    elif access.user and access.password:
        settings |= {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": SCRAM,
            "sasl.username": access.user,
            "sasl.password": access.password,
        }
    return settings


def msk_token(region: str) -> tuple[str, float]:
    """A token for Amazon's managed Kafka in ``region`` and when it ends, in seconds since 1970.

    Raises:
        BusError: this process has no AWS identity, or can't have its credentials.
    """
    with requires():
        from aws_msk_iam_sasl_signer import MSKAuthTokenProvider  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
    try:
        token, ends_ms = MSKAuthTokenProvider.generate_auth_token(region)
    except AttributeError:  # of the credentials, which the library does not miss
        reason = "no credentials were found"
    except (BotoCoreError, ClientError, ValueError) as error:
        reason = str(error)
    else:
        return token, ends_ms / 1000
    msg = f"{AWS_REGION_VARIABLE}: no token for {region}, this process has no AWS identity: {reason}"
    raise BusError(msg)


class Failures:
    """The last word of a client on why it has no connection; it comes beside what was asked, not with it."""

    def __init__(self) -> None:
        self._last: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        """Take up an error; librdkafka's ``error_cb``."""
        if self._last is None or error.code() in _NO_TLS | _NOT_LET_IN:
            self._last = error

    @property
    def refused(self) -> bool:
        """Whether it, or Kafka, is not whom the other side believes; waiting changes nothing about it."""
        return self._last is not None and self._last.code() in _NO_TLS | _NOT_LET_IN

    def refusal(self, servers: str, access: Access, error: KafkaException) -> str:
        """Why Kafka at ``servers`` could not be used, for a person."""
        found, bus = self._last, f"bus kafka://{servers}"
        if found is not None and found.code() in _NOT_LET_IN:
            return f"{bus} {_not_let_in(access, found)}"
        if found is not None and found.code() in _NO_TLS:
            believed = f"{CA_VARIABLE} ({access.ca_file})"
            said = f"{bus}: no TLS that {believed} vouches for: {_said(found)}"
        else:
            said = f"{bus} does not answer: {error.args[0].str()}"
        if access.certificate_file:
            # In TLS 1.3 the broker looks at it when the client has long gone on.
            said += f"; or it refuses the certificate: see {CERTIFICATE_VARIABLE} and {KEY_VARIABLE}"
        return said


def list_topics(client: AdminClient, failures: Failures, seconds: float) -> dict[str, TopicMetadata]:
    """The topics that this process may see, once there is a connection.

    Args:
        client: with ``failures`` as its ``error_cb``.
        failures: knows, after an exception, why there was no answer.
        seconds: how long to wait for a Kafka that does not answer; one that refuses is not waited for.

    Raises:
        KafkaException: there was no answer.
    """
    deadline = time.monotonic() + seconds
    # The library waits to the end for a connection that it knows it will not get: it is asked for a little,
    # and then for longer, so that a slow Kafka has the time for a whole answer.
    patience = _REFUSED_SECONDS
    while True:
        left = deadline - time.monotonic()
        try:
            return client.list_topics(timeout=max(min(patience, left), 0.1)).topics
        except KafkaException as error:
            client.poll(0)  # which brings what the client has to say of its connections
            if failures.refused or left <= patience or error.args[0].code() not in _NO_ANSWER:
                raise
        time.sleep(0.1)
        patience *= 4


def _not_let_in(access: Access, error: KafkaError) -> str:
    if access.aws_region:
        return f"refuses the token of this process's AWS identity: see its rights and {AWS_REGION_VARIABLE}"
    if access.token_url:
        came = f"client {access.user!r} from {TOKEN_URL_VARIABLE} ({access.token_url})"
        if _NO_TOKEN in error.str():
            return f"is not asked, no token came for {came}: {_said(error)}"
        return f"refuses the token of {came}: see whose it believes, and for which audience"
    return f"refuses user {access.user!r}: see {USER_VARIABLE} and {PASSWORD_VARIABLE}"


def _said(error: KafkaError) -> str:
    """The reason without the broker's name and the counts around it."""
    return error.str().partition(": ")[2] or error.str()
