"""Debian's packages: resolved once into a lock, later fetched by checksum and unpacked.

The resolution is apt's own with nothing installed, checked against Debian's signed index. A locked package is
then taken from any mirror that has its bytes. No package's script is run: what the image needs of them
(users, certificates, links) :mod:`sandbox.image.root` does.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

from kilo.errors import BadInput, Unreachable
from sandbox.image.description import Debian, Platform, lock_path
from sandbox.toolchain.cache import cache_root
from sandbox.toolchain.commands import run
from sandbox.toolchain.progress import Step

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TIME = "%Y%m%dT%H%M%SZ"
_URI = re.compile(r"^'(?P<uri>[^']+)' (?P<file>\S+) ")
_LINE = re.compile(r"^(?P<sha256>[0-9a-f]{64})  (?P<archive>[a-z-]+)/(?P<path>pool/\S+\.deb)$")
_SOURCES = """\
Types: deb
URIs: http://deb.debian.org/debian
Suites: {suite} {suite}-updates
Components: main
Signed-By: {keyring}

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: {suite}-security
Components: main
Signed-By: {keyring}
"""


@dataclass(frozen=True)
class Package:
    """One locked package."""

    sha256: str
    archive: str
    path: str

    @property
    def name(self) -> str:
        """Without version and architecture."""
        return unquote(self.path.rpartition("/")[2]).split("_")[0]

    @property
    def version(self) -> str:
        """As its file's name has it, which leaves the epoch out."""
        return unquote(self.path.rpartition("/")[2]).split("_")[1]


@dataclass(frozen=True)
class Lock:
    """All packages, and when they were resolved: the time that all of the image's files bear."""

    time: datetime
    packages: tuple[Package, ...]

    @classmethod
    def read(cls, target: Platform) -> Lock:
        """The lock beside the description.

        Raises:
            BadInput: there is none for this architecture, or a line of it is no package.
        """
        path = lock_path(target)
        if not path.exists():
            msg = f"{path}: there is no lock for {target.debian}; make one with: kilo image lock"
            raise BadInput(msg)
        return cls.parse(path.read_text(), str(path))

    @classmethod
    def parse(cls, text: str, place: str) -> Lock:
        """Read a lock's text; raises BadInput as :meth:`read` does."""
        first, *lines = text.splitlines() or [""]
        try:
            time = datetime.strptime(first, f"# {_TIME}").replace(tzinfo=UTC)
        except ValueError as error:
            msg = f"{place}: line 1 is {first!r}, and should be a time like # 20261129T090000Z"
            raise BadInput(msg) from error
        packages: list[Package] = []
        for number, line in enumerate(lines, 2):
            match = _LINE.match(line)
            if match is None or ".." in line:
                msg = f"{place}: line {number} is no package: a SHA-256, two spaces, archive/pool/….deb"
                raise BadInput(msg)
            packages.append(Package(**match.groupdict()))
        return cls(time, tuple(packages))

    def text(self) -> str:
        """What :meth:`parse` reads."""
        lines = [f"{package.sha256}  {package.archive}/{package.path}" for package in self.packages]
        return "\n".join([f"# {self.time:{_TIME}}", *lines, ""])


def resolve(debian: Debian, target: Platform, step: Step) -> Lock:
    """Ask apt what the packages need today.

    Raises:
        Unreachable: apt, Debian's keyring or the mirror is not to be had, or something can't be resolved.
    """
    if not _KEYRING.exists() or shutil.which("apt-get") is None:
        msg = f"{_KEYRING} and apt-get are needed to resolve packages: use a Debian or Ubuntu machine"
        raise Unreachable(msg)
    with tempfile.TemporaryDirectory(prefix="kilo-image-") as made:
        work = Path(made)
        for part in ("state/lists/partial", "cache/archives/partial"):
            (work / part).mkdir(parents=True)
        (work / "sources.sources").write_text(_SOURCES.format(suite=debian.suite, keyring=_KEYRING))
        (work / "status").write_text("".join(_installed(name) for name in debian.without))
        apt = _apt(work, target)
        run([*apt, "update"], step, directory=work, describe=lambda line: f"package index: {line}")
        wanted = ["install", "--yes", *debian.packages]
        uris = subprocess.run([*apt, "--print-uris", *wanted], capture_output=True, text=True, check=False)
        run([*apt, "--download-only", *wanted], step, directory=work, describe=lambda line: line)
        found: list[Package] = []
        for match in filter(None, map(_URI.match, uris.stdout.splitlines())):
            archive, _, path = match["uri"].removeprefix("http://deb.debian.org/").partition("/")
            content = (work / "cache/archives" / match["file"]).read_bytes()
            found.append(Package(hashlib.sha256(content).hexdigest(), archive, path))
    return Lock(datetime.now(UTC), tuple(sorted(found, key=lambda package: package.path)))


def fetch(lock: Lock, mirrors: Sequence[str], step: Step) -> list[Path]:
    """The packages' files, from the cache or a mirror; whose bytes are not the lock's is not taken.

    Raises:
        Unreachable: a package is on no mirror.
    """
    kept = cache_root() / "debian"
    kept.mkdir(parents=True, exist_ok=True)

    def one(package: Package) -> Path:
        path = kept / f"{package.sha256}.deb"
        if not path.exists():
            step.update(f"fetching {package.name}")
            content = _download(package, lock, mirrors)
            partial = kept / f".partial-{package.sha256}-{os.getpid()}"
            partial.write_bytes(content)
            partial.rename(path)
        return path

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, lock.packages))


def unpack(packages: Sequence[Path], root: Path, step: Step) -> None:
    """Lay the packages' files into ``root``."""
    for package in packages:
        run(["dpkg-deb", "--extract", package, root], step, directory=root)


def _download(package: Package, lock: Lock, mirrors: Sequence[str]) -> bytes:
    seen: list[str] = []
    for mirror in mirrors:
        url = mirror.format(archive=package.archive, path=package.path, time=f"{lock.time:{_TIME}}")
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310  the description's mirrors
                content = answer.read()
        except (OSError, urllib.error.URLError) as error:
            seen.append(f"{url}: {error}")
            continue
        if hashlib.sha256(content).hexdigest() == package.sha256:
            return content
        seen.append(f"{url}: other bytes than the lock's")
    tried = "; ".join(seen)
    msg = f"{package.name} {package.version}: on no mirror ({tried}); lock a newer one: kilo image lock"
    raise Unreachable(msg)


def _installed(name: str) -> str:
    """An entry of dpkg's status that makes apt take a package for installed, in the newest version."""
    return (
        f"Package: {name}\nStatus: install ok installed\nVersion: 99:9\nArchitecture: all\n"
        "Multi-Arch: foreign\nMaintainer: none\nDescription: left out\n\n"
    )


def _apt(work: Path, target: Platform) -> list[str]:
    options = {
        "Dir::State": work / "state",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "Dir::Etc::sourcelist": work / "sources.sources",
        "Dir::Etc::sourceparts": "/dev/null",
        "Acquire::Languages": "none",
        "APT::Architecture": target.debian,
        "APT::Architectures::": target.debian,
        "APT::Install-Recommends": "false",
    }
    if os.geteuid() == 0:
        options["APT::Sandbox::User"] = "root"
    return ["apt-get", *(f"-o{name}={value}" for name, value in options.items())]
