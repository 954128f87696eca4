"""Programs that only these tests need, built from pinned Go modules and cached like the toolchain's.

``oci-registry`` has the referrers API, which the sandbox's registries lack; ``oras`` and ``regctl``
judge what was copied.
"""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

from sandbox.toolchain.cache import Recipe, install
from sandbox.toolchain.commands import run
from sandbox.toolchain.progress import Progress, Step

_MODULES = Path(__file__).parent / "programs"
_PACKAGES = {
    "registry": {"oci-registry": "."},
    "judges": {
        "oras": "oras.land/oras/cmd/oras",
        "regctl": "github.com/regclient/regclient/cmd/regctl",
        "regsync": "github.com/regclient/regclient/cmd/regsync",
    },
    "cosign": {"cosign": "github.com/sigstore/cosign/v3/cmd/cosign"},
}


@cache
def program(name: str) -> str:
    """The path of a program, built if it is missing."""
    module = next(module for module, packages in _PACKAGES.items() if name in packages)
    directory = _MODULES / module
    files = sorted(path for path in directory.iterdir() if path.suffix in {".go", ".mod", ".sum"})
    text = "".join(path.read_text() for path in files) + str(_PACKAGES[module])

    def make(target: Path, step: Step) -> None:
        go = shutil.which("go")
        assert go, "Go is needed on PATH to build the programs of these tests"
        for file, package in _PACKAGES[module].items():
            run([go, "build", "-o", target / file, package], step, directory=directory)

    recipe = Recipe(f"tests-{module}", f"{', '.join(_PACKAGES[module])} for tests", text, 1_500_000_000, make)
    if not recipe.directory.is_dir():
        with Progress() as progress, progress.step(recipe.name, recipe.summary) as step:
            install(recipe, step)
    return str(recipe.directory / name)


def judge(*argv: str) -> str:
    """Run one of the programs and return what it prints."""
    done = subprocess.run([program(argv[0]), *argv[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
