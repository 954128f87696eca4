"""The pages' server: what it answers, to whom, and that nothing of it comes from elsewhere."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import psycopg
import pytest
from starlette.testclient import TestClient

from kilo.dash.reading import Reading
from kilo.dash.server import ASSETS, make_app
from kilo.goals.goals import GOALS
from kilo.outbox import Event, enqueue
from tests.events import make_outputs

ROOT = Path(__file__).parents[3]


@pytest.fixture
def client() -> TestClient:
    outputs = make_outputs("nats://127.0.0.1:4222")
    nowhere = outputs.monitoring.model_copy(update={"prometheus_url": "http://127.0.0.1:9"})
    reading = Reading(outputs.model_copy(update={"monitoring": nowhere}))
    return TestClient(make_app(reading, ROOT / "docs" / "runbooks"), base_url="http://127.0.0.1:8390")


def test_every_page_and_panel_is_offered(client: TestClient) -> None:
    pages = client.get("/api/pages").json()["pages"]
    assert {"outbox", "tenant-objectives"} <= {page["file"] for page in pages}
    assert all(page["panels"] for page in pages)


def test_only_panels_and_tenants_of_the_stage_are_asked_for(client: TestClient) -> None:
    for path in ("nowhere/0", "outbox/99", "outbox/0?range=1y", 'usage/0?tenant=a"}or{b="'):
        assert client.get(f"/api/panel/{path}").status_code == 400, path


def test_a_prometheus_that_does_not_answer_is_named(client: TestClient) -> None:
    answer = client.get("/api/panel/outbox/0")
    assert answer.status_code == 502
    assert "Prometheus at http://127.0.0.1:9 does not answer" in answer.json()["error"]
    assert client.get("/api/fleet").status_code == 502


def test_goals_are_shown_though_nobody_answers(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    found = client.get("/api/goals").json()["goals"]
    assert [each["goal"] for each in found] == [each.name for each in GOALS]
    assert {each["verdict"] for each in found} == {"unknown"}
    assert all(each["reason"] for each in found)
    assert {one["shown"] for each in found for one in each["past"]} == {"no history yet"}


def test_a_page_elsewhere_reaches_nothing(client: TestClient) -> None:
    assert client.get("/api/pages", headers={"host": "rebound.example"}).status_code == 400


def test_an_events_life_is_shown_by_its_fingerprint(
    client: TestClient, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    with psycopg.connect(database_url) as connection:
        enqueue(connection, Event("acme", "order", "1", "order.paid", {"n": 1}, "acme/a%2F<i>"))
    found = client.get("/api/event", params={"fingerprint": "acme/a%2F<i>"}).json()
    assert [(step["where"], step["what"], step["after"]) for step in found["steps"]] == [
        ("outbox", "written", 0.0)
    ]


@pytest.mark.parametrize("fingerprint", ["", "nobody/1", "a\x00b", "x" * 256, "'; DROP TABLE outbox; --"])
def test_an_event_that_is_not_there_is_said(
    client: TestClient, database_url: str, monkeypatch: pytest.MonkeyPatch, fingerprint: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    answer = client.get("/api/event", params={"fingerprint": fingerprint})
    assert answer.status_code == 400
    assert "fingerprint is TENANT/KEY" in answer.json()["error"]


def test_without_its_database_the_page_says_what_is_missing(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    answer = client.get("/api/event?fingerprint=acme/1")
    assert (answer.status_code, "DATABASE_URL" in answer.json()["error"]) == (400, True)
    monkeypatch.setenv("DATABASE_URL", "postgresql://who:canary@127.0.0.1:9/none")
    answer = client.get("/api/event?fingerprint=acme/1")
    assert answer.status_code == 502
    assert "canary" not in answer.text


def test_whom_its_database_refuses_hears_which_role_may(
    client: TestClient, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("ALTER ROLE kilo_worker PASSWORD 'canary'")
    monkeypatch.setenv("DATABASE_URL", f"postgresql://kilo_worker:canary@{database_url.partition('@')[2]}")
    answer = client.get("/api/event?fingerprint=acme/1")
    assert (answer.status_code, answer.json()["error"]) == (
        400,
        "DATABASE_URL: permission denied for table events, as kilo_worker;"
        " `kilo dash` takes the DATABASE_URL of the Secret database-backup",
    )


def test_runbooks_are_those_of_alerts_alone(client: TestClient) -> None:
    assert client.get("/runbooks/OutboxLag").text.startswith("# OutboxLag")
    for name in ("README", "..%2f..%2fREADME", "nothing"):
        assert client.get(f"/runbooks/{name}").status_code == 404


def test_nothing_is_loaded_from_elsewhere(client: TestClient) -> None:
    index = client.get("/")
    assert "default-src 'self'" in index.headers["content-security-policy"]
    for name in ("index.html", "dash.css", "dash.js"):
        assert not re.search(r"https?://|//[a-z]+[.]", (ASSETS / name).read_text(encoding="utf-8")), name
    for source in re.findall(r'(?:src|href)="(assets/[^"]+)"', index.text):
        assert client.get(f"/{source}").status_code == 200, source


def test_the_charting_library_is_the_published_one() -> None:
    """uPlot 1.6.32 of npm, byte for byte, with its licence."""
    digests = {name: hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() for name in json.loads(KNOWN)}
    assert digests == json.loads(KNOWN)
    assert "MIT" in (ASSETS / "uPlot.LICENSE").read_text(encoding="utf-8")


KNOWN = """
{
 "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
 "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04"
}
"""
