"""What is live and since when, by the engine's record; and tags that move."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from kilo.promotion.release import Digests, Live, observe, read_live

NOW = 1_800_000_000.0
IMAGE = "registry.test/kilo/shop/orders:v1"
PINNED = f"registry.test/kilo/shop/orders@sha256:{'a' * 64}"


def update(version: int, ended: float, **changes: Any) -> dict[str, Any]:
    return {
        "version": version,
        "kind": changes.get("kind", "update"),
        "result": changes.get("result", "succeeded"),
        "endTime": datetime.fromtimestamp(ended, UTC).isoformat().replace("+00:00", "Z"),
        "environment": {
            "git.head": changes.get("head", "c0ffee"),
            "git.dirty": "true" if changes.get("dirty") else "false",
        },
        "config": {"kilo:tenants": {"value": changes.get("config", "a"), "secret": False}},
    }


def state(*images: str) -> dict[str, Any]:
    containers = [{"name": str(number), "image": image} for number, image in enumerate(images)]
    return {"deployment": {"resources": [{"inputs": {"spec": {"template": {"containers": containers}}}}]}}


def test_a_release_is_live_since_the_first_update_that_had_it() -> None:
    history = [update(4, NOW), update(3, NOW - 100), update(2, NOW - 200), update(1, NOW - 300, head="beef")]
    found = read_live(history, state(IMAGE, PINNED))
    assert (found.since, found.update, found.trouble) == (NOW - 200, 2, "")
    assert found.images == tuple(sorted((IMAGE, PINNED)))


@pytest.mark.parametrize(
    "other", [{"config": "b"}, {"head": "beef"}, {"result": "failed"}, {"kind": "destroy"}]
)
def test_whatever_differed_or_failed_in_between_starts_it_anew(other: dict[str, Any]) -> None:
    history = [update(3, NOW), update(2, NOW - 100, **other), update(1, NOW - 200)]
    assert read_live(history, state(IMAGE)).since == NOW


def test_a_refresh_changes_nothing_that_runs() -> None:
    history = [update(3, NOW, kind="refresh"), update(2, NOW - 100), update(1, NOW - 200)]
    assert read_live(history, state(IMAGE)).since == NOW - 200


@pytest.mark.parametrize("result", ["failed", "in-progress"])
def test_after_an_update_that_did_not_succeed_nothing_is_known(result: str) -> None:
    found = read_live([update(2, NOW, result=result), update(1, NOW - 100)], state(IMAGE))
    assert (found.since, found.trouble) == (
        None,
        f"the stack's last update is {result}; what runs is not known",
    )
    assert read_live([], state()).trouble == "the engine has no record of an update of the stack"


def test_changes_beside_the_commit_are_told() -> None:
    assert not read_live([update(1, NOW, dirty=True)], state()).committed
    assert read_live([update(1, NOW)], state()).committed


def test_another_image_is_another_release() -> None:
    history = [update(1, NOW)]
    assert read_live(history, state(IMAGE)).digest != read_live(history, state(PINNED)).digest


def test_a_tag_that_moved_is_found_though_nothing_was_deployed(
    connection: psycopg.Connection[tuple[Any, ...]],
) -> None:
    live = Live("c0ffee", committed=True, configuration="x", images=(IMAGE,), since=NOW)
    one, other = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
    first = observe(connection, "dev", live, Digests({IMAGE: one, PINNED: one}, ()))
    assert first.moved == []
    assert first.since == pytest.approx(time.time(), abs=60)
    assert observe(connection, "dev", live, Digests({IMAGE: one}, ())).since == first.since
    assert observe(connection, "dev", live, Digests({IMAGE: other}, ())).moved == [
        f"{IMAGE}: its tag has {other}, and had {one} when the release was first seen"
    ]
    assert observe(connection, "dev", live, Digests({}, (IMAGE,))).moved == [
        f"{IMAGE}: its tag has nothing, and had {one} when the release was first seen"
    ]
    assert observe(connection, "stage", live, Digests({IMAGE: other}, ())).moved == []
    with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
        connection.execute("UPDATE promotion_releases SET digest = %s", (other,))
