"""The gateway beside a bare Envoy with one route: ``python -m benchmarks.gateway``.

The same Envoy, clients and service; what differs is the configuration: one route and nothing else, or
everything that the platform renders, at 1, 100, 1,000 and 10,000 tenants, and with a token to verify on each
request. What is judged is the processor time of the gateway for a request, which a busy machine changes
least, as a ratio to the bare one's. Requests a second and the 99th percentile stand beside it, and what a
change of tenants costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.rounds import save
from kilo.tenancy import RateLimit, Tenant
from kilo.traffic.envoy import render_files
from kilo.traffic.identity import Identity
from kilo.traffic.settings import GatewaySettings, Upstream
from tests.patience import until
from tests.runtime.traffic.support import ADDRESS, ENVOY, Gateway, free_port, make_tenant
from tests.runtime.traffic.tokens import AUDIENCE, ISSUER, Issuer

COUNTS = (1, 100, 1_000, 10_000)
CONNECTIONS = 16


@dataclass
class Side:
    """One configuration that is measured."""

    name: str
    port: int
    pid: int
    tenants: int = 1
    token: str | None = None
    processor_micros: list[float] = field(default_factory=list[float])
    per_second: list[float] = field(default_factory=list[float])
    p99_ms: list[float] = field(default_factory=list[float])

    def head(self, number: int) -> bytes:
        """The head of a request of the tenant ``number``."""
        said = f"x-tenant-id: tenant-{number % self.tenants}\r\n"
        if self.token:
            said = f"authorization: Bearer {self.token}\r\n"
        return f"POST /v1/events HTTP/1.1\r\nhost: x\r\n{said}content-length: 0\r\n\r\n".encode()


@dataclass(frozen=True)
class Change:
    """What one tenant's changed timeout costs, and what so many tenants take."""

    render_seconds: float
    in_force_seconds: float
    """From the files' swap until Envoy's own configuration dump has it."""
    file_bytes: int
    resident_megabytes: float


def tenants(count: int) -> list[Tenant]:
    """A stage's tenants, of all tiers; a hundredth have a limit of their own."""
    tiers = ("gold", "silver", "bronze")
    return [
        make_tenant(
            f"tenant-{number}",
            tier=tiers[number % 3],
            retries=2 - number % 3,
            **(
                {"limit": RateLimit(requests_per_second=90_000 + number, burst=500_000)}
                if number % 100 == 99
                else {}
            ),
        )
        for number in range(count)
    ]


