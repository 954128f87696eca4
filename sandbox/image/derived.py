"""An image made of another one's layers: with one more layer, and other settings to run by."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sandbox.image.layout import Layer, Layout, files_below


def derive(
    base: Path,
    directory: Path,
    *,
    root: Path | None = None,
    run: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    layers: int | None = None,
) -> str:
    """Write an image of the one in the layout ``base`` into the empty ``directory``.

    Args:
        base: an OCI layout with one image, which is left as it is.
        root: what its further layer has; none is added without.
        run: settings of the image's configuration that replace those of ``base``, such as ``Entrypoint``.
        environment: variables over those of ``base``.
        layers: how many of the layers of ``base`` are kept, from the first; all when not given.

    Returns:
        The digest of the new image's manifest.
    """
    manifest = _read(base, _document(base / "index.json")["manifests"][0])
    config = _read(base, manifest["config"])
    made = Layout(directory, datetime.fromisoformat(config["created"]))
    kept: list[Layer] = []
    for entry, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True):
        kept.append(Layer(entry["digest"], diff_id, entry["size"]))
    kept = kept[:layers]
    for layer in kept:
        name = Path("blobs", *layer.digest.split(":"))
        os.link(base / name, directory / name)
    if root is not None:
        kept.append(made.add_layer(root, files_below(root)))
    settings: dict[str, Any] = {**config["config"], **(run or {})}
    labels = settings.pop("Labels", {})
    variables = dict(variable.split("=", 1) for variable in settings.get("Env", ()))
    settings["Env"] = [f"{name}={value}" for name, value in {**variables, **(environment or {})}.items()]
    return made.finish(kept, config["architecture"], settings, labels)


def _read(layout: Path, reference: Mapping[str, str]) -> Any:
    return _document(layout.joinpath("blobs", *reference["digest"].split(":")))


def _document(file: Path) -> Any:
    return json.loads(file.read_bytes())
