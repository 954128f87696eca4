"""Has the tenants' keys in memory before the first request needs one.

Making a KMS client and its first call take seconds on a busy machine, and a request is given two. Whose key
can't be had is left to the tenant's own requests, which are told so: nobody else waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from kilo.fle import AsyncFieldCipher
from kilo.fle.errors import FieldError
from kilo.health import Health

COMPONENT = "encryption"
_log = logging.getLogger(__name__)
_AT_ONCE = 4
_SECONDS = 20.0
"""After which the process is ready all the same: KMS may be away, and most tenants may not need it."""


async def warm(
    cipher: AsyncFieldCipher, tenants: Sequence[str], health: Health, stopping: asyncio.Event
) -> None:
    """Fetch the keys of ``tenants`` as far as they can be had, call encryption fine, stay until the end."""
    fetching = asyncio.ensure_future(_fetch(cipher, tenants))
    stopped = asyncio.ensure_future(stopping.wait())
    await asyncio.wait([fetching, stopped], return_when=asyncio.FIRST_COMPLETED)
    if fetching.done():
        fetching.result()
        health.fine(COMPONENT)
    else:
        fetching.cancel()
    await stopped


async def _fetch(cipher: AsyncFieldCipher, tenants: Sequence[str]) -> None:
    waiting = asyncio.Semaphore(_AT_ONCE)

    async def fetch(tenant: str) -> None:
        async with waiting:
            try:
                await cipher.warm([tenant])
            except FieldError as error:
                _log.warning("%s: no key at the start: %s", tenant, type(error).__name__)

    try:
        async with asyncio.timeout(_SECONDS):
            await asyncio.gather(*(fetch(tenant) for tenant in tenants))
    except TimeoutError:
        _log.warning("keys of some tenants were not fetched within %.0f s", _SECONDS)
