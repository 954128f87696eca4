"""Database sessions that no frozen or unreachable process can keep open with what it has locked.

The limits are the server's: they hold when the client is stopped (SIGSTOP), its node is lost or the network
swallows every packet. What the server ends is a ``psycopg.Error`` that is no ``OperationalError`` (SQLSTATE
class 25), and ``connection.closed`` is true then. Left out: a limit for idle sessions outside transactions,
which hold nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

# What a server does not know (transaction_timeout before PostgreSQL 17) is left out.
_LIMIT = (
    "SELECT set_config(s.name, given.setting, false)"
    " FROM unnest(%s::text[], %s::text[]) AS given (name, setting)"
    " JOIN pg_catalog.pg_settings s ON s.name = given.name"
)


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What the server ends, and when; all in seconds.

    Attributes:
        idle_in_transaction: a transaction whose client sends nothing (the session ends).
        transaction: a transaction as a whole (the session ends); 0 for no limit.
        lock: waiting for one lock (the statement fails); 0 for no limit.
        network: unacknowledged data and unanswered keepalives, on both sides (the session ends).
    """

    idle_in_transaction: float = 5.0
    transaction: float = 15.0
    lock: float = 5.0
    network: float = 10.0


async def connect(
    database_url: str, application_name: str, limits: SessionLimits | None = None
) -> AsyncConnection[Any]:
    """Connect in autocommit mode, with ``limits`` set for the session.

    Args:
        database_url: a URL or connection string as libpq has it.
        application_name: as ``pg_stat_activity`` shows it, cut to 63 bytes.
        limits: by default as :class:`SessionLimits` has them, together well below 30 seconds.

    Raises:
        psycopg.OperationalError: the database does not answer, or refuses.
    """
    limits = limits or SessionLimits()
    network = max(round(limits.network), 3)
    connection = await AsyncConnection.connect(
        database_url,
        autocommit=True,
        connect_timeout=5,
        application_name=application_name[:63],
        # The client's side: https://www.postgresql.org/docs/current/libpq-connect.html
        tcp_user_timeout=network * 1000,
        keepalives=1,
        keepalives_idle=network // 3,
        keepalives_interval=network // 3,
        keepalives_count=2,
    )
    settings = {
        "idle_in_transaction_session_timeout": _milliseconds(limits.idle_in_transaction),
        "transaction_timeout": _milliseconds(limits.transaction),
        "lock_timeout": _milliseconds(limits.lock),
        "tcp_user_timeout": str(network * 1000),
        "tcp_keepalives_idle": str(network // 3),
        "tcp_keepalives_interval": str(network // 3),
        "tcp_keepalives_count": "2",
    }
    try:
        await connection.execute(_LIMIT, (list(settings), list(settings.values())))
    except BaseException:
        await connection.close()
        raise
    return connection


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))
