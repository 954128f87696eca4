"""The image's root directory: Debian's files less what nothing needs, the wheels, one user, bytecode."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from kilo.errors import Unreachable
from sandbox.image.description import REPOSITORY, WHEELS_LOCK, Description, Platform
from sandbox.toolchain.commands import run
from sandbox.toolchain.progress import Step

_BINARIES = ("usr/bin", "usr/sbin", "usr/lib/postgresql/*/bin")
_BUNDLE = "etc/ssl/certs/ca-certificates.crt"
_COMMAND = """\
#!/usr/bin/python3 -sP
import sys

from kilo.command import main

sys.exit(main())
"""
_LOCAL_NOTES = ("direct_url.json", "uv_cache.json", "uv_build.json", "REQUESTED")
"""What an installer writes of the machine that it ran on."""


def site_packages(description: Description) -> Path:
    """Where wheels lie below the root."""
    return Path(f"usr/local/lib/python{description.python}/dist-packages")


def trim(root: Path, description: Description) -> None:
    """Remove what nothing needs; licence notices stay."""
    debian = description.debian
    for pattern in debian.remove:
        for path in root.glob(pattern):
            _remove(path)
    kept = {*debian.programs, "python3"}
    for folder in _BINARIES:
        for path in (found for place in root.glob(folder) for found in place.iterdir()):
            if path.name not in kept:
                _remove(path)
    for path in root.glob("usr/share/doc/*/*"):
        if path.name != "copyright":
            _remove(path)


def settle(root: Path, description: Description) -> None:
    """What the packages' own scripts would have done, as far as the image needs it."""
    user = description.user
    etc = root / "etc"
    (etc / "passwd").write_text(
        "root:x:0:0:root:/root:/usr/sbin/nologin\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
        f"kilo:x:{user}:{user}:kilo:/tmp:/usr/sbin/nologin\n"
    )
    (etc / "group").write_text(f"root:x:0:\nnogroup:x:65534:\nkilo:x:{user}:\n")
    # Without it the C library asks for a file that no package brings.
    (etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    certificates = sorted(root.glob("usr/share/ca-certificates/mozilla/*.crt"))
    bundle = root / _BUNDLE
    bundle.parent.mkdir(parents=True, exist_ok=True)
    bundle.write_bytes(b"".join(path.read_bytes() for path in certificates))
    # Where OpenSSL looks by itself; the links are in the package of its command line, which is left out.
    openssl = root / "usr/lib/ssl"
    openssl.mkdir(exist_ok=True)
    (openssl / "cert.pem").symlink_to(f"/{_BUNDLE}")
    (openssl / "certs").symlink_to("/etc/ssl/certs")
    python = root / "usr/bin/python3"
    python.unlink(missing_ok=True)
    python.symlink_to(f"python{description.python}")
    (root / "tmp").mkdir(exist_ok=True)
    command = root / description.entrypoint[0].lstrip("/")
    command.parent.mkdir(parents=True, exist_ok=True)
    command.write_text(_COMMAND)
    command.chmod(0o755)


def install_wheels(root: Path, description: Description, target: Platform, work: Path, step: Step) -> None:
    """The locked wheels, then the one of this checkout.

    Raises:
        Unreachable: a wheel is not to be had, or its bytes are not the lock's.
    """
    place = root / site_packages(description)
    place.mkdir(parents=True)
    uv = shutil.which("uv", path=str(REPOSITORY / ".venv/bin")) or shutil.which("uv")
    if uv is None:
        msg = "uv is needed to install wheels: make check, which makes .venv"
        raise Unreachable(msg)
    source = work / "runtime"
    # Setuptools builds in the tree, where leftovers of an earlier build would get into the wheel.
    shutil.copytree(
        REPOSITORY / "runtime", source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    )
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "315532800"}
    build = [uv, "build", "--wheel", "--quiet", "--out-dir", work / "wheel", source]
    run(build, step, directory=work, environment=environment)
    (wheel,) = (work / "wheel").glob("*.whl")
    install = [
        uv,
        "pip",
        "install",
        "--quiet",
        "--target",
        place,
        "--only-binary",
        ":all:",
        "--link-mode",
        "copy",
    ]
    install += ["--python-version", description.python, "--python-platform", target.wheels]
    run([*install, "--require-hashes", "--no-deps", "-r", WHEELS_LOCK], step, directory=work)
    run([*install, "--no-deps", wheel], step, directory=work)
    shutil.rmtree(place / "bin", ignore_errors=True)
    for lock in (place / ".lock", place / ".gitignore"):
        lock.unlink(missing_ok=True)
    for notes in place.glob("*.dist-info"):
        for name in _LOCAL_NOTES:
            (notes / name).unlink(missing_ok=True)
        _forget_removed(notes / "RECORD", place)


def compile_bytecode(root: Path, description: Description, target: Platform, step: Step) -> None:
    """By the image's own Python: where the root can't be written each start would compile anew."""
    argv = [
        root / target.loader,
        "--library-path",
        root / "usr/lib" / target.triplet,
        root / f"usr/bin/python{description.python}",
        *("-s", "-S", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"),
        *("-s", root, "-p", "/"),
        root / f"usr/lib/python{description.python}",
        root / site_packages(description),
    ]
    environment = {
        "PYTHONHOME": str(root / "usr"),
        "PATH": "/usr/bin",
        # A set's order is written into the bytecode.
        "PYTHONHASHSEED": "0",
        # What compileall imports would be written at once, with this directory's name and today's time in it.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    run([str(part) for part in argv], step, directory=root, environment=environment)


def _forget_removed(record: Path, place: Path) -> None:
    """Leave lines of RECORD out whose files are gone, and order the rest."""
    lines = [line for line in record.read_text().splitlines() if (place / re.split(",", line)[0]).exists()]
    record.write_text("\n".join([*sorted(lines), ""]))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
