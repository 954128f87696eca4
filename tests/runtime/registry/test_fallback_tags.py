"""Lists of referrers under fallback tags: in registries whose tags may move, and in ones whose may not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kilo.registry.client import Registries
from kilo.registry.drift import Kind, compare
from kilo.registry.errors import Rejected
from kilo.registry.reference import Reference
from kilo.registry.sync import Synchronizer, TagResult
from tests.runtime.registry.images import INDEX, Shelf
from tests.runtime.registry.proxy import Fault, Proxy

Shelves = Callable[[str], Shelf]
Proxied = Callable[[Shelf], tuple[Shelf, Proxy]]


def mirror(source: Shelf, destination: Shelf) -> TagResult:
    """As the worker and the sweep do."""
    registries = Registries(patience_seconds=5)
    with Synchronizer(registries=registries, move_tags=False) as synchronizer:
        [result] = synchronizer.sync(Reference.parse(f"{source.name}:v1"), Reference.parse(destination.name))
    return result


def immutable(proxy: Proxy, behind: Shelf) -> None:
    """Refuse to move a tag, as Artifact Registry does when its tags are immutable."""

    def rule(method: str, path: str) -> Fault | None:
        tag = path.rpartition("/")[2]
        return Fault(status=400) if method == "PUT" and tag in behind.tags() else None

    proxy.rule = rule


@pytest.mark.parametrize("mutable", [True, False])
def test_a_late_attestation_needs_fallback_tags_that_move(
    shelf: Shelves, proxied: Proxied, mutable: bool
) -> None:
    source, behind = shelf("with"), shelf("without")
    destination, proxy = proxied(behind)
    if not mutable:
        immutable(proxy, behind)
    image = source.image(b"bits", tag="v1")
    attached = [source.artifact(image, "application/vnd.example.signature", b"first")]
    assert mirror(source, destination).outcome == "copied"
    attached.append(source.artifact(image, "application/vnd.example.scan", b"late"))
    result = mirror(source, destination)
    registries = Registries(patience_seconds=5)
    here, there = Reference.parse(source.name), Reference.parse(destination.name)
    findings = {finding.kind for finding in compare(registries, here, there).findings}
    arrived = behind.referrers(image["digest"])
    if mutable:
        assert (result.outcome, findings) == ("copied", set())
        assert arrived == {one["digest"] for one in attached}
    else:
        assert isinstance(result.error, Rejected)
        assert findings == {Kind.MISSING_ATTESTATION}
        assert arrived == {attached[0]["digest"]}


def test_no_other_tag_moves_however_mutable(shelf: Shelves) -> None:
    source, destination = shelf("with"), shelf("without")
    old = destination.image(b"old", tag="v1")
    source.image(b"new", tag="v1")
    error = mirror(source, destination).error
    assert "the mirror moves no tag" in str(error)
    assert destination.digest("v1") == old["digest"]


def test_a_list_that_somebody_else_wrote_over_is_written_again(shelf: Shelves, proxied: Proxied) -> None:
    source, behind = shelf("with"), shelf("without")
    destination, proxy = proxied(behind)
    image = source.image(b"bits", tag="v1")
    ours = source.artifact(image, "application/vnd.example.signature", b"ours")
    config = {**behind.blob(b"{}"), "mediaType": "application/vnd.oci.empty.v1+json"}
    theirs = behind.put(
        {
            "schemaVersion": 2,
            "mediaType": ours["mediaType"],
            "config": config,
            "layers": [config],
            "subject": image,
        }
    )
    fallback = image["digest"].replace(":", "-")
    listed = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [theirs]}

    def written_over(method: str, path: str) -> Fault | None:
        written = proxy.count("PUT", fallback)
        if method == "GET" and path.endswith(fallback) and written == 1:
            behind.put(listed, fallback)
        return None

    proxy.rule = written_over
    assert mirror(source, destination).outcome == "copied"
    assert behind.referrers(image["digest"]) == {ours["digest"], theirs["digest"]}
    assert proxy.count("PUT", fallback) == 2
