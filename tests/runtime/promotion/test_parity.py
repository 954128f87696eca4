"""Parity is of meaning: an SBOM that was reordered is the same, one with another component is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from kilo.cli import main
from kilo.errors import BadInput
from kilo.promotion import report
from kilo.promotion.parity import Parity, RegistryLocation, check_parity, registry_locations
from kilo.promotion.plan import images_of
from kilo.registry.client import Registries
from kilo.registry.drift import Kind
from kilo.registry.reference import Reference
from kilo.registry.signatures import SignaturePolicy
from kilo.registry.signers import Signers
from kilo.registry.sync import Synchronizer
from tests.events import make_outputs
from tests.runtime.promotion.test_sbom import package, spdx_2
from tests.runtime.registry.images import Shelf
from tests.runtime.registry.proxy import Fault, Proxy
from tests.runtime.registry.signer import SIGNED, Signer

Shelves = Callable[[str], Shelf]
SPDX = "application/spdx+json"


def spdx(*packages: tuple[str, str]) -> bytes:
    return json.dumps(spdx_2([package(name, version) for name, version in packages])).encode()


def check(one: Shelf, two: Shelf, *keys: Path) -> Parity:
    shelves = {"primary": one, "secondary": two}
    # Both repositories stand for the same name below two registries.
    places = [RegistryLocation("test", side, "here", shelf.name) for side, shelf in shelves.items()]
    return check_parity(
        "x:v1", places, Signers.of_files(keys, None, None, None), Registries(patience_seconds=0.5)
    )


@pytest.fixture
def pair(shelf: Shelves) -> tuple[Shelf, Shelf]:
    """The repository ``x`` below two names, in a registry with and in one without the referrers API."""
    one, two = shelf("with"), shelf("without")
    return Shelf(one.url, f"{one.repository}/x"), Shelf(two.url, f"{two.repository}/x")


def parent(shelf: Shelf) -> Shelf:
    return Shelf(shelf.url, shelf.repository.removesuffix("/x"))


def kinds(pair: tuple[Shelf, Shelf], *keys: Path) -> set[Kind]:
    return {found.kind for found in check(parent(pair[0]), parent(pair[1]), *keys).differences}


PROVENANCE = "https://slsa.dev/provenance/v1"


def test_a_mirrored_image_is_at_parity(pair: tuple[Shelf, Shelf], tmp_path: Path) -> None:
    signer = Signer()
    image = pair[0].image(b"bits", tag="v1")
    signer.sign(pair[0], image, SIGNED)
    signer.sign(pair[0], image, PROVENANCE, {"builder": "ci"})
    pair[0].artifact(image, SPDX, spdx(("a", "1")))
    with Synchronizer() as synchronizer:
        synchronizer.sync(Reference.parse(pair[0].name), Reference.parse(pair[1].name))
    result = check(parent(pair[0]), parent(pair[1]), signer.write_key(tmp_path))
    assert (result.differences, result.claims, result.digest) == ((), 3, image["digest"])


def test_other_bits_under_the_tag_are_drift(pair: tuple[Shelf, Shelf]) -> None:
    pair[0].image(b"bits", tag="v1")
    pair[1].image(b"other bits", tag="v1")
    assert kinds(pair) == {Kind.DRIFT}


def test_a_tag_that_one_side_lacks_is_missing(pair: tuple[Shelf, Shelf]) -> None:
    pair[0].image(b"bits", tag="v1")
    assert kinds(pair) == {Kind.MISSING}


def test_what_only_one_side_attests_is_told(pair: tuple[Shelf, Shelf], tmp_path: Path) -> None:
    signer = Signer()
    images = [side.image(b"bits", tag="v1") for side in pair]
    signer.sign(pair[0], images[0], SIGNED)
    assert kinds(pair, signer.write_key(tmp_path)) == {Kind.MISSING_ATTESTATION}
    signer.sign(pair[1], images[1], PROVENANCE, {"builder": "laptop"})
    assert kinds(pair, signer.write_key(tmp_path)) == {Kind.MISSING_ATTESTATION, Kind.EXTRA}


def test_a_signature_by_another_key_is_no_parity(pair: tuple[Shelf, Shelf], tmp_path: Path) -> None:
    signer, stranger = Signer(), Signer()
    for side, hand in zip(pair, (signer, stranger), strict=True):
        hand.sign(side, side.image(b"bits", tag="v1"), SIGNED)
    assert Kind.MISSING_ATTESTATION in kinds(pair, signer.write_key(tmp_path))


def test_an_sbom_is_compared_by_components(pair: tuple[Shelf, Shelf]) -> None:
    images = [side.image(b"bits", tag="v1") for side in pair]
    pair[0].artifact(images[0], SPDX, spdx(("a", "1"), ("b", "2")))
    pair[1].artifact(images[1], SPDX, spdx(("b", "2"), ("a", "1")))
    assert kinds(pair) == set(), "only the order differs"
    pair[1].artifact(images[1], SPDX, spdx(("b", "2"), ("a", "1"), ("evil", "6")))
    assert kinds(pair) == {Kind.DRIFT}


def test_a_registry_that_does_not_answer_is_unreachable(
    pair: tuple[Shelf, Shelf], proxied: Callable[[Shelf], tuple[Shelf, Proxy]]
) -> None:
    for side in pair:
        side.image(b"bits", tag="v1")
    seen, proxy = proxied(pair[1])
    proxy.rule = lambda _method, _path: Fault(status=503)
    assert kinds((pair[0], seen)) == {Kind.UNREACHABLE}


def test_reports_for_other_tools(pair: tuple[Shelf, Shelf]) -> None:
    pair[0].image(b"bits", tag="v1")
    results = [check(parent(pair[0]), parent(pair[1]))]
    junit = ET.fromstring(report.as_junit(results))
    assert (junit.get("tests"), junit.get("failures"), junit.get("errors")) == ("2", "1", "0")
    sarif = json.loads(report.as_sarif(results))
    assert [entry["ruleId"] for entry in sarif["runs"][0]["results"]] == ["MISSING"]
    assert report.as_annotations(results).startswith("::error title=MISSING x:v1::test/secondary")
    assert json.loads(report.as_json(results))[0]["parity"] is False


def test_a_malformed_sbom_is_compared_by_its_bytes(pair: tuple[Shelf, Shelf]) -> None:
    images = [side.image(b"bits", tag="v1") for side in pair]
    for side, image in zip(pair, images, strict=True):
        side.artifact(image, SPDX, b'{"spdxVersion": "SPDX-2.3", "packages": [7]}')
    assert kinds(pair) == set()
    pair[1].artifact(images[1], SPDX, b'{"spdxVersion": "SPDX-2.3", "packages": [8]}')
    assert kinds(pair) == {Kind.EXTRA}


def test_a_bundle_that_can_not_be_read_is_compared_by_its_digest(
    pair: tuple[Shelf, Shelf], tmp_path: Path
) -> None:
    """One that anybody may attach neither hides the good signature nor passes for it."""
    signer, bundle = Signer(), "application/vnd.dev.sigstore.bundle.v0.3+json"
    images = [side.image(b"bits", tag="v1") for side in pair]
    content = signer.bundle(images[0]["digest"])
    for side, image in zip(pair, images, strict=True):
        side.artifact(image, bundle, content)
        side.artifact(image, bundle, b"[" * 9000)
    key = signer.write_key(tmp_path)
    assert kinds(pair, key) == set()
    pair[1].artifact(images[1], bundle, b'{"dsseEnvelope": 5}')
    assert kinds(pair, key) == {Kind.EXTRA}


def test_sboms_attached_as_cosign_tags_are_compared_too(pair: tuple[Shelf, Shelf]) -> None:
    for side, packages in zip(pair, ((("a", "1"),), (("a", "2"),)), strict=True):
        image = side.image(b"bits", tag="v1")
        side.artifact(None, SPDX, spdx(*packages), tag=image["digest"].replace(":", "-") + ".sbom")
    assert kinds(pair) == {Kind.DRIFT}


def test_a_bad_image_name_is_a_mistake_not_a_difference(pair: tuple[Shelf, Shelf]) -> None:
    for name in ("x", ":v1", "X:v1", "x:"):
        places = [RegistryLocation("test", "primary", "here", parent(pair[0]).name)]
        with pytest.raises(BadInput):
            check_parity(name, places, Signers(), Registries(patience_seconds=0.5))


def test_what_is_not_signed_as_required_is_quarantined(pair: tuple[Shelf, Shelf], tmp_path: Path) -> None:
    signer, stranger = Signer(), Signer()
    good = pair[0].image(b"good", tag="good")
    signer.sign(pair[0], good, SIGNED)
    stranger.sign(pair[0], pair[0].image(b"strange", tag="strange"), SIGNED)
    signer.sign(pair[0], pair[0].image(b"attested", tag="attested"), PROVENANCE, {"builder": "ci"})
    moved = pair[0].image(b"moved", tag="moved")
    # A true signature, of another image, attached to this one.
    elsewhere = {"digest": good["digest"]}
    bundle_of_good = next(iter(pair[0].referrers(good["digest"])))
    layer = (pair[0].manifest(bundle_of_good) or {})["layers"][0]
    pair[0].put(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": layer["mediaType"],
            "config": layer,
            "layers": [layer],
            "subject": {**moved, "annotations": elsewhere},
        }
    )
    with Synchronizer(
        policy=SignaturePolicy(Signers.of_files([signer.write_key(tmp_path)], None, None, None))
    ) as synchronizer:
        results = synchronizer.sync(Reference.parse(pair[0].name), Reference.parse(pair[1].name))
    outcomes = {result.name: result.outcome for result in results if not result.name.startswith("sha256-")}
    assert outcomes == {
        "good": "copied",
        "strange": "quarantined",
        "attested": "quarantined",
        "moved": "quarantined",
    }
    assert pair[1].tags() & {"good", "strange", "attested", "moved"} == {"good"}


def test_a_plan_says_which_images_it_would_run(tmp_path: Path) -> None:
    places = [
        RegistryLocation("prod", side, "here", f"{side}.test/kilo") for side in ("primary", "secondary")
    ]
    running = ("primary.test/kilo/shop/orders:v1", "secondary.test/kilo/shop/pay@sha256:" + "a" * 64)
    containers = [{"image": image, "name": "main"} for image in (*running, "docker.io/library/nats:2")]
    plan = tmp_path / "plan.json"
    goal = {"inputDiff": {"adds": {"spec": {"template": {"spec": {"containers": containers}}}}}}
    plan.write_text(json.dumps({"resourcePlans": {"urn": {"goal": goal}}}))
    assert images_of(plan, places) == ["shop/orders:v1", f"shop/pay@sha256:{'a' * 64}"]
    plan.write_text("no plan")
    with pytest.raises(BadInput, match="not JSON"):
        images_of(plan, places)
    with pytest.raises(BadInput, match="can't be read"):
        images_of(tmp_path / "missing.json", places)


def test_the_gate_stops_what_differs_and_lets_through_what_does_not(
    pair: tuple[Shelf, Shelf], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = make_outputs()
    sides = {
        side: registry.model_copy(update={"url": parent(shelf).name})
        for side, registry, shelf in (
            ("primary", outputs.registries.primary, pair[0]),
            ("secondary", outputs.registries.secondary, pair[1]),
        )
    }
    stage = outputs.model_copy(update={"registries": outputs.registries.model_copy(update=sides)})
    (tmp_path / "outputs.json").write_text(stage.model_dump_json())
    plan = tmp_path / "plan.json"
    image = pair[0].image(b"bits", tag="v1")
    plan.write_text(json.dumps({"containers": [{"image": f"{pair[0].name}:v1"}]}))
    command = ["promote", "parity", "--plan", str(plan), "--stages", str(tmp_path / "outputs.json")]
    assert main([*command, "--format", "annotations"]) == 1
    assert "::error title=MISSING x:v1::" in capsys.readouterr().out
    pair[1].image(b"bits", tag="v1")
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["digest"] == image["digest"]
    plan.write_text("{}")
    assert main([*command, "--json"]) == 0, "nothing of the registries is deployed"
    assert main(["promote", "parity", "--stages", str(tmp_path / "outputs.json")]) == 2
    assert main(["promote", "parity", "x:v1", "--stages", str(tmp_path / "missing.json")]) == 2
    assert "kilo up" not in capsys.readouterr().err, "the file was named"


def test_every_region_of_a_stage_is_a_place() -> None:
    outputs = make_outputs()
    replica = outputs.registries.primary.model_copy(
        update={"url": "other.test/kilo", "location": "us-east-1"}
    )
    registries = outputs.registries.model_copy(update={"replicas": (replica,)})
    places = registry_locations([outputs.model_copy(update={"registries": registries})])
    assert "test/replica (us-east-1)" in [str(place) for place in places]
