"""The tour's image: pushed as a pipeline does, whole where the mirror works, and told where it does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from kilo.contract import SignersOutputs, StackOutputs
from kilo.errors import Unreachable
from kilo.registry.client import Registries
from kilo.registry.drift import Kind
from kilo.registry.reference import Reference
from kilo.registry.sync import Synchronizer
from kilo.tour import artifacts
from kilo.tour.artifacts import Artifacts, as_table, show_artifacts
from kilo.tour.image import push_and_compare
from tests.events import make_outputs
from tests.runtime.registry.images import Shelf

Shelves = Callable[[str], Shelf]


def outputs_of(primary: Shelf, secondary: Shelf, **more: object) -> StackOutputs:
    """Outputs whose repository ``app`` lies below both shelves."""
    outputs = make_outputs()
    sides = {
        "primary": outputs.registries.primary.model_copy(update={"url": primary.name}),
        "secondary": outputs.registries.secondary.model_copy(update={"url": secondary.name}),
    }
    registries = outputs.registries.model_copy(update={**sides, "repositories": ("app",), **more})
    return outputs.model_copy(update={"registries": registries})


def below(shelf: Shelf) -> Shelf:
    return Shelf(shelf.url, f"{shelf.repository}/app")


def mirror(source: Shelf, destination: Shelf, stopping: threading.Event) -> None:
    """What the worker does, by looking rather than by events."""
    with Synchronizer() as synchronizer:
        while not stopping.wait(0.1):
            synchronizer.sync_repository(
                Reference.parse(source.name), Reference.parse(destination.name), may_be_missing=True
            )


@pytest.mark.parametrize(
    ("here", "there"), [("without", "without"), ("without", "with"), ("with", "without")]
)
def test_an_image_arrives_whole_and_at_parity(shelf: Shelves, here: str, there: str) -> None:
    primary, secondary = shelf(here), shelf(there)
    stopping = threading.Event()
    worker = threading.Thread(target=mirror, args=(below(primary), below(secondary), stopping))
    worker.start()
    try:
        result = push_and_compare(outputs_of(primary, secondary), timeout_seconds=60)
    finally:
        stopping.set()
        worker.join()
    assert (result.missing, result.parity.differences) == ((), ())
    assert result.tag_lag_seconds is not None
    assert result.whole_lag_seconds is not None
    assert (result.attestations, result.parity.claims) == (4, 4)
    name, tag = result.image.split(":")
    assert name == "app"
    assert below(secondary).digest(tag) == result.digest
    assert below(secondary).holds_whole(tag)
    index = below(secondary).manifest(tag)
    assert index
    subjects = [result.digest, *(child["digest"] for child in index["manifests"])]
    assert [len(below(secondary).referrers(subject)) for subject in subjects] == [2, 1, 1]


def test_an_image_that_nobody_mirrors_is_told(shelf: Shelves) -> None:
    begun = time.monotonic()
    result = push_and_compare(outputs_of(shelf("without"), shelf("without")), timeout_seconds=1)
    assert time.monotonic() - begun >= 1
    assert (result.tag_lag_seconds, result.whole_lag_seconds) == (None, None)
    assert result.missing == ("the tag",)
    assert {found.kind for found in result.parity.differences} == {Kind.MISSING}
    assert result.document()["parity"] is False


def test_what_fails_is_told_and_does_not_stop_the_rest(
    shelf: Shelves, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def fail(*_: object, **__: object) -> None:
        asked.append("backup")
        msg = "no store"
        raise Unreachable(msg)

    monkeypatch.setattr(artifacts, "back_up_and_drill", fail)
    down = Shelf("http://127.0.0.1:1", "kilo")
    monkeypatch.setattr("kilo.tour.image.Registries", lambda **_: Registries(patience_seconds=0.1))
    result = show_artifacts(outputs_of(down, shelf("with")), "postgresql://", timeout_seconds=1)
    assert asked == ["backup"]
    assert result.image is None
    assert [problem.partition(":")[0] for problem in result.problems] == ["image", "backup"]
    assert "127.0.0.1:1" in result.problems[0]


def test_a_stage_that_asks_for_signatures_gets_no_unsigned_image(
    shelf: Shelves, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        msg = "no store"
        raise Unreachable(msg)

    monkeypatch.setattr(artifacts, "back_up_and_drill", fail)
    primary = shelf("with")
    outputs = outputs_of(primary, shelf("with"), signers=SignersOutputs(keys=("a key",)))
    assert show_artifacts(outputs, "postgresql://", timeout_seconds=1).image is None
    assert below(primary).tags() == set()


def test_problems_are_the_last_lines() -> None:
    console = Console(width=100, record=True)
    with console.capture() as captured:
        console.print(as_table(Artifacts(None, None, ("image: no such registry",))))
    assert captured.get().split() == ["failed", "image:", "no", "such", "registry"]
