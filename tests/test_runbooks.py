"""What a page tells people to type can be typed; in a runbook it has all its arguments besides."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main

from kilo.cli import build
from tests.test_project import in_code

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "templates" / "service"
RUNBOOKS = [*sorted((ROOT / "docs" / "runbooks").glob("*.md")), TEMPLATE / "docs" / "runbook.md.jinja"]
OTHERS = sorted(
    {
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        TEMPLATE / "README.md.jinja",
        *(ROOT / "docs").rglob("*.md"),
    }
    - {*RUNBOOKS}
)
_COMMAND = re.compile(r"^(?:\$ )?kilo ([a-z].*?)(?: +#.*| &&.*| \|.*| > .*)?$", re.MULTILINE)
_INDENTED = re.compile(r"^ {4,}(kilo .*)$", re.MULTILINE)
_EXPORTED = re.compile(r"\bexport ([A-Z_]+)=")
_PLACEHOLDER = re.compile(r"\b[A-Z][A-Z_]*\b|<[a-z-]+>|\w+\.pem\b")
_STANDING_FOR = {"ID": "17", "TIME": "2026-01-31T12:00:00Z"}
_BY_CHOICE = re.compile(r" \[-.*?\]")


def commands(text: str) -> list[str]:
    """Each command that stands in code, as it stands."""
    # A service of the template has its name there.
    text = re.sub(r"\[\[ \w+ \]\]", "orders", text)
    code = "\n".join([in_code(text), *_INDENTED.findall(text)])
    return _COMMAND.findall(_BY_CHOICE.sub("", code.replace("\\\n", " ")))


def parse(command: str) -> None:
    """Read ``command`` as ``kilo`` does, and run nothing.

    Raises:
        typer.TyperException: it would be refused.
    """
    arguments = [_STANDING_FOR.get(word, word) for word in shlex.split(command)]
    called: Any = typer.main.get_command(build(arguments[0]))
    context = called.make_context("kilo", arguments)
    while hasattr(called, "resolve_command"):
        # Of a group, the command that is called stands apart from what follows it.
        rest = [*getattr(context, "_protected_args", []), *context.args]
        name, called, rest = called.resolve_command(context, rest)
        context = called.make_context(name, rest, parent=context)


def refusal(command: str) -> str | None:
    """Why it would be refused; a placeholder may stand for any number, file or time."""
    try:
        parse(command)
    except typer.BadParameter as error:
        missing = "issing" in error.format_message()
        choice = "is not one of" in error.format_message()
        stands_for = _PLACEHOLDER.search(command) is not None
        return None if stands_for and not missing and not choice else error.format_message()
    except typer.TyperException as error:
        return error.format_message() or "it is a group: which of its commands?"
    except typer.Exit:
        # It asked for help.
        return None
    return None


def refusals(page: Path, environment: pytest.MonkeyPatch) -> dict[str, str]:
    """Each command of a page that would be refused, and why, with what the page has people export."""
    text = page.read_text(encoding="utf-8")
    for name in _EXPORTED.findall(text):
        environment.setenv(name, "given")
    return {command: why for command in commands(text) if (why := refusal(command)) is not None}


@pytest.mark.parametrize("runbook", RUNBOOKS, ids=lambda runbook: runbook.stem)
def test_each_command_of_a_runbook_can_be_typed_as_it_stands(
    runbook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refusals(runbook, monkeypatch) == {}


@pytest.mark.parametrize("page", OTHERS, ids=lambda page: str(page.relative_to(ROOT)))
def test_other_pages_name_commands_and_options_that_there_are(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = {command: why for command, why in refusals(page, monkeypatch).items() if "No such" in why}
    assert refused == {}


@pytest.mark.parametrize(
    "command",
    [
        "registry diff",
        "dlq edit ID",
        "dlq list --consumer orders",
        "dlq show",
        "dlq replay --kindly",
        "fle rotate plan --tenant TENANT --kind adoption",
        "fle rotate",
        "traffic revert TENANT -s STAGE",
    ],
)
def test_one_that_lacks_something_is_refused(command: str) -> None:
    assert refusal(command) is not None
