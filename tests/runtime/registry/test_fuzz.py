"""Structured mutations of real manifests, bundles and headers: refused with an error of ours, or read whole.

Each target runs for ``KILO_FUZZ_SECONDS`` (default 12). A failure names its seed, which ``KILO_FUZZ_SEED``
repeats.
"""

from __future__ import annotations

import copy
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from kilo.errors import KiloError
from kilo.registry import signatures
from kilo.registry.client import Listing, Registries
from kilo.registry.events import PushEvent
from kilo.registry.headers import content_length, next_page, parse_challenges, retry_after_seconds
from kilo.registry.manifest import Manifest
from kilo.registry.media import KNOWN
from kilo.registry.parsing import printable
from kilo.registry.reference import DIGEST_PATTERN, Reference
from kilo.registry.sync import Synchronizer
from tests.runtime.registry.hostile import HostileRegistry, Reply, Request
from tests.runtime.registry.images import INDEX, MANIFEST, Shelf
from tests.runtime.registry.signer import Signer

SECONDS = float(os.environ.get("KILO_FUZZ_SECONDS", "12"))
SEED = os.environ.get("KILO_FUZZ_SEED")
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
SHA256, SHA512 = "sha256:" + "a1" * 32, "sha512:" + "b2" * 64

pytestmark = pytest.mark.timeout(SECONDS + 170)


def descriptor(media_type: str, **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": SHA256, "size": 7, **more}


MANIFESTS: list[tuple[dict[str, Any], str]] = [
    (
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": "application/spdx+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": [
                descriptor("application/vnd.oci.image.layer.v1.tar+gzip", annotations={"a": "b"}),
                descriptor("application/vnd.oci.image.layer.v1.tar+zstd", urls=["https://x/y"]),
            ],
            "subject": descriptor(MANIFEST),
            "annotations": {"org.opencontainers.image.created": "2026-01-01T00:00:00Z"},
        },
        MANIFEST,
    ),
    (
        {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [
                descriptor(MANIFEST, platform={"os": "linux", "architecture": "arm64", "os.features": ["x"]}),
                descriptor(INDEX, digest=SHA512),
                descriptor("application/vnd.buildkit.cacheconfig.v0"),
            ],
        },
        INDEX,
    ),
    ({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [descriptor(MANIFEST)]}, DOCKER_LIST),
    ({"schemaVersion": 2, "config": descriptor("x/y"), "layers": []}, "application/json"),
]
ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    2**63,
    2**200,
    1.5,
    float("inf"),
    "",
    "x" * 5000,
    "\ud800",
    "\x1b[2J",
    "../../etc/passwd",
    [],
    {},
    [[]],
    {"": {}},
    SHA512,
    MANIFEST,
    INDEX.upper(),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key, member in cast("dict[str, Any]", value).items():
            yield from places(member, (*path, key))
    elif isinstance(value, list):
        for number, member in enumerate(cast("list[Any]", value)):
            yield from places(member, (*path, number))


def mutate(document: Any, chance: random.Random) -> bytes:
    """One to four changes to the document, then perhaps one to its bytes."""
    document = copy.deepcopy(document)
    for _ in range(chance.randint(1, 4)):
        if path := chance.choice(list(places(document))):
            change(document, path, chance)
    content = json.dumps(document).encode()
    at = chance.randrange(len(content) + 1)
    depth = chance.choice([10, 100, 9000])
    spoilt = [
        content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :],
        content[:at],
        content[:-1] + b',"deep":' + b"[" * depth + b"]" * depth + b"}",
        content[:-1] + b',"layers":[],"manifests":[]}',
    ]
    return chance.choice([*spoilt, *[content] * 8])


