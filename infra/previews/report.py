"""What is said of a preview that was tried: a table, JSON, or a comment under a pull request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from infra.previews.checks import Check
from infra.previews.settings import TENANT, PreviewSettings
from kilo.tables import print_table

MARKER = "<!-- kilo preview -->"
"""What the comment begins with, by which it is found and written again."""
_COLOURS = {"green": "green", "red": "red", "not signed": "yellow", "not checked": "yellow"}
_MARKS = {"green": "✅", "red": "❌", "not signed": "🔓", "not checked": "⚪"}


@dataclass(frozen=True)
class Report:
    """A preview, its checks and how long all of it took.

    Attributes:
        address: as it is reached from here; empty for what answers no requests.
        seconds: from the command's start.
    """

    settings: PreviewSettings
    address: str
    checks: Sequence[Check]
    seconds: float

    @property
    def is_green(self) -> bool:
        """Whether no check is red."""
        return not any(check.state == "red" for check in self.checks)

    def document(self) -> dict[str, Any]:
        """All of it, for programs."""
        settings = self.settings
        return {
            "preview": settings.name,
            "service": settings.service,
            "stage": settings.stage,
            "address": self.address or None,
            "header": f"{settings.tenant_header}: {TENANT}",
            "expires_at": settings.expires,
            "image": settings.image,
            "green": self.is_green,
            "seconds": round(self.seconds, 1),
            "checks": [check.as_json() for check in self.checks],
        }

    def print(self) -> None:
        """The table, and where the preview is."""
        rows = [
            (
                check.name,
                Text(check.state, style=_COLOURS[check.state]),
                _seconds(check),
                check.detail,
            )
            for check in self.checks
        ]
        print_table(("check", "state", "seconds", "what"), rows, numbers=("seconds",))
        settings = self.settings
        print_table(
            ("", ""),
            [
                (settings.name, f"{self.seconds:.0f} s in all, until {settings.expires}"),
                *([("address", self.address)] if self.address else []),
                *([("header", f"{settings.tenant_header}: {TENANT}")] if self.address else []),
            ],
        )

    def markdown(self) -> str:
        """The comment."""
        settings = self.settings
        lines = [
            MARKER,
            f"### Preview of `{settings.service}` at {settings.stage}",
            "",
            f"{_code(self.address)}, header {_code(f'{settings.tenant_header}: {TENANT}')}"
            if self.address
            else "It answers no requests.",
            "",
            "| check | | seconds | |",
            "| --- | --- | ---: | --- |",
            *(
                f"| {check.name} | {_MARKS[check.state]} {check.state} | {_seconds(check)} |"
                f" {_code(check.detail)} |"
                for check in self.checks
            ),
            "",
            f"{self.seconds:.0f} s in all. It goes at {settings.expires}, or with the pull request.",
        ]
        return "\n".join(lines) + "\n"


def removed_markdown(name: str) -> str:
    """The comment once the preview is gone."""
    return f"{MARKER}\n### Preview `{name}` is removed\n"


def _seconds(check: Check) -> str:
    return "" if check.seconds is None else f"{check.seconds:.1f}"


def _code(text: str) -> str:
    """Text that others may have a say in, so that nothing in it is markup, a mention or another column."""
    return "`" + text.replace("`", "'").replace("|", "\\|").replace("\n", " ") + "`"
