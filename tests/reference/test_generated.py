"""The generated reference: whole, the same twice, and every link leads somewhere."""

from __future__ import annotations

import json
import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from infra.settings import Settings
from kilo.observe.metrics import CATALOGUE
from kilo.observe.rules import every_alert
from reference.source import generated, write_source

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site") / "docs"
    write_source(ROOT, directory)
    return directory


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in (site / "reference").iterdir()}


def test_the_same_code_makes_the_same_pages(pages: dict[str, str]) -> None:
    assert generated(ROOT) == pages


def test_every_setting_is_there(pages: dict[str, str]) -> None:
    page = pages["stage.md"]
    for name in Settings.model_fields.keys() - {"stage"}:
        assert f"## kilo:{name}\n" in page
    row = next(line for line in page.splitlines() if line.startswith("| `kilo:bus.retention_days`"))
    assert row.split(" | ")[1:3] == ["whole number, at least 1, at most 365", "`7`"]
    assert '| `kilo:tenants[].tier` | `"gold"` or `"silver"` or `"bronze"` | must be given |' in page
    assert '`"acme"`' in page


def test_every_command_metric_and_alert_is_there(pages: dict[str, str]) -> None:
    commands = {point.name for point in entry_points(group="kilo.commands")}
    assert set(re.findall(r"^## kilo ([\w-]+)$", pages["commands.md"], re.MULTILINE)) == commands
    assert set(re.findall(r"^\| `(\w+)` \|", pages["metrics.md"], re.MULTILINE)) == set(CATALOGUE)
    named = set(re.findall(r"^\| \[(\w+)\]", pages["alerts.md"], re.MULTILINE))
    assert named == {each.name for each in every_alert()}


def test_the_openapi_document_answers_what_the_entrance_answers(pages: dict[str, str]) -> None:
    document = json.loads(pages["openapi.json"])
    assert set(document["paths"]) == {"/v1/events", "/v1/events:batch"}
    text = json.dumps(document)
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', text)):
        node = document
        for part in reference.split("/"):
            node = node[part]
    # What the prose promises is what the document has.
    prose = (ROOT / "docs" / "ingest.md").read_text(encoding="utf-8")
    for status in re.findall(r"\b(4\d\d|50\d)\b", prose):
        assert status in document["paths"]["/v1/events:batch"]["post"]["responses"], status


def test_every_link_of_the_site_leads_to_a_page_and_a_heading(site: Path) -> None:
    wrong: list[str] = []
    for page in site.rglob("*.md"):
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target, anchor in re.findall(r"\]\((?![a-z]+:)([^)#\s]*)(#[^)\s]*)?\)", text):
            goal = page.parent / target if target else page
            if not goal.exists():
                wrong.append(f"{page.relative_to(site)}: {target}")
            elif anchor and goal.suffix == ".md" and anchor[1:] not in _headings(goal):
                wrong.append(f"{page.relative_to(site)}: {target}{anchor}")
    assert wrong == []


def _headings(page: Path) -> set[str]:
    """The anchors that the generator gives a page's headings."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", head.lower()).strip()) for head in heads}


def test_every_page_is_in_the_navigation(site: Path) -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r": ([\w/.-]+\.md)$", navigation, re.MULTILINE))
    there = {str(path.relative_to(site)) for path in site.rglob("*.md")}
    assert named <= there
    assert {page for page in there - named if not page.startswith("runbooks/")} == set()
