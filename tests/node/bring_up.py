"""From nothing to a node that takes a stage's pods."""

from __future__ import annotations

from pathlib import Path

from infra.configuration import read_stage_file
from tests.node import addons
from tests.node.images import Images
from tests.node.node import RealNode

ROOT = Path(__file__).parents[2]
SETTINGS = read_stage_file(ROOT / "Pulumi.dev.yaml")


def bring_up(node: RealNode) -> None:
    """Start the node with names, disks and all images on it but the platform's."""
    images = Images(node.home / "image")
    node.start(images.pause())
    for archive in images.archives(SETTINGS):
        node.load(archive)
    addons.add_kinds(node)
    addons.add_disks(node)
    addons.add_names(node)
