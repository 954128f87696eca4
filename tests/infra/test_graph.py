"""The drawing in the documents is that of the program as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infra.__main__ import deploy
from infra.configuration import read_stage_file
from kilo.changes.diagram import read_state, svg
from tests.components.recorder import record

ROOT = Path(__file__).parents[2]
STAGE = "stage"
DRAWING = ROOT / "docs" / f"{STAGE}.svg"


def test_the_drawing_in_the_documents_is_current() -> None:
    settings = read_stage_file(ROOT / f"Pulumi.{STAGE}.yaml")
    recording = record(lambda: deploy(settings), stack=STAGE)
    (stack,) = {
        resource.parent for resource in recording.resources if "::pulumi:pulumi:Stack::" in resource.parent
    }
    state: list[dict[str, Any]] = [
        {"urn": stack, "type": "pulumi:pulumi:Stack", "outputs": recording.outputs}
    ]
    state += [
        {
            "urn": resource.urn,
            "type": resource.type,
            "parent": resource.parent,
            "inputs": resource.inputs,
            "dependencies": sorted(resource.dependencies),
        }
        for resource in recording.resources
    ]
    assert DRAWING.read_text(encoding="utf-8") == svg(read_state(state)), (
        f"draw it again: kilo graph -s {STAGE} -o docs/{STAGE}.svg"
    )
