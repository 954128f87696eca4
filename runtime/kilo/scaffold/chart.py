"""The paved road's chart as an OCI artifact in the stage's registry, mirrored as the images are.

``helm pull oci://REGISTRY/charts/service`` takes it like one that ``helm push`` made: the media types are
Helm's (https://helm.sh/docs/topics/registries/). Unlike one of those it holds no times, owners or modes of
whoever packed it, so that the same files are the same digest (with one zlib), and a version is one digest for
good. It is not signed here; the deploy workflow signs what this prints and nobody signed yet, by digest.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from kilo.contract import CHARTS, RegistriesOutputs
from kilo.errors import BadInput
from kilo.registry.client import Registries, Repository
from kilo.registry.graph import RepositoryView
from kilo.registry.manifest import Manifest
from kilo.registry.media import OCI_MANIFEST
from kilo.registry.pushing import described, push_blob
from kilo.registry.reference import Reference
from kilo.registry.signatures import SIGNATURES, read_statements
from kilo.registry.signers import Signers

CONFIG = "application/vnd.cncf.helm.config.v1+json"
CONTENT = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
_VERSION = re.compile(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?")
"""A semantic version without build metadata, whose ``+`` no tag can hold."""
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Chart:
    """A packed chart."""

    name: str
    version: str
    metadata: bytes
    """``Chart.yaml`` as JSON."""
    archive: bytes
    """The chart as ``.tgz``."""
    description: str

    def manifest(self) -> Manifest:
        """The artifact's manifest, whose digest is the chart's."""
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described(self.metadata, CONFIG).document(),
            "layers": [described(self.archive, CONTENT).document()],
            "annotations": {
                "org.opencontainers.image.title": self.name,
                "org.opencontainers.image.version": self.version,
                "org.opencontainers.image.description": self.description,
            },
        }
        content = json.dumps(document, separators=(",", ":")).encode()
        return Manifest.parse(content, OCI_MANIFEST, f"{self.name} {self.version}")


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a chart."""

    chart: str
    """``HOST/charts/NAME:VERSION@DIGEST``."""
    pushed: bool
    """False when this very chart was there."""
    signed: bool
    """Whether a signer of the stage signed this digest; anybody, where the stage names none."""


def pack(directory: Path) -> Chart:
    """Pack the chart in ``directory``.

    Raises:
        BadInput: it is none, or has what does not belong into one.
    """
    metadata = _metadata(directory)
    name, version = metadata["name"], metadata["version"]
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(directory.rglob("*"), key=lambda each: each.relative_to(directory).as_posix()):
            if path.is_symlink():
                msg = f"{path}: a link; put the file itself there"
                raise BadInput(msg)
            if path.is_dir() or path.name.startswith(".") or path.name.endswith("~"):
                continue
            entry = tarfile.TarInfo(f"{name}/{path.relative_to(directory).as_posix()}")
            content = path.read_bytes()
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return Chart(
        name,
        version,
        json.dumps(metadata, sort_keys=True, separators=(",", ":")).encode(),
        _compressed(raw.getvalue()),
        str(metadata.get("description", "")),
    )


def _compressed(content: bytes) -> bytes:
    """As gzip, without time or name; not by ``gzip.compress``, whose header differs between Pythons."""
    into = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=into, mtime=0) as file:
        file.write(content)
    return into.getvalue()


def publish(chart: Chart, outputs: RegistriesOutputs) -> Published:
    """Push ``chart`` to the primary registry of a stage; the mirror takes it to the secondary.

    A version is pushed once. The manifest comes last: an interrupted push has left nothing to pull.

    Raises:
        BadInput: the version is there with other content, or the stage has no repository for it.
        RegistryDown, AccessDenied, Rejected: the registry did not take it.
        CheckFailed: what hangs off it there can't be read.
    """
    name = f"{CHARTS}/{chart.name}"
    if name not in outputs.repositories:
        msg = (
            f"registries.repositories: no '{name}'; bring the stage up with this version of the program first"
        )
        raise BadInput(msg)
    reference = Reference.parse(f"{outputs.primary.url}/{name}")
    repository = Registries(patience_seconds=30).repository(reference)
    manifest = chart.manifest()
    pushed = _push(repository, chart, manifest)
    return Published(
        f"{outputs.primary.url}/{name}:{chart.version}@{manifest.digest}",
        pushed,
        _is_signed(repository, manifest.digest, Signers.of_outputs(outputs.signers)),
    )


def _is_signed(repository: Repository, digest: str, signers: Signers) -> bool:
    view = RepositoryView(repository)
    return any(
        said.subject == digest and said.predicate_type in SIGNATURES and bool(said.identity or not signers)
        for said in read_statements(view, view.graph(digest, OCI_MANIFEST), signers)
    )


def _push(repository: Repository, chart: Chart, manifest: Manifest) -> bool:
    held = repository.resolve(chart.version)
    if held is not None and held[0] != manifest.digest:
        msg = (
            f"{repository.name}:{chart.version}: is there with other content; raise the version in Chart.yaml"
            " (and in templates/service/deploy/chart-version)"
        )
        raise BadInput(msg)
    if held is not None:
        return False
    push_blob(repository, chart.metadata, CONFIG)
    push_blob(repository, chart.archive, CONTENT)
    repository.put_manifest(manifest, chart.version)
    return True


def _metadata(directory: Path) -> dict[str, Any]:
    path = directory / "Chart.yaml"
    try:
        found: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path}: can't be read ({type(error).__name__}); name the folder of a chart"
        raise BadInput(msg) from error
    except yaml.YAMLError as error:
        msg = f"{path}: not YAML; helm lint says where"
        raise BadInput(msg) from error
    metadata = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    for field, pattern, right in (
        ("name", _NAME, "a DNS label"),
        ("version", _VERSION, "a semantic version without build metadata, such as 1.2.0"),
    ):
        value = metadata.get(field)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            msg = f"{path}: {field}: not {right}"
            raise BadInput(msg)
    return metadata
