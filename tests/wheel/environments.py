"""Empty environments with the wheel of ``kilo`` and one extra of it, and nothing of the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_PROJECT = tomllib.loads((ROOT / "runtime" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = tuple(sorted(_PROJECT["optional-dependencies"]))
_SUPPORTED = sorted(
    tuple(map(int, version.split(".")))
    for classifier in _PROJECT["classifiers"]
    for version in re.findall(r"^Programming Language :: Python :: (3\.\d+)$", classifier)
)
PYTHONS = tuple(f"{major}.{minor}" for major, minor in (_SUPPORTED[0], _SUPPORTED[-1]))
"""The oldest and the newest that the distribution says it supports."""

_UV = Path(sys.executable).parent / "uv"
_PINNED = re.compile(r"^(\S+==\S+(?: ; [^\\\n]+)?)", re.MULTILINE)


@dataclass(frozen=True)
class Environment:
    """One environment, in a folder of its own."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run its interpreter, outside of the checkout and without anything of this environment."""
        return subprocess.run(
            [self.python, "-I", *arguments],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )


def build_wheel(folder: Path) -> Path:
    """The wheel of ``runtime/``, built by the pinned backend from a copy, so that nothing is left there."""
    source = folder / "source"
    shutil.copytree(
        ROOT / "runtime", source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    )
    _uv("build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", folder, source)
    (wheel,) = folder.glob("*.whl")
    return wheel


def make_environment(folder: Path, python: str, wheel: Path, extra: str | None) -> Environment:
    """An environment with the wheel, at the versions that the lock has."""
    pins = folder.parent / "pins.txt"
    lock = (ROOT / "requirements" / "dev.lock").read_text(encoding="utf-8")
    pins.write_text("\n".join(_PINNED.findall(lock)), encoding="utf-8")
    made = Environment(folder)
    _uv("venv", "--python", interpreter(python), folder)
    wanted = f"{wheel}[{extra}]" if extra else str(wheel)
    _uv("pip", "install", "--python", made.python, "--constraint", pins, wanted)
    return made


def interpreter(version: str) -> str:
    """The machine's Python of that version; the test is skipped where there is none."""
    candidates = [
        shutil.which(f"python{version}"),
        *sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python")),
    ]
    for candidate in candidates:
        if candidate and _version_of(candidate) == version:
            return str(candidate)
    pytest.skip(f"this machine has no Python {version}")


def _version_of(python: str | Path) -> str | None:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    run = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return run.stdout.strip() or None


def _uv(*arguments: str | Path) -> None:
    # What the machine's pip is configured to ask, uv asks too, as in sandbox/bootstrap.py.
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"],
        capture_output=True,
        text=True,
        check=False,
    )
    index = os.environ.get("PIP_INDEX_URL") or asked.stdout.strip()
    environment = {"UV_SYSTEM_CERTS": "1", **os.environ, **({"UV_DEFAULT_INDEX": index} if index else {})}
    run = subprocess.run([_UV, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
