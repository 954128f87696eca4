"""Names, redirections and logins."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from kilo.errors import BadInput
from kilo.registry.credentials import find_login
from kilo.registry.headers import retry_after_seconds
from kilo.registry.reference import Reference, resolve

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ghcr.io/org/app:v1", Reference("ghcr.io", "org/app", "v1")),
        ("127.0.0.1:5000/app", Reference("127.0.0.1:5000", "app")),
        (f"localhost:1/a/b@{DIGEST}", Reference("localhost:1", "a/b", None, DIGEST)),
        (f"example.com/a:1.2_x@{DIGEST}", Reference("example.com", "a", "1.2_x", DIGEST)),
    ],
)
def test_references(text: str, expected: Reference) -> None:
    assert Reference.parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("app", "no registry host"),
        ("library/app", "no registry host"),
        ("ghcr.io/Org/app", "no repository name"),
        ("ghcr.io/app:", "no tag"),
        ("ghcr.io/app:a b", "no tag"),
        ("ghcr.io/app@sha256:12", "no digest"),
    ],
)
def test_a_bad_reference_says_which_part(text: str, wrong: str) -> None:
    with pytest.raises(BadInput, match=wrong):
        Reference.parse(text)


def test_redirections_take_the_longest_prefix(tmp_path: Path) -> None:
    path = tmp_path / "registries.conf"
    path.write_text(
        '[[registry]]\nprefix = "example.com"\nlocation = "mirror.example.org"\n'
        '[[registry]]\nprefix = "example.com/team"\nlocation = "127.0.0.1:5000/other"\ninsecure = true\n'
    )
    environment = {"CONTAINERS_REGISTRIES_CONF": str(path)}
    team = resolve("example.com/team/app", environment)
    assert (team.base_url, team.repository) == ("http://127.0.0.1:5000", "other/app")
    rest = resolve("example.com/teamwork", environment)
    assert (rest.base_url, rest.repository) == ("https://mirror.example.org", "teamwork")
    assert resolve("example.company/app", environment).base_url == "https://example.company"
    with pytest.raises(BadInput, match=r"nowhere\.conf"):
        resolve("a.b/c", {"CONTAINERS_REGISTRIES_CONF": "nowhere.conf"})


def test_plain_http_is_for_loopback_alone() -> None:
    assert resolve("localhost:5000/a", {}).base_url == "http://localhost:5000"
    assert resolve("127.8.8.8/a", {}).base_url == "http://127.8.8.8"
    assert resolve("127.0.0.1.example.com/a", {}).base_url == "https://127.0.0.1.example.com"


def test_docker_logins(tmp_path: Path) -> None:
    auth = base64.b64encode(b"me:s3cret").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"r.example.com": {"auth": auth}}}))
    environment = {"DOCKER_CONFIG": str(tmp_path)}
    login = find_login("r.example.com", encrypted=True, environment=environment)
    assert login
    assert login.basic() == f"Basic {auth}"
    assert "s3cret" not in repr(login)
    assert find_login("other.example.com", encrypted=True, environment=environment) is None


def test_a_cloud_identity_is_not_used_over_plain_http(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("kilo.registry.credentials._ecr_login", pytest.fail)
    host = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
    assert find_login(host, encrypted=False, environment={"DOCKER_CONFIG": str(tmp_path)}) is None


def test_retry_after_in_seconds_and_as_a_date() -> None:
    assert retry_after_seconds("7") == 7
    assert retry_after_seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after_seconds("soon") is None
    assert retry_after_seconds(None) is None
