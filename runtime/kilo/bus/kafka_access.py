"""How a process shows who it is to Kafka: what :mod:`kilo.bus.access` says, as librdkafka takes it.

With a user it is SASL/SCRAM-SHA-512 over TLS, with a certificate TLS of both sides, with a file of
authorities alone TLS, and with none of them plain. A password never goes over a connection without TLS, and
in SCRAM not over the other either.
"""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException

from kilo.bus.access import (
    CA_VARIABLE,
    CERTIFICATE_VARIABLE,
    KEY_VARIABLE,
    PASSWORD_VARIABLE,
    SCRAM,
    USER_VARIABLE,
    Access,
)
from kilo.errors import BadInput

_NO_TLS = {KafkaError._SSL}  # pyright: ignore[reportPrivateUsage]
_NOT_LET_IN = {
    KafkaError._AUTHENTICATION,  # pyright: ignore[reportPrivateUsage]
    KafkaError.SASL_AUTHENTICATION_FAILED,
}


def client_settings(access: Access) -> dict[str, str]:
    """Settings of a producer, consumer or administrator.

    Raises:
        BadInput: a user or certificate without the authorities that vouch for whom it is shown to, or a file
            that is none of certificates.
    """
    if access.ca_file is None:
        if shown := (access.user and USER_VARIABLE) or (access.certificate_file and CERTIFICATE_VARIABLE):
            msg = f"{CA_VARIABLE}: not set while {shown} is; name the file of the authorities of Kafka"
            raise BadInput(msg)
        return {}
    access.tls()  # says of a file that is none what librdkafka only says of a connection
    settings = {"security.protocol": "SSL", "ssl.ca.location": access.ca_file}
    if access.certificate_file and access.key_file:
        settings |= {
            "ssl.certificate.location": access.certificate_file,
            "ssl.key.location": access.key_file,
        }
    if access.user and access.password:
        settings |= {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": SCRAM,
            "sasl.username": access.user,
            "sasl.password": access.password,
        }
    return settings


class Failures:
    """The last word of a client on why it has no connection; it comes beside what was asked, not with it."""

    def __init__(self) -> None:
        self._last: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        """Take up an error; librdkafka's ``error_cb``."""
        if self._last is None or error.code() in _NO_TLS | _NOT_LET_IN:
            self._last = error

    def refusal(self, servers: str, access: Access, error: KafkaException) -> str:
        """Why Kafka at ``servers`` could not be used, for a person."""
        found, bus = self._last, f"bus kafka://{servers}"
        if found is not None and found.code() in _NOT_LET_IN:
            return f"{bus} refuses user {access.user!r}: see {USER_VARIABLE} and {PASSWORD_VARIABLE}"
        if found is not None and found.code() in _NO_TLS:
            believed = f"{CA_VARIABLE} ({access.ca_file})"
            said = f"{bus}: no TLS that {believed} vouches for: {_said(found)}"
        else:
            said = f"{bus} does not answer: {error.args[0].str()}"
        if access.certificate_file:
            # In TLS 1.3 the broker looks at it when the client has long gone on.
            said += f"; or it refuses the certificate: see {CERTIFICATE_VARIABLE} and {KEY_VARIABLE}"
        return said


def _said(error: KafkaError) -> str:
    """The reason without the broker's name and the counts around it."""
    return error.str().partition(": ")[2] or error.str()