def _bare(
    name: str, port: int, admin: int, route: dict[str, Any], clusters: list[dict[str, Any]]
) -> dict[str, Any]:
    """An Envoy with one route."""
    router = {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3."
        "HttpConnectionManager",
        "stat_prefix": name,
        "route_config": {
            "virtual_hosts": [
                {"name": name, "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **route}]}
            ]
        },
        "http_filters": [{"name": "router", "typed_config": router}],
    }
    return {
        "admin": {"address": _address(admin)},
        "static_resources": {
            "listeners": [
                {
                    "name": name,
                    "address": _address(port),
                    "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                }
            ],
            "clusters": clusters,
        },
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": ADDRESS, "port_value": port}}


@contextmanager
def _running(
    directory: Path, name: str, route: dict[str, Any], clusters: list[dict[str, Any]]
) -> Generator[tuple[int, int]]:
    """Run a bare Envoy; yields its port and process id."""
    port, admin = free_port(), free_port()
    path = directory / f"{name}.json"
    path.write_text(json.dumps(_bare(name, port, admin, route, clusters)))
    command = [ENVOY, "-c", str(path), "--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: _ready(admin), f"{name} ready")
            yield port, process.pid
        finally:
            process.kill()


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://{ADDRESS}:{port}/ready").status_code == 200
    except httpx.TransportError:
        return False


def _processor_seconds(pid: int) -> float:
    """Of all its threads, to the nanosecond: what /proc/PID/stat has is counted in hundredths of a second."""
    spent = (path.read_text().split()[0] for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(map(int, spent)) / 1e9


def _resident_megabytes(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


async def _load(side: Side, requests: int) -> list[float]:
    """Seconds of each request, from connections that each wait for their answer."""
    took: list[float] = []
    numbers = iter(range(requests))

    async def client() -> None:
        reader, writer = await asyncio.open_connection(ADDRESS, side.port)
        # Answers of the service have no body; refusals have, and would be a mistake here.
        for number in numbers:
            begun = time.perf_counter()
            writer.write(side.head(number))
            head = await reader.readuntil(b"\r\n\r\n")
            took.append(time.perf_counter() - begun)
            if not head.startswith(b"HTTP/1.1 200"):
                msg = f"{side.name}: {head.splitlines()[0].decode()}"
                raise RuntimeError(msg)
        writer.close()

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return took


def _turn(side: Side, requests: int) -> None:
    before, begun = _processor_seconds(side.pid), time.perf_counter()
    took = sorted(asyncio.run(_load(side, requests)))
    seconds = time.perf_counter() - begun
    side.processor_micros.append((_processor_seconds(side.pid) - before) / requests * 1e6)
    side.per_second.append(requests / seconds)
    side.p99_ms.append(took[int(len(took) * 0.99)] * 1000)


def _change(gateway: Gateway, listed: list[Tenant]) -> tuple[float, float]:
    """Seconds to render, and from the files' swap until the change is in force."""
    begun = time.perf_counter()
    changed = [listed[0].model_copy(update={"timeout_ms": 7_777}), *listed[1:]]
    files = render_files(changed, gateway.settings)
    rendered = time.perf_counter()
    gateway.mount(files)
    while (
        "7.777s"
        not in httpx.get(f"{gateway.operations}/config_dump?resource=dynamic_route_configs", timeout=60).text
    ):
        pass
    return rendered - begun, time.perf_counter() - rendered


def main() -> int:
    """Measure, print and write ``benchmarks/results/gateway.json``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=4_000, help="of each turn")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    changes: dict[int, Change] = {}
    with ExitStack() as stack, tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        answer = {"direct_response": {"status": 200}}
        upstream, _ = stack.enter_context(_running(directory, "service", answer, []))
        service = {
            "name": "service",
            "type": "STATIC",
            "load_assignment": {
                "cluster_name": "service",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(upstream)}}]}],
            },
        }
        port, pid = stack.enter_context(
            _running(directory, "bare", {"route": {"cluster": "service"}}, [service])
        )
        sides = [Side("bare", port, pid)]
        issuer = Issuer()
        for count, identity in (*((count, None) for count in COUNTS), (1_000, _by_token(issuer))):
            settings = GatewaySettings(
                stable=Upstream(host=ADDRESS, port=upstream),
                next=Upstream(host=ADDRESS, port=upstream),
                listener_port=free_port(),
                operations_port=free_port(),
                drain_port=free_port(),
                identity=identity,
            )
            gateway = Gateway(directory / f"{count}-{bool(identity)}" / "mount", settings)
            gateway.directory.mkdir(parents=True)
            stack.callback(gateway.stop)
            listed = tenants(count)
            gateway.start(listed)
            assert gateway.pid is not None
            if identity is None:
                size = sum(map(len, render_files(listed, settings).values()))
                seconds = _change(gateway, listed)
                changes[count] = Change(*seconds, size, _resident_megabytes(gateway.pid))
            sides.append(
                Side(
                    f"{count:,} tenants{', token' if identity else ''}",
                    settings.listener_port,
                    gateway.pid,
                    count,
                    issuer.token("tenant-1") if identity else None,
                )
            )
        for side in sides:
            # A tenant's first request makes its buckets and counters.
            asyncio.run(_load(side, max(options.requests // 4, side.tenants)))
        for _ in range(options.rounds):
            for side in sides:
                _turn(side, options.requests)
    _report(sides, changes, options)
    return 0


def _by_token(issuer: Issuer) -> Identity:
    return Identity.model_validate({"jwt": {"issuer": ISSUER, "audience": AUDIENCE, "jwks": issuer.jwks}})


def _ratio(side: Side, bare: Side) -> float:
    """Of processor time to the bare one's in the same round, the median of all rounds."""
    pairs = zip(side.processor_micros, bare.processor_micros, strict=True)
    return statistics.median(own / other for own, other in pairs)


def _report(sides: list[Side], changes: dict[int, Change], options: argparse.Namespace) -> None:
    bare = sides[0]
    lines = [
        "### The gateway beside a bare Envoy",
        "",
        "| configuration | µs of CPU a request | times bare | requests/s | p99 ms |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {side.name} | {statistics.median(side.processor_micros):.1f} | {_ratio(side, bare):.2f} "
        f"| {statistics.median(side.per_second):,.0f} | {statistics.median(side.p99_ms):.1f} |"
        for side in sides
    ]
    lines += [
        "",
        "| tenants | rendered in s | in force after s | bytes of files | resident MB |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {count:,} | {change.render_seconds:.2f} | {change.in_force_seconds:.2f} | {change.file_bytes:,} "
        f"| {change.resident_megabytes:.0f} |"
        for count, change in changes.items()
    ]
    measured = {side.name: {**asdict(side), "times_bare": _ratio(side, bare)} for side in sides}
    for each in measured.values():
        del each["token"], each["port"], each["pid"]
    results = {
        "requests": options.requests,
        "rounds": options.rounds,
        "sides": measured,
        "changes": {count: asdict(change) for count, change in changes.items()},
    }
    save("gateway", results, "\n".join([*lines, ""]))


if __name__ == "__main__":
    sys.exit(main())
