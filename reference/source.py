"""What the site's generator is given: ``docs/`` with links that leave it mended, and the generated pages."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

from infra.stage_schema import stage_schema
from kilo.schemas import load_folder
from kilo.schemas.asyncapi import render_asyncapi
from reference.commands import commands_page
from reference.contract import events_page, outputs_page
from reference.http import http_page, openapi
from reference.observed import alerts_page, metrics_page
from reference.sdk import sdk_page
from reference.stage import stage_page

_LINK = re.compile(
    # Code first, in which nothing is a link.
    r"```.*?```|`[^`\n]*`|(?P<text>!?\[[^\]]*\])\((?P<target>[^)#\s]*)(?P<anchor>#[^)\s]*)?\)",
    re.DOTALL,
)
_CHANGELOG = "changelog.md"
_BESIDE = {"CHANGELOG.md": _CHANGELOG, "CONTRIBUTING.md": "contributing.md"}
"""Pages of the checkout's root that the site has too."""


def write_source(root: Path, target: Path) -> int:
    """Write the site's pages into ``target``, which is made anew; returns how many there are."""
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(root / "docs", target)
    for name, page in _BESIDE.items():
        shutil.copy(root / name, target / page)
    for page in sorted(target.rglob("*.md")):
        relative = page.relative_to(target)
        origin = next(
            (root / name for name, made in _BESIDE.items() if made == str(relative)), root / "docs" / relative
        )
        page.write_text(_mended(page.read_text(encoding="utf-8"), origin, relative, root), encoding="utf-8")
    for name, text in generated(root).items():
        path = target / "reference" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return len(list(target.rglob("*.md")))


def generated(root: Path) -> dict[str, str]:
    """The generated pages and documents, by name; nothing of them depends on the time or the machine."""
    schemas = load_folder(root / "events")
    outputs = json.loads((root / "docs" / "outputs.schema.json").read_text(encoding="utf-8"))
    asyncapi = render_asyncapi(schemas, "Kilo's own events", "1")
    return {
        "stage.md": stage_page(stage_schema(), root / "Pulumi.dev.yaml"),
        "commands.md": commands_page(),
        "sdk.md": sdk_page(),
        "outputs.md": outputs_page(outputs),
        "metrics.md": metrics_page(),
        "alerts.md": alerts_page(),
        "events.md": events_page(schemas),
        "http.md": http_page(openapi()),
        "openapi.json": json.dumps(openapi(), indent=2) + "\n",
        "asyncapi.json": json.dumps(asyncapi, indent=2, default=float) + "\n",
    }


def _mended(text: str, origin: Path, page: Path, root: Path) -> str:
    """Links to files that are no pages of the site become their names: there is nothing to lead to."""

    def mend(found: re.Match[str]) -> str:
        target = found["target"]
        if not target or re.match(r"[a-z]+:", target):
            return found[0]
        place = Path(os.path.normpath(origin.parent / target))
        anchor = found["anchor"] or ""
        words = found["text"].lstrip("!")[1:-1]
        if place.is_relative_to(root / "docs") and place.is_file():
            inside = place.relative_to(root / "docs")
        elif place.parent == root and place.name in _BESIDE:
            inside = Path(_BESIDE[place.name])
        elif place == root / "README.md":
            inside, anchor = Path("README.md"), ""
        else:
            return f"{words} (`{place.relative_to(root)}`)" if f"{place.name}" not in words else f"`{words}`"
        return f"{found['text']}({os.path.relpath(inside, page.parent)}{anchor})"

    return _LINK.sub(mend, text)
