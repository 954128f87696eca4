"""Edits the tenant list of ``Pulumi.<stage>.yaml``, as :mod:`infra.stage_text` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from infra.configuration import read_stage_file
from infra.stage_text import end_of_block, write_checked
from kilo.errors import BadInput

KEY = "kilo:tenants"


class StageFile:
    """A stage's file, read and checked.

    Raises:
        BadInput: it is missing or holds mistakes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings = read_stage_file(path)
        self._lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        self._entries: Any = YAML().load("".join(self._lines))["config"][KEY]

    def add(self, fields: str) -> None:
        """Put an entry, the inside of a YAML flow mapping, at the end of the list.

        Raises:
            BadInput: the file would not be right with it; nothing is written.
        """
        last = len(self._entries) - 1
        dash = self._lines[self._first(last)].partition("-")[0]
        self._write(self._end(last), 0, [f"{dash}- {{ {fields} }}\n"])

    def remove(self, tenant: str) -> None:
        """Take a tenant's entry out.

        Raises:
            BadInput: there is no such tenant, or the file would not be right; nothing is written.
        """
        index = self._index(tenant)
        self._write(self._first(index), self._end(index) - self._first(index), [])

    def refuse(self, tenant: str) -> None:
        """Say in a tenant's entry that the gateway takes nothing more of it.

        Raises:
            BadInput: there is no such tenant, or the file would not be right; nothing is written.
        """
        index = self._index(tenant)
        first, end = self._first(index), self._end(index)
        entry = "".join(self._lines[first:end])
        if self._entries[index].fa.flow_style():
            head, brace, tail = entry.rpartition("}")
            text = f"{head.rstrip()}, accepting: false {brace}{tail}"
        else:
            inside = " " * self._entries[index].lc.col
            text = f"{entry}{inside}accepting: false\n"
        self._write(first, end - first, [text])

    def _index(self, tenant: str) -> int:
        ids = [entry["id"] for entry in self._entries]
        if tenant not in ids:
            msg = f"{self.path.name}: {KEY}: there is no tenant '{tenant}'; tenants: {', '.join(ids)}"
            raise BadInput(msg)
        return ids.index(tenant)

    def _first(self, index: int) -> int:
        return self._entries.lc.item(index)[0]

    def _end(self, index: int) -> int:
        return end_of_block(self._lines, self._first(index))

    def _write(self, at: int, removed: int, added: list[str]) -> None:
        write_checked(self.path, "".join([*self._lines[:at], *added, *self._lines[at + removed :]]))
        self.__init__(self.path)
