"""What is copied as an attachment of a signed image is one, or is signed itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kilo.registry.client import Registries
from kilo.registry.drift import compare
from kilo.registry.reference import Reference
from kilo.registry.signatures import BUNDLE
from kilo.registry.sync import Synchronizer, TagResult
from tests.runtime.registry.images import MANIFEST, Shelf
from tests.runtime.registry.signer import CONFIG, Signer

Shelves = Callable[[str], Shelf]
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@pytest.fixture
def signer() -> Signer:
    return Signer()


def sync(source: Shelf, destination: Shelf, signer: Signer) -> dict[str, TagResult]:
    with Synchronizer(policy=signer.policy) as synchronizer:
        found = synchronizer.sync(Reference.parse(source.name), Reference.parse(destination.name))
    return {result.name: result for result in found}


def disguised(shelf: Shelf, kind: str, subject: dict[str, Any]) -> dict[str, Any]:
    """An image that passes for an attachment."""
    bits = os.urandom(2000)
    if kind == "an index":
        document = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json"}
        return shelf.put(document | {"manifests": [shelf.image(bits)], "subject": subject})
    layer_type = "application/spdx+json" if kind == "layers under another name" else LAYER
    if kind == "layers in upper case":
        layer_type = LAYER.upper()
    config_type = "application/vnd.oci.empty.v1+json" if kind == "another configuration" else CONFIG
    return shelf.put(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": "application/spdx+json",
            "config": {**shelf.blob(b'{"os": "linux"}'), "mediaType": config_type},
            "layers": [{**shelf.blob(bits), "mediaType": layer_type}],
            "subject": subject,
        }
    )


DISGUISES = [
    "an image",
    "an index",
    "layers under another name",
    "layers in upper case",
    "another configuration",
]


@pytest.mark.parametrize("kind", DISGUISES)
@pytest.mark.parametrize("here", ["with", "without"])
def test_an_unsigned_image_does_not_come_along_as_a_referrer(
    shelf: Shelves, signer: Signer, here: str, kind: str
) -> None:
    source, destination = shelf(here), shelf("with")
    image = source.image(b"good", tag="v1")
    signature = signer.sign(source, image)
    evil = disguised(source, kind, image)
    if here == "without":
        fallback = image["digest"].replace(":", "-")
        held = source.manifest(fallback) or {}
        source.put({**held, "manifests": [*held["manifests"], evil]}, fallback)
    result = sync(source, destination, signer)["v1"]
    assert (result.outcome, result.error) == ("copied", None)
    assert evil["digest"] in str(result.left_out[0])
    assert "quarantined" in str(result.left_out[0])
    assert destination.digest(evil["digest"]) is None
    assert destination.referrers(image["digest"]) == {signature["digest"]}
    assert sync(source, destination, signer)["v1"].outcome == "present"


@pytest.mark.parametrize("here", ["with", "without"])
def test_a_file_attached_by_oras_comes_along_though_it_is_called_a_layer(
    shelf: Shelves, signer: Signer, here: str
) -> None:
    source, destination = shelf(here), shelf("with")
    image = source.image(b"good", tag="v1")
    signature = signer.sign(source, image)
    empty = {**source.blob(b"{}"), "mediaType": "application/vnd.oci.empty.v1+json"}
    scan = source.put(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": "application/vnd.example.scan",
            "config": empty,
            "layers": [{**source.blob(b"clean"), "mediaType": LAYER}],
            "subject": image,
        }
    )
    if here == "without":
        fallback = image["digest"].replace(":", "-")
        held = source.manifest(fallback) or {}
        source.put({**held, "manifests": [*held["manifests"], scan]}, fallback)
    result = sync(source, destination, signer)["v1"]
    assert (result.outcome, result.left_out) == ("copied", ())
    assert destination.referrers(image["digest"]) == {signature["digest"], scan["digest"]}


@pytest.mark.parametrize("suffix", [".sbom", ".att", ".sig", ""])
def test_nor_under_a_tag_of_a_signed_image(shelf: Shelves, signer: Signer, suffix: str) -> None:
    source, destination = shelf("without"), shelf("without")
    image = source.image(b"good", tag="v1")
    signer.sign(source, image) if suffix else signer.sign_by_tag(source, image)
    tag = image["digest"].replace(":", "-") + suffix
    evil = source.image(os.urandom(2000), tag=tag)
    result = sync(source, destination, signer)["v1"]
    assert result.outcome == "copied"
    assert result.left_out
    assert tag not in destination.tags()
    assert destination.digest(evil["digest"]) is None


def test_an_attached_image_that_is_signed_itself_comes_along(shelf: Shelves, signer: Signer) -> None:
    source, destination = shelf("with"), shelf("with")
    image = source.image(b"good", tag="v1")
    signer.sign(source, image)
    debugger = disguised(source, "an image", image)
    signer.sign(source, debugger)
    result = sync(source, destination, signer)["v1"]
    assert (result.outcome, result.left_out) == ("copied", ())
    assert destination.holds_whole(debugger["digest"])


def test_signatures_and_sboms_of_every_form_are_attachments(shelf: Shelves, signer: Signer) -> None:
    source, destination = shelf("with"), shelf("without")
    image = source.image(b"good", tag="v1")
    tag = signer.sign_by_tag(source, image)
    kinds = ("application/spdx+json", "application/vnd.cncf.notary.signature", "text/plain")
    attached = {source.artifact(image, kind, f'{{"{kind}": 1}}'.encode())["digest"] for kind in kinds}
    result = sync(source, destination, signer)["v1"]
    assert (result.outcome, result.left_out) == ("copied", ())
    assert destination.referrers(image["digest"]) == attached
    assert destination.digest(tag) == source.digest(tag)


BAD_BUNDLES = [
    b"[]",
    b"{}",
    b"nonsense",
    b'{"messageSignature": {}}',
    b'{"dsseEnvelope": 5}',
    b'{"dsseEnvelope": {"payload": "!!!", "payloadType": 7, "signatures": "x"}}',
    b"[" * 9000,
    b'{"payload": "e30=", "payloadType": "x", "signatures": [{"sig": "AA=="}]}',
    b'{"payload": "W10=", "payloadType": "x", "signatures": []}',
]


@pytest.mark.parametrize("number", range(len(BAD_BUNDLES)))
def test_a_malformed_bundle_beside_a_good_one_changes_nothing(
    shelf: Shelves, signer: Signer, number: int
) -> None:
    source, destination = shelf("with"), shelf("with")
    for tag in ("v1", "v2"):
        image = source.image(tag.encode(), tag=tag)
        # Several, so that some come before the good one, whatever their digests.
        for count in range(3):
            source.artifact(image, f"{BUNDLE}.v0.3+json", BAD_BUNDLES[number] + b" " * count)
        signer.sign(source, image)
    unsigned = source.image(b"unsigned", tag="v3")
    source.artifact(unsigned, f"{BUNDLE}.v0.3+json", BAD_BUNDLES[number])
    outcomes = {tag: result.outcome for tag, result in sync(source, destination, signer).items()}
    assert outcomes == {"v1": "copied", "v2": "copied", "v3": "quarantined"}


def test_what_is_quarantined_is_no_missing_attestation(
    shelf: Shelves, signer: Signer, tmp_path: Path
) -> None:
    from kilo.registry import watch

    source, destination = shelf("with"), shelf("with")
    image = source.image(b"good", tag="v1")
    signer.sign(source, image)
    evil = disguised(source, "an image", image)
    signed_evil = source.artifact(evil, "application/vnd.example", b"hangs off what is refused")
    lost = source.artifact(image, "application/vnd.example", b"lost")
    sync(source, destination, signer)
    destination.delete(lost["digest"])
    here, there = Reference.parse(source.name), Reference.parse(destination.name)
    registries = Registries(patience_seconds=5)
    comparison = compare(registries, here, there, blobs=False)
    view = watch.RepositoryView(registries.repository(here))
    refused = watch._refused(signer.policy, view, "v1")  # pyright: ignore[reportPrivateUsage]
    expected = {evil["digest"], signed_evil["digest"]}
    assert refused == expected
    left = {finding.attachment for finding in comparison.findings} - expected
    assert left == {lost["digest"]}
