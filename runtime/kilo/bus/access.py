"""How a process shows who it is to the bus, and how it knows the bus: from its environment, never by a URL.

``KILO_BUS_USER`` and ``KILO_BUS_PASSWORD`` name the user, ``KILO_BUS_CA`` a file of authorities in PEM, of
which one must have signed the server's certificate. The file may hold two while one takes over from the
other. ``KILO_BUS_NAME`` is the name that the certificate must be of where the bus is reached by another: by
an address, or through a port that is forwarded. ``KILO_BUS_CERTIFICATE`` and ``KILO_BUS_KEY`` are files in
PEM with a certificate of one's own, where the bus knows its users by that. Without the variables nothing is
shown and TLS is only used where the server asks for it.

A Kafka may know its users by tokens. With ``KILO_BUS_TOKEN_URL`` user and password are a client's id and
secret, for which that endpoint gives tokens, of the scope ``KILO_BUS_TOKEN_SCOPE`` if there is one;
``KILO_BUS_TOKEN_CA`` is a file of authorities for it alone, without which those of the system are believed.
With ``KILO_BUS_AWS_REGION`` tokens are those of Amazon's managed Kafka (MSK) in that region, signed with the
AWS identity that the process has; there is no user.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from typing import Literal, Self

from kilo.errors import BadInput

USER_VARIABLE = "KILO_BUS_USER"
PASSWORD_VARIABLE = "KILO_BUS_PASSWORD"  # noqa: S105  a variable's name
CA_VARIABLE = "KILO_BUS_CA"
NAME_VARIABLE = "KILO_BUS_NAME"
CERTIFICATE_VARIABLE = "KILO_BUS_CERTIFICATE"
KEY_VARIABLE = "KILO_BUS_KEY"
TOKEN_URL_VARIABLE = "KILO_BUS_TOKEN_URL"  # noqa: S105  a variable's name
TOKEN_SCOPE_VARIABLE = "KILO_BUS_TOKEN_SCOPE"  # noqa: S105  a variable's name
TOKEN_CA_VARIABLE = "KILO_BUS_TOKEN_CA"  # noqa: S105  a variable's name
AWS_REGION_VARIABLE = "KILO_BUS_AWS_REGION"
SECRET_FILES = {
    CA_VARIABLE: "ca.pem",
    CERTIFICATE_VARIABLE: "tls.crt",
    KEY_VARIABLE: "tls.key",
    TOKEN_CA_VARIABLE: "token-ca.pem",
}
"""Keys of a role's Secret that a process has as files, by the variables that say where; a certificate's are
called as in a Secret of type ``kubernetes.io/tls``."""

Shown = Literal["password", "certificate", "token", "aws-msk-iam"]
"""By what a bus knows its users; NATS by passwords."""
SCRAM = "SCRAM-SHA-512"
"""How a password is shown to Kafka: the way that Amazon's managed one has, and that every one can have."""
OAUTHBEARER = "OAUTHBEARER"
"""How a token is shown to Kafka."""


@dataclass(frozen=True, slots=True)
class Access:
    """A user with its password or certificate, or where its tokens come from, the file of authorities, and
    the server's name if not that of its URL."""

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    server_name: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    token_url: str | None = None
    token_scope: str | None = None
    token_ca_file: str | None = None
    aws_region: str | None = None

    @classmethod
    def from_environment(cls) -> Self:
        """What the environment says.

        Raises:
            BadInput: it names a user without a password, a certificate without its key, or the reverse, or
                more than one way to be known.
        """
        user, password = _both_or_neither(USER_VARIABLE, PASSWORD_VARIABLE, "a user with its password")
        certificate, key = _both_or_neither(CERTIFICATE_VARIABLE, KEY_VARIABLE, "a certificate with its key")
        others = (
            CA_VARIABLE,
            NAME_VARIABLE,
            TOKEN_URL_VARIABLE,
            TOKEN_SCOPE_VARIABLE,
            TOKEN_CA_VARIABLE,
            AWS_REGION_VARIABLE,
        )
        ca_file, server_name, token_url, scope, token_ca, region = (
            os.environ.get(name) or None for name in others
        )
        if token_url and not token_url.startswith("https://"):
            msg = f"{TOKEN_URL_VARIABLE}: no https:// URL; the client's secret would go there in plain"
            raise BadInput(msg)
        if token_url and user is None:
            msg = (
                f"{TOKEN_URL_VARIABLE}: set while {USER_VARIABLE} is not; {USER_VARIABLE} and "
                f"{PASSWORD_VARIABLE} are the id and secret of the client that tokens are given to"
            )
            raise BadInput(msg)
        if region and (user or certificate):
            given = USER_VARIABLE if user else CERTIFICATE_VARIABLE
            msg = f"{AWS_REGION_VARIABLE}: set while {given} is; the bus knows a process by one of them"
            raise BadInput(msg)
        return cls(user, password, ca_file, server_name, certificate, key, token_url, scope, token_ca, region)

    def tls(self) -> ssl.SSLContext | None:
        """A context that believes the given authorities alone; ``None`` where none are given.

        Raises:
            BadInput: the file can't be read or holds no certificate.
        """
        if self.ca_file is None:
            return None
        # Made without the system's own authorities, any of which could vouch for a false bus.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_verify_locations(cafile=self.ca_file)
        except OSError as error:
            msg = (
                f"{CA_VARIABLE}: {self.ca_file} is no file of certificates in PEM: {error.strerror or error}"
            )
            raise BadInput(msg) from error
        if self.certificate_file and self.key_file:
            try:
                context.load_cert_chain(self.certificate_file, self.key_file)
            except OSError as error:
                msg = (
                    f"{CERTIFICATE_VARIABLE}, {KEY_VARIABLE}: {self.certificate_file} and {self.key_file} "
                    f"are no certificate and its key in PEM: {error.strerror or error}"
                )
                raise BadInput(msg) from error
        return context

    def refusal(self, address: str, error: BaseException) -> str:
        """Why the bus at ``address`` could not be used, for a person."""
        if isinstance(error, ssl.SSLCertVerificationError):
            believed = f"{CA_VARIABLE} ({self.ca_file})" if self.ca_file else f"the system; set {CA_VARIABLE}"
            return f"bus {address} has a certificate that is refused ({error.verify_message}), by {believed}"
        if "authorization violation" in str(error).lower():
            if self.user is None:
                return f"bus {address} wants a user: set {USER_VARIABLE} and {PASSWORD_VARIABLE}"
            return f"bus {address} refuses user {self.user!r}: see {USER_VARIABLE} and {PASSWORD_VARIABLE}"
        return f"bus {address} does not answer: {error or type(error).__name__}"


def _both_or_neither(first: str, second: str, what: str) -> tuple[str | None, str | None]:
    one, other = os.environ.get(first) or None, os.environ.get(second) or None
    if (one is None) != (other is None):
        missing, given = (second, first) if one else (first, second)
        msg = f"{missing}: not set while {given} is; the bus takes {what}, or neither"
        raise BadInput(msg)
    return one, other
