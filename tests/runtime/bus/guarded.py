"""A NATS server with users and TLS, as the platform's own renderer writes them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from kilo.bus.access import CA_VARIABLE, PASSWORD_VARIABLE, USER_VARIABLE
from kilo.bus.config import TlsFiles, render_tls, render_users
from kilo.bus.roles import BUS_ROLES, BusRole, BusUser
from kilo.contract import StackOutputs
from kilo.testing.servers.nats import NatsServer
from tests.events import make_outputs
from tests.runtime.traffic.certificates import Authority

PASSWORD = "a-password-of-a-test"
HASH = "$2b$04$C8FuNSKrpWADJtJWGHbc7egxmcfjMzTOKH8dnP139M7KhaAjWyRkC"
"""Of ``PASSWORD``."""
OTHER_PASSWORD = "its-successor"
OTHER_HASH = "$2b$04$5sLBmsKw5MxjTIoq5juep.bwYlL3Tslg1Dy6ynDYw1k5/enCVb8Yu"


@dataclass
class Guarded:
    """The server, its outputs, and the files of its certificate and of its clients' authorities."""

    server: NatsServer
    outputs: StackOutputs
    directory: Path
    authority: Authority

    @property
    def url(self) -> str:
        return self.outputs.bus.url

    @property
    def ca_file(self) -> Path:
        return self.directory / "ca.pem"

    def access(self, hashed: str = HASH) -> str:
        files = TlsFiles(str(self.directory / "tls.crt"), str(self.directory / "tls.key"))
        users = [BusUser(role, role, hashed) for role in BUS_ROLES]
        return render_users(users, self.outputs.bus) + render_tls(files)

    def certify(self, authority: Authority, lives: timedelta = timedelta(days=1)) -> None:
        """Give the server a certificate of ``authority``; it reads it when it starts or reloads."""
        certificate, key, _ = authority.sign("localhost", lives=lives)
        (self.directory / "tls.crt").write_bytes(certificate)
        (self.directory / "tls.key").write_bytes(key)

    def become(self, environment: pytest.MonkeyPatch, role: BusRole, password: str = PASSWORD) -> None:
        """Make this process one of ``role``."""
        environment.setenv(USER_VARIABLE, role)
        environment.setenv(PASSWORD_VARIABLE, password)
        environment.setenv(CA_VARIABLE, str(self.ca_file))


def guarded_server(directory: Path) -> Guarded:
    """A server that is not started yet."""
    directory.mkdir(parents=True, exist_ok=True)
    server, authority = NatsServer(directory / "nats"), Authority()
    outputs = make_outputs(f"tls://localhost:{server.port}")
    made = Guarded(server, outputs, directory, authority)
    made.ca_file.write_bytes(authority.pem)
    made.certify(authority)
    server.access = made.access()
    return made
