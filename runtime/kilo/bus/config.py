"""Renders the NATS server's configuration file; pure.

The address and the server's name come by flags, since each member has its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kilo.bus.roles import BusRole, permissions_of
from kilo.contract import BusOutputs

CLIENT_PORT = 4222
ROUTE_PORT = 6222
MONITOR_PORT = 8222


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The server's certificate with its key, in PEM; both are read again at a reload (SIGHUP)."""

    certificate: str
    key: str


def render_users(hashes: Mapping[BusRole, str], bus: BusOutputs) -> str:
    """The users of a bus, one a role, each with the bcrypt hash of its password (``$2a$...``).

    A role without a hash has no user. Nobody is let in without one.
    """
    users: list[str] = []
    for role, hashed in hashes.items():
        may = permissions_of(role, bus)
        users.append(
            f"    {{user: {role}, password: {json.dumps(hashed)}, permissions: {{"
            f"publish: {json.dumps(may.publish)}, subscribe: {json.dumps(may.subscribe)}}}}}"
        )
    listed = "\n".join(users)
    return f"""\
authorization {{
  timeout: 5
  users: [
{listed}
  ]
}}
"""


def render_tls(files: TlsFiles) -> str:
    """TLS for clients; one without it is refused."""
    return f"""\
tls {{
  cert_file: {json.dumps(files.certificate)}
  key_file: {json.dumps(files.key)}
  timeout: 5
}}
"""


def render_nats_config(
    *,
    store_directory: str = "/data",
    storage_gibibytes: int,
    cluster_name: str = "kilo",
    routes: Sequence[str] = (),
    sync_interval_seconds: int = 10,
    max_payload_bytes: int = 2 * 1024 * 1024,
    access: str = "",
) -> str:
    """Render ``nats.conf``.

    Args:
        store_directory: where streams lie.
        storage_gibibytes: how much disk streams may take.
        cluster_name: what the members call their cluster.
        routes: the members' route URLs, such as ``nats-route://bus-0.bus:6222``; one member needs none.
        sync_interval_seconds: how long an acknowledged message may be unsynced and so be lost when the
            machine loses power (NATS's own default is two minutes). The outbox keeps its rows for days,
            and the reconciler publishes again what the stream has lost, so this need not be ``always``,
            which costs a disk flush a message.
        max_payload_bytes: the largest message; the outbox refuses payloads over its own, smaller limit.
        access: :func:`render_users` and :func:`render_tls`; without them whoever reaches the server may do
            everything.
    """
    cluster = ""
    if routes:
        listed = "\n".join(f'    "{route}"' for route in routes)
        cluster = f"""\
cluster {{
  name: "{cluster_name}"
  port: {ROUTE_PORT}
  routes: [
{listed}
  ]
}}
"""
    return f"""\
port: {CLIENT_PORT}
http_port: {MONITOR_PORT}
max_payload: {max_payload_bytes}
# A slow client is cut off before it can hold the server back.
write_deadline: "10s"
lame_duck_duration: "30s"
lame_duck_grace_period: "5s"
jetstream {{
  store_dir: "{store_directory}"
  max_file_store: {storage_gibibytes}GiB
  sync_interval: {sync_interval_seconds}s
}}
{access}{cluster}"""
