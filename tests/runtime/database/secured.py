"""A PostgreSQL with TLS, whose certificate is of an authority that only its tests know."""

from __future__ import annotations

import os
import shutil
from datetime import timedelta
from pathlib import Path

import psycopg

from kilo.testing.servers.postgres import PostgresServer
from tests.runtime.traffic.certificates import Authority


class Secured:
    """A server with TLS, and the authority that signed its certificate."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self.authority, self._files = Authority(), directory
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_bytes(self.authority.pem)
        self.certify(self.authority)
        self.server = PostgresServer(
            directory / "server",
            settings={
                "ssl": "on",
                "ssl_cert_file": str(directory / "server.crt"),
                "ssl_key_file": str(directory / "server.key"),
            },
        )
        self.server.start()

    def certify(self, authority: Authority, lives: timedelta = timedelta(days=1)) -> None:
        """Give the server a certificate for ``localhost``; it reads it when it starts or is told to."""
        certificate, key, _ = authority.sign("localhost", lives=lives)
        for name, content in (("server.crt", certificate), ("server.key", key)):
            path = self._files / name
            path.write_bytes(content)
            path.chmod(0o600)
            if os.geteuid() == 0:
                # As whom the server runs, and who must own its key.
                shutil.chown(path, "nobody")

    def reload(self) -> None:
        """Have the server read its certificate again."""
        with psycopg.connect(self.server.url, autocommit=True) as connection:
            connection.execute("SELECT pg_reload_conf()")

    def url(self, host: str = "localhost", mode: str = "verify-full") -> str:
        """The superuser's, with TLS as ``mode`` says."""
        plain = self.server.url.replace(f"@{self.server.address}:", f"@{host}:")
        return f"{plain}?sslmode={mode}&sslrootcert={self.ca_file}"
