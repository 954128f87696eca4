"""Entries as a gateway writes them, and what the tables say of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg

Row = tuple[Any, ...]


def line(**changes: Any) -> bytes:
    """An entry, by default of one request of acme's."""
    entry: dict[str, Any] = {
        "at": "2026-03-01T14:05:06.000001",
        "method": "POST",
        "received": 10,
        "route": "api",
        "sent": 5,
        "shed": "",
        "status": 202,
        "tenant": "acme",
        "version": "stable",
    }
    return json.dumps({**entry, **changes}, separators=(",", ":")).encode() + b"\n"


def write(path: Path, text: bytes) -> None:
    path.write_bytes(text)


def append(path: Path, text: bytes) -> None:
    with path.open("ab", buffering=0) as opened:
        opened.write(text)


def rows(database_url: str, query: str) -> list[Row]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def totals(database_url: str) -> dict[str, int]:
    """Requests by tenant; the days must say what the hours say."""
    by_hour, by_day = (
        dict(rows(database_url, f"SELECT tenant, sum(requests)::bigint FROM {table} GROUP BY 1"))
        for table in ("usage_requests", "usage_request_days")
    )
    assert by_hour == by_day
    return by_hour
