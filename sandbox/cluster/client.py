"""Where clients find the cluster and the token that it asks for.

The cluster's URL is no secret and goes by ``KILO_SANDBOX``; the token lies in a file of the user's own,
named after the port, so that it never shows in an environment or a URL.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from kilo.errors import Unreachable

VARIABLE = "KILO_SANDBOX"
_SECONDS = 60


def connect(url: str | None = None) -> httpx.Client:
    """A client of the cluster at ``url``, or at the one that ``KILO_SANDBOX`` names.

    Raises:
        Unreachable: no cluster is named, or it is another user's.
    """
    base = url or os.environ.get(VARIABLE)
    if not base:
        msg = f'{VARIABLE} names no cluster; run: eval "$(kilo env)"'
        raise Unreachable(msg)
    path = token_file(base)
    try:
        token = path.read_text(encoding="ascii")
    except OSError as error:
        msg = f"{path}: the token of the cluster at {base} can't be read ({error.strerror}); is it running?"
        raise Unreachable(msg) from error
    # No proxy of the user's environment may come between.
    return httpx.Client(
        base_url=base, headers={"authorization": f"Bearer {token}"}, timeout=_SECONDS, trust_env=False
    )


def new_token(url: str) -> str:
    """Make the token for the cluster at ``url`` and leave it for :func:`connect`."""
    token = secrets.token_urlsafe(32)
    path = token_file(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(token)
    beside.replace(path)
    return token


def forget_token(url: str) -> None:
    """Remove the token of a cluster that has stopped."""
    token_file(url).unlink(missing_ok=True)


def token_file(url: str) -> Path:
    """Where the token of the cluster at ``url`` lies."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "kilo" / "clusters" / f"{urlsplit(url).port}.token"
