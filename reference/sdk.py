"""The reference of the SDK: what a service imports from ``kilo``, one way for each thing."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from enum import Enum
from importlib import import_module
from itertools import groupby
from textwrap import dedent
from typing import Any, ForwardRef

from _pytest.fixtures import FixtureFunctionDefinition
from pydantic import BaseModel

from reference.tables import HEAD, table


@dataclass(frozen=True)
class Part:
    """What a service needs, and the module that has it.

    Attributes:
        need: as a developer would say it.
        module: which is imported by this name.
        names: what of it is public; its ``__all__`` when there are none.
        extra: of the distribution, that brings what it stands on.
    """

    need: str
    module: str
    names: tuple[str, ...] = ()
    extra: str = ""

    @property
    def public(self) -> tuple[str, ...]:
        """The names, in the module's own order."""
        return self.names or tuple(import_module(self.module).__all__)


PARTS = (
    Part("serve HTTP, with tenants, health, metrics, logs and traces", "kilo.web", extra="web"),
    Part("run a consumer, with the same", "kilo.web.consuming", ("run_consumer",), "web,consumer"),
    Part(
        "know whose request or event it is",
        "kilo.context",
        (
            "current_tenant",
            "current_traceparent",
            "acting_for",
            "context_headers",
            "RequestContext",
            "NoTenant",
        ),
    ),
    Part("say why the service is not ready", "kilo.health", ("Health",), "web"),
    Part("write an event with its change (psycopg)", "kilo.outbox"),
    Part(
        "the same in a SQLAlchemy session",
        "kilo.outbox.sqlalchemy_session",
        ("install", "record", "enqueue", "enqueue_async"),
        "sqlalchemy",
    ),
    Part("the same on asyncpg", "kilo.outbox.asyncpg_connection", ("enqueue", "enqueue_many")),
    Part("have one effect an event", "kilo.consumer", extra="consumer"),
    Part("send an event without a database", "kilo.client", extra="client"),
    Part("keep personal data encrypted", "kilo.fle", extra="fle"),
    Part("the KMS that keys come from", "kilo.fle.kms", ("KmsClients", "Kms"), "fle"),
    Part("encrypted psycopg rows", "kilo.fle.integrations.psycopg_rows", ("revealed",), "fle"),
    Part(
        "encrypted pydantic models",
        "kilo.fle.integrations.pydantic_field",
        ("EncryptedModel", "Encrypted", "RowContext"),
        "fle",
    ),
    Part(
        "encrypted SQLAlchemy columns",
        "kilo.fle.integrations.sqlalchemy_type",
        ("EncryptedText", "Sealed", "Clear"),
        "fle,sqlalchemy",
    ),
    Part("switch code by a ramp's weight", "kilo.flags", extra="flags"),
    Part("hold events to their schemas", "kilo.schemas", extra="schemas"),
    Part("read the stage's outputs", "kilo.contract", ("load_outputs", "StackOutputs")),
    Part("read what a process is given", "kilo.environment", ("database_url",)),
    Part("bring its own tables up to date", "kilo.database.service", ("migrate_service",)),
    Part(
        "say what went wrong",
        "kilo.errors",
        ("KiloError", "BadInput", "CheckFailed", "Unreachable", "ExitCode"),
    ),
    Part("the words of tenants", "kilo.tenancy", ("Tenant", "TenantEntry", "TierPolicy")),
    Part(
        "read or write the bus itself",
        "kilo.bus",
        ("connect", "Bus", "Message", "Received", "Receipt", "BusError"),
        "consumer",
    ),
    Part(
        "test on real servers",
        "kilo.testing",
        ("kilo_database_url", "kilo_template_database", "kilo_nats_url", "kilo_outputs", "kilo_kms"),
        "testing",
    ),
    Part("test a consumer", "kilo.testing.events", ("deliver",), "testing"),
)
"""The SDK. Whatever else lies in ``kilo`` is no service's to import."""


_WIDTH = 90
_SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields):$")


def sdk_page() -> str:
    """The page."""
    rows = [
        (
            part.need,
            f"[`{part.module}`](#{_anchor(part.module)})",
            f"`kilo[{part.extra}]`" if part.extra else "`kilo`",
        )
        for part in PARTS
    ]
    return (
        f"{HEAD}# What a service imports\n\nOne way for each thing. These names change by the "
        "[changelog](../changelog.md) alone; everything else in `kilo` is the platform's own and may go. "
        "[A service on the paved road](../services.md) shows them at work.\n\n"
        + table(["you want to", "module", "install"], rows)
        + "".join(_section(part) for part in PARTS)
    )


def _section(part: Part) -> str:
    module = import_module(part.module)
    return f"\n## {part.module}\n\n{_prose(module.__doc__ or '')}\n" + "".join(
        _entry(name, getattr(module, name)) for name in part.public
    )


