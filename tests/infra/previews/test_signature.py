"""Who signed a preview's image: real registries, keys and Sigstore bundles, and those that were forged."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from infra.previews.checks import Check, Checks
from infra.previews.engine import Found
from infra.previews.report import Report
from infra.previews.signature import Origin, check_origin
from kilo.contract import SignersOutputs, StackOutputs
from kilo.errors import BadInput
from kilo.registry.signers import Signers
from tests.events import make_outputs
from tests.infra.previews.support import settings
from tests.runtime.registry.images import Shelf
from tests.runtime.registry.signer import Signer
from tests.runtime.registry.sigstore_instance import BUNDLE, SigstoreInstance

Shelves = Callable[[str], Shelf]
REPOSITORY = "https://github.com/org/orders/.github/workflows"
PREVIEW = f"{REPOSITORY}/preview.yml@refs/pull/12/merge"
RELEASE = f"{REPOSITORY}/ci.yml@refs/heads/main"
GITHUB = "https://token.actions.githubusercontent.com"
SIGNED = "https://sigstore.dev/cosign/sign/v1"


@dataclass
class Stage:
    """A stage with signers of its own, or none."""

    is_here: bool = False
    signers: SignersOutputs = field(default_factory=SignersOutputs)

    def outputs(self) -> StackOutputs:
        outputs = make_outputs()
        registries = outputs.registries.model_copy(update={"signers": self.signers})
        return outputs.model_copy(update={"registries": registries})


def keyless(sigstore: SigstoreInstance, subject: str) -> SignersOutputs:
    return SignersOutputs.model_validate(
        {
            "identities": [{"subject": subject, "issuer": GITHUB}],
            "trusted_root": json.dumps(sigstore.trusted_root()),
        }
    )


def signature(image: str, origin: Origin, stage: Stage | None = None) -> Check:
    preview = settings(image=image, kind="job", announces=False, has_database=False)
    found = Found(preview.name, preview, preview.expires_at, "", "", 1)
    checks: Any = Checks(stage or Stage(), preview, found, None, origin)  # pyright: ignore[reportArgumentType]
    return next(check for check in checks.run() if check.name == "signature")


def sign(
    shelf: Shelf, image: dict[str, Any], by: SigstoreInstance, subject: str, of: str = "", kind: str = SIGNED
) -> None:
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": (of or image["digest"]).removeprefix("sha256:")}}],
        "predicateType": kind,
        "predicate": {},
    }
    shelf.artifact(image, BUNDLE, by.sign(statement, subject, GITHUB))


@pytest.fixture(scope="module")
def sigstore() -> SigstoreInstance:
    return SigstoreInstance()


@pytest.mark.parametrize("kind", ["with", "without"])
def test_what_the_workflow_signed_is_green_and_says_by_whom(
    sigstore: SigstoreInstance, shelf: Shelves, kind: str
) -> None:
    place = shelf(kind)
    image = place.image(b"orders", tag="preview-pr-12-1-1")
    signers = Signers.of_outputs(keyless(sigstore, PREVIEW))
    given = Origin(built_here=False, signers=signers)
    reference = f"{place.name}@{image['digest']}"
    found = signature(reference, given)
    assert (found.state, found.detail) == ("red", "no signature by a required signer over this digest")
    sign(place, image, sigstore, PREVIEW)
    found = signature(reference, given)
    assert (found.state, found.detail) == ("green", f"by {PREVIEW} ({GITHUB})"[:160])


@pytest.mark.parametrize(
    "forged", ["another authority", "another pull request", "another image", "an attestation", "a key's"]
)
def test_a_forged_signature_is_red(sigstore: SigstoreInstance, shelf: Shelves, forged: str) -> None:
    place = shelf("with")
    image, other = place.image(forged.encode()), place.image(b"other" + forged.encode())
    by = SigstoreInstance() if forged == "another authority" else sigstore
    subject = PREVIEW.replace("/12/", "/13/") if forged == "another pull request" else PREVIEW
    if forged == "a key's":
        Signer().sign(place, image)
    else:
        of = other["digest"] if forged == "another image" else ""
        kind = "https://slsa.dev/provenance/v1" if forged == "an attestation" else SIGNED
        sign(place, image, by, subject, of, kind)
    given = Origin(built_here=False, signers=Signers.of_outputs(keyless(sigstore, PREVIEW)))
    found = signature(f"{place.name}@{image['digest']}", given)
    assert (found.state, found.detail) == ("red", "no signature by a required signer over this digest")
    report = Report(settings(), "", [found], 1.0)
    assert not report.is_green
    assert "| signature | ❌ red |" in report.markdown()


@pytest.mark.parametrize("by_tag", [True, False])
def test_a_key_signs_as_well(shelf: Shelves, by_tag: bool) -> None:
    place, signer = shelf("with"), Signer()
    image = place.image(b"by a key")
    if by_tag:
        signer.sign_by_tag(place, image)
    else:
        signer.sign(place, image)
    given = Origin(built_here=False, signers=signer.signers)
    assert signature(f"{place.name}@{image['digest']}", given).state == "green"


def test_where_nobody_is_named_the_stages_signers_count(sigstore: SigstoreInstance, shelf: Shelves) -> None:
    place = shelf("with")
    image = place.image(b"released")
    reference, given = f"{place.name}@{image['digest']}", Origin(built_here=False)
    assert signature(reference, given).state == "not checked"
    stage = Stage(signers=keyless(sigstore, RELEASE))
    assert signature(reference, given, stage).state == "red"
    sign(place, image, sigstore, RELEASE)
    assert signature(reference, given, stage).state == "green"


def test_a_stage_that_would_take_a_pull_requests_image_for_a_release_is_said(
    sigstore: SigstoreInstance, shelf: Shelves
) -> None:
    place = shelf("with")
    image = place.image(b"of a fork")
    # A fork's pull request is signed by the workflow of the main branch.
    fork = f"{REPOSITORY}/preview.yml@refs/heads/main"
    sign(place, image, sigstore, fork)
    given = Origin(built_here=False, signers=Signers.of_outputs(keyless(sigstore, fork)))
    wide = Stage(signers=keyless(sigstore, "https://github.com/org/*@refs/heads/main"))
    found = signature(f"{place.name}@{image['digest']}", given, wide)
    assert (found.state, "for a release's signer" in found.detail) == ("red", True), found
    narrow = Stage(signers=keyless(sigstore, RELEASE))
    assert signature(f"{place.name}@{image['digest']}", given, narrow).state == "green"


def test_a_registry_that_can_not_be_asked_is_red(
    sigstore: SigstoreInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.previews.signature._PATIENCE_SECONDS", 0.1)
    given = Origin(built_here=False, signers=Signers.of_outputs(keyless(sigstore, PREVIEW)))
    found = signature(f"127.0.0.1:9/orders@sha256:{'a' * 64}", given)
    assert (found.state, "127.0.0.1:9" in found.detail) == ("red", True), found


def test_an_image_that_is_away_is_red(sigstore: SigstoreInstance, shelf: Shelves) -> None:
    given = Origin(built_here=False, signers=Signers.of_outputs(keyless(sigstore, PREVIEW)))
    found = signature(f"{shelf('with').name}@sha256:{'a' * 64}", given)
    assert (found.state, found.detail.endswith("not in its registry")) == ("red", True), found


@pytest.mark.parametrize(
    ("here", "said"),
    [(True, "built on this machine from the sources"), (False, "built on this machine and pushed")],
)
def test_what_was_built_here_is_not_signed_and_says_so(here: bool, said: str) -> None:
    found = signature(settings().image, Origin(), Stage(is_here=here))
    assert (found.state, found.detail.startswith(said)) == ("not signed", True), found
    report = Report(settings(), "", [found], 1.0)
    assert report.is_green
    assert "not signed" in report.markdown()


def test_signers_without_an_image_are_refused() -> None:
    with pytest.raises(BadInput, match="--image"):
        check_origin(None, Signer().signers)
    assert check_origin(None, Signers()) == Origin()
    assert check_origin("image", Signers()) == Origin(built_here=False)
