"""A copy takes the whole graph, whichever way the registries know referrers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from kilo.cli import main
from kilo.registry.client import Registries
from kilo.registry.graph import RepositoryView
from kilo.registry.reference import Reference
from kilo.registry.sync import Synchronizer, TagResult
from tests.runtime.registry.images import EMPTY, MANIFEST, Shelf, digest_of
from tests.runtime.registry.programs import judge
from tests.runtime.registry.proxy import Fault, Proxy, once

Shelves = Callable[[str], Shelf]
Proxied = Callable[[Shelf], tuple[Shelf, Proxy]]

EVERY_PAIR = pytest.mark.parametrize(
    ("here", "there"), [("with", "with"), ("with", "without"), ("without", "with"), ("without", "without")]
)


def sync(source: Shelf, destination: Shelf, **options: object) -> list[TagResult]:
    with Synchronizer() as synchronizer:
        return synchronizer.sync(
            Reference.parse(source.name),
            Reference.parse(destination.name),
            **options,  # pyright: ignore[reportArgumentType]
        )


def release(shelf: Shelf, tag: str = "v1") -> dict[str, str]:
    """A multi-platform image with everything that can hang off it; digests by what they are."""
    children = [shelf.image(os.urandom(3000), f"layer {tag} {number}".encode()) for number in range(2)]
    index = shelf.index(*children, tag=tag)
    sbom = shelf.artifact(children[0], "application/spdx+json", f"sbom {tag}".encode())
    provenance = shelf.artifact(index, "application/vnd.in-toto+json", f"provenance {tag}".encode())
    signature = shelf.artifact(
        sbom, "application/vnd.dev.sigstore.bundle.v0.3+json", f"bundle {tag}".encode()
    )
    cosign_tag = index["digest"].replace(":", "-") + ".sig"
    classic = shelf.artifact(None, "application/vnd.dev.cosign.simplesigning.v1+json", b"{}", tag=cosign_tag)
    return {
        "index": index["digest"],
        "child": children[0]["digest"],
        "sbom": sbom["digest"],
        "provenance": provenance["digest"],
        "signature": signature["digest"],
        "classic": classic["digest"],
        "cosign_tag": cosign_tag,
    }


@EVERY_PAIR
def test_everything_that_hangs_off_an_image_arrives(shelf: Shelves, here: str, there: str) -> None:
    source, destination = shelf(here), shelf(there)
    made = release(source)
    assert [result.outcome for result in sync(source, destination)] == ["copied"]
    assert destination.digest("v1") == made["index"]
    assert destination.holds_whole("v1")
    assert destination.referrers(made["child"]) == {made["sbom"]}
    assert destination.referrers(made["index"]) == {made["provenance"]}
    assert destination.referrers(made["sbom"]) == {made["signature"]}
    assert destination.digest(made["cosign_tag"]) == made["classic"]
    for referrer in ("sbom", "provenance", "signature", "classic"):
        assert destination.holds_whole(made[referrer])


@EVERY_PAIR
def test_a_second_run_writes_nothing(shelf: Shelves, proxied: Proxied, here: str, there: str) -> None:
    source, destination = shelf(here), shelf(there)
    release(source)
    sync(source, destination)
    seen, proxy = proxied(destination)
    assert [result.outcome for result in sync(source, seen)] == ["present"]
    assert proxy.count("PUT") == proxy.count("POST") == proxy.count("PATCH") == 0


def test_a_referrer_that_came_later_is_copied_alone(shelf: Shelves, proxied: Proxied) -> None:
    source, destination = shelf("with"), shelf("without")
    made = release(source)
    sync(source, destination)
    late = source.artifact(
        {"mediaType": MANIFEST, "digest": made["child"], "size": 1}, "application/vnd.example.scan", b"clean"
    )
    seen, proxy = proxied(destination)
    assert [result.outcome for result in sync(source, seen)] == ["copied"]
    assert destination.referrers(made["child"]) == {made["sbom"], late["digest"]}
    assert [
        path.rpartition("/")[2] for method, path in proxy.asked if method == "PUT" and "/manifests/" in path
    ] == [
        late["digest"],
        made["child"].replace(":", "-"),
    ]


def test_children_precede_parents_and_the_tag_comes_last(shelf: Shelves, proxied: Proxied) -> None:
    source, destination = shelf("with"), shelf("without")
    made = release(source)
    seen, proxy = proxied(destination)
    sync(source, seen)
    written = [
        path.rpartition("/")[2] for method, path in proxy.asked if method == "PUT" and "/manifests/" in path
    ]
    place = {
        name: written.index(made[name]) for name in ("child", "index", "sbom", "provenance", "signature")
    }
    assert place["child"] < place["index"]
    assert written[-1] == "v1"
    assert made["cosign_tag"] in written
    assert made["index"].replace(":", "-") in written
    last_blob = max(
        i for i, (method, path) in enumerate(proxy.asked) if method == "PUT" and "/uploads/" in path
    )
    assert last_blob < proxy.asked.index(("PUT", f"/v2/{destination.repository}/manifests/v1"))


def test_what_does_not_need_each_other_goes_at_once(shelf: Shelves, proxied: Proxied) -> None:
    source, destination = shelf("with"), shelf("without")
    source.index(*(source.image(f"{number}".encode()) for number in range(3)), tag="v1")
    seen, proxy = proxied(destination)
    proxy.rule = lambda _method, path: Fault(delay_seconds=0.1 if "/manifests/" in path else 0)
    with Synchronizer(jobs=1, blob_jobs=1) as synchronizer:
        synchronizer.sync(Reference.parse(source.name), Reference.parse(seen.name))
    assert proxy.most_under_way == 3
    assert destination.holds_whole("v1")


def test_a_referrer_that_its_subjects_index_names_precedes_the_index(shelf: Shelves) -> None:
    source, destination = shelf("with"), shelf("without")
    image = source.image(b"bits")
    attestation = source.artifact(image, "application/vnd.in-toto+json", b"provenance")
    index = source.index(attestation, image, tag="v1")
    graph = RepositoryView(Registries().repository(Reference.parse(source.name))).graph(
        index["digest"], index["mediaType"]
    )
    generations = [{node.digest for node in generation} for generation in graph.generations()]
    assert generations[-1] == {index["digest"]}
    assert sync(source, destination)[0].error is None
    assert destination.holds_whole("v1")


def test_a_blob_that_images_share_is_sent_once(shelf: Shelves, proxied: Proxied) -> None:
    source, destination = shelf("without"), shelf("without")
    shared = os.urandom(200_000)
    for number in range(8):
        source.image(shared, f"own {number}".encode(), tag=f"v{number}")
    seen, proxy = proxied(destination)
    sync(source, seen)
    uploads = [path for method, path in proxy.asked if method == "PUT" and digest_of(shared) in path]
    assert len(uploads) == 1
    assert destination.tags() == source.tags()


@pytest.mark.parametrize("remembered_seconds", [0, 600])
def test_a_blob_that_the_destination_lost_is_sent_again_after_a_while(
    shelf: Shelves, monkeypatch: pytest.MonkeyPatch, remembered_seconds: float
) -> None:
    monkeypatch.setattr("kilo.registry.copier._KNOWN_SECONDS", remembered_seconds)
    source, destination = shelf("with"), shelf("without")
    layer = os.urandom(1000)
    for tag in ("v1", "v2"):
        source.image(layer, tag.encode(), tag=tag)
    here, there = Reference.parse(source.name), Reference.parse(destination.name)
    with Synchronizer() as synchronizer:
        synchronizer.sync(here, there, pattern="v1")
        destination.delete(digest_of(layer), kind="blobs")
        [result] = synchronizer.sync(here, there, pattern="v2")
    assert (result.outcome == "copied") == (remembered_seconds == 0)
    assert destination.holds_whole("v2") == (remembered_seconds == 0)


def test_what_is_remembered_of_blobs_is_bounded(shelf: Shelves, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kilo.registry.copier._KNOWN_BLOBS", 3)
    source, destination = shelf("with"), shelf("without")
    for number in range(8):
        source.image(f"{number}".encode(), tag=f"v{number}")
    with Synchronizer() as synchronizer:
        synchronizer.sync(Reference.parse(source.name), Reference.parse(destination.name))
        pool = synchronizer._blobs  # pyright: ignore[reportPrivateUsage]
        assert len(pool._held_by) == 3  # pyright: ignore[reportPrivateUsage]
    assert destination.tags() == source.tags()


def test_pushes_of_one_image_that_come_together_write_each_manifest_once(
    shelf: Shelves, proxied: Proxied
) -> None:
    source, destination = shelf("with"), shelf("without")
    made = release(source)
    more = [
        source.artifact(
            {"digest": made["child"], "mediaType": MANIFEST, "size": 1}, f"application/vnd.{n}", b"1"
        )
        for n in range(4)
    ]
    seen, proxy = proxied(destination)
    events = [
        (made["index"], "v1"),
        *((digest, None) for digest in (made["child"], made["sbom"], made["provenance"])),
    ]
    events += [(one["digest"], None) for one in more]
    with Synchronizer() as synchronizer, ThreadPoolExecutor(len(events)) as pool:
        here, there = Reference.parse(source.name), Reference.parse(seen.name)
        results = list(pool.map(lambda event: synchronizer.sync_push(here, there, *event), events))
    assert [result.error for result in results] == [None] * len(events)
    written = [path for method, path in proxy.asked if method == "PUT" and "/manifests/sha256:" in path]
    assert sorted(written) == sorted(set(written))
    assert destination.referrers(made["child"]) == source.referrers(made["child"])
    assert destination.holds_whole("v1")


def test_a_blob_of_another_repository_is_mounted(shelf: Shelves, proxied: Proxied) -> None:
    first, second = shelf("without"), shelf("without")
    layer = os.urandom(50_000)
    first.image(layer, tag="v1")
    second.image(layer, b"other", tag="v1")
    there, proxy = proxied(Shelf(first.url, f"{first.repository}-copy"))
    with Synchronizer() as synchronizer:
        for number, source in enumerate((first, second)):
            target = Reference.parse(f"{there.name}{number}")
            synchronizer.sync(Reference.parse(source.name), target)
    assert len([path for method, path in proxy.asked if method == "PUT" and digest_of(layer) in path]) == 1
    assert any(method == "POST" and f"mount={digest_of(layer)}" in path for method, path in proxy.asked)


def test_empty_foreign_and_zstd_layers(shelf: Shelves) -> None:
    source, destination = shelf("with"), shelf("with")
    config = source.blob(b'{"config": 1}')
    foreign = {
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "digest": digest_of(b"not here"),
        "size": 8,
        "urls": ["https://example.com/layer"],
    }
    zstd = {**source.blob(b"(\xb5/\xfd zstd"), "mediaType": "application/vnd.oci.image.layer.v1.tar+zstd"}
    empty = {**source.blob(b""), "mediaType": "application/vnd.oci.image.layer.v1.tar"}
    source.put(
        {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [foreign, zstd, empty]}, "v1"
    )
    assert [result.outcome for result in sync(source, destination)] == ["copied"]
    assert destination.digest("v1") == source.digest("v1")
    assert destination.holds_whole("v1")


def test_a_tag_that_is_not_there_is_a_mistake_of_whoever_names_it(
    shelf: Shelves, capsys: pytest.CaptureFixture[str]
) -> None:
    source, destination = shelf("with"), shelf("without")
    source.image(b"bits", tag="v1")
    assert main(["registry", "sync", f"{source.name}:v2", destination.name]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"kilo: error: {source.name}:v2: no such tag or digest\n")


def test_only_matching_tags_and_dry_run(shelf: Shelves) -> None:
    source, destination = shelf("without"), shelf("without")
    for tag in ("v1", "v2", "preview-1"):
        source.image(tag.encode(), tag=tag)
    assert {result.outcome for result in sync(source, destination, pattern="v*", dry_run=True)} == {
        "would copy"
    }
    assert destination.tags() == set()
    sync(source, destination, pattern="v*")
    assert destination.tags() == {"v1", "v2"}


def test_a_dry_run_sees_what_is_not_attached(shelf: Shelves) -> None:
    source, destination = shelf("with"), shelf("without")
    made = release(source)
    sync(source, destination)
    assert [result.outcome for result in sync(source, destination, dry_run=True)] == ["present"]
    subject = {"mediaType": MANIFEST, "digest": made["child"], "size": 1}
    late = source.artifact(subject, "application/vnd.example.scan", b"clean")
    assert [result.outcome for result in sync(source, destination, dry_run=True)] == ["would copy"]
    assert destination.digest(late["digest"]) is None
    # There, but on no list.
    document = source.manifest(late["digest"])
    assert document
    for content in (EMPTY, b"clean"):
        destination.blob(content)
    assert destination.put(document)["digest"] == late["digest"]
    assert [result.outcome for result in sync(source, destination, dry_run=True)] == ["would copy"]


def test_an_untagged_image_brings_its_cosign_tags(shelf: Shelves) -> None:
    source, destination = shelf("without"), shelf("with")
    image = source.image(b"by digest alone")
    tag = image["digest"].replace(":", "-") + ".att"
    source.artifact(None, "application/vnd.example.attestation", b"{}", tag=tag)
    [result] = sync(source, destination)
    assert (result.outcome, result.name) == ("copied", image["digest"])
    assert destination.holds_whole(image["digest"])
    assert destination.digest(tag) == source.digest(tag)


def test_a_push_that_is_told_of_before_its_tag_can_be_read_does_not_wait_for_the_queue(
    shelf: Shelves, proxied: Proxied
) -> None:
    source, destination = shelf("without"), shelf("without")
    image = source.image(b"bits", tag="v1")
    seen, proxy = proxied(source)
    proxy.rule = once(Fault(status=404), lambda method, path: (method, path[-3:]) == ("HEAD", "/v1"), times=2)
    with Synchronizer() as synchronizer:
        sides = (Reference.parse(seen.name), Reference.parse(destination.name))
        result = synchronizer.sync_push(*sides, image["digest"], "v1")
    assert result.outcome == "copied"
    assert destination.holds_whole("v1")


def test_an_untagged_push_travels_with_what_it_refers_to(shelf: Shelves) -> None:
    source, destination = shelf("with"), shelf("without")
    image = source.image(b"layer", tag="v1")
    sync(source, destination)
    signature = source.artifact(image, "application/vnd.example.signature", b"signed")
    with Synchronizer() as synchronizer:
        here, there = Reference.parse(source.name), Reference.parse(destination.name)
        result = synchronizer.sync_push(here, there, signature["digest"], None)
    assert (result.outcome, result.error) == ("copied", None)
    assert destination.referrers(image["digest"]) == {signature["digest"]}


def test_other_tools_find_the_copied_referrers(shelf: Shelves) -> None:
    source, destination = shelf("with"), shelf("without")
    made = release(source)
    sync(source, destination)
    tree = json.loads(judge("oras", "discover", "--plain-http", "--format", "json", f"{destination.name}:v1"))
    assert [entry["digest"] for entry in tree["referrers"]] == [made["provenance"]]
    assert tree["referrers"][0]["artifactType"] == "application/vnd.in-toto+json"
    child = f"{destination.name}@{made['child']}"
    found = json.loads(judge("oras", "discover", "--plain-http", "--format", "json", child))
    assert [entry["digest"] for entry in found["referrers"]] == [made["sbom"]]
    assert [entry["digest"] for entry in found["referrers"][0]["referrers"]] == [made["signature"]]
    host = destination.url.removeprefix("http://")
    digest = judge(
        "regctl", "image", "digest", "--host", f"reg={host},tls=disabled", f"{destination.name}:v1"
    )
    assert digest.strip() == made["index"]
