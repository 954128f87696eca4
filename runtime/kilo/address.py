"""What of an address may be shown: scheme and hosts, never what may hold a password."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_HOST = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
_HOSTS = re.compile(f"{_HOST}(?:,{_HOST})*")


def address_of(url: str) -> str:
    """Scheme and hosts of ``url``, or of a list of URLs; ``…`` for what may hold a password."""
    if "://" not in url:
        hosts = url.partition("/")[0]
        return hosts if _HOSTS.fullmatch(hosts) and "@" not in url else "…"
    return ",".join(_one_address(each) for each in re.split(r",(?=[a-z][a-z0-9+]*://)", url))


def _one_address(url: str) -> str:
    scheme, _, rest = url.partition("://")
    try:
        hosts = urlsplit(url).netloc
    except ValueError:  # a bracket that is never closed
        hosts = ""
    # A password that was not percent-encoded may end what is read as the hosts: its @ is then further on.
    if "@" in rest.removeprefix(hosts):
        hosts = ""
    hosts = hosts.rpartition("@")[2]
    return f"{scheme}://{hosts if _HOSTS.fullmatch(hosts) else '…'}"
