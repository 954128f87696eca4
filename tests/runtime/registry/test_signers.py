"""Whose signatures count: keys, and keyless identities down to the letter."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kilo.contract import SignerIdentity, SignersOutputs
from kilo.errors import BadInput
from kilo.registry.reference import Reference
from kilo.registry.signatures import SignaturePolicy
from kilo.registry.signers import Identities, Signers
from kilo.registry.sync import Synchronizer
from tests.runtime.registry.images import Shelf
from tests.runtime.registry.sigstore_instance import BUNDLE, SigstoreInstance

Shelves = Callable[[str], Shelf]
WORKFLOW = "https://github.com/kilo-platform/shop/.github/workflows/release.yml@refs/tags/v1"
GITHUB = "https://token.actions.githubusercontent.com"
SIGNED = "https://sigstore.dev/cosign/sign/v1"


@pytest.fixture(scope="module")
def sigstore() -> SigstoreInstance:
    return SigstoreInstance()


def statement(digest: str, kind: str = SIGNED) -> dict[str, Any]:
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": digest.removeprefix("sha256:")}}],
        "predicateType": kind,
        "predicate": {},
    }


def identities(sigstore: SigstoreInstance, subject: str, issuer: str = GITHUB) -> Identities:
    wanted = SignerIdentity(subject=subject, issuer=issuer)
    return Identities([wanted], json.dumps(sigstore.trusted_root()))


BUNDLE_OF = statement("sha256:" + "a" * 64)


@pytest.mark.parametrize(
    ("subject", "issuer", "good"),
    [
        (WORKFLOW, GITHUB, True),
        ("https://github.com/kilo-platform/*/release.yml@refs/tags/*", GITHUB, True),
        (WORKFLOW, "https://gitlab.com", False),
        (WORKFLOW[:-1], GITHUB, False),
        (WORKFLOW.replace("v1", "v?"), GITHUB, False),
        ("https://github.com/kilo-platform/*@refs/heads/*", GITHUB, False),
    ],
)
def test_an_identity_is_its_subject_and_its_issuer(
    sigstore: SigstoreInstance, subject: str, issuer: str, good: bool
) -> None:
    found = identities(sigstore, subject, issuer).identify(sigstore.sign(BUNDLE_OF, WORKFLOW, GITHUB))
    assert found == (f"{WORKFLOW} ({GITHUB})" if good else None)


def test_a_certificate_of_another_authority_is_not_believed(sigstore: SigstoreInstance) -> None:
    forged = SigstoreInstance().sign(BUNDLE_OF, WORKFLOW, GITHUB)
    assert identities(sigstore, WORKFLOW).identify(forged) is None


@pytest.mark.parametrize("part", ["payload", "log", "checkpoint"])
def test_a_bundle_that_was_altered_is_not_believed(sigstore: SigstoreInstance, part: str) -> None:
    bundle = json.loads(sigstore.sign(BUNDLE_OF, WORKFLOW, GITHUB))
    entry = bundle["verificationMaterial"]["tlogEntries"][0]
    if part == "payload":
        other = json.dumps(statement("sha256:" + "b" * 64)).encode()
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(other).decode()
    elif part == "log":
        entry["integratedTime"] = str(int(entry["integratedTime"]) + 1)
    else:
        note = entry["inclusionProof"]["checkpoint"]
        note["envelope"] = note["envelope"].replace(" - 1\n", " - 2\n")
    assert identities(sigstore, WORKFLOW).identify(json.dumps(bundle).encode()) is None


def test_what_is_no_bundle_is_nobodys(sigstore: SigstoreInstance) -> None:
    for content in (b"", b"{}", b"[1]", b'{"mediaType": "application/json"}'):
        assert identities(sigstore, WORKFLOW).identify(content) is None


def test_only_images_of_the_identity_are_copied(
    sigstore: SigstoreInstance, shelf: Shelves, tmp_path: Path
) -> None:
    source, destination = shelf("with"), shelf("without")
    signed = {
        "good": (WORKFLOW, SIGNED),
        "stranger": ("somebody@example.com", SIGNED),
        "attested": (WORKFLOW, "https://slsa.dev/provenance/v1"),
    }
    for tag, (subject, kind) in signed.items():
        image = source.image(tag.encode(), tag=tag)
        source.artifact(image, BUNDLE, sigstore.sign(statement(image["digest"], kind), subject, GITHUB))
    untagged = source.image(b"nobody signed this")
    root = sigstore.write_trusted_root(tmp_path)
    policy = SignaturePolicy(Signers.of_files([], WORKFLOW, GITHUB, root))
    here, there = Reference.parse(source.name), Reference.parse(destination.name)
    with Synchronizer(policy=policy) as synchronizer:
        results = synchronizer.sync(here, there)
        pushed = synchronizer.sync_push(here, there, untagged["digest"], None)
    assert {result.name: result.outcome for result in results} == {
        "good": "copied",
        "stranger": "quarantined",
        "attested": "quarantined",
    }
    assert destination.tags() & signed.keys() == {"good"}
    assert (pushed.outcome, pushed.error) == ("deferred", None)
    assert destination.digest(untagged["digest"]) is None


def test_a_signature_that_comes_later_lets_the_image_through(
    sigstore: SigstoreInstance, shelf: Shelves
) -> None:
    source, destination = shelf("with"), shelf("without")
    image = source.image(b"bits", tag="v1")
    outputs = SignersOutputs(
        identities=(SignerIdentity(subject=WORKFLOW, issuer=GITHUB),),
        trusted_root=json.dumps(sigstore.trusted_root()),
    )
    here, there = Reference.parse(source.name), Reference.parse(destination.name)
    with Synchronizer(policy=SignaturePolicy(Signers.of_outputs(outputs))) as synchronizer:
        assert synchronizer.sync_push(here, there, image["digest"], "v1").outcome == "quarantined"
        bundle = sigstore.sign(statement(image["digest"]), WORKFLOW, GITHUB)
        signature = source.artifact(image, BUNDLE, bundle)
        assert synchronizer.sync_push(here, there, signature["digest"], None).outcome == "copied"
        assert synchronizer.sync_push(here, there, image["digest"], "v1").outcome == "copied"
    assert destination.digest("v1") == image["digest"]
    assert destination.referrers(image["digest"]) == {signature["digest"]}


def test_a_tag_that_looks_like_an_attachment_is_no_way_around(
    sigstore: SigstoreInstance, shelf: Shelves
) -> None:
    source, destination = shelf("with"), shelf("without")
    disguised = f"sha256-{'e' * 64}"
    source.image(b"evil", tag=disguised)
    policy = SignaturePolicy(Signers(identities=identities(sigstore, WORKFLOW)))
    with Synchronizer(policy=policy) as synchronizer:
        [result] = synchronizer.sync(Reference.parse(source.name), Reference.parse(destination.name))
    assert result.outcome == "quarantined"
    assert destination.tags() == set()


def test_mistakes_are_named(tmp_path: Path) -> None:
    wrong = tmp_path / "key.pub"
    wrong.write_text("no key")
    with pytest.raises(BadInput, match=r"key\.pub: no public key"):
        Signers.of_files([wrong], None, None, None)
    with pytest.raises(BadInput, match=r"missing\.pub: can't be read"):
        Signers.of_files([tmp_path / "missing.pub"], None, None, None)
    with pytest.raises(BadInput, match="given together"):
        Signers.of_files([], WORKFLOW, None, None)
    with pytest.raises(BadInput, match="trusted root is JSON"):
        Signers.of_files([], WORKFLOW, GITHUB, wrong)
    with pytest.raises(BadInput, match=r"registries.signers.keys\[0\]"):
        Signers.of_outputs(SignersOutputs(keys=("nonsense",)))
    with pytest.raises(BadInput, match="none of Sigstore's"):
        Identities([SignerIdentity(subject="a", issuer="b")], '{"mediaType": "x"}').identify(b"{}")
