"""Reading a database in SQL_ASCII, where any bytes are taken for text.

PostgreSQL converts nothing there and still refuses what is no text in the client's encoding, in the binary
form of a row as well. In LATIN1 every byte is.
https://www.postgresql.org/docs/current/multibyte.html
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import psycopg


@contextmanager
def byte_by_byte(connection: psycopg.Connection[Any]) -> Generator[None]:
    """Within, what a database in SQL_ASCII has is read as it lies; elsewhere nothing changes."""
    raw = connection.info.parameter_status("server_encoding") == "SQL_ASCII"
    if raw:
        connection.execute("SET client_encoding = 'LATIN1'")
    yield
    if raw:
        connection.execute("SET client_encoding = 'UTF8'")