def _entry(name: str, each: Any) -> str:
    words = _prose(inspect.getdoc(each) or "")
    if isinstance(each, FixtureFunctionDefinition):
        return f"\n### {name}\n\nA fixture. {words}\n"
    parts = [
        f"### {name}",
        f"```python\n{_declaration(name, each)}{_signature(each, wrapped=True)}\n```",
        words,
    ]
    if inspect.isclass(each) and (rows := list(_members(each))):
        parts.append(table(["member", "what it is"], rows).rstrip())
    return "\n" + "\n\n".join(part for part in parts if part) + "\n"


def _declaration(name: str, each: Any) -> str:
    if inspect.isclass(each):
        return f"class {name}"
    return f"{'async def' if inspect.iscoroutinefunction(each) else 'def'} {name}"


def _members(each: type) -> Iterator[tuple[str, str]]:
    """What the class itself has: fields, methods and properties, each with its first sentences."""
    if issubclass(each, BaseModel):
        for name, field in each.model_fields.items():
            yield f"`{name}`", field.description or ""
    if issubclass(each, Enum):
        for member in each:
            yield f"`{member.name}`", f"`{member.value}`"
    for name, member in vars(each).items():
        if name.startswith("_"):
            continue
        plain = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        words = _marked(" ".join((inspect.getdoc(plain) or "").partition("\n\n")[0].split()))
        if isinstance(plain, property):
            yield f"`{name}`", words
        elif inspect.isfunction(plain):
            shown = f"{_declaration(name, plain)}{_signature(plain)}".replace("def ", "", 1)
            yield f"`{shown}`", words


def _signature(each: Any, *, wrapped: bool = False) -> str:
    """As it is written in the source; nothing for a class that is not made by whoever imports it."""
    if inspect.isclass(each) and not _is_made(each):
        return ""
    found = inspect.signature(each)
    own = [
        parameter.replace(annotation=_written(parameter.annotation), default=_default(parameter.default))
        for name, parameter in found.parameters.items()
        if name not in {"self", "cls"} and not name.startswith("_")
    ]
    returned = found.empty if inspect.isclass(each) else _written(found.return_annotation)
    text = str(found.replace(parameters=own, return_annotation=returned))
    if not wrapped or len(text) < _WIDTH:
        return text
    shown = [f"    {each},\n" for each in _with_marks(own)]
    return f"(\n{''.join(shown)})" + ("" if returned is found.empty else f" -> {returned!r}")


def _is_made(each: type) -> bool:
    own = "__init__" in vars(each) or is_dataclass(each) or hasattr(each, "_fields")
    return own and not issubclass(each, BaseModel | Enum) and not getattr(each, "_is_protocol", False)


def _with_marks(parameters: Sequence[inspect.Parameter]) -> Iterator[str]:
    """The parameters, and the star before those that are given by name alone."""
    starred = False
    for each in parameters:
        if each.kind is each.KEYWORD_ONLY and not starred:
            yield "*"
        starred = starred or each.kind in {each.KEYWORD_ONLY, each.VAR_POSITIONAL}
        yield str(each)


class _Word(str):
    """An annotation as it is written in the source."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _written(annotation: Any) -> Any:
    if isinstance(annotation, ForwardRef):
        return _Word(annotation.__forward_arg__)
    return _Word(annotation) if isinstance(annotation, str) else annotation


def _default(value: Any) -> Any:
    """Without addresses of this process's memory, nor what a dataclass writes for one that it makes."""
    return _Word("…") if re.search(r" at 0x|<factory>", repr(value)) else value


def _prose(words: str) -> str:
    """A docstring as Markdown: its examples as blocks, its sections as lists."""
    parts: list[str] = []
    for indented, group in groupby(
        re.split(r"\n\s*\n", inspect.cleandoc(words)), lambda each: each.startswith("    ")
    ):
        if indented:
            parts.append("```python\n" + dedent("\n\n".join(group)) + "\n```")
        else:
            parts += [_paragraph(each) for each in group]
    return "\n\n".join(each for each in parts if each)


def _paragraph(text: str) -> str:
    head, _, rest = text.partition("\n")
    if _SECTION.match(head):
        items = [_item(each) for each in re.split(r"\n(?=    \S)", f"\n{rest}")[1:]]
        return f"{head}\n\n" + "\n".join(f"- {each}" for each in items)
    if head.startswith("- "):
        items = [_marked(" ".join(each.split())) for each in re.split(r"(?:^|\n)- ", text)[1:]]
        return "\n".join(f"- {each}" for each in items)
    return _marked(" ".join(text.split())).replace("::", ":").lstrip(":")


def _item(text: str) -> str:
    name, colon, rest = " ".join(text.split()).partition(": ")
    return f"`{name}`: {_marked(rest)}" if colon and " " not in name else _marked(f"{name}{colon}{rest}")


def _marked(text: str) -> str:
    """Docstrings' roles and literals as Markdown's."""
    return re.sub(r"``([^`]+)``", r"`\1`", re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text))


def _anchor(module: str) -> str:
    return re.sub(r"[^\w-]", "", module)
