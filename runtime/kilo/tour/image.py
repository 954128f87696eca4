"""An image pushed as a pipeline pushes one: two platforms, an SBOM each, provenance and a signature.

It is signed with a key that is made for it and forgotten, so that parity has an identity to verify.
Its tag begins with ``preview-``, which the primary registry lets expire.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from kilo.contract import StackOutputs
from kilo.errors import KiloError
from kilo.promotion.parity import Parity, check_parity, registry_locations
from kilo.registry.client import Registries, Repository
from kilo.registry.drift import compare
from kilo.registry.manifest import Descriptor
from kilo.registry.media import OCI_INDEX, OCI_MANIFEST
from kilo.registry.mirror import Sides
from kilo.registry.pushing import attach, push_blob, push_manifest
from kilo.registry.reference import Reference
from kilo.registry.signatures import BUNDLE
from kilo.registry.signers import Keys, Signers

PLATFORMS = ("amd64", "arm64")
_BUNDLE = f"{BUNDLE}.v0.3+json"
_STATEMENT = "application/vnd.in-toto+json"
_SPDX = "application/spdx+json"
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Mirrored:
    """What became of the image: seconds from each push to its arrival, None for what did not arrive."""

    image: str
    digest: str
    attestations: int
    tag_lag_seconds: float | None
    whole_lag_seconds: float | None
    missing: tuple[str, ...]
    parity: Parity

    def document(self) -> dict[str, object]:
        """The JSON form."""
        return {
            "image": self.image,
            "digest": self.digest,
            "platforms": len(PLATFORMS),
            "attestations": self.attestations,
            "tag_lag_seconds": self.tag_lag_seconds,
            "whole_lag_seconds": self.whole_lag_seconds,
            "missing": list(self.missing),
            "parity": not self.parity.differences,
            "claims": self.parity.claims,
            "places": [str(place) for place in self.parity.places],
            "differences": [difference.document() for difference in self.parity.differences],
        }


def push_and_compare(
    outputs: StackOutputs, *, timeout_seconds: float, progress: Callable[[str], None] = lambda _: None
) -> Mirrored:
    """Push an image to the stage's primary registry, wait for the mirror, and compare both sides.

    Raises:
        RegistryDown, AccessDenied, Rejected: the primary did not take it.
    """
    name = outputs.registries.repositories[0]
    tag = f"preview-tour-{datetime.now(UTC):%Y%m%dt%H%M%Sz}"
    source, destination = Sides(outputs.registries).pair(name)
    registries = Registries(patience_seconds=30)
    key = ec.generate_private_key(ec.SECP256R1())
    progress(f"pushing {name}:{tag}")
    digest, attestations, tagged_at = _push(registries.repository(source), tag, key)
    pushed_at = time.monotonic()
    progress(f"waiting for {name}:{tag} in the secondary registry")
    deadline = pushed_at + timeout_seconds
    tag_lag = _wait_for_tag(registries.repository(destination), tag, tagged_at, deadline)
    whole_lag, missing = None, ("the tag",)
    while tag_lag is not None and missing and time.monotonic() < deadline:
        tagged = Reference(source.host, source.repository, tag)
        comparison = compare(Registries(patience_seconds=5), tagged, destination)
        missing = tuple(f"{finding.kind.value}: {finding.detail}" for finding in comparison.findings)
        if not missing:
            whole_lag = round(max(0.0, time.monotonic() - pushed_at), 3)
        else:
            time.sleep(_POLL_SECONDS)
    progress(f"comparing {name}:{tag}")
    signers = Signers(Keys([key.public_key()]))
    parity = check_parity(f"{name}:{tag}", registry_locations([outputs]), signers, registries)
    return Mirrored(f"{name}:{tag}", digest, attestations, tag_lag, whole_lag, missing, parity)


def _wait_for_tag(repository: Repository, tag: str, since: float, deadline: float) -> float | None:
    while time.monotonic() < deadline:
        try:
            if repository.resolve(tag) is not None:
                return round(time.monotonic() - since, 3)
        except KiloError:
            # A registry that is away for a moment is what the mirror is made for.
            pass
        time.sleep(_POLL_SECONDS)
    return None


def _push(repository: Repository, tag: str, key: ec.EllipticCurvePrivateKey) -> tuple[str, int, float]:
    """Push the image, then what is said of it; answers with its digest, how many, and when it had its tag."""
    children = [_platform(repository, architecture) for architecture in PLATFORMS]
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            {**child.document(), "platform": {"os": "linux", "architecture": architecture}}
            for child, architecture in zip(children, PLATFORMS, strict=True)
        ],
    }
    root = push_manifest(repository, index, OCI_INDEX, tag)
    tagged_at = time.monotonic()
    said = 0
    for child, architecture in zip(children, PLATFORMS, strict=True):
        said += len(attach(repository, child.digest, [_sbom(repository, child, architecture)]))
    claims: list[tuple[str, Mapping[str, object]]] = [
        ("https://sigstore.dev/cosign/sign/v1", {}),
        ("https://slsa.dev/provenance/v1", {"buildDefinition": {"buildType": "kilo tour"}}),
    ]
    signed = [_signed(repository, root.descriptor(), kind, said_of, key) for kind, said_of in claims]
    said += len(attach(repository, root.digest, signed))
    return root.digest, said, tagged_at


def _platform(repository: Repository, architecture: str) -> Descriptor:
    layer = push_blob(repository, secrets.token_bytes(20_000), "application/vnd.oci.image.layer.v1.tar")
    configuration = {
        "architecture": architecture,
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
    }
    config = push_blob(
        repository, json.dumps(configuration).encode(), "application/vnd.oci.image.config.v1+json"
    )
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.document(),
        "layers": [layer.document()],
    }
    return push_manifest(repository, document, OCI_MANIFEST).descriptor()


def _sbom(repository: Repository, subject: Descriptor, architecture: str) -> dict[str, object]:
    packages = [
        {"name": name, "SPDXID": f"SPDXRef-{name}", "versionInfo": version, "downloadLocation": "NOASSERTION"}
        for name, version in (("kilo-tour", "1"), (f"base-{architecture}", "1"))
    ]
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": "tour",
        "documentNamespace": f"https://example.com/tour/{architecture}",
        "creationInfo": {"created": "2026-01-01T00:00:00Z", "creators": ["Tool: kilo"]},
        "packages": packages,
    }
    return _referrer(repository, subject, _SPDX, json.dumps(document).encode())


def _signed(
    repository: Repository,
    subject: Descriptor,
    kind: str,
    predicate: Mapping[str, object],
    key: ec.EllipticCurvePrivateKey,
) -> dict[str, object]:
    """A Sigstore bundle with a DSSE envelope, as cosign 3 attaches it."""
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": subject.digest.removeprefix("sha256:")}}],
        "predicateType": kind,
        "predicate": predicate,
    }
    payload = json.dumps(statement).encode()
    signed = b"DSSEv1 %d %s %d %s" % (len(_STATEMENT), _STATEMENT.encode(), len(payload), payload)
    signature = base64.b64encode(key.sign(signed, ec.ECDSA(SHA256()))).decode()
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": _STATEMENT,
        "signatures": [{"sig": signature}],
    }
    bundle = {"mediaType": _BUNDLE, "verificationMaterial": {"publicKey": {}}, "dsseEnvelope": envelope}
    return _referrer(repository, subject, _BUNDLE, json.dumps(bundle).encode())


def _referrer(repository: Repository, subject: Descriptor, kind: str, content: bytes) -> dict[str, object]:
    empty = push_blob(repository, b"{}", "application/vnd.oci.empty.v1+json")
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": kind,
        "config": empty.document(),
        "layers": [push_blob(repository, content, kind).document()],
        "subject": subject.document(),
    }
