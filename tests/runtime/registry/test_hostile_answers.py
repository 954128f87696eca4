"""Sizes, waits, logins and headers that lie: each has its end, and costs no other repository."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from kilo.cli import main
from kilo.registry.authorization import Authorizations, Scope
from kilo.registry.client import Registries
from kilo.registry.credentials import Login
from kilo.registry.errors import AccessDenied, RegistryDown, Unreadable, Untrustworthy
from kilo.registry.media import ACCEPTED
from kilo.registry.reference import Reference
from tests.runtime.registry.hostile import HostileRegistry, Reply, Request, sync
from tests.runtime.registry.images import MANIFEST, Shelf, digest_of

Shelves = Callable[[str], Shelf]
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("kilo.registry.transport", "kilo.registry.blobs"):
        monkeypatch.setattr(f"{module}.back_off_seconds", lambda _attempt: 0.01)


@pytest.mark.parametrize("declared", [True, False])
def test_a_manifest_of_three_gigabytes_is_not_read(
    hostile: HostileRegistry, shelf: Shelves, declared: bool
) -> None:
    destination = shelf("with")
    image = hostile.image("huge", "huge")
    hostile.image("fine", "fine")
    sent = [0]

    def endless() -> Iterator[bytes]:
        for _ in range(3000):
            sent[0] += 1_000_000
            yield b" " * 1_000_000

    def huge(request: Request) -> Reply | None:
        asked = request.path.rpartition("/")[2]
        if request.method == "GET" and "/manifests/" in request.path and asked in {"huge", image["digest"]}:
            headers = [("Content-Type", MANIFEST)]
            if declared:
                headers.append(("Content-Length", "3000000000"))
            return Reply(200, headers=headers, pieces=endless)
        return None

    hostile.rule = huge
    results = sync(hostile, destination)
    assert "at most 4194304 are read" in str(results["huge"].error)
    assert results["fine"].outcome == "copied"
    assert sent[0] < 100_000_000


@pytest.mark.parametrize("length", ["abc", "-1", "1e3", "9" * 30, "+5"])
def test_a_content_length_that_is_no_number_is_a_finding(
    hostile: HostileRegistry, shelf: Shelves, length: str
) -> None:
    destination = shelf("with")
    for tag in ("bad", "fine"):
        # Of its own: a blob that the destination has already is never asked for.
        hostile.image(f"{tag}, {length} bytes long", tag)
    layer = json.loads(hostile.manifests[hostile.tags["bad"]][0])["layers"][0]["digest"]

    def spoilt(request: Request) -> Reply | None:
        if layer in request.path and request.method == "GET":
            return Reply(200, hostile.blobs[layer], [("Content-Length", length), ("Connection", "close")])
        return None

    hostile.rule = spoilt
    results = sync(hostile, destination)
    assert isinstance(results["bad"].error, Unreadable | Untrustworthy | RegistryDown)
    assert results["fine"].outcome == "copied"


@pytest.mark.parametrize(
    ("declared", "more"), [(False, -1_499_000), (False, 1), (True, -1_499_000), (True, 1)]
)
def test_a_source_that_breaks_off_and_ignores_ranges_is_given_up(
    hostile: HostileRegistry, shelf: Shelves, declared: bool, more: int
) -> None:
    """Each answer starts over, and ends short of where the first one did, or a byte further than the last."""
    destination = shelf("with")
    layer = os.urandom(3_000_000)
    document = {**hostile.document("x"), "layers": [hostile.blob(layer, LAYER)]}
    hostile.put(document, "v1")
    asked = [0]

    def breaks(request: Request) -> Reply | None:
        if digest_of(layer) not in request.path or request.method != "GET":
            return None
        asked[0] += 1
        first = "range" not in request.headers
        end = 1_500_000 + (0 if first else asked[0] * more if more > 0 else more)
        headers = [("Content-Length", str(len(layer)))] if first or declared else []
        return Reply(200, headers=headers, pieces=lambda: (layer[:end],))

    hostile.rule = breaks
    error = sync(hostile, destination)["v1"].error
    assert isinstance(error, Untrustworthy | RegistryDown)
    assert asked[0] < 40


def test_a_source_that_trickles_is_given_up(
    hostile: HostileRegistry, shelf: Shelves, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = shelf("with")
    layer = os.urandom(100_000)
    hostile.put({**hostile.document("x"), "layers": [hostile.blob(layer, LAYER)]}, "v1")
    monkeypatch.setattr("kilo.registry.blobs.longest_seconds", lambda *_: 0.5)
    going_on = threading.Event()

    def trickle() -> Iterator[bytes]:
        for number in range(len(layer)):
            going_on.wait(0.02)
            yield layer[number : number + 1]

    def slow(request: Request) -> Reply | None:
        if digest_of(layer) in request.path and request.method == "GET":
            return Reply(200, headers=[("Content-Length", str(len(layer)))], pieces=trickle)
        return None

    hostile.rule = slow
    assert "came in time" in str(sync(hostile, destination)["v1"].error)
    going_on.set()


@pytest.mark.parametrize("asked", ["0", "-5", "1.5", "soon", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_a_registry_that_asks_for_no_wait_gets_one(
    hostile: HostileRegistry, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.setattr("kilo.registry.transport.back_off_seconds", lambda _attempt: 0.1)
    hostile.rule = lambda _: Reply(503, headers=[("Retry-After", asked)])
    with pytest.raises(RegistryDown):
        Registries(patience_seconds=1).repository(Reference.parse(hostile.name)).tags()
    assert len(hostile.asked) <= 10


def test_a_registry_that_asks_for_ten_years_is_asked_again(
    hostile: HostileRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kilo.registry.transport.LONGEST_PAUSE_SECONDS", 0.3)
    hostile.image("v1", "v1")
    ten_years = Reply(429, headers=[("Retry-After", "315360000")])
    hostile.rule = lambda _: ten_years if len(hostile.asked) == 1 else None
    repository = Registries(patience_seconds=10).repository(Reference.parse(hostile.name))
    assert repository.tags().names == {"v1"}


def logged_in(directory: Path, host: str) -> str:
    (directory / "docker").mkdir(exist_ok=True)
    auth = base64.b64encode(b"me:s3cret").decode()
    (directory / "docker" / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    return auth


@pytest.mark.parametrize(
    "challenges",
    [
        ['Bearer realm="http://HOST/token",service="s"'],
        ['bearer Realm="http://HOST/token" , SERVICE=s'],
        ['Basic realm="x, y", Bearer realm="http://HOST/token",service="s"'],
        ["Negotiate", 'Bearer realm="http://HOST/token",service="s"'],
        ['Negotiate dG9rZW4=, Bearer realm="http://HOST/token",service="s",error="a, b=c"'],
        ['Bearer realm="http://HOST/token?account=x",service="s"'],
    ],
)
def test_a_login_is_found_in_whatever_is_offered(
    hostile: HostileRegistry, tmp_path: Path, challenges: list[str]
) -> None:
    hostile.image("v1", "v1")
    headers = [("WWW-Authenticate", text.replace("HOST", hostile.host)) for text in challenges]

    def asks(request: Request) -> Reply | None:
        if request.path == "/token":
            return Reply(200, b'{"token": "T"}')
        return None if request.headers.get("authorization") == "Bearer T" else Reply(401, headers=headers)

    hostile.rule = asks
    auth = logged_in(tmp_path, hostile.host)
    repository = Registries(patience_seconds=5).repository(Reference.parse(hostile.name))
    assert repository.tags().names == {"v1"}
    [token] = [request for request in hostile.asked if request.path == "/token"]
    assert token.headers["authorization"] == f"Basic {auth}"
    assert "scope=repository%3Aapp%3Apull" in token.query
    assert "service=s" in token.query
    assert ("account=x&" in token.query) == ("account" in challenges[0])


@pytest.mark.parametrize(
    "body", [b"[]", b'{"token": 5}', b'{"token": "a\\r\\nb: c"}', b"[" * 9000, b'{"token": ""}']
)
def test_a_token_that_is_none_is_access_denied(hostile: HostileRegistry, body: bytes) -> None:
    challenge = f'Bearer realm="http://{hostile.host}/token",service="s"'
    hostile.rule = lambda request: (
        Reply(200, body)
        if request.path == "/token"
        else Reply(401, headers=[("WWW-Authenticate", challenge)])
    )
    with pytest.raises(AccessDenied, match="no token"):
        Registries(patience_seconds=2).repository(Reference.parse(hostile.name)).tags()


@pytest.mark.parametrize("realm", ["/token", "ftp://x/y", "http://[", "file:///etc/passwd", ""])
def test_a_realm_that_is_no_url_is_access_denied(hostile: HostileRegistry, realm: str) -> None:
    challenge = f'Bearer realm="{realm}",service="s"'
    hostile.rule = lambda _: Reply(401, headers=[("WWW-Authenticate", challenge)])
    with pytest.raises(AccessDenied):
        Registries(patience_seconds=2).repository(Reference.parse(hostile.name)).tags()


def test_general_types_are_asked_for_by_name(hostile: HostileRegistry) -> None:
    hostile.image("v1", "v1")
    repository = Registries(patience_seconds=2).repository(Reference.parse(hostile.name))
    assert repository.resolve("v1")
    assert hostile.asked[-1].headers["accept"] == ACCEPTED


def test_the_commands_name_what_is_wrong_and_exit_with_1(
    hostile: HostileRegistry, shelf: Shelves, capsys: pytest.CaptureFixture[str]
) -> None:
    destination = shelf("with")
    image = hostile.image("v1", "v1")
    bad = hostile.put(json.dumps({**hostile.document("bad"), "subject": image, "layers": 5}).encode())
    assert main(["registry", "sync", "--json", hostile.name, destination.name]) == 1
    printed, said = capsys.readouterr()
    [result] = json.loads(printed)
    assert (result["outcome"], result["error"]) == ("copied", None)
    assert bad["digest"] in result["left_out"][0]
    assert "layers is 5, and should be an array" in said
    assert main(["registry", "diff", "--json", hostile.name, destination.name]) == 1
    printed, said = capsys.readouterr()
    assert [found["kind"] for found in json.loads(printed)["findings"]] == ["UNREADABLE"]
    assert "not all of it could be read" in said
    assert main(["registry", "diff", hostile.name, destination.name]) == 1
    assert "identical" not in capsys.readouterr().out


def test_one_repository_stops_no_other(
    hostile: HostileRegistry, shelf: Shelves, capsys: pytest.CaptureFixture[str]
) -> None:
    destination = shelf("with")
    hostile.image("v1", "v1")
    names = ["pre/good", "pre/lists-badly", "pre/../../x", 5, "elsewhere"]

    def rule(request: Request) -> Reply | None:
        if request.path == "/v2/_catalog":
            return Reply(200, json.dumps({"repositories": names}).encode())
        if request.path == "/v2/pre/lists-badly/tags/list":
            return Reply(200, b'{"tags": 5}')
        return None

    hostile.rule = rule
    prefixes = (f"{hostile.host}/pre", destination.name)
    for command, part in (("sync", "results"), ("diff", "findings")):
        assert main(["registry", command, "--json", *prefixes, "-r", "*"]) == 1, part
        printed = json.loads(capsys.readouterr().out)
        said = printed if command == "sync" else printed["findings"]
        wrong = [str(entry.get("error") or entry.get("detail")) for entry in said]
        assert sum("is no name of such" in text for text in wrong) == 2
        assert sum("tags is 5" in text for text in wrong) == 1
    assert Shelf(destination.url, f"{destination.repository}/good").tags() == {"v1"}


def test_a_blob_of_nine_exabytes_is_not_begun(hostile: HostileRegistry, shelf: Shelves) -> None:
    document = hostile.document("x")
    document["layers"][0]["size"] = 2**62
    hostile.put(document, "v1")
    assert "no blob has so many" in str(sync(hostile, shelf("with"))["v1"].error)


@pytest.mark.parametrize("first", ["https://auth.test/token", None])
def test_a_token_service_in_plain_http_is_refused_whenever_it_is_named(
    monkeypatch: pytest.MonkeyPatch, first: str | None
) -> None:
    monkeypatch.setattr("kilo.registry.authorization.find_login", lambda *_, **__: Login("me", "s3cret"))
    asked: list[str] = []

    def fetch(url: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        asked.append(url)
        return 200, b'{"token": "T"}'

    authorizations = Authorizations("registry.test", "https://registry.test", fetch, lambda _: False)
    if first:
        authorizations.renew(Scope("a", "pull"), f'Bearer realm="{first}"', None)
    with pytest.raises(AccessDenied, match="plain HTTP"):
        authorizations.renew(Scope("b", "pull"), 'Bearer realm="http://auth.test/token"', None)
    assert all(url.startswith("https://") for url in asked)


def test_a_clouds_login_is_looked_for_again_where_it_may_not_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry in plain HTTP: what was found for an encrypted one is not used for it."""
    looked_for: list[bool] = []

    def find(_host: str, *, encrypted: bool) -> Login | None:
        looked_for.append(encrypted)
        return Login("cloud", "token") if encrypted else None

    monkeypatch.setattr("kilo.registry.authorization.find_login", find)
    sent: list[Mapping[str, str]] = []

    def fetch(_url: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        sent.append(headers)
        return 200, b'{"token": "T"}'

    authorizations = Authorizations("127.0.0.1", "http://127.0.0.1", fetch, lambda _: False)
    for scope, realm in (("a", "https://auth.test/token"), ("b", "http://auth.test/token")):
        authorizations.renew(Scope(scope, "pull"), f'Bearer realm="{realm}"', None)
    assert (looked_for, sent) == ([False], [{}, {}])
