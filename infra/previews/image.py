"""The image that a preview runs: built and pushed on the clouds, the sources themselves on this machine.

In the sandbox the image is a copy of the sources under ``.kilo/images``, named by their digest, and run as
a process by the sandbox's node with the service's own ``.venv`` where it has one. That proves nothing of
the Dockerfile but its entry point: not the base, nor what ``requirements.lock`` installs, nor the user.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from components.clouds.mirrored_registry import PREVIEW_TAG_PREFIX
from infra.previews.request import Target
from kilo.errors import BadInput, CheckFailed, Unreachable
from kilo.scaffold.local_image import LocalImage, directory_of, write_image
from kilo.scaffold.template import Service

_REFERENCE = re.compile(r"[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)+@sha256:[0-9a-f]{64}")
_ENTRYPOINT = re.compile(r"^ENTRYPOINT\s+(\[.*\])\s*$", re.MULTILINE)
_ENGINES = ("docker", "podman")
_OWNER = "preview"
_MOST_BYTES = 50_000_000
_HAS = """
import importlib.metadata, json, sys
missing = []
for name in json.load(sys.stdin):
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        missing.append(name)
print(json.dumps(missing))
"""


def check_reference(reference: str) -> str:
    """``reference``, which must name its bits.

    Raises:
        BadInput: it has no digest.
    """
    if not _REFERENCE.fullmatch(reference):
        msg = f"--image {reference[:120]!r}: an image with its digest: REGISTRY/NAME@sha256:…"
        raise BadInput(msg)
    return reference


def make_image(service: Service, target: Target, name: str, pull_request: int) -> str:
    """The reference of the image of the service's sources, which can be run at the stage.

    Raises:
        BadInput: the service lacks what an image takes.
        CheckFailed: it can't be built.
        Unreachable: nothing builds images here, or the registry can't be reached.
    """
    if target.is_here:
        return local_image(service, target.project, name)
    return _built(service, f"{target.outputs().registries.primary.url}/{service.name}", pull_request)


def local_image(service: Service, project: Path, name: str) -> str:
    """Keep the sources as they are now for the preview ``name``, and say what they are called."""
    sources = service.directory / "src"
    if not sources.is_dir():
        msg = f"{sources}: no such directory; the service's code lies there"
        raise BadInput(msg)
    entrypoint = _entrypoint(service.directory / "Dockerfile")
    python = _interpreter(service, project)
    digest = hashlib.sha256(json.dumps([name, entrypoint, str(python)]).encode())
    files = sorted(each for each in sources.rglob("*") if each.is_file() and _counts(each))
    if sum(each.stat().st_size for each in files) > _MOST_BYTES:
        msg = f"{sources}: more than {_MOST_BYTES // 1_000_000} MB; what is no code belongs elsewhere"
        raise BadInput(msg)
    for each in files:
        content = each.read_bytes()
        digest.update(f"{each.relative_to(sources)}\0{len(content)}\0".encode() + content)
    home = project / ".kilo"
    kept = directory_of(home, digest.hexdigest())
    if not (kept / "image.json").exists():
        copy = kept / "src"
        shutil.rmtree(copy, ignore_errors=True)
        for each in files:
            (copy / each.relative_to(sources)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(each, copy / each.relative_to(sources))
        (kept / _OWNER).write_text(name, encoding="utf-8")
        variables = {"PYTHONPATH": str(copy), "PYTHONUNBUFFERED": "1"}
        write_image(home, digest.hexdigest(), LocalImage(entrypoint, (str(python.parent),), variables))
    return f"sandbox.invalid/{service.name}@sha256:{digest.hexdigest()}"


def forget_images(name: str, project: Path, but: str = "") -> None:
    """Remove what this machine keeps of the preview ``name``'s images, all ``but`` one."""
    kept = but.rpartition("@sha256:")[2]
    for owner in (project / ".kilo" / "images").glob(f"*/{_OWNER}"):
        if owner.read_text(encoding="utf-8") == name and owner.parent.name != kept:
            shutil.rmtree(owner.parent, ignore_errors=True)


def _counts(path: Path) -> bool:
    return not {"__pycache__"} & set(path.parts) and not any(
        part.endswith(".egg-info") for part in path.parts
    )


def _entrypoint(dockerfile: Path) -> tuple[str, ...]:
    try:
        found = _ENTRYPOINT.findall(dockerfile.read_text(encoding="utf-8"))
        words = json.loads(found[-1]) if found else None
    except (OSError, ValueError) as error:
        msg = f"{dockerfile}: can't be read ({type(error).__name__}); kilo svc update brings it back"
        raise BadInput(msg) from error
    if not words or not all(isinstance(word, str) for word in words):
        msg = f'{dockerfile}: no ENTRYPOINT as a list, such as ENTRYPOINT ["python", "-m", "orders"]'
        raise BadInput(msg)
    return tuple(words)


def _interpreter(service: Service, project: Path) -> Path:
    """The Python with what the service needs: its own environment's, or the checkout's."""
    own = service.directory / ".venv" / "bin" / "python"
    python = own if own.exists() else Path(sys.prefix) / "bin" / "python"
    path = service.directory / "pyproject.toml"
    try:
        needed = tomllib.loads(path.read_text(encoding="utf-8"))["project"].get("dependencies", [])
        wanted = [match[0] for each in needed if (match := re.match(r"[A-Za-z0-9._-]+", each))]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        msg = f"{path}: project.dependencies can't be read ({type(error).__name__}: {error})"
        raise BadInput(msg) from error
    asked = subprocess.run(
        [str(python), "-c", _HAS], input=json.dumps(wanted), capture_output=True, text=True, check=False
    )
    missing = json.loads(asked.stdout) if asked.returncode == 0 else wanted
    if missing:
        where = own.parents[1] if own.exists() else project / ".venv"
        msg = (
            f"{path}: dependencies: {', '.join(missing)}: not in {where}; "
            f"run make environment in {service.directory}"
        )
        raise BadInput(msg)
    return python


def _built(service: Service, repository: str, pull_request: int) -> str:
    program = next((found for name in _ENGINES if (found := shutil.which(name))), None)
    if program is None:
        msg = f"nothing here builds images ({' or '.join(_ENGINES)}); build it elsewhere and name it: --image"
        raise Unreachable(msg)
    base_file = service.directory / "deploy" / "base-image"
    try:
        base = base_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{base_file}: can't be read ({type(error).__name__}); kilo svc update brings it back"
        raise BadInput(msg) from error
    tag = f"{repository}:{PREVIEW_TAG_PREFIX}pr-{pull_request}"
    arguments = ["--build-arg", f"BASE={base}", "--build-arg", "SOURCE_DATE_EPOCH=0", "--tag", tag]
    _engine(program, ["build", *arguments, "."], service.directory, CheckFailed, "the image can't be built")
    _engine(program, ["push", tag], service.directory, Unreachable, f"{tag} can't be pushed")
    asked = ["image", "inspect", "--format", "{{index .RepoDigests 0}}", tag]
    found = _engine(program, asked, service.directory, Unreachable, "the image has no digest").strip()
    return check_reference(f"{repository}@{found.rpartition('@')[2]}")


def _engine(
    program: str, arguments: list[str], where: Path, error: type[CheckFailed | Unreachable], what: str
) -> str:
    done = subprocess.run([program, *arguments], cwd=where, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        msg = f"{what}: {lines[-1] if lines else 'no reason given'}"
        raise error(msg)
    return done.stdout
