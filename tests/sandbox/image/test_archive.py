"""An archive of an image: its name where containerd looks, and what is refused before anything is built."""

from __future__ import annotations

import json
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kilo.errors import BadInput
from sandbox.image.archive import write_archive
from sandbox.image.cli import app
from sandbox.image.layout import Layout, files_below


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "usr").mkdir(parents=True)
    (root / "usr/file").write_text("bytes")
    made = Layout(tmp_path / "layout", datetime(2026, 1, 2, tzinfo=UTC))
    made.finish([made.add_layer(root, files_below(root))], "amd64", {}, {})
    return tmp_path / "layout"


def test_it_holds_the_layout_and_the_name(layout: Path, tmp_path: Path) -> None:
    write_archive(layout, "localhost:5000/kilo:1", tmp_path / "image.tar")
    with tarfile.open(tmp_path / "image.tar") as archive:
        archive.extractall(tmp_path / "again", filter="data")
    index = json.loads((tmp_path / "again" / "index.json").read_bytes())
    (manifest,) = index["manifests"]
    assert manifest["annotations"] == {
        "io.containerd.image.name": "localhost:5000/kilo:1",
        "org.opencontainers.image.ref.name": "1",
    }
    blobs = {path.name for path in (layout / "blobs" / "sha256").iterdir()}
    assert {path.name for path in (tmp_path / "again" / "blobs" / "sha256").iterdir()} == blobs
    assert "annotations" not in json.loads((layout / "index.json").read_bytes())["manifests"][0]


@pytest.mark.parametrize(
    "name", ["kilo", "localhost:5000/kilo", "kilo:", ":1", "kilo@sha256:0123456789abcdef"]
)
def test_a_name_without_a_tag_is_refused_before_anything_is_built(name: str, tmp_path: Path) -> None:
    arguments = ["build", "--output", str(tmp_path / "out"), "--archive", str(tmp_path / "a.tar")]
    done = CliRunner().invoke(app, [*arguments, "--name", name])
    assert isinstance(done.exception, BadInput)
    assert str(done.exception).startswith(f"--name {name}: an archive's image has a tag")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_not_there_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    for place in (tmp_path / "nowhere" / "a.tar", tmp_path):
        arguments = ["build", "--output", str(tmp_path / "out"), "--archive", str(place)]
        done = CliRunner().invoke(app, [*arguments, "--name", "kilo:1"])
        assert isinstance(done.exception, BadInput)
        assert str(done.exception).startswith(f"--archive {place}: no file can be written there")
    assert list(tmp_path.iterdir()) == []


def test_one_of_the_two_options_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["build", "--archive", str(tmp_path / "a.tar")])
    assert isinstance(done.exception, BadInput)
    assert "give both or none" in str(done.exception)
