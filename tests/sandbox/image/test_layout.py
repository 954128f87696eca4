"""Layers that are the same to the byte whatever the disk that they come from looks like."""

from __future__ import annotations

import json
import os
import tarfile
from datetime import UTC, datetime
from pathlib import Path

from sandbox.image.layout import Layer, Layout, files_below

TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def make_tree(root: Path, names: list[str], age: int) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        path.chmod(0o755)
        os.utime(path, (age, age))
    (root / "etc/link").symlink_to("/usr/bin/b")
    (root / "usr/bin/b").chmod(0o6755)


def packed(directory: Path, root: Path) -> tuple[Layer, list[tarfile.TarInfo]]:
    layer = Layout(directory, TIME).add_layer(root, files_below(root))
    with tarfile.open(directory / "blobs" / layer.digest.replace(":", "/")) as archive:
        return layer, archive.getmembers()


def test_the_same_files_give_the_same_layer(tmp_path: Path) -> None:
    names = ["usr/bin/a", "usr/bin/b", "etc/passwd", "z"]
    make_tree(tmp_path / "one", names, 1_000_000)
    make_tree(tmp_path / "two", names[::-1], 2_000_000)
    one, entries = packed(tmp_path / "first", tmp_path / "one")
    two, _ = packed(tmp_path / "second", tmp_path / "two")
    assert one == two
    assert [entry.name for entry in entries] == [
        "etc", "etc/link", "etc/passwd", "usr", "usr/bin", "usr/bin/a", "usr/bin/b", "z",
    ]  # fmt: skip


def test_a_layer_has_no_special_bits_and_no_owner(tmp_path: Path) -> None:
    make_tree(tmp_path / "root", ["usr/bin/b", "etc/passwd"], 1)
    assert (tmp_path / "root/usr/bin/b").stat().st_mode & 0o6000
    _, entries = packed(tmp_path / "layout", tmp_path / "root")
    assert not [entry.name for entry in entries if entry.mode & 0o6000]
    assert {(entry.uid, entry.gid, entry.uname, entry.mtime) for entry in entries} == {
        (0, 0, "", TIME.timestamp())
    }


def test_a_file_with_two_names_is_whole_under_each(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "b").write_text("bytes")
    (root / "a").hardlink_to(root / "b")
    layer, entries = packed(tmp_path / "layout", root)
    assert [(entry.name, entry.isreg(), entry.size) for entry in entries] == [("a", True, 5), ("b", True, 5)]
    assert layer.size_bytes


def test_an_index_leads_to_every_layer(tmp_path: Path) -> None:
    root = tmp_path / "root"
    make_tree(root, ["usr/bin/b", "etc/passwd"], 1)
    layout = Layout(tmp_path / "layout", TIME)
    layers = [layout.add_layer(root, [Path("etc/passwd")]), layout.add_layer(root, [Path("usr/bin/b")])]
    digest = layout.finish(layers, "amd64", {"User": "10001:10001"}, {"title": "kilo"})
    blobs = tmp_path / "layout/blobs/sha256"
    (named,) = json.loads((tmp_path / "layout/index.json").read_text())["manifests"]
    assert named["digest"] == digest
    manifest = json.loads((blobs / digest.removeprefix("sha256:")).read_text())
    config = json.loads((blobs / manifest["config"]["digest"].removeprefix("sha256:")).read_text())
    assert config["config"]["User"] == "10001:10001"
    assert config["rootfs"]["diff_ids"] == [layer.diff_id for layer in layers]
    assert [entry["digest"] for entry in manifest["layers"]] == [layer.digest for layer in layers]
