"""The reference of the command line: every command with its arguments, options and examples."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

import typer

from kilo.cli import HELP, build
from reference.tables import HEAD, table


def commands_page() -> str:
    """The page."""
    installed = {point.name for point in entry_points(group="kilo.commands")}
    names = [name for name in HELP if name in installed]
    parts = [
        HEAD,
        "# Commands\n\n`kilo --help` and `kilo COMMAND --help` say the same. Exit codes of every command: "
        "0 fine, 1 the check said no, 2 wrong use or bad input, 3 a component could not be reached. "
        "`--json` beside a table is for programs.\n\n",
        table(["command", "what it does"], [(f"[`kilo {n}`](#kilo-{n})", HELP[n].summary) for n in names]),
    ]
    for name in names:
        root: Any = typer.main.get_command(build(name))
        parts.append(f"\n## kilo {name}\n")
        for path, command in _leaves(f"kilo {name}", root.commands[name]):
            parts.append(_command(path, command, own=path == f"kilo {name}"))
    return "".join(parts)


def _leaves(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    inner: dict[str, Any] = getattr(command, "commands", {})
    if not inner:
        yield path, command
    for name, each in inner.items():
        yield from _leaves(f"{path} {name}", each)


def _command(path: str, command: Any, *, own: bool) -> str:
    words = inspect.cleandoc(command.help or "").replace("\b", "")
    head = "" if own else f"\n### {path}\n"
    shown = [each for each in command.params if not getattr(each, "hidden", False) and each.name != "help"]
    rows = [_parameter(each) for each in shown]
    options = table(["argument or option", "default", "what it is"], rows) if rows else ""
    return f"{head}\n{_with_examples(words)}\n{options}"


def _with_examples(words: str) -> str:
    """Examples in the help become blocks, everything else stays text."""
    lines: list[str] = []
    for paragraph in re.split(r"\n\s*\n", words):
        if re.match(r"Examples?:", paragraph):
            examples = [re.sub(r"^Examples?:\s*", "", line.strip()) for line in paragraph.splitlines()]
            lines.append(
                "```\n" + "\n".join(each for each in examples if each) + "\n```" if any(examples) else ""
            )
        elif paragraph.startswith("  ") or re.match(r"(kilo|pulumi|make) ", paragraph):
            lines.append("```\n" + inspect.cleandoc(paragraph) + "\n```")
        else:
            lines.append(re.sub(r"[<>*_]", r"\\\g<0>", " ".join(paragraph.split())))
    return "\n\n".join(each for each in lines if each) + "\n"


def _parameter(each: Any) -> tuple[str, str, str]:
    names = ", ".join(f"`{name}`" for name in [*each.opts, *getattr(each, "secondary_opts", ())])
    if each.param_type_name == "argument":
        names = f"`{(each.metavar or each.name).upper()}`"
    default = each.default
    shown = (
        "" if default is None or callable(default) or default is False or default == "" else f"`{default}`"
    )
    if each.required:
        shown = "must be given"
    return names, shown, re.sub(r"[<>]", r"\\\g<0>", str(getattr(each, "help", None) or ""))
