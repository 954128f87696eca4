"""An image made of another's layers, read as any client reads one."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sandbox.image.derived import derive
from sandbox.image.layout import Layout, files_below

RUN = {"User": "10001:10001", "Env": ["PATH=/usr/bin", "HOME=/tmp"], "Entrypoint": ["/kilo"]}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A layout of two layers, with a file each."""
    layout = Layout(tmp_path / "base", datetime(2026, 1, 1, tzinfo=UTC))
    layers = [
        layout.add_layer(root, files_below(root)) for root in (tree(tmp_path / name, name) for name in "ab")
    ]
    layout.finish(layers, "amd64", RUN, {"title": "base"})
    return tmp_path / "base"


def tree(root: Path, name: str) -> Path:
    root.mkdir()
    (root / name).write_text(name)
    return root


def document(layout: Path, digest: str) -> Any:
    content = (layout / "blobs" / Path(*digest.split(":"))).read_bytes()
    assert hashlib.sha256(content).hexdigest() == digest.removeprefix("sha256:")
    return json.loads(content)


def read(layout: Path) -> tuple[dict[str, Any], list[list[str]]]:
    """The image's configuration, and the files of each of its layers, digests held."""
    manifest = document(layout, json.loads((layout / "index.json").read_bytes())["manifests"][0]["digest"])
    config = document(layout, manifest["config"]["digest"])
    files: list[list[str]] = []
    for entry, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True):
        packed = layout.joinpath("blobs", *entry["digest"].split(":")).read_bytes()
        assert len(packed) == entry["size"]
        plain = gzip.decompress(packed)
        assert f"sha256:{hashlib.sha256(plain).hexdigest()}" == diff_id
        with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
            files.append(archive.getnames())
    return config, files


def test_it_has_the_layers_and_one_more_and_runs_as_it_is_told(base: Path, tmp_path: Path) -> None:
    more = tree(tmp_path / "more", "c")
    digest = derive(
        base, tmp_path / "made", root=more, run={"Entrypoint": ["/c"]}, environment={"HOME": "/c", "X": "=1"}
    )
    config, files = read(tmp_path / "made")
    assert files == [["a"], ["b"], ["c"]]
    assert config["config"] == {
        "User": "10001:10001",
        "Env": ["PATH=/usr/bin", "HOME=/c", "X==1"],
        "Entrypoint": ["/c"],
        "Labels": {"title": "base"},
    }
    assert read(base)[0]["config"] == {**RUN, "Labels": {"title": "base"}}
    index = json.loads((tmp_path / "made" / "index.json").read_bytes())
    assert index["manifests"][0]["digest"] == digest


def test_it_may_have_the_first_layers_alone_or_none(base: Path, tmp_path: Path) -> None:
    derive(base, tmp_path / "first", layers=1)
    assert read(tmp_path / "first")[1] == [["a"]]
    derive(base, tmp_path / "own", root=tree(tmp_path / "more", "c"), layers=0)
    assert read(tmp_path / "own")[1] == [["c"]]


def test_the_same_gives_the_same_digest_and_other_settings_another(base: Path, tmp_path: Path) -> None:
    values = {"first": "1", "second": "1", "third": "2"}
    made = [derive(base, tmp_path / name, environment={"X": value}) for name, value in values.items()]
    assert made[0] == made[1] != made[2]
