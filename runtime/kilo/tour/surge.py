"""A surge of one tenant through the gateway: it is refused with a hint, and the others notice nothing.

What is sent are requests that ingest refuses by their method, so a surge stores no event and fails no
objective.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import httpx
from rich.table import Table

from kilo.tables import make_table
from kilo.tour.report import percentile

_SECONDS = 3.0
_LONGEST_SECONDS = 12.0
_REFUSALS = 20
"""Until there are as many the surge goes on: a slow machine takes longer to use up a burst."""
_CONNECTIONS = 16
_USUAL_PAUSE_SECONDS = 0.1
_OUR_OWN = 500
"""Statuses from here on are failures of the platform; below, a request was answered as it deserves."""
_REFUSED = 429
_TIERS = ("bronze", "silver", "gold")


@dataclass
class Surged:
    """What one tenant's requests met."""

    statuses: Counter[int] = field(default_factory=Counter[int])
    seconds: list[float] = field(default_factory=list[float])
    """Of requests that were not refused."""
    hints: list[int] = field(default_factory=list[int])
    """Seconds that refusals asked to wait."""

    @property
    def failed(self) -> int:
        """Requests with no answer, or one that says that the platform failed."""
        return sum(count for status, count in self.statuses.items() if status == 0 or status >= _OUR_OWN)


def choose(tiers: Mapping[str, str]) -> str:
    """Whose surge it is: a tenant of the lowest tier, whose limit is met first."""
    return min(sorted(tiers), key=lambda name: _TIERS.index(tiers[name]))


async def surge(url: str, tenant_header: str, tenants: Sequence[str], surging: str) -> dict[str, Surged]:
    """Send as much as can be for ``surging`` and a little for each other of ``tenants``.

    It lasts three seconds, and up to twelve where ``surging`` was hardly refused until then.

    Args:
        url: of the gateway.
        tenant_header: names the tenant of a request.
        tenants: all who take part, by id.
        surging: one of them.
    """
    results = {name: Surged() for name in tenants}
    began = time.monotonic()
    limits = httpx.Limits(max_connections=_CONNECTIONS + len(tenants))
    async with httpx.AsyncClient(base_url=url, timeout=10, limits=limits) as client:

        def goes_on() -> bool:
            lasted = time.monotonic() - began
            few = results[surging].statuses[_REFUSED] < _REFUSALS
            return lasted < _SECONDS or (few and lasted < _LONGEST_SECONDS)

        async def ask(name: str, pause: float) -> None:
            while goes_on():
                await _ask(client, {tenant_header: name}, results[name])
                await asyncio.sleep(pause)

        await asyncio.gather(
            *(ask(surging, 0) for _ in range(_CONNECTIONS)),
            *(ask(name, _USUAL_PAUSE_SECONDS) for name in tenants if name != surging),
        )
    return results


async def _ask(client: httpx.AsyncClient, headers: Mapping[str, str], result: Surged) -> None:
    begun = time.monotonic()
    try:
        response = await client.get("/v1/events", headers=dict(headers))
    except httpx.HTTPError:
        result.statuses[0] += 1
        return
    result.statuses[response.status_code] += 1
    if response.status_code != _REFUSED:
        result.seconds.append(time.monotonic() - begun)
        return
    hint = response.headers.get("retry-after", "")
    result.hints.append(int(hint) if hint.isdecimal() else 0)


def surge_problems(results: Mapping[str, Surged], surging: str) -> list[str]:
    """What should not have been, as sentences."""
    problems = [
        f"during {surging}'s surge {result.statuses[_REFUSED]} requests of {name} were refused"
        for name, result in results.items()
        if name != surging and result.statuses[_REFUSED]
    ]
    problems += [
        f"{result.failed} requests of {name} failed" for name, result in results.items() if result.failed
    ]
    if not all(result.hints == [hint for hint in result.hints if hint > 0] for result in results.values()):
        problems.append("refusals did not say when to come back")
    return problems


def surge_table(results: Mapping[str, Surged], surging: str) -> Table:
    """A line for each tenant."""
    columns = ("tenant", "asked", "answered", "429", "come back after", "p99 ms")
    rows: list[tuple[str, ...]] = []
    for name, result in sorted(results.items()):
        p99 = percentile(result.seconds, 99)
        hints = sorted({*result.hints})
        rows.append(
            (
                name,
                f"{result.statuses.total():,}",
                f"{result.statuses.total() - result.failed - result.statuses[_REFUSED]:,}",
                f"{result.statuses[_REFUSED]:,}",
                f"{hints[0]} to {hints[-1]} s" if hints else "-",
                "-" if p99 is None else f"{p99 * 1000:.0f}",
            )
        )
    numbers = {"asked", "answered", "429", "p99 ms"}
    return make_table(columns, rows, numbers=numbers, title=f"a surge of {surging}")


def surge_document(results: Mapping[str, Surged]) -> dict[str, object]:
    """The same as JSON."""
    return {
        name: {
            "statuses": {str(status): count for status, count in sorted(result.statuses.items())},
            "retry_after_seconds": sorted({*result.hints}),
            "p99_ms": round((percentile(result.seconds, 99) or 0) * 1000, 1),
        }
        for name, result in sorted(results.items())
    }
