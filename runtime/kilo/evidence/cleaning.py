"""What a pack must not hold, by its form: credentials, keys, e-mail addresses, telephone numbers.

Evidence is gathered from fields that are names and figures by their definition; free text that a person or a
program wrote (a reason, an error) goes through here. What is left is looked for once more in the finished
pack, which is refused rather than written with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kilo.observe.logs import without_credentials

REMOVED = "[removed]"
_LEAST_SECRET = 8
"""Characters: a shorter password would be found everywhere by chance."""
_FORMS = {
    "an e-mail address": re.compile(
        r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*\.[A-Za-z]{2,24}\b"
    ),
    "a telephone number": re.compile(r"(?<![\w+/=])\+[1-9][0-9](?:[ ().-]{0,2}[0-9]){6,12}(?![\w])"),
    "a token": re.compile(
        r"\b(?:eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*"
        r"|(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{30,}|xox[abprs]-[A-Za-z0-9-]{10,})"
    ),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a URL with credentials": re.compile(r"[a-z][a-z0-9+.-]{1,20}://[^\s/@'\"<>]{1,200}@"),
}


@dataclass
class Cleaner:
    """Removes and counts; ``secrets`` are values that are known here, such as the database's password."""

    secrets: tuple[str, ...] = ()
    removed: int = 0
    kinds: set[str] = field(default_factory=set[str])

    @classmethod
    def of(cls, secrets: Iterable[str]) -> Cleaner:
        """One that knows these secrets, the longest first, since one may hold another."""
        return cls(
            tuple(sorted({each for each in secrets if len(each) >= _LEAST_SECRET}, key=len, reverse=True))
        )

    def clean(self, value: Any) -> Any:
        """The value with what must not be shown removed, at any depth, names of members too."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping):
            return {self._text(str(name)): self.clean(member) for name, member in value.items()}
        if isinstance(value, list | tuple):
            return [self.clean(member) for member in value]
        return value

    def _text(self, text: str) -> str:
        for kind, piece in self.found(text):
            if piece in text:
                text = text.replace(piece, REMOVED)
                self.removed += 1
                self.kinds.add(kind)
        without = without_credentials(text)
        if without != text:
            self.removed += 1
            self.kinds.add("a credential")
        return without

    def found(self, text: str) -> Iterator[tuple[str, str]]:
        """What is in ``text`` that must not be: its kind, and the piece itself."""
        for secret in self.secrets:
            if secret in text:
                yield "a known secret", secret
        for kind, form in _FORMS.items():
            for match in form.finditer(text):
                yield kind, match[0]

    def is_fit(self, text: str) -> bool:
        """Whether nothing of it must be removed."""
        return next(self.found(text), None) is None and without_credentials(text) == text

    def scan(self, members: Mapping[str, bytes]) -> list[str]:
        """Where a finished pack still holds what it must not; kinds and places, never the thing itself."""
        problems: list[str] = []
        for name, data in sorted(members.items()):
            kinds = {kind for kind, _ in self.found(data.decode(errors="replace"))}
            problems += [f"{name}: holds {kind}" for kind in sorted(kinds)]
        return problems
