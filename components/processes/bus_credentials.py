"""Who may use the bus: a user for each role, the server's certificate, and the Secrets that hold them.

All of it is made here and seen nowhere else. A generation is a number of the stage's file; the next one
makes every password and the authority anew. While ``former_accepted``, passwords of both get in, clients
believe both authorities, and the server still shows the former's certificate: so at each of the two updates
whoever has not been replaced yet goes on. Without it the former ends at once.

Clients' Secrets come after the server's pods, so that no client has a password that the server doesn't know.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_random as random
from pulumi_kubernetes import core, meta

from components.pods.bus_user import AUTHORITIES_FILE
from components.pods.labels import labels
from kilo.bus.access import NAME_VARIABLE, PASSWORD_VARIABLE, USER_VARIABLE
from kilo.bus.certificates import Certificates, make_certificates
from kilo.bus.config import TlsFiles, render_route_tls, render_tls, render_users
from kilo.bus.roles import BUS_ROLES, BusRole, BusUser, bus_secret
from kilo.contract import BusOutputs

SERVER_DIRECTORY = "/etc/nats-access"
ACCESS_FILE = "access.conf"
ROUTE_ACCESS_FILE = "routes.conf"
_FILES = TlsFiles(f"{SERVER_DIRECTORY}/tls.crt", f"{SERVER_DIRECTORY}/tls.key")
_AUTHORITIES = f"{SERVER_DIRECTORY}/{AUTHORITIES_FILE}"


def user_of(role: BusRole, generation: int) -> str:
    """The user of ``role``; one of each generation, so that two can have passwords at a time."""
    return f"{role}-{generation}"


@dataclass(frozen=True)
class BusCredentialsArgs:
    """Which generation, and for which server."""

    namespace: str
    bus: BusOutputs
    server_names: Sequence[str]
    """DNS names of the server; its clients ask for the first one, whatever its address."""
    generation: int = 1
    former_accepted: bool = False


class BusCredentials(pulumi.ComponentResource):
    """Passwords, keys, the server's Secret and, by :meth:`give`, one for each role."""

    server_secret: str
    checksum: str
    """Of all that the server is given, without knowing it: its pods are replaced when it changes."""

    def __init__(
        self, name: str, args: BusCredentialsArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("kilo:events:BusCredentials", name, {}, opts)
        self._name, self._args = name, args
        former = args.generation - 1
        self._accepted = [*([former] if args.former_accepted else []), args.generation]
        # The former generation's is known to members even when nobody else believes it any more: one that
        # has not been replaced yet still shows it.
        self._known = [*([former] if former else []), args.generation]
        self._certificates = {each: self._make_certificates(each) for each in self._known}
        self._passwords: dict[tuple[BusRole, int], random.RandomPassword] = {
            (role, each): self._password(user_of(role, each)) for role in BUS_ROLES for each in self._accepted
        }
        self.server_secret = f"{name}-access"
        files = self._server_files()
        self._secret(self.server_secret, string_data=files, opts=pulumi.ResourceOptions(parent=self))
        self.checksum = self._checksum()
        self.register_outputs({"server_secret": self.server_secret})

    def give(self, opts: pulumi.ResourceOptions) -> list[core.v1.Secret]:
        """Register a Secret for each role."""
        return [self._client_secret(role, opts) for role in BUS_ROLES]

    def _server_files(self) -> dict[str, pulumi.Input[str]]:
        shown = self._certificates[self._accepted[0]]
        users = pulumi.Output.all(*(password.bcrypt_hash for password in self._passwords.values()))
        known = pulumi.Output.all(*self._certificates.values())
        return {
            ACCESS_FILE: users.apply(self._access),
            ROUTE_ACCESS_FILE: known.apply(
                lambda each: render_route_tls(_FILES, _AUTHORITIES, [one.pin for one in each])
            ),
            "tls.crt": shown.apply(lambda one: one.certificate),
            "tls.key": shown.apply(lambda one: one.key),
            AUTHORITIES_FILE: known.apply(lambda each: "".join(one.authority for one in each)),
        }

    def _access(self, hashes: Sequence[str]) -> str:
        users = [
            BusUser(user_of(role, generation), role, hashed)
            for (role, generation), hashed in zip(self._passwords, hashes, strict=True)
        ]
        return render_users(users, self._args.bus) + render_tls(_FILES)

    def _checksum(self) -> str:
        known = [
            self._access(["" for _ in self._passwords]),
            *map(str, self._known),
            *self._args.server_names,
        ]
        return hashlib.sha256("\0".join(known).encode()).hexdigest()

    def _client_secret(self, role: BusRole, opts: pulumi.ResourceOptions) -> core.v1.Secret:
        believed = pulumi.Output.all(*(self._certificates[each] for each in self._accepted))
        password = self._passwords[role, self._args.generation]
        data: dict[str, pulumi.Input[str]] = {
            USER_VARIABLE: user_of(role, self._args.generation),
            PASSWORD_VARIABLE: password.result,
            NAME_VARIABLE: self._args.server_names[0],
            AUTHORITIES_FILE: believed.apply(lambda each: "".join(one.authority for one in each)),
        }
        return self._secret(bus_secret(role), string_data=data, opts=opts)

    def _make_certificates(self, generation: int) -> pulumi.Output[Any]:
        names = list(self._args.server_names)
        make: Callable[[str], Certificates] = lambda secret: make_certificates(secret, names)  # noqa: E731
        return self._password(f"authority-{generation}").result.apply(make)

    def _password(self, name: str) -> random.RandomPassword:
        return random.RandomPassword(
            f"{self._name}-{name}", length=48, special=False, opts=pulumi.ResourceOptions(parent=self)
        )

    def _secret(
        self,
        name: str,
        *,
        string_data: Mapping[str, pulumi.Input[str]],
        opts: pulumi.ResourceOptions,
    ) -> core.v1.Secret:
        return core.v1.Secret(
            name,
            metadata=meta.v1.ObjectMetaArgs(name=name, namespace=self._args.namespace, labels=labels(name)),
            type="Opaque",
            string_data=string_data,
            opts=opts,
        )
