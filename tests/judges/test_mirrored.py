"""What other tools say of a mirrored image: cosign signs it here and verifies it there.

Minutes the first time, since cosign is built: make test TESTS=tests/judges
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.harness import measure
from kilo.promotion.parity import RegistryLocation, check_parity
from kilo.registry.client import Registries
from kilo.registry.reference import Reference
from kilo.registry.signatures import SignaturePolicy
from kilo.registry.signers import Signers
from kilo.registry.sync import Synchronizer, TagResult
from sandbox import toolchain
from tests.runtime.registry.images import Shelf
from tests.runtime.registry.programs import judge, program
from tests.runtime.registry.sigstore_instance import BUNDLE, SigstoreInstance

Shelves = Callable[[str, str], Shelf]
Cosign = Callable[..., subprocess.CompletedProcess[str]]

WORKFLOW = "https://github.com/kilo-platform/shop/.github/workflows/release.yml@refs/tags/v1"
GITHUB = "https://token.actions.githubusercontent.com"
# With a key there is nothing that a transparency log would have to prove.
OFFLINE = ("--use-signing-config=false", "--tlog-upload=false", "--yes")
# Until cosign and a registry are built.
pytestmark = pytest.mark.timeout(1_800)
PAIRS = pytest.mark.parametrize(
    ("here", "there"),
    [
        ("debian", "api"),
        ("api", "debian"),
        ("api", "distribution-3"),
        ("distribution-3", "debian"),
        ("distribution-3", "api"),
    ],
)


def sync(source: Shelf, destination: Shelf, signers: Signers | None = None) -> list[TagResult]:
    policy = SignaturePolicy(signers) if signers else None
    with Synchronizer(policy=policy) as synchronizer:
        return synchronizer.sync(Reference.parse(source.name), Reference.parse(destination.name))


def host(shelf: Shelf) -> str:
    return shelf.url.removeprefix("http://")


def release(shelf: Shelf, cosign: Cosign, directory: Path) -> tuple[str, list[str]]:
    """A signed image of two platforms, each signed too, one with an attested SBOM, and an ORAS artifact."""
    children = [shelf.image(os.urandom(5_000), f"{number}".encode()) for number in range(2)]
    index = shelf.index(*children, tag="v1")
    image = f"{shelf.name}@{index['digest']}"
    signed = cosign("sign", "--key", "cosign.key", *OFFLINE, "--recursive", image)
    assert signed.returncode == 0, signed.stderr
    predicate = {"spdxVersion": "SPDX-2.3", "packages": [{"name": "a", "versionInfo": "1"}]}
    (directory / "sbom.json").write_text(json.dumps(predicate))
    child = f"{shelf.name}@{children[0]['digest']}"
    attested = cosign(
        *("attest", "--key", "cosign.key", *OFFLINE, "--type", "spdxjson", "--predicate", "sbom.json", child)
    )
    assert attested.returncode == 0, attested.stderr
    (directory / "scan.txt").write_text("clean")
    attach = [program("oras"), "attach", "--plain-http", "--artifact-type", "application/vnd.example.scan"]
    subprocess.run([*attach, image, "scan.txt"], cwd=directory, check=True, capture_output=True)
    return index["digest"], [part["digest"] for part in children]


@PAIRS
def test_every_tool_finds_everything_on_the_mirrored_side(
    shelf: Shelves, cosign: Cosign, tmp_path: Path, here: str, there: str
) -> None:
    source, destination = shelf(here, "app"), shelf(there, "app")
    digest, children = release(source, cosign, tmp_path)
    signers = Signers.of_files([tmp_path / "cosign.pub"], None, None, None)
    assert {result.outcome for result in sync(source, destination, signers)} == {"copied"}

    key = ("--key", "cosign.pub", "--insecure-ignore-tlog", "--allow-http-registry")
    for verified in (f"{destination.name}:v1", *(f"{destination.name}@{child}" for child in children)):
        done = cosign("verify", *key, verified)
        assert done.returncode == 0, done.stderr
    attested = cosign("verify-attestation", *key, "--type", "spdxjson", f"{destination.name}@{children[0]}")
    assert attested.returncode == 0, attested.stderr

    crane = subprocess.run(
        [str(toolchain.path("crane")), "digest", f"{destination.name}:v1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert crane.stdout.strip() == digest
    regctl = judge(
        *("regctl", "image", "digest", "--host", f"reg={host(destination)},tls=disabled"),
        f"{destination.name}:v1",
    )
    assert regctl.strip() == digest
    for subject in (digest, *children):
        trees = [
            json.loads(
                judge("oras", "discover", "--plain-http", "--format", "json", f"{shelf.name}@{subject}")
            )
            for shelf in (source, destination)
        ]
        found = [sorted(entry["digest"] for entry in tree["referrers"]) for tree in trees]
        assert found[0] == found[1]
        assert found[0]

    places = [
        RegistryLocation("test", side, side, shelf.name.rpartition("/")[0])
        for side, shelf in (("here", source), ("there", destination))
    ]
    parity = check_parity("app:v1", places, signers, Registries())
    assert parity.differences == ()
    assert parity.claims == 5


def test_another_key_verifies_nothing(shelf: Shelves, cosign: Cosign, tmp_path: Path) -> None:
    source, destination = shelf("debian", "here"), shelf("api", "there")
    release(source, cosign, tmp_path)
    (tmp_path / "cosign.key").unlink()
    (tmp_path / "cosign.pub").unlink()
    assert cosign("generate-key-pair").returncode == 0
    signers = Signers.of_files([tmp_path / "cosign.pub"], None, None, None)
    assert {result.outcome for result in sync(source, destination, signers)} == {"quarantined"}
    assert destination.tags() == set()


@pytest.mark.parametrize("there", ["api", "debian", "distribution-3"])
def test_cosign_and_kilo_agree_on_keyless_identities(
    shelf: Shelves, cosign: Cosign, tmp_path: Path, there: str
) -> None:
    source, destination = shelf("api", "here"), shelf(there, "there")
    sigstore = SigstoreInstance()
    root = sigstore.write_trusted_root(tmp_path)
    image = source.image(os.urandom(1_000), tag="v1")
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": image["digest"].removeprefix("sha256:")}}],
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
        "predicate": {},
    }
    source.artifact(image, BUNDLE, sigstore.sign(statement, WORKFLOW, GITHUB))
    for identity, good in ((f"{WORKFLOW}.1", False), (WORKFLOW, True)):
        signers = Signers.of_files([], identity, GITHUB, root)
        outcomes = {result.outcome for result in sync(source, destination, signers)}
        assert outcomes == {"copied" if good else "quarantined"}
        side = destination if good else source
        said = cosign(
            *("verify", "--trusted-root", str(root), "--allow-http-registry"),
            *("--certificate-identity", identity, "--certificate-oidc-issuer", GITHUB, f"{side.name}:v1"),
        )
        assert (said.returncode == 0) == good, said.stderr


def test_a_layer_of_2_gb_takes_no_more_memory_than_a_small_one(shelf: Shelves) -> None:
    source, destination = shelf("debian", "here"), shelf("distribution-3", "there")
    source.image(os.urandom(1_000_000) * 2_000, tag="v1")
    command = [sys.executable, "-c", "from kilo.cli import main; raise SystemExit(main())"]
    cost = measure([*command, "registry", "sync", f"{source.name}:v1", destination.name])
    assert destination.digest("v1") == source.digest("v1")
    assert destination.holds_whole("v1")
    assert cost.peak_megabytes <= 100
