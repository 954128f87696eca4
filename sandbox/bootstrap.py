"""Makes ``.venv`` with everything of a lock file in it; run by ``make`` with the machine's own Python.

Needs the standard library alone, and is written so that Pythons which are too old can still read it and
say so. A finished installation leaves a stamp named by a hash of what it was made from; with that stamp
there, nothing is done.
"""

import fcntl
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 11)
ENVIRONMENT_BYTES = 4_000_000_000  # 1.9 GB of packages, and as much again in uv's cache.
UNREACHABLE = 3  # As kilo.errors.ExitCode, which can't be imported before there is an environment.


class Problem(Exception):
    """Something that this machine lacks, said in one line."""


def main() -> int:
    """Install the lock that the first argument names, ``dev`` or ``bench``, and the project itself.

    ``bench`` holds all of ``dev``.
    """
    lock = "bench" if "bench" in sys.argv[1:] else "dev"
    try:
        check_machine(sys.version_info[:2], platform.system(), platform.machine())
        # Two makes at once: the second waits, then finds the stamp.
        with (ROOT / "requirements" / "bootstrap.lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not any(stamp(installed).exists() for installed in {lock, "bench"}):
                install(lock)
    except Problem as problem:
        sys.stderr.write(f"kilo: error: {problem}\n")
        return UNREACHABLE
    except KeyboardInterrupt:
        return 130  # The next run carries on from the packages that are cached.
    return 0


def check_machine(python: "tuple[int, ...]", system: str, machine: str) -> None:
    """Refuse a machine on which the sandbox's programs don't run.

    Raises:
        Problem: Python is too old or incomplete, or it is no Linux on x86-64.
    """
    if (system, machine) != ("Linux", "x86_64"):
        msg = f"the sandbox's programs are built for Linux on x86-64 and this is {system} on {machine}"
        raise Problem(msg)
    if python < OLDEST_PYTHON:
        msg = (
            f"Python 3.11 or later is needed and {sys.executable} is {'.'.join(map(str, python))}: "
            "install it (Debian 12, Ubuntu 24.04: apt-get install python3 python3-venv) or name one: "
            "make up PYTHON=/path/to/python3"
        )
        raise Problem(msg)
    if importlib.util.find_spec("ensurepip") is None:
        msg = f"{sys.executable} can't make virtual environments: apt-get install python3-venv"
        raise Problem(msg)


def check_disk(path: Path) -> None:
    """Refuse to begin what the disk can't hold.

    Raises:
        Problem: too little is free.
    """
    free = shutil.disk_usage(path).free
    if free < ENVIRONMENT_BYTES:
        needed = f"{ENVIRONMENT_BYTES / 1e9:.0f} GB"
        msg = f"{path}: {needed} are needed and {free / 1e9:.1f} GB are free: free some space"
        raise Problem(msg)


def stamp(lock: str) -> Path:
    """The file whose presence says that the environment is what the lock and pyproject.toml ask for."""
    digest = hashlib.sha256(str(ROOT).encode())
    for name in (
        "requirements/bootstrap.lock",
        f"requirements/{lock}.lock",
        "pyproject.toml",
        "runtime/pyproject.toml",
    ):
        digest.update((ROOT / name).read_bytes())
    return ROOT / ".venv" / f".{lock}-{digest.hexdigest()[:16]}"


def install(lock: str) -> None:
    """Make the environment, first uv by pip, then the rest by uv; everything checked by hash.

    Raises:
        Problem: a step fails; what it printed is above.
    """
    check_disk(ROOT)
    venv = ROOT / ".venv"
    python = venv / "bin" / "python"
    if not _usable(venv):
        print("Making .venv", flush=True)
        _run([sys.executable, "-m", "venv", "--clear", str(venv)], "the virtual environment can't be made")
    requirements = ROOT / "requirements"
    count = (requirements / f"{lock}.lock").read_text().count("==")
    print(f"Installing {count} Python packages, about 700 MB to download when no cache has them", flush=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    bootstrap = [
        "install",
        "--quiet",
        "--require-hashes",
        "--requirement",
        str(requirements / "bootstrap.lock"),
    ]
    if not (venv / "bin" / "uv").exists():
        _run([*pip, *bootstrap], "uv can't be installed")
    uv = [str(python), "-m", "uv", "pip", "install", "--python", str(python), "--compile-bytecode"]
    environment = _uv_environment(pip)
    locked = ["--require-hashes", "--requirement", str(requirements / f"{lock}.lock")]
    _run([*uv, *locked], "the packages can't be installed", environment)
    # The build backend is in the lock, so nothing unpinned is fetched to build the project itself.
    _run(
        [
            *uv,
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--editable",
            str(ROOT / "runtime"),
            "--editable",
            str(ROOT),
        ],
        "kilo can't be installed",
        environment,
    )
    # The platform's distribution brings its commands alone; its folders are found where they are.
    (_site_packages(venv) / "kilo-platform.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    for old in venv.glob(f".{lock}-*"):
        old.unlink()
    stamp(lock).touch()


def _site_packages(venv: Path) -> Path:
    return venv / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def _usable(venv: Path) -> bool:
    python = venv / "bin" / "python"
    probe = [str(python), "-c", "import uv" if (venv / "bin" / "uv").exists() else "import pip"]
    return python.exists() and subprocess.run(probe, stderr=subprocess.DEVNULL, check=False).returncode == 0


def _uv_environment(pip: "list[str]") -> "dict[str, str]":
    """Let uv trust and ask what the machine's pip is configured to trust and ask."""
    environment = {"UV_SYSTEM_CERTS": "1", **os.environ}
    answer = subprocess.run(
        [*pip, "config", "get", "global.index-url"], capture_output=True, text=True, check=False
    )
    index = os.environ.get("PIP_INDEX_URL") or answer.stdout.strip()
    if index:
        environment.setdefault("UV_DEFAULT_INDEX", index)
    return environment


def _run(argv: "list[str]", problem: str, environment: "dict[str, str] | None" = None) -> None:
    code = subprocess.run(argv, env=environment, check=False).returncode
    if code != 0:
        msg = f"{problem}; its own lines are above (exit code {code})"
        raise Problem(msg)


if __name__ == "__main__":
    sys.exit(main())
