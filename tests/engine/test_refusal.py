"""A wrong account, project or namespace is refused before anything is registered: by the real engine.

What is refused, and by which words, tests/infra/target has without an engine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.cluster.client import connect
from sandbox.rehearsal import Previewed, Rehearsal
from sandbox.stages import ACCOUNT_VARIABLE, PROJECT_NUMBER_VARIABLE

ROOT = Path(__file__).parents[2]


pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def place() -> Iterator[Rehearsal]:
    with Rehearsal() as rehearsal:
        yield rehearsal


def previewed(place: Rehearsal, monkeypatch: pytest.MonkeyPatch, **elsewhere: str) -> Previewed:
    from sandbox import rehearsal

    right = rehearsal.identity_of(ROOT, "prod")
    with monkeypatch.context() as patch:
        patch.setattr(rehearsal, "identity_of", lambda *_: right | elsewhere)
        return place.preview(ROOT, "prod")


def registered(said: Previewed) -> list[str]:
    events = [json.loads(line) for line in said.events.splitlines()]
    urns = [event["resourcePreEvent"]["metadata"]["urn"] for event in events if "resourcePreEvent" in event]
    return [urn for urn in urns if "pulumi:pulumi:Stack" not in urn and "pulumi:providers:" not in urn]


def test_another_account_and_another_project_are_refused(
    place: Rehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = previewed(place, monkeypatch, **{ACCOUNT_VARIABLE: "999999999999"})
    assert said.refused
    assert "999999999999" in said.events + said.said
    assert registered(said) == []
    said = previewed(place, monkeypatch, **{PROJECT_NUMBER_VARIABLE: "7"})
    assert said.refused
    assert "project kilo-prod has the number 7" in said.events + said.said
    assert registered(said) == []


def test_a_namespace_that_is_another_stages_is_refused(
    place: Rehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(place._cluster.url) as cluster:  # pyright: ignore[reportPrivateUsage]
        path = "/api/v1/namespaces/kilo-prod"
        for labels, whose in (({"kilo.platform/stage": "stage"}, "is stage's"), ({}, "was made by somebody")):
            body = {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": "kilo-prod", "labels": labels},
            }
            applied = cluster.patch(
                path,
                params={"fieldManager": "somebody", "force": "true"},
                content=json.dumps(body),
                headers={"content-type": "application/apply-patch+yaml"},
            )
            assert applied.is_success
            said = previewed(place, monkeypatch)
            assert said.refused
            assert f"namespace 'kilo-prod' of context 'kilo-prod' {whose}" in said.events + said.said
            assert registered(said) == []
