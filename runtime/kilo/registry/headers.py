"""Header fields of registries, parsed into values; what is malformed is refused rather than half read."""

from __future__ import annotations

import email.utils
import re
import time
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import httplink

from kilo.registry.errors import Unreadable
from kilo.registry.parsing import LARGEST_SIZE, printable

_WORD = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = r'"((?:[^"\\]|\\.)*+)"'
_SCHEME = re.compile(rf"({_WORD})")
_PARAMETER = re.compile(rf"({_WORD})[ \t]*=[ \t]*(?:{_QUOTED}|({_WORD}))[ \t]*(?=,|$)", re.DOTALL)
_CREDENTIALS = re.compile(r"[A-Za-z0-9\-._~+/]+=*[ \t]*(?=,|$)")
_SEPARATOR = re.compile(r"[ \t,]*")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_SECONDS = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to log in that a server offers; names in lower case."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(value: str) -> list[Challenge]:
    """Parse WWW-Authenticate (RFC 9110, 11.6.1): any number of challenges, in one field or several.

    Values may be quoted or not; names of schemes and parameters are in any case. What follows
    something malformed is left out, since nobody knows what it would belong to.
    """
    found: list[Challenge] = []
    position = 0
    while True:
        position = _end(_SEPARATOR, value, position)
        parameter = _PARAMETER.match(value, position) if found else None
        if parameter:
            quoted, plain = parameter[2], parameter[3]
            text = plain if quoted is None else _ESCAPED.sub(r"\1", quoted)
            found[-1].parameters.setdefault(parameter[1].lower(), text)
            position = parameter.end()
            continue
        scheme = _SCHEME.match(value, position)
        if not scheme or value[scheme.end() : scheme.end() + 1] not in {"", " ", "\t", ","}:
            return found
        found.append(Challenge(scheme[1].lower(), {}))
        position = _end(_SEPARATOR, value, scheme.end())
        token68 = _CREDENTIALS.match(value, position)
        if token68 and "," not in value[scheme.end() : position] and position > scheme.end():
            position = token68.end()


def next_page(link: str | None, url: str) -> str | None:
    """The path and query of the page that a Link header (RFC 8288) calls next; None for the last page.

    Args:
        link: the header's value.
        url: of the page that it came with, against which a relative one is resolved (RFC 3986, 5).

    Raises:
        Unreadable: the header is malformed, or leads to another host.
    """
    if not link:
        return None
    place = f"{urlsplit(url).netloc}: Link {printable(link)!r}"
    try:
        links = httplink.parse_link_header(link)
        if "next" not in links:
            return None
        target = urlsplit(urljoin(url, links["next"].target))
        elsewhere = target.hostname != urlsplit(url).hostname
    except ValueError as error:
        msg = f"{place}: malformed, so it is not known whether the list goes on"
        raise Unreadable(msg) from error
    if elsewhere:
        msg = f"{place}: the list goes on at another host"
        raise Unreadable(msg)
    return target.path + (f"?{target.query}" if target.query else "")


def content_length(value: str | None, place: str) -> int | None:
    """The number of bytes that Content-Length says; None without one. Raises Unreadable for another value."""
    if value is None:
        return None
    if not _SECONDS.fullmatch(value) or int(value) > LARGEST_SIZE:
        msg = f"{place}: Content-Length is {printable(value)!r}, and should be a number of bytes"
        raise Unreadable(msg)
    return int(value)


def retry_after_seconds(value: str | None) -> float | None:
    """Seconds to wait that a Retry-After header asks for (RFC 9110, 10.2.3); None without one."""
    if not value:
        return None
    if _SECONDS.fullmatch(value):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _end(pattern: re.Pattern[str], value: str, position: int) -> int:
    match = pattern.match(value, position)
    return match.end() if match else position
