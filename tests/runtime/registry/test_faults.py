"""Registries that are down, slow, rate limited, lying; and a mirror that is killed."""

from __future__ import annotations

import base64
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kilo.registry.client import Registries
from kilo.registry.copier import BlobPool
from kilo.registry.errors import AccessDenied, RegistryDown, Rejected, Untrustworthy
from kilo.registry.reference import Reference
from kilo.registry.sync import Synchronizer, TagResult
from kilo.registry.transport import Scope, Transport
from tests.runtime.registry.images import Shelf, digest_of
from tests.runtime.registry.proxy import Fault, Proxy, once

Shelves = Callable[[str], Shelf]
Proxied = Callable[[Shelf], tuple[Shelf, Proxy]]


def sync(
    source: Shelf, destination: Shelf, patience_seconds: float = 20, chunk: int | None = None
) -> list[TagResult]:
    with Synchronizer(registries=Registries(patience_seconds=patience_seconds)) as synchronizer:
        if chunk:
            synchronizer._blobs = BlobPool(chunk_bytes=chunk)  # pyright: ignore[reportPrivateUsage]
        return synchronizer.sync(Reference.parse(source.name), Reference.parse(destination.name))


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off without the waiting; Retry-After is kept."""
    for module in ("kilo.registry.transport", "kilo.registry.blobs"):
        monkeypatch.setattr(f"{module}.back_off_seconds", lambda _attempt: 0.01)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_a_registry_in_trouble_is_asked_again(shelf: Shelves, proxied: Proxied, status: int) -> None:
    source, destination = shelf("with"), shelf("without")
    source.image(os.urandom(100), tag="v1")
    seen, proxy = proxied(destination)
    proxy.rule = once(Fault(status=status), lambda method, _: method in {"PUT", "HEAD"}, times=3)
    assert [result.outcome for result in sync(source, seen)] == ["copied"]
    assert destination.holds_whole("v1")


def test_retry_after_pauses_every_request_to_that_registry(shelf: Shelves, proxied: Proxied) -> None:
    source, destination = shelf("with"), shelf("without")
    for number in range(6):
        source.image(os.urandom(100), tag=f"v{number}")
    seen, proxy = proxied(destination)
    moments: list[float] = []
    fault = Fault(status=429, headers={"Retry-After": "1"})
    limited = once(fault, lambda method, path: method == "POST")

    def rule(method: str, path: str) -> Fault | None:
        found = limited(method, path)
        moments.append(time.monotonic())
        if found:
            moments.clear()
        return found

    proxy.rule = rule
    begun = time.monotonic()
    assert {result.outcome for result in sync(source, seen)} == {"copied"}
    assert time.monotonic() - begun > 1
    # What was on its way when the limit was hit may still arrive; then there is silence for a second.
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert max(gaps, default=1) > 0.5 or moments[0] - begun > 0.5


def test_patience_ends_and_the_failure_is_named(shelf: Shelves, proxied: Proxied) -> None:
    source, destination = shelf("with"), shelf("without")
    source.image(b"x", tag="v1")
    seen, proxy = proxied(destination)
    proxy.rule = lambda method, path: Fault(status=503) if method == "POST" else None
    [result] = sync(source, seen, patience_seconds=0.3)
    assert result.outcome == "failed"
    assert isinstance(result.error, RegistryDown)
    assert "HTTP 503" in str(result.error)
    assert destination.tags() == set()


def test_a_host_without_an_address_is_said_so() -> None:
    repository = Registries(patience_seconds=0.3).repository(Reference.parse("registry.invalid/kilo/app"))
    with pytest.raises(RegistryDown, match="no address is known for that name"):
        repository.tags()


def test_a_wait_beyond_the_patience_is_not_begun(shelf: Shelves, proxied: Proxied) -> None:
    source, destination = shelf("with"), shelf("without")
    source.image(b"x", tag="v1")
    seen, proxy = proxied(destination)
    proxy.rule = lambda method, path: (
        Fault(status=429, headers={"Retry-After": "3600"}) if method == "POST" else None
    )
    [result] = sync(source, seen, patience_seconds=5)
    assert isinstance(result.error, RegistryDown)


def test_a_blob_with_other_bytes_is_refused(shelf: Shelves, proxied: Proxied) -> None:
    source, destination = shelf("with"), shelf("without")
    layer = os.urandom(5000)
    source.image(layer, tag="v1")
    seen, proxy = proxied(source)
    changed = Fault(spoil=lambda body: bytes([body[0] ^ 1]) + body[1:])
    proxy.rule = lambda method, path: (
        changed if method == "GET" and f"/blobs/{digest_of(layer)}" in path else None
    )
    [result] = sync(seen, destination)
    assert isinstance(result.error, Untrustworthy)
    assert digest_of(layer) in str(result.error)
    assert destination.tags() == set()
    assert proxy.count("GET", digest_of(layer)) == 3, "a lie is not believed at once, but asked about again"


@pytest.mark.parametrize("size", [5000, 3_000_000])
def test_a_large_blob_with_other_bytes_is_never_committed(
    shelf: Shelves, proxied: Proxied, size: int
) -> None:
    source, destination = shelf("with"), shelf("without")
    layer = os.urandom(size)
    source.image(layer, tag="v1")
    seen, proxy = proxied(source)
    target, watched = proxied(destination)
    swapped = Fault(spoil=lambda body: body[:-1] + bytes([body[-1] ^ 1]))
    proxy.rule = lambda method, path: swapped if method == "GET" and digest_of(layer) in path else None
    [result] = sync(seen, target)
    assert isinstance(result.error, Untrustworthy)
    assert not [path for method, path in watched.asked if method == "PUT" and digest_of(layer) in path]


def test_a_truncated_blob_is_refused(shelf: Shelves, proxied: Proxied) -> None:
    source, destination = shelf("with"), shelf("without")
    layer = os.urandom(2_000_000)
    source.image(layer, tag="v1")
    seen, proxy = proxied(source)
    short = Fault(spoil=lambda body: body[:-10])
    proxy.rule = lambda method, path: short if method == "GET" and digest_of(layer) in path else None
    [result] = sync(seen, destination)
    assert isinstance(result.error, Untrustworthy)
    assert "1999990 bytes offered where 2000000 are due" in str(result.error)
    assert destination.tags() == set()


def test_a_manifest_that_is_not_its_digest_is_refused(shelf: Shelves, proxied: Proxied) -> None:
    source, destination = shelf("with"), shelf("without")
    source.image(b"x", tag="v1")
    seen, proxy = proxied(source)
    spoiled = Fault(spoil=lambda body: body.replace(b'"schemaVersion": 2', b'"schemaVersion":  2'))
    proxy.rule = lambda method, path: spoiled if method == "GET" and "/manifests/" in path else None
    [result] = sync(seen, destination)
    assert isinstance(result.error, Untrustworthy)
    assert destination.tags() == set()


def test_an_upload_that_is_interrupted_goes_on_where_it_was(shelf: Shelves, proxied: Proxied) -> None:
    source, destination = shelf("without"), shelf("without")
    layer = os.urandom(9_000_000)
    source.image(layer, tag="v1")
    origin, read = proxied(source)
    target, written = proxied(destination)
    chunks = itertools.count(1)
    written.rule = lambda method, _: Fault(status=503) if method == "PATCH" and next(chunks) == 2 else None
    [result] = sync(origin, target, chunk=4_000_000)
    assert result.outcome == "copied", result.error
    assert destination.holds_whole("v1")
    assert written.count("POST") == 2, "one upload a blob"
    assert written.count("PATCH") == 4, "only the second chunk was sent again"
    assert read.count("GET", digest_of(layer)) == 2


@pytest.mark.parametrize("kind", ["with", "without"])
def test_a_torn_chunk_begins_the_blob_again(shelf: Shelves, proxied: Proxied, kind: str) -> None:
    source, destination = shelf("without"), shelf(kind)
    layer = os.urandom(9_000_000)
    source.image(layer, tag="v1")
    target, written = proxied(destination)
    chunks = itertools.count(1)
    torn = Fault(cut_request_after=1_000_000)
    written.rule = lambda method, _: torn if method == "PATCH" and next(chunks) == 2 else None
    [result] = sync(source, target, chunk=4_000_000)
    assert result.outcome == "copied", result.error
    assert destination.holds_whole("v1")
    assert written.count("POST") == 3


def test_a_source_that_breaks_off_is_read_on(shelf: Shelves, proxied: Proxied) -> None:
    source, destination = shelf("without"), shelf("with")
    layer = os.urandom(9_000_000)
    source.image(layer, tag="v1")
    origin, read = proxied(source)
    target, written = proxied(destination)
    broken = Fault(cut_answer_after=5_000_000)
    read.rule = once(broken, lambda method, path: method == "GET" and digest_of(layer) in path)
    [result] = sync(origin, target, chunk=4_000_000)
    assert result.outcome == "copied", result.error
    assert destination.holds_whole("v1")
    assert read.count("GET", digest_of(layer)) == 2
    assert (written.count("POST"), written.count("PATCH")) == (2, 3), "the destination noticed nothing"


def test_a_login_that_runs_out_in_the_middle_of_an_upload_is_renewed(
    shelf: Shelves, proxied: Proxied, tmp_path: Path
) -> None:
    source, destination = shelf("with"), shelf("without")
    layer = os.urandom(6_000_000)
    source.image(layer, tag="v1")
    seen, proxy = proxied(destination)
    (tmp_path / "docker").mkdir()
    auth = base64.b64encode(b"me:s3cret").decode()
    (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": {proxy.host: {"auth": auth}}}))
    expired = Fault(status=401, headers={"WWW-Authenticate": 'Basic realm="registry"'})
    proxy.rule = once(expired, lambda method, _: method == "PATCH" and proxy.count("PATCH") == 2)
    [result] = sync(source, seen, chunk=2_000_000)
    assert (result.outcome, result.error) == ("copied", None)
    assert destination.holds_whole("v1")
    assert proxy.count("POST", "/uploads/") == 2, "one upload a blob: nothing starts over"
    assert proxy.authorizations[-1] == f"Basic {auth}"


def test_a_login_stays_with_its_host(shelf: Shelves, proxied: Proxied) -> None:
    _, proxy = proxied(shelf("with"))
    for base_url in (proxy.url, proxy.url[:-1]):  # the second only begins as the proxy's address does
        transport = Transport("registry.test", base_url)
        transport.authorizations.set(Scope("a", "pull"), "Basic secret")
        transport.send("GET", f"{proxy.url}/v2/", Scope("a", "pull"))
    assert proxy.authorizations == ["Basic secret", None]


def test_a_token_service_in_trouble_is_asked_again(shelf: Shelves, proxied: Proxied) -> None:
    source, destination = shelf("with"), shelf("without")
    source.image(b"bits", tag="v1")
    seen, proxy = proxied(destination)
    tokens = Proxy(destination.url)
    # The service answers 503 twice, then 404: no token, and that is final.
    tokens.rule = once(Fault(status=503), lambda _method, path: "/token" in path, times=2)
    challenge = f'Bearer realm="{tokens.url}/token",service="registry"'
    proxy.rule = lambda _method, _path: Fault(status=401, headers={"WWW-Authenticate": challenge})
    with pytest.raises(AccessDenied, match="no token"):
        Registries(patience_seconds=20).repository(Reference.parse(seen.name)).resolve("v1")
    assert tokens.count("GET", "/token") == 3
    tokens.close()


def test_a_fallback_tag_that_may_not_move_says_what_to_do(shelf: Shelves, proxied: Proxied) -> None:
    source, destination = shelf("with"), shelf("without")
    image = source.image(b"bits", tag="v1")
    source.artifact(image, "application/vnd.example.signature", b"first")
    sync(source, destination)
    source.artifact(image, "application/vnd.example.scan", b"second")
    seen, proxy = proxied(destination)
    fallback = image["digest"].replace(":", "-")
    proxy.rule = lambda method, path: Fault(status=409) if method == "PUT" and fallback in path else None
    [result] = sync(source, seen)
    assert isinstance(result.error, Rejected)
    assert "make its tags mutable for the mirror alone" in str(result.error)
    assert destination.digest("v1") == image["digest"]


def test_a_tag_that_may_not_move_is_reported(shelf: Shelves, proxied: Proxied) -> None:
    source, destination = shelf("with"), shelf("without")
    source.image(b"new", tag="v1")
    destination.image(b"old", tag="v1")
    old = destination.digest("v1")
    seen, proxy = proxied(destination)
    proxy.rule = lambda method, path: Fault(status=409) if (method, path[-3:]) == ("PUT", "/v1") else None
    [result] = sync(source, seen)
    assert isinstance(result.error, Rejected)
    assert destination.digest("v1") == old


def test_denied_is_said_at_once(shelf: Shelves, proxied: Proxied) -> None:
    source, destination = shelf("with"), shelf("without")
    source.image(b"x", tag="v1")
    seen, proxy = proxied(destination)
    proxy.rule = lambda method, path: Fault(status=403) if method == "POST" else None
    [result] = sync(source, seen)
    assert isinstance(result.error, AccessDenied)
    assert proxy.count("POST") <= 2, "one a blob"


def test_requests_at_once_are_limited(shelf: Shelves, proxied: Proxied) -> None:
    source, destination = shelf("with"), shelf("without")
    for number in range(30):
        source.image(f"{number}".encode(), tag=f"v{number}")
    seen, proxy = proxied(destination)
    proxy.rule = lambda _method, _path: Fault(delay_seconds=0.01)
    with Synchronizer(jobs=16, registries=Registries(connections=3)) as synchronizer:
        synchronizer.sync(Reference.parse(source.name), Reference.parse(seen.name))
    assert proxy.most_under_way <= 3
    assert len(destination.tags()) == 30


def test_killed_at_any_instant_no_tag_is_half_an_image(
    shelf: Shelves, proxied: Proxied, tmp_path: Path
) -> None:
    source, destination = shelf("with"), shelf("without")
    for number in range(3):
        children = [source.image(os.urandom(400_000), os.urandom(2_000_000)) for _ in range(2)]
        index = source.index(*children, tag=f"v{number}")
        source.artifact(index, "application/spdx+json", f"sbom {number}".encode())
    seen, proxy = proxied(destination)
    proxy.rule = lambda _method, _path: Fault(delay_seconds=0.01)
    command = [sys.executable, "-c", "from kilo.cli import main; raise SystemExit(main())"]
    arguments = ["registry", "sync", source.name, seen.name, "--jobs", "2", "--json"]
    killed = 0
    for instant in (0.45, 0.6, 0.75, 0.9, 1.1):
        process = subprocess.Popen(
            [*command, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(instant)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        for tag in destination.tags():
            if not tag.startswith("sha256-"):
                assert destination.holds_whole(tag), f"{tag} is half an image after {instant} s"
                digest = destination.digest(tag)
                assert digest
                assert destination.referrers(digest) == source.referrers(digest)
    assert killed, "no run was killed: the instants are too late for this machine"
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {f"v{number}" for number in range(3)} <= destination.tags()
    repeated = [path for method, path in proxy.asked if method == "PUT" and "digest=" in path]
    finished = {path.rpartition("digest=")[2] for path in repeated}
    assert len(repeated) - len(finished) <= 2 * killed, "only blobs that were under way are sent again"
