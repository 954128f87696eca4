"""Names of images and repositories, and where their registries are reached.

``HOST/REPOSITORY[:TAG][@DIGEST]``, as the Docker reference grammar has it, apart from its
shorthands: the host is always written. A host is reached over HTTPS, and over HTTP where it is on
loopback, as every container tool does.

``CONTAINERS_REGISTRIES_CONF`` may name a file in the format of containers-registries.conf(5); of it
``[[registry]]`` entries with ``prefix``, ``location`` and ``insecure`` are read, which is how
podman and skopeo are sent elsewhere, too. That is also how a sandbox or a test stands in for a
cloud's registry::

    [[registry]]
    prefix = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
    location = "127.0.0.1:5000"
    insecure = true

Mirrors and short names of that format are left out: the mirror must know which side it talks to.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

from kilo.errors import BadInput

CONFIGURATION_VARIABLE = "CONTAINERS_REGISTRIES_CONF"
DIGEST_PATTERN = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
TAG_PATTERN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")

_HOST = re.compile(
    r"(localhost|[a-z0-9.-]*[.][a-z0-9.-]+|[a-z0-9.-]+(?=:)|\[[0-9a-f:.]+\])(:\d{1,5})?", re.IGNORECASE
)
REPOSITORY_PATTERN = re.compile(r"[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)*")
_LOOPBACK = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?")


@dataclass(frozen=True, slots=True)
class Reference:
    """An image or a repository by name."""

    host: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``HOST/REPOSITORY[:TAG][@DIGEST]``.

        Raises:
            BadInput: the text is not of that form.
        """
        host, slash, rest = text.removeprefix("oci://").partition("/")
        name, _, digest = rest.partition("@")
        repository, _, tag = name.partition(":")
        wrong = None
        if not slash or not _HOST.fullmatch(host):
            wrong = f"{host!r} is no registry host (write one with a dot or a port)"
        elif not REPOSITORY_PATTERN.fullmatch(repository):
            wrong = f"{repository!r} is no repository name (lower case, digits, separators)"
        elif ":" in name and not TAG_PATTERN.fullmatch(tag):
            wrong = f"{tag!r} is no tag"
        elif "@" in rest and not DIGEST_PATTERN.fullmatch(digest):
            wrong = f"{digest!r} is no digest (sha256: and 64 hexadecimal digits)"
        if wrong:
            msg = f"{text}: {wrong}; expected HOST/REPOSITORY[:TAG][@DIGEST]"
            raise BadInput(msg)
        return cls(host, repository, tag or None, digest or None)

    @property
    def name(self) -> str:
        """Host and repository, without tag and digest."""
        return f"{self.host}/{self.repository}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a repository's registry answers, and the repository's name there."""

    base_url: str
    repository: str

    @property
    def encrypted(self) -> bool:
        """Whether credentials may be sent there."""
        return self.base_url.startswith("https://")


def resolve(name: str, environment: Mapping[str, str] = os.environ) -> Endpoint:
    """Find where ``name`` (host and repository) is reached.

    Raises:
        BadInput: the file that ``CONTAINERS_REGISTRIES_CONF`` names can't be read as such.
    """
    insecure = False
    for prefix, location, plain in sorted(_redirections(environment), key=lambda entry: -len(entry[0])):
        if name == prefix or name.startswith((f"{prefix}/", f"{prefix}:")):
            name = location + name[len(prefix) :]
            insecure = plain
            break
    host, _, repository = name.partition("/")
    scheme = "http" if insecure or _LOOPBACK.fullmatch(host) else "https"
    return Endpoint(f"{scheme}://{host}", repository)


def _redirections(environment: Mapping[str, str]) -> list[tuple[str, str, bool]]:
    path = environment.get(CONFIGURATION_VARIABLE)
    if not path:
        return []
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"{path}: named by {CONFIGURATION_VARIABLE} but can't be read ({error.strerror})"
        raise BadInput(msg) from error
    except ValueError as error:
        msg = f"{path}: named by {CONFIGURATION_VARIABLE} but is not TOML: {error}"
        raise BadInput(msg) from error
    found: list[tuple[str, str, bool]] = []
    for entry in cast("list[dict[str, object]]", document.get("registry", [])):
        location = str(entry.get("location", entry.get("prefix", "")))
        prefix = str(entry.get("prefix", location))
        if not prefix or not location:
            msg = f"{path}: a [[registry]] entry has neither prefix nor location"
            raise BadInput(msg)
        found.append((prefix, location, bool(entry.get("insecure", False))))
    return found
