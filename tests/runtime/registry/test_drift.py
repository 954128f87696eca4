"""Differences are told apart, a side that can't be reached is none, and repair repairs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from kilo.registry.cli import app
from kilo.registry.client import Registries
from kilo.registry.drift import Comparison, Kind, compare
from kilo.registry.reference import Reference
from tests.runtime.registry.images import Shelf, digest_of
from tests.runtime.registry.proxy import Fault, Proxy
from tests.runtime.registry.test_copy import EVERY_PAIR, release, sync

Shelves = Callable[[str], Shelf]
Proxied = Callable[[Shelf], tuple[Shelf, Proxy]]


def diff(source: Shelf, destination: Shelf) -> Comparison:
    registries = Registries(patience_seconds=0.5)
    return compare(registries, Reference.parse(source.name), Reference.parse(destination.name))


def kinds(source: Shelf, destination: Shelf) -> dict[str, set[Kind]]:
    found: dict[str, set[Kind]] = {}
    for finding in diff(source, destination).findings:
        found.setdefault(finding.tag, set()).add(finding.kind)
    return found


@EVERY_PAIR
def test_a_copy_is_identical_whatever_the_registries_know(shelf: Shelves, here: str, there: str) -> None:
    source, destination = shelf(here), shelf(there)
    release(source)
    sync(source, destination)
    compared = diff(source, destination)
    assert (compared.tags, compared.findings) == (1, ())


def test_each_kind_of_difference_has_its_name(shelf: Shelves) -> None:
    source, destination = shelf("with"), shelf("with")
    made = {tag: release(source, tag) for tag in ("same", "moved", "gone", "unsigned", "childless")}
    sync(source, destination)
    destination.image(b"something else", tag="moved")
    destination.delete("gone")
    destination.delete(made["unsigned"]["sbom"])
    destination.delete(made["childless"]["child"])
    destination.image(b"nobody pushed this", tag="more")
    assert kinds(source, destination) == {
        "moved": {Kind.DRIFT},
        "gone": {Kind.MISSING},
        "unsigned": {Kind.MISSING_ATTESTATION},
        "childless": {Kind.MISSING},
        "more": {Kind.EXTRA},
    }


def test_a_lost_blob_is_missing(shelf: Shelves) -> None:
    source, destination = shelf("with"), shelf("without")
    layer = os.urandom(100)
    source.image(layer, tag="v1")
    sync(source, destination)
    destination.delete(digest_of(layer), kind="blobs")
    [finding] = diff(source, destination).findings
    assert finding.kind is Kind.MISSING
    assert digest_of(layer) in finding.detail


def test_a_signature_added_at_the_destination_alone_is_extra(shelf: Shelves) -> None:
    source, destination = shelf("with"), shelf("with")
    made = release(source)
    sync(source, destination)
    subject = {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": made["index"], "size": 1}
    destination.artifact(subject, "application/vnd.example.signature", b"forged")
    assert kinds(source, destination) == {"v1": {Kind.EXTRA}}


def test_another_signature_under_the_same_cosign_tag_is_drift(shelf: Shelves) -> None:
    source, destination = shelf("with"), shelf("without")
    made = release(source)
    sync(source, destination)
    destination.artifact(None, "application/vnd.example", b"other", tag=made["cosign_tag"])
    assert kinds(source, destination) == {"v1": {Kind.DRIFT}}


def test_one_platform_alone_is_drift_and_said_so(shelf: Shelves) -> None:
    source, destination = shelf("with"), shelf("with")
    layers = [os.urandom(10), os.urandom(11)]
    source.index(*[source.image(layer) for layer in layers], tag="v1")
    destination.image(layers[0], tag="v1")
    [finding] = diff(source, destination).findings
    assert finding.kind is Kind.DRIFT
    assert "only its linux/amd64 child" in finding.detail


@pytest.mark.parametrize("lost", ["source", "destination"])
def test_a_side_that_does_not_answer_is_unreachable(shelf: Shelves, proxied: Proxied, lost: str) -> None:
    source, destination = shelf("with"), shelf("with")
    release(source)
    sync(source, destination)
    seen, proxy = proxied(source if lost == "source" else destination)
    proxy.rule = lambda method, path: Fault(status=503) if "/manifests/" in path else None
    found = kinds(seen, destination) if lost == "source" else kinds(source, seen)
    assert found == {"v1": {Kind.UNREACHABLE}}


def test_a_lying_destination_is_drift(shelf: Shelves, proxied: Proxied) -> None:
    source, destination = shelf("with"), shelf("with")
    release(source)
    sync(source, destination)
    seen, proxy = proxied(destination)
    spoiled = Fault(spoil=lambda body: body + b" ")
    proxy.rule = lambda method, path: spoiled if path.endswith("/manifests/v1") and method == "GET" else None
    assert kinds(source, seen) == {"v1": {Kind.DRIFT}}


def test_the_command_repairs_and_says_what_is_left(shelf: Shelves) -> None:
    source, destination = shelf("with"), shelf("without")
    made = release(source)
    release(source, "v2")
    sync(source, destination, pattern="v1")
    layer = source.manifest(made["child"])
    assert layer
    destination.delete(layer["layers"][0]["digest"], kind="blobs")
    runner = CliRunner()
    first = runner.invoke(app, ["diff", source.name, destination.name, "--json"])
    assert {found["kind"] for found in json.loads(first.stdout)["findings"]} == {"MISSING"}
    assert type(first.exception).__name__ == "CheckFailed"
    second = runner.invoke(app, ["diff", source.name, destination.name, "--json", "--repair"])
    assert second.exception is None
    assert json.loads(second.stdout)["findings"] == []
    assert destination.holds_whole("v1")
    assert destination.holds_whole("v2")


def test_only_unreachable_exits_with_3(shelf: Shelves, proxied: Proxied) -> None:
    source, destination = shelf("with"), shelf("with")
    release(source)
    sync(source, destination)
    seen, proxy = proxied(destination)
    proxy.rule = lambda _method, _path: Fault(status=401)
    outcome = CliRunner().invoke(app, ["diff", source.name, seen.name, "--json"])
    assert type(outcome.exception).__name__ == "Unreachable"
