"""The page of the SDK: it has what services import, and services import nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import kilo
from reference.sdk import PARTS, Part, sdk_page

ROOT = Path(__file__).parents[2]
WRITERS = [
    *(ROOT / "templates").rglob("*.jinja"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "docs" / "examples").rglob("*.py"),
]
IMPORT = re.compile(r"^\s*from (?P<module>kilo[\w.]*) import (?P<names>\([^)]*\)|[^\n]*)", re.MULTILINE)


def imports() -> set[tuple[str, str]]:
    """Every import from ``kilo`` in the template, the pages and the examples."""
    found: set[tuple[str, str]] = set()
    for path in WRITERS:
        for each in IMPORT.finditer(path.read_text(encoding="utf-8")):
            words = re.findall(r"(\w+)(?: as \w+)?", each["names"].partition("#")[0])
            found |= {(each["module"], name) for name in words}
    return found


def test_whatever_a_service_is_told_to_import_is_on_the_page() -> None:
    public = {(part.module, name) for part in PARTS for name in part.public}
    told = imports()
    assert ("kilo.web", "run") in told
    assert told - public == set()


def test_a_module_is_named_once_and_where_the_package_says_what_services_import() -> None:
    rule = (kilo.__doc__ or "").partition("- **An operator calls**")[0]
    named = set(re.findall(r"``(kilo\.[\w.]+)``", rule))
    modules = [part.module for part in PARTS]
    assert len(set(modules)) == len(modules)
    assert {each.partition(".integrations.")[0] for each in modules} == {
        each.removesuffix(".integrations") for each in named
    }


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.module)
def test_every_name_is_there_with_words(part: Part) -> None:
    section = sdk_page().partition(f"\n## {part.module}\n")[2].partition("\n## ")[0]
    for name in part.public:
        entry = section.partition(f"\n### {name}\n")[2].partition("\n### ")[0]
        assert len(re.sub(r"```.*?```", "", entry, flags=re.DOTALL).split()) >= 3, name


def test_a_signature_reads_as_it_is_written() -> None:
    page = sdk_page()
    assert "class Event(\n    tenant: str,\n    aggregate: str,\n" in page
    assert "class Message(subject: str, key: str, headers: bytes, payload: bytes)\n" in page
    assert "| `async close() -> None` | End the connection. |" in page
    assert "- `Unreachable`: the stage's own file does not exist or can't be read.\n" in page
    assert "with connection.transaction():\n    connection.execute(" in page
    # Neither addresses of this process nor what only Sphinx reads.
    assert not re.search(
        r"0x[0-9a-f]{6}|:(func|class|mod|meth):|::$|ForwardRef|<factory>", page, re.MULTILINE
    )