def at_path(document: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        document = document[step]
    return document


def change(document: Any, path: tuple[Any, ...], chance: random.Random) -> None:
    holder, last = at_path(document, path[:-1]), path[-1]
    value = holder[last]
    match chance.randrange(6):
        case 0:
            holder[last] = copy.deepcopy(chance.choice(ODD))
        case 1:
            del holder[last]
        case 2 if isinstance(holder, list):
            holder.insert(last, copy.deepcopy(value))
        case 2:
            holder[chance.choice([last.swapcase(), last.upper(), f"{last} "])] = copy.deepcopy(value)
        case 3:
            holder[last] = [value]
        case 4:
            other = at_path(document, chance.choice(list(places(document))[1:]))
            holder[last] = copy.deepcopy(other)
        case _:
            holder[last] = str(value).swapcase()


def require_printable(error: KiloError) -> None:
    assert printable(str(error), 100_000) == str(error)


def fuzz(target: Callable[[random.Random], None]) -> None:
    end = time.monotonic() + SECONDS
    first = int(SEED) if SEED else random.SystemRandom().randrange(2**40)
    seed = first
    while time.monotonic() < end or seed == first:
        try:
            target(random.Random(seed))
        except KiloError as error:
            require_printable(error)
        except Exception as error:
            error.add_note(f"KILO_FUZZ_SEED={seed}")
            raise
        if SEED:
            return
        seed += 1


def references(document: Any) -> set[str]:
    """Every digest that a parser without opinions finds where manifests have references."""
    named = [document.get("config"), document.get("subject")]
    named += [*(document.get("layers") or ()), *(document.get("manifests") or ())]
    return {entry["digest"] for entry in named if entry is not None}


def test_a_manifest_is_refused_or_read_whole() -> None:
    def target(chance: random.Random) -> None:
        document, media_type = chance.choice(MANIFESTS)
        sent = chance.choice([media_type, media_type.upper(), "application/json", "", INDEX, MANIFEST])
        content = mutate(document, chance)
        manifest = Manifest.parse(content, sent, "here")
        assert manifest.media_type in KNOWN
        subject = (manifest.subject,) if manifest.subject else ()
        config = (manifest.config,) if manifest.config else ()
        found = (*manifest.children, *manifest.layers, *subject, *config)
        assert all(DIGEST_PATTERN.fullmatch(one.digest) and one.size >= 0 for one in found)
        assert {one.digest for one in found} == references(json.loads(content)), "nothing is left behind"
        Listing().add({"manifests": [manifest.descriptor().document()]}, "here")

    fuzz(target)


def test_a_bundle_is_refused_or_read() -> None:
    signer = Signer()
    bundle = json.loads(signer.bundle(SHA256))

    def target(chance: random.Random) -> None:
        content = mutate(bundle, chance)
        for statement in signatures.read_bundle(content, "here", signer.signers):
            if statement.identity:
                assert statement.subject == SHA256, "a signature holds for what was signed and nothing else"

    fuzz(target)


def test_an_event_is_refused_or_read() -> None:
    event = {
        "source": "aws.ecr",
        "time": "2026-01-01T00:00:00Z",
        "detail": {
            "result": "SUCCESS",
            "action-type": "PUSH",
            "repository-name": "a",
            "image-digest": SHA256,
            "image-tag": "v1",
        },
    }

    def target(chance: random.Random) -> None:
        found = PushEvent.parse(mutate(event, chance).decode(errors="replace"))
        assert DIGEST_PATTERN.fullmatch(found.detail.digest)

    fuzz(target)


HEADERS = [
    'Bearer realm="https://auth.test/token?a=b",service="registry",scope="repository:a:pull"',
    'Negotiate abc==, Basic realm="x \\" y" , Bearer realm=z',
    '</v2/a/tags/list?n=1&last=t>; rel="next"; title="x"',
    "<?last=t>;rel=next, <../x>; rel=prev",
    "Wed, 21 Oct 2099 07:28:00 GMT",
    "120",
]


def test_a_header_is_refused_or_read() -> None:
    parts = [
        *'<>;,="\\ \t/?&#:@[]%',
        "rel",
        "next",
        "realm",
        "Bearer",
        "\x00",
        "é",
        "9" * 40,
        "http://[",
        "//x",
    ]

    def target(chance: random.Random) -> None:
        text = list(chance.choice(HEADERS))
        for _ in range(chance.randint(1, 8)):
            at = chance.randrange(len(text) + 1)
            text[at : at + chance.randint(0, 3)] = [chance.choice(parts)]
        value = "".join(text)
        for challenge in parse_challenges(value):
            assert challenge.scheme == challenge.scheme.lower()
        waits = retry_after_seconds(value)
        assert waits is None or waits >= 0
        for parse in (
            lambda: content_length(value, "here"),
            lambda: next_page(value, "https://registry.test/v2/a/tags/list?n=1"),
        ):
            try:
                parse()
            except KiloError as error:
                require_printable(error)

    fuzz(target)


def test_no_answer_keeps_a_good_image_from_being_copied(
    shelf: Callable[[str], Shelf], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in ("kilo.registry.transport", "kilo.registry.blobs"):
        monkeypatch.setattr(f"{module}.back_off_seconds", lambda _attempt: 0.001)
    registry = HostileRegistry()

    def target(chance: random.Random) -> None:
        name = f"v{chance.randrange(2**60)}"
        destination = shelf("with")
        registry.manifests.clear()
        registry.tags.clear()
        good = registry.image(name, "good")
        attached = mutate({**registry.document("attached"), "subject": good}, chance)
        registry.put(attached, media_type=chance.choice([MANIFEST, "application/json", INDEX]))
        registry.put(mutate(registry.document("bad"), chance), "bad", MANIFEST)
        fault = chance.choice(["/manifests/bad", "/blobs/", "nothing"])

        def rule(request: Request) -> Reply | None:
            if fault not in request.path or good["digest"] in request.path or request.method != "GET":
                return None
            if "/blobs/" in request.path and digest_in_good(request.path):
                return None
            held = registry.serve(request)
            odd = chance.choice(["Content-Type", "Docker-Content-Digest", "Link", "Retry-After"])
            return Reply(held.status, held.body, [*held.headers, (odd, chance.choice(HEADERS))])

        content = registry.manifests[good["digest"]][0].decode()

        def digest_in_good(path: str) -> bool:
            return path.rpartition("/")[2] in content

        registry.rule = rule
        with Synchronizer(jobs=2, blob_jobs=2, registries=Registries(patience_seconds=2)) as synchronizer:
            sides = (Reference.parse(registry.name), Reference.parse(destination.name))
            results = {result.name: result for result in synchronizer.sync(*sides)}
        assert results["good"].outcome == "copied", results["good"].error
        assert destination.digest("good") == good["digest"]
        assert all("unexpected" not in str(result.first_error) for result in results.values())

    try:
        fuzz(target)
    finally:
        registry.close()


@pytest.mark.parametrize("already_there", [False, True])
def test_an_attachment_that_names_a_blob_with_a_wrong_size_is_left_out(
    shelf: Callable[[str], Shelf], monkeypatch: pytest.MonkeyPatch, already_there: bool
) -> None:
    for module in ("kilo.registry.transport", "kilo.registry.blobs"):
        monkeypatch.setattr(f"{module}.back_off_seconds", lambda _attempt: 0.001)
    registry, destination = HostileRegistry(), shelf("with")
    try:
        good = registry.image("v1", "good")
        sides = (Reference.parse(registry.name), Reference.parse(destination.name))
        if already_there:
            with Synchronizer(registries=Registries(patience_seconds=2)) as synchronizer:
                synchronizer.sync(*sides)
        theirs = json.loads(registry.manifests[good["digest"]][0])
        for document in (registry.document("own"), theirs):
            wrong = [{**layer, "size": 0} for layer in document["layers"]]
            registry.put({**document, "layers": wrong, "subject": good})
        with Synchronizer(registries=Registries(patience_seconds=2)) as synchronizer:
            (result,) = synchronizer.sync(*sides)
        assert result.outcome == ("present" if already_there else "copied"), result.error
        assert len(result.left_out) == 2
        assert destination.digest("good") == good["digest"]
    finally:
        registry.close()
