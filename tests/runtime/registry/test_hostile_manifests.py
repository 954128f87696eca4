"""What is wrong with one artifact, tag or list is that one's finding, and nobody else's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from kilo.registry.client import Registries
from kilo.registry.drift import Kind
from kilo.registry.errors import Unreadable
from kilo.registry.reference import Reference
from tests.runtime.registry.hostile import HostileRegistry, Reply, Request, diff, kinds, sync
from tests.runtime.registry.images import INDEX, MANIFEST, Shelf

Shelves = Callable[[str], Shelf]
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("kilo.registry.transport", "kilo.registry.blobs"):
        monkeypatch.setattr(f"{module}.back_off_seconds", lambda _attempt: 0.01)


def nested(depth: int) -> Callable[[dict[str, Any]], bytes]:
    return lambda image: json.dumps(image)[:-1].encode() + b',"x":' + b"[" * depth + b"]" * depth + b"}"


def changed(**members: Any) -> Callable[[dict[str, Any]], bytes]:
    return lambda image: json.dumps({**image, **members}).encode()


def first_layer(**members: Any) -> Callable[[dict[str, Any]], bytes]:
    return lambda image: json.dumps({**image, "layers": [{**image["layers"][0], **members}]}).encode()


BAD_MANIFESTS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "nested 9000 deep": nested(9000),
    "nested 90000 deep": nested(90_000),
    "layers that are a number": changed(layers=5),
    "layers that are an object": changed(layers={"a": 1}),
    "a layer that is a string": changed(layers=["sha256:" + "0" * 64]),
    "a config that is a list": changed(config=[1]),
    "no config": changed(config=None),
    "annotations that are a list": first_layer(annotations=["x"]),
    "an annotation that is a number": first_layer(annotations={"a": 1}),
    "a media type that is a number": changed(mediaType=7),
    "an artifact type that is an object": changed(artifactType={}),
    "a subject that is a string": changed(subject="sha256:" + "0" * 64),
    "a size that is true": first_layer(size=True),
    "a size below zero": first_layer(size=-1),
    "a size beyond 64 bits": first_layer(size=2**63),
    "a digest with a path": first_layer(digest="sha256:../../" + "0" * 58),
    "layers twice": lambda image: json.dumps(image)[:-1].encode() + b',"layers":[]}',
    "layers in another case": lambda image: json.dumps(image)[:-1].encode() + b',"Layers":[]}',
    "layers and manifests": changed(manifests=[]),
    "no JSON": lambda image: b"not JSON",
    "a list": lambda image: b"[]",
    "not a number": first_layer(size=float("nan")),
    "not UTF-8": lambda image: json.dumps(image).encode().replace(b'"schemaVersion"', b'"\xff\xfe"'),
    "a number of 5000 digits": lambda image: json.dumps(image)[:-1].encode() + b',"x":' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("name", BAD_MANIFESTS)
def test_a_malformed_manifest_is_its_own_finding(hostile: HostileRegistry, shelf: Shelves, name: str) -> None:
    destination = shelf("with")
    bad = BAD_MANIFESTS[name](hostile.document("bad"))
    hostile.put(bad, "bad", MANIFEST)
    for tag in ("a", "z"):
        hostile.image(tag, tag)
    results = sync(hostile, destination)
    assert {tag: result.outcome for tag, result in results.items()} == {
        "a": "copied",
        "bad": "failed",
        "z": "copied",
    }
    assert isinstance(results["bad"].error, Unreadable)
    assert destination.tags() == {"a", "z"}
    assert kinds(hostile, destination) == {"bad": {Kind.UNREADABLE}}


def test_a_malformed_attachment_is_left_out_and_its_image_copied(
    hostile: HostileRegistry, shelf: Shelves
) -> None:
    destination = shelf("with")
    image = hostile.image("good", "v1")
    good = hostile.image("sbom", subject=image)
    bad = json.dumps({**hostile.document("bad"), "subject": image, "layers": 5}).encode()
    broken = hostile.put(bad, media_type=MANIFEST)
    [result] = sync(hostile, destination).values()
    assert (result.outcome, result.error) == ("copied", None)
    [left_out] = result.left_out
    assert broken["digest"] in str(left_out)
    assert destination.referrers(image["digest"]) == {good["digest"]}
    assert kinds(hostile, destination) == {"v1": {Kind.UNREADABLE}}
    [again] = sync(hostile, destination).values()
    assert (again.outcome, len(again.left_out)) == ("present", 1)


def test_what_a_list_falsely_calls_a_referrer_is_left_out(hostile: HostileRegistry, shelf: Shelves) -> None:
    destination = shelf("with")
    image, other = hostile.image("good", "v1"), hostile.image("other")
    entries = [{**other, "mediaType": MANIFEST}]
    hostile.index(*entries, tag=image["digest"].replace(":", "-"))
    [result] = sync(hostile, destination).values()
    assert result.outcome == "copied"
    assert "does not refer to" in str(result.left_out[0])
    assert destination.digest(other["digest"]) is None
    assert kinds(hostile, destination) == {"v1": {Kind.UNREADABLE}}


def test_one_bad_entry_of_a_list_of_referrers_costs_no_other(
    hostile: HostileRegistry, shelf: Shelves
) -> None:
    destination = shelf("with")
    image = hostile.image("good", "v1")
    good = hostile.image("sbom", subject=image)
    unknown = {"mediaType": "application/vnd.oci.artifact.manifest.v1+json", "digest": "sha256:" + "0" * 64}

    def listed(request: Request) -> Reply | None:
        if f"/referrers/{image['digest']}" not in request.path:
            return None
        entries = [{"digest": 5}, {**unknown, "size": 1}, good, "x"]
        return Reply(200, json.dumps({"manifests": entries}).encode(), [("Content-Type", INDEX)])

    hostile.rule = listed
    [result] = sync(hostile, destination).values()
    assert result.outcome == "copied"
    assert len(result.left_out) == 3
    assert destination.referrers(image["digest"]) == {good["digest"]}


@pytest.mark.parametrize("entry", [5, None, {"a": 1}, "", "../../x", "a b", "\x1b[31mred"])
def test_what_is_no_tag_is_reported_beside_those_that_are(
    hostile: HostileRegistry, shelf: Shelves, entry: object
) -> None:
    destination = shelf("with")
    hostile.image("v1", "v1")
    body = json.dumps({"tags": ["v1", entry]}).encode()
    hostile.rule = lambda request: Reply(200, body) if request.path.endswith("/tags/list") else None
    results = sync(hostile, destination)
    assert results["v1"].outcome == "copied"
    assert isinstance(results["?"].error, Unreadable)
    assert "\x1b" not in str(results["?"].error)
    assert kinds(hostile, destination) == {"?": {Kind.UNREADABLE}}


@pytest.mark.parametrize(
    ("link", "next_query"),
    [
        ("<?n=1&last=v1>; rel=next", "n=1&last=v1"),
        ('</v2/app/tags/list?last=v1>; title="x, <y>; rel=\\"z\\""; REL="prev next"', "last=v1"),
        ('<list?last=v1>; rel="next", </first>; rel="first"', "last=v1"),
        ('</first>; rel="first" , <./list?last=v1>; type="a"; rel="next"', "last=v1"),
    ],
)
def test_a_list_goes_on_wherever_its_link_leads(hostile: HostileRegistry, link: str, next_query: str) -> None:
    def pages(request: Request) -> Reply | None:
        if not request.path.endswith("/tags/list"):
            return None
        if "last=" in request.query:
            assert request.query == next_query
            return Reply(200, b'{"tags": ["v2"]}')
        return Reply(200, b'{"tags": ["v1"]}', [("Link", link)])

    hostile.rule = pages
    repository = Registries(patience_seconds=5).repository(Reference.parse(hostile.name))
    assert repository.tags().names == {"v1", "v2"}


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ("<http://other.test/v2/app/tags/list?last=v1>; rel=next", "another host"),
        ("<?last=v1; rel=next", "malformed"),
        ("<?n=1000>; rel=next", "circles"),
    ],
)
def test_a_list_that_can_not_be_followed_is_never_taken_as_whole(
    hostile: HostileRegistry, link: str, why: str
) -> None:
    hostile.rule = lambda _: Reply(200, b'{"tags": ["v1"]}', [("Link", link)])
    repository = Registries(patience_seconds=5).repository(Reference.parse(hostile.name))
    with pytest.raises(Unreadable, match=why):
        repository.tags()


def test_a_list_without_end_is_given_up(hostile: HostileRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kilo.registry.client._PAGES_LIMIT", 20)
    hostile.rule = lambda _: Reply(
        200, b'{"tags": []}', [("Link", f"<?last={len(hostile.asked)}>; rel=next")]
    )
    repository = Registries(patience_seconds=5).repository(Reference.parse(hostile.name))
    with pytest.raises(Unreadable, match="more than 20"):
        repository.tags()
    assert len(hostile.asked) == 20


@pytest.mark.parametrize("status", [400, 404, 405, 406, 501])
def test_a_registry_without_the_referrers_api_has_its_fallback_tags_read(
    hostile: HostileRegistry, shelf: Shelves, status: int
) -> None:
    destination = shelf("with")
    image = hostile.image("v1", "v1")
    sbom = hostile.image("sbom", subject=image)
    hostile.index(sbom, tag=image["digest"].replace(":", "-"))
    hostile.rule = lambda request: Reply(status) if "/referrers/" in request.path else None
    assert sync(hostile, destination)["v1"].outcome == "copied"
    assert destination.referrers(image["digest"]) == {sbom["digest"]}


TYPES = [
    INDEX.upper(),
    "application/vnd.oci.image.INDEX.v1+JSON",
    f"{INDEX} ; charset=utf-8",
    "application/json",
    "application/octet-stream",
    "text/plain; charset=utf-8",
    "",
]


@pytest.mark.parametrize("own", [INDEX, None])
@pytest.mark.parametrize("sent", TYPES)
def test_an_index_is_one_however_it_is_sent(
    hostile: HostileRegistry, shelf: Shelves, sent: str, own: str | None
) -> None:
    destination = shelf("with")
    children = [hostile.image(name) for name in ("a", "b")]
    document: dict[str, Any] = {"schemaVersion": 2, "manifests": children}
    index = hostile.put(document | ({"mediaType": own} if own else {}), "v1", sent)
    assert sync(hostile, destination)["v1"].outcome == "copied"
    assert destination.digest("v1") == index["digest"]
    assert destination.holds_whole("v1")
    assert diff(hostile, destination).findings == ()
    destination.delete(children[0]["digest"])
    assert kinds(hostile, destination) == {"v1": {Kind.MISSING}}


@pytest.mark.parametrize(
    ("sent", "document", "named"),
    [
        (
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            {"schemaVersion": 1, "fsLayers": []},
            "manifest.v1",
        ),
        ("application/vnd.oci.artifact.manifest.v1+json", {"blobs": []}, "artifact.manifest"),
        ("application/vnd.example+json", {"layers": []}, "vnd.example"),
        ("application/json", {"things": []}, "no known shape"),
        (MANIFEST, {"mediaType": INDEX, "manifests": []}, "calls itself"),
        (INDEX, {"config": {}, "layers": []}, "has config"),
        (INDEX, {"manifests": [{"mediaType": "x/y", "digest": "sha256:" + "0" * 64, "size": 1}]}, "x/y"),
    ],
)
def test_what_has_unknown_references_is_refused_by_name(
    hostile: HostileRegistry, shelf: Shelves, sent: str, document: dict[str, Any], named: str
) -> None:
    destination = shelf("with")
    hostile.put(document, "v1", sent)
    error = sync(hostile, destination)["v1"].error
    assert isinstance(error, Unreadable)
    assert named in str(error)
    assert destination.tags() == set()
    [finding] = diff(hostile, destination).findings
    assert finding.kind is Kind.UNREADABLE


def test_a_child_that_is_not_what_its_index_says_is_refused(hostile: HostileRegistry, shelf: Shelves) -> None:
    destination = shelf("with")
    inner = hostile.index(hostile.image("a"))
    top = hostile.index({**inner, "mediaType": MANIFEST}, tag="v1")
    error = sync(hostile, destination)["v1"].error
    assert "named as" in str(error)
    assert destination.tags() == set()
    for content in hostile.blobs.values():
        destination.blob(content)
    for digest, (content, _) in hostile.manifests.items():
        destination.put(json.loads(content), "v1" if digest == top["digest"] else None)
    assert destination.digest("v1") == top["digest"]
    assert kinds(hostile, destination) == {"v1": {Kind.UNREADABLE}}


@pytest.mark.parametrize("there", ["with", "without"])
def test_a_build_cache_is_copied_with_its_blobs(hostile: HostileRegistry, shelf: Shelves, there: str) -> None:
    destination = shelf(there)
    layer = hostile.blob(os.urandom(500), LAYER)
    config = hostile.blob(b'{"layers": []}', "application/vnd.buildkit.cacheconfig.v0")
    cache = hostile.index(layer, config, tag="cache")
    if there == "with":
        # go-containerregistry takes an index's entries for manifests, so it refuses what BuildKit makes.
        assert "refuse" in str(sync(hostile, destination)["cache"].error or "refuse")
        return
    assert sync(hostile, destination)["cache"].outcome == "copied"
    assert destination.digest("cache") == cache["digest"]
    for entry in (layer, config):
        assert destination.has_blob(entry["digest"])
    assert diff(hostile, destination).findings == ()
    destination.delete(layer["digest"], kind="blobs")
    assert kinds(hostile, destination) == {"cache": {Kind.MISSING}}


def test_indexes_in_indexes_have_an_end(hostile: HostileRegistry, shelf: Shelves) -> None:
    destination = shelf("with")
    top = hostile.image("bottom")
    for _ in range(2000):
        top = hostile.index(top)
    hostile.index(top, tag="deep")
    hostile.image("fine", "fine")
    results = sync(hostile, destination)
    assert "levels below" in str(results["deep"].error)
    assert results["fine"].outcome == "copied"


def test_attachments_of_attachments_have_an_end(hostile: HostileRegistry, shelf: Shelves) -> None:
    destination = shelf("with")
    image = subject = hostile.image("v1", "v1")
    for number in range(50):
        subject = hostile.image(f"attachment {number}", subject=subject)
    result = sync(hostile, destination)["v1"]
    assert result.outcome == "copied"
    assert "levels below" in str(result.left_out[0])
    assert destination.digest("v1") == image["digest"]
