"""The Secrets by which pods show the bus who they are: what they are called, and how a pod has one.

NATS' are made by the program (:mod:`components.processes.bus_credentials`), a Kafka's are there already.
Either has the same keys, and pods take either in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from components.clouds.cloud_identity import CloudIdentity
from components.pods.pod import SecretFiles, SecretKey
from kilo.bus.access import (
    AWS_REGION_VARIABLE,
    CA_VARIABLE,
    CERTIFICATE_VARIABLE,
    KEY_VARIABLE,
    NAME_VARIABLE,
    PASSWORD_VARIABLE,
    SECRET_FILES,
    TOKEN_CA_VARIABLE,
    TOKEN_SCOPE_VARIABLE,
    TOKEN_URL_VARIABLE,
    USER_VARIABLE,
    Shown,
)
from kilo.bus.roles import BusRole, bus_secrets

DIRECTORY = "/etc/kilo-bus"
AUTHORITIES_FILE = SECRET_FILES[CA_VARIABLE]
GENERATION = "kilo.dev/bus-credentials"
"""On pods: they are replaced when their user is."""
_FILES: Mapping[Shown, Sequence[str]] = {
    "password": (CA_VARIABLE,),
    "certificate": (CA_VARIABLE, CERTIFICATE_VARIABLE, KEY_VARIABLE),
    "token": (CA_VARIABLE, TOKEN_CA_VARIABLE),
    "aws-msk-iam": (CA_VARIABLE,),
}


@dataclass(frozen=True)
class BusUsers:
    """The users of a bus that lets nobody else in."""

    generation: str
    """Which they are; whatever changes it replaces the pods."""
    secrets: Mapping[BusRole, str] = field(default_factory=bus_secrets)
    shown: Shown = "password"
    named: bool = True
    """Whether the Secrets have the name of the server's certificate too. A Kafka's brokers each have their
    own, by which they are reached."""
    token_url: str | None = None
    """Where a ``token`` comes from, for the scope :attr:`token_scope`."""
    token_scope: str | None = None
    aws_region: str | None = None
    """Where the Kafka is that knows ``aws-msk-iam``, by :attr:`identities`."""
    identities: Mapping[BusRole, CloudIdentity] = field(default_factory=dict[BusRole, CloudIdentity])
    """Of pods that have none for another reason."""

    def files(self, role: BusRole) -> SecretFiles:
        """The Secret of ``role`` as files."""
        return SecretFiles(self.secrets[role], DIRECTORY)

    def variables(self, role: BusRole) -> Mapping[str, SecretKey]:
        """What a process of ``role`` has in its environment, besides :meth:`places`."""
        user = (USER_VARIABLE, PASSWORD_VARIABLE) if self.shown in {"password", "token"} else ()
        name = (NAME_VARIABLE,) if self.named else ()
        return {each: SecretKey(self.secrets[role], each) for each in (*user, *name)}

    def places(self) -> Mapping[str, str]:
        """Where each file lies and where tokens come from, by its variable."""
        elsewhere = {
            TOKEN_URL_VARIABLE: self.token_url,
            TOKEN_SCOPE_VARIABLE: self.token_scope,
            AWS_REGION_VARIABLE: self.aws_region,
        }
        return {
            **{variable: f"{DIRECTORY}/{SECRET_FILES[variable]}" for variable in _FILES[self.shown]},
            **{variable: place for variable, place in elsewhere.items() if place},
        }
