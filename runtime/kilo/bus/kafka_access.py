"""How a process shows who it is to Kafka: what :mod:`kilo.bus.access` says, as librdkafka takes it.

With a user it is SASL/SCRAM-SHA-512 over TLS, with a file of authorities alone TLS, and with neither plain. A
password never goes over a connection without TLS, and in SCRAM not over the other either.
"""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException

from kilo.bus.access import CA_VARIABLE, PASSWORD_VARIABLE, USER_VARIABLE, Access
from kilo.errors import BadInput

MECHANISM = "SCRAM-SHA-512"
"""The one that Amazon's managed Kafka has, and that every Kafka can have."""

_NO_TLS = {KafkaError._SSL}  # pyright: ignore[reportPrivateUsage]
_NOT_LET_IN = {
    KafkaError._AUTHENTICATION,  # pyright: ignore[reportPrivateUsage]
    KafkaError.SASL_AUTHENTICATION_FAILED,
}


def client_settings(access: Access) -> dict[str, str]:
    """Settings of a producer, consumer or administrator.

    Raises:
        BadInput: a user without the authorities that vouch for whom its password is shown to.
    """
    if access.user is None or access.password is None:
        if access.ca_file is None:
            return {}
        return {"security.protocol": "SSL", "ssl.ca.location": access.ca_file}
    if access.ca_file is None:
        msg = f"{CA_VARIABLE}: not set while {USER_VARIABLE} is; name the file of the authorities of Kafka"
        raise BadInput(msg)
    access.tls()  # says of a file that is none what librdkafka only says of a connection
    return {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": access.ca_file,
        "sasl.mechanism": MECHANISM,
        "sasl.username": access.user,
        "sasl.password": access.password,
    }


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
            return f"{bus}: no TLS that {believed} vouches for: {_said(found)}"
        return f"{bus} does not answer: {error.args[0].str()}"


def _said(error: KafkaError) -> str:
    """The reason without the broker's name and the counts around it."""
    return error.str().partition(": ")[2] or error.str()
