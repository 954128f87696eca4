"""Renders the NATS server's configuration file; pure.

The address and the server's name come by flags, since each member has its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from kilo.bus.roles import BusUser, permissions_of
from kilo.contract import BusOutputs

CLIENT_PORT = 4222
ROUTE_PORT = 6222
MONITOR_PORT = 8222


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The server's certificate with its key, in PEM; both are read again at a reload (SIGHUP)."""

    certificate: str
    key: str


def render_users(users: Sequence[BusUser], bus: BusOutputs) -> str:
    """The users of a bus. Nobody else is let in."""
    lines: list[str] = []
    for user in users:
        may = permissions_of(user, bus)
        name, hashed = json.dumps(user.name), json.dumps(user.password_hash)
        lines.append(
            f"    {{user: {name}, password: {hashed}, permissions: {{"
            f"publish: {json.dumps(may.publish)}, subscribe: {json.dumps(may.subscribe)}}}}}"
        )
    listed = "\n".join(lines)
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


def render_route_tls(files: TlsFiles, authorities_file: str, pins: Sequence[str]) -> str:
    """TLS between members, who know each other by their public keys and let nobody else in.

    By name they could not: they tell each other addresses, and which one a pod gets nobody knows before.

    Args:
        files: the member's own certificate, shown to whoever connects and to whom it connects.
        authorities_file: in PEM, of which one has signed each member's certificate.
        pins: SHA-256 of members' public keys, in hexadecimal.
    """
    return f"""\
tls {{
  cert_file: {json.dumps(files.certificate)}
  key_file: {json.dumps(files.key)}
  ca_file: {json.dumps(authorities_file)}
  verify: true
  insecure: true
  pinned_certs: {json.dumps(list(pins))}
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
    route_access: str = "",
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
        access: :func:`render_users` and :func:`render_tls`, or the ``include`` of a file with them; without
            them whoever reaches the server may do everything.
        route_access: the same for members, of :func:`render_route_tls`.
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
{route_access}}}
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
