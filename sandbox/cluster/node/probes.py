"""Probes: one check of a container, and the loop that repeats it.

https://kubernetes.io/docs/concepts/workloads/pods/probes/
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sandbox.cluster.objects import Object

Check = Callable[[], Awaitable[tuple[bool, str]]]
Run = Callable[[list[str]], Awaitable[tuple[bool, str]]]
"""Runs a command beside the container's process: whether it exited with 0, and its output."""


def check_of(probe: Object, address: str, container: Object, run: Run) -> Check:
    """The one check that the probe's handler describes."""
    timeout = probe.get("timeoutSeconds") or 1
    if handler := probe.get("httpGet"):
        attempt = _http(handler, address, port_of(handler["port"], container))
    elif handler := probe.get("tcpSocket"):
        attempt = _tcp(handler.get("host") or address, port_of(handler["port"], container))
    elif handler := probe.get("exec"):
        attempt = _exec(handler.get("command") or [], run)
    else:
        attempt = _unknown(probe)

    async def check() -> tuple[bool, str]:
        try:
            return await asyncio.wait_for(attempt(), timeout)
        except TimeoutError:
            return False, f"timed out after {timeout} s"
        except (OSError, ValueError) as error:
            return False, str(error)

    return check


def port_of(port: int | str, container: Object) -> int:
    """A container's port by number or name."""
    if isinstance(port, int):
        return port
    named = {item.get("name"): item["containerPort"] for item in container.get("ports") or ()}
    return named[port] if port in named else int(port)


def _http(handler: Object, address: str, port: int) -> Check:
    host, path = handler.get("host") or address, handler.get("path") or "/"
    headers: Mapping[str, Any] = {item["name"]: item["value"] for item in handler.get("httpHeaders") or ()}
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {headers.get('Host', f'{host}:{port}')}",
        "User-Agent: kube-probe/1.37",
    ]
    lines += ["Accept: */*", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items() if name != "Host"]
    request = "\r\n".join([*lines, "", ""]).encode()
    context: ssl.SSLContext | None = None
    if handler.get("scheme") == "HTTPS":
        # As the kubelet does: a probe asks whether the server answers, not who it is.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    async def attempt() -> tuple[bool, str]:
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        try:
            writer.write(request)
            words = (await reader.readline()).split()
            if len(words) < 2 or not words[1].isdigit():
                return False, "the answer is not HTTP"
            code = int(words[1])
            return 200 <= code < 400, f"HTTP probe failed with statuscode: {code}"
        finally:
            writer.close()

    return attempt


def _tcp(host: str, port: int) -> Check:
    async def attempt() -> tuple[bool, str]:
        _, writer = await asyncio.open_connection(host, port)
        writer.close()
        return True, ""

    return attempt


def _exec(command: list[str], run: Run) -> Check:
    async def attempt() -> tuple[bool, str]:
        return await run(command)

    return attempt


def _unknown(probe: Object) -> Check:
    async def attempt() -> tuple[bool, str]:
        return False, f"the sandbox has no {', '.join(name for name in ('grpc',) if name in probe)} probes"

    return attempt


async def watch(probe: Object, check: Check, changed: Callable[[bool, str], None], *, holds: bool) -> None:
    """Repeat the check for ever and say when its outcome changes, by the probe's thresholds.

    Args:
        probe: periods and thresholds.
        check: the check.
        changed: told the new outcome and what the last check said.
        holds: the outcome to begin with.
    """
    period = probe.get("periodSeconds") or 10
    needed = {True: probe.get("successThreshold") or 1, False: probe.get("failureThreshold") or 3}
    await asyncio.sleep(probe.get("initialDelaySeconds") or 0)
    run = 0
    while True:
        outcome, said = await check()
        run = run + 1 if outcome != holds else 0
        if run >= needed[outcome]:
            holds, run = outcome, 0
            changed(holds, said)
        await asyncio.sleep(period)
