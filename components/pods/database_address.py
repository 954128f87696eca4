"""Where a database is and how it is gone to: what its roles' URLs have in common."""

from __future__ import annotations

from dataclasses import dataclass

CA_FILE = "database-ca.crt"
"""Beside the stack's outputs, in every pod that reads those."""


@dataclass(frozen=True)
class DatabaseAddress:
    """Host, port and name of a PostgreSQL database, and how far its clients go to have TLS."""

    host: str
    port: int
    name: str
    sslmode: str = "prefer"
    """https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-SSLMODE-STATEMENTS"""
    has_ca: bool = False
    """Whether :data:`CA_FILE` says by which certificates the server is known."""

    def url(self, user: str, password: str) -> str:
        """The URL of ``user``, whose password has letters and digits alone."""
        # libpq's own default needs no words.
        query = "" if self.sslmode == "prefer" else f"?sslmode={self.sslmode}"
        return f"postgresql://{user}:{password}@{self.host}:{self.port}/{self.name}{query}"
