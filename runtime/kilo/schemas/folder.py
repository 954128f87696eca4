"""Reads a folder of schemas, refuses what is none, and holds payloads to them.

Left out on purpose: references to other files or addresses. A schema is whole in its file, so that nothing is
fetched and what was recorded is all that was promised.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

from kilo.errors import BadInput
from kilo.extras import requires
from kilo.outbox import strict_json

with requires("schemas"):
    from jsonschema import Draft202012Validator, FormatChecker
    from jsonschema.exceptions import SchemaError, ValidationError

    from kilo.schemas.bounded import BoundedValidator, NoPattern, TooMuch, budget, pattern_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"
RECORDED = "recorded.lock"
LARGEST_FILE_BYTES = 1 << 20
_KIND = re.compile(r"[a-z][a-z0-9_.-]{0,126}")
_AGGREGATE = re.compile(r"[a-z][a-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True)
class EventSchema:
    """The schema of one kind.

    Attributes:
        kind: what happened; the file's name without ``.json``.
        aggregate: ``x-aggregate`` of the file, the kind of thing that it happens to.
        role: ``x-role`` of the file: whether this repository produces such events or consumes others'.
        document: the file as JSON.
        place: the file's path, for messages.
    """

    kind: str
    aggregate: str
    role: Literal["produced", "consumed"]
    document: Mapping[str, Any]
    place: str

    def problem(self, payload: object) -> str | None:
        """Where and why ``payload`` is not what the schema says, without its values; none when it is."""
        errors = BoundedValidator(self.document).iter_errors(payload)
        try:
            with budget():
                found = min(errors, key=_depth, default=None)
        except TooMuch:
            return ": takes more steps to hold to its schema than an event is given"
        except ArithmeticError:
            # Python's remainder of 1e300 is none.
            return ": a number is beyond what multipleOf can be asked of"
        except RecursionError:
            return ": is nested deeper than it can be held to its schema"
        return None if found is None else f"{_pointer(found.absolute_path)}: {_said(found)}"


class EventSchemas(Mapping[str, EventSchema]):
    """The schemas of a folder, by kind."""

    def __init__(self, place: str, schemas: Mapping[str, EventSchema]) -> None:
        self._place = place
        self._schemas = dict(sorted(schemas.items()))

    def __getitem__(self, kind: str) -> EventSchema:
        return self._schemas[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._schemas)

    def __len__(self) -> int:
        return len(self._schemas)

    def check_written(self, kind: str, aggregate: str, payload: object) -> None:
        """Refuse an event that its schema does not allow, of others' too: a consumer's tests write them.

        Raises:
            BadInput: there is no schema of its kind, or aggregate or payload are others.
        """
        schema = self._schemas.get(kind)
        if schema is None:
            msg = f"kind {kind}: {self._place} has no {kind}.json; describe the event there first"
        elif schema.aggregate != aggregate:
            msg = f"aggregate {aggregate}: {schema.place} says {schema.aggregate} (x-aggregate)"
        elif (problem := schema.problem(payload)) is not None:
            msg = f"payload{problem} ({schema.place})"
        else:
            return
        raise BadInput(msg)

    def problem_of_read(self, kind: str, payload: object) -> str | None:
        """What of an event that was read is not as its schema says; none too where there is no schema."""
        schema = self._schemas.get(kind)
        problem = schema.problem(payload) if schema else None
        return None if problem is None or schema is None else f"payload{problem} ({schema.place})"


@lru_cache(maxsize=16)
def load_folder(folder: Path) -> EventSchemas:
    """Read the schemas of ``folder``, once a process.

    Raises:
        BadInput: a file is no schema of an event; all that are not are named, a line each.
    """
    if not folder.is_dir():
        msg = f"{folder}: no such directory; it holds a file KIND.json for each kind of event"
        raise BadInput(msg)
    texts: dict[str, str] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            found = path.stat()
            # A pipe would be waited for.
            if not stat.S_ISREG(found.st_mode):
                msg = f"{path}: not a file"
                raise BadInput(msg)
            if found.st_size > LARGEST_FILE_BYTES:
                msg = f"{path}: {found.st_size} bytes; at most {LARGEST_FILE_BYTES}"
                raise BadInput(msg)
            texts[path.name] = path.read_text(encoding="utf-8")
        except OSError as error:
            msg = f"{path}: can't be read ({error.strerror})"
            raise BadInput(msg) from error
        except UnicodeDecodeError as error:
            msg = f"{path}: can't be read as UTF-8 text"
            raise BadInput(msg) from error
    return parse_folder(str(folder), texts)


def parse_folder(place: str, texts: Mapping[str, str]) -> EventSchemas:
    """The schemas of files, given by name.

    Raises:
        BadInput: as :func:`load_folder`.
    """
    found: dict[str, EventSchema] = {}
    wrong: list[str] = []
    for name, text in texts.items():
        where = f"{place}/{name if name.isprintable() else ascii(name)}"
        try:
            found[name.removesuffix(".json")] = _schema(name.removesuffix(".json"), where, text)
        except BadInput as error:
            wrong.append(str(error))
    if wrong:
        raise BadInput("\n".join(wrong))
    return EventSchemas(place, found)


def _schema(kind: str, place: str, text: str) -> EventSchema:
    if not _KIND.fullmatch(kind):
        msg = f"{place}: the name is to be a kind and .json: {_KIND.pattern}"
        raise BadInput(msg)
    document = _read(place, text)
    if not isinstance(document, dict):
        msg = f"{place}: not a JSON object"
        raise BadInput(msg)
    if document.get("$schema") != DIALECT:
        msg = f"{place}: /$schema is to be {DIALECT}"
        raise BadInput(msg)
    # Before the meta-schema: what is wrong is said in the words of this folder.
    parts = document.get("$defs")
    # A reference is a URI, in which % begins an encoded character.
    names = {
        f"#/$defs/{escaped(name)}" for name in (parts if isinstance(parts, dict) else {}) if "%" not in name
    }
    every = list(nodes(document))
    for pointer, node in every:
        _check_node(place, pointer, node, names)
    _check_patterns(place, every)
    try:
        # Patterns were looked at above; the library would by Python's regular expressions.
        Draft202012Validator.check_schema(document, format_checker=FormatChecker(formats=()))
    except SchemaError as error:
        msg = f"{place}: {_pointer(error.absolute_path)}: {error.message[:200]}"
        raise BadInput(msg) from error
    except RecursionError as error:
        msg = f"{place}: nested deeper than it can be checked"
        raise BadInput(msg) from error
    _check_ends(place, document)
    aggregate, role = _check_head(place, document)
    schema = EventSchema(kind, aggregate, role, document, place)
    examples = document.get("examples")
    if not isinstance(examples, list) or not examples:
        msg = f"{place}: /examples is to have a payload"
        raise BadInput(msg)
    for number, example in enumerate(examples):
        if (problem := schema.problem(example)) is not None:
            msg = f"{place}: /examples/{number} is none: {problem}"
            raise BadInput(msg)
    return schema


def _read(place: str, text: str) -> Any:
    try:
        document = strict_json.parse(text)
        # As it is recorded, its numbers are doubles; one that is rounded there would look changed ever after.
        json.dumps(document, default=_double)
    except strict_json.NotStrict as error:
        msg = f"{place}: {error.pointer}: {error.problem}" if error.pointer else f"{place}: {error.problem}"
        raise BadInput(msg) from error
    except ValueError as error:
        msg = f"{place}: {error}"
        raise BadInput(msg) from error
    return document


def _double(number: Decimal) -> float:
    double = float(number)
    if Decimal(repr(double)) != number:
        msg = f"{str(number)[:40]}: no double holds this number"
        raise ValueError(msg)
    return double


def _check_ends(place: str, document: Mapping[str, Any]) -> None:
    """Refuse a part that is itself by reference alone, without a step into the data: it has no end."""
    parts = document.get("$defs", {})
    leads = {f"#/$defs/{escaped(name)}": _same_place(part) for name, part in parts.items()}
    for start, first in leads.items():
        seen: set[str] = set()
        waiting = list(first)
        while waiting:
            each = waiting.pop()
            if each == start:
                msg = f"{place}: {start[1:]}: refers to itself without an end"
                raise BadInput(msg)
            if each not in seen:
                seen.add(each)
                waiting += leads[each]


def _same_place(node: object) -> list[str]:
    """The references that say something of the very value that ``node`` says something of."""
    if not isinstance(node, dict):
        return []
    inner = [node.get(name) for name in ("else", "if", "not", "then")]
    for name in ("allOf", "anyOf", "oneOf"):
        inner += node.get(name, [])
    inner += node.get("dependentSchemas", {}).values()
    return [
        *([node["$ref"]] if "$ref" in node else []),
        *(each for one in inner for each in _same_place(one)),
    ]


def _check_head(place: str, document: Mapping[str, Any]) -> tuple[str, Literal["produced", "consumed"]]:
    """What an event's schema has beside JSON Schema: the aggregate and the role."""
    aggregate, role = document.get("x-aggregate"), document.get("x-role", "produced")
    if not isinstance(aggregate, str) or not _AGGREGATE.fullmatch(aggregate):
        msg = f"{place}: /x-aggregate is to name the aggregate: {_AGGREGATE.pattern}"
        raise BadInput(msg)
    if role not in ("produced", "consumed"):
        msg = f"{place}: /x-role is to be produced or consumed"
        raise BadInput(msg)
    if document.get("type") != "object":
        msg = f"{place}: /type is to be object, to which properties can be added later"
        raise BadInput(msg)
    if not document.get("description"):
        msg = f"{place}: /description is to say what happened"
        raise BadInput(msg)
    return aggregate, role


def _check_node(place: str, pointer: str, node: Mapping[str, Any], names: Set[str]) -> None:
    if "$ref" in node and not (isinstance(node["$ref"], str) and node["$ref"] in names):
        msg = f"{place}: {pointer}/$ref is to be #/$defs/NAME of this file: a schema is whole in its file"
    elif other := {"$dynamicRef", "$dynamicAnchor", "$anchor", "$id", "$vocabulary"} & node.keys():
        msg = f"{place}: {pointer}/{min(other)}: leave it out; #/$defs/NAME is how parts are named"
    elif node.get("additionalProperties") is False or node.get("unevaluatedProperties") is False:
        msg = f"{place}: {pointer}: closed, so that no property can be added without breaking a consumer"
    else:
        return
    raise BadInput(msg)


def _check_patterns(place: str, every: list[tuple[str, Mapping[str, Any]]]) -> None:
    """Refuse a regular expression whose matching has no bound, or that the library would match itself."""
    for pointer, node in every:
        named = node.get("patternProperties")
        texts = (
            {f"{pointer}/patternProperties/{escaped(text)}": text for text in named}
            if isinstance(named, dict)
            else {}
        )
        if isinstance(node.get("pattern"), str):
            texts[f"{pointer}/pattern"] = node["pattern"]
        for where, text in texts.items():
            try:
                pattern_of(text)
            except NoPattern as error:
                msg = f"{place}: {where}: {error}"
                raise BadInput(msg) from error
        if (
            named
            and (other := next((at for at, each in every if "unevaluatedProperties" in each), None))
            is not None
        ):
            msg = (
                f"{place}: {other}/unevaluatedProperties: not in a file with patternProperties; "
                "use additionalProperties"
            )
            raise BadInput(msg)


_SINGLE = ("additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then")
_SINGLE_TOO = ("unevaluatedItems", "unevaluatedProperties")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED = ("$defs", "dependentSchemas", "patternProperties", "properties")


def nodes(document: object, pointer: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every schema within a schema, itself first, by JSON pointer. What is data, such as enum, is none."""
    if not isinstance(document, dict):
        return
    yield pointer, document
    for name in (*_SINGLE, *_SINGLE_TOO):
        yield from nodes(document.get(name), f"{pointer}/{name}")
    for name in _LISTS:
        listed = document.get(name)
        for number, each in enumerate(listed if isinstance(listed, list) else []):
            yield from nodes(each, f"{pointer}/{name}/{number}")
    for name in _NAMED:
        named = document.get(name)
        for key, each in (named if isinstance(named, dict) else {}).items():
            yield from nodes(each, f"{pointer}/{name}/{escaped(key)}")


def escaped(part: str) -> str:
    """``part`` as a token of a JSON pointer."""
    return part.replace("~", "~0").replace("/", "~1")


def _depth(error: ValidationError) -> tuple[int, list[str]]:
    return len(error.absolute_path), [str(part) for part in error.absolute_path]


def _pointer(path: Any) -> str:
    return "".join(f"/{escaped(str(part))}" for part in path)


def _said(error: ValidationError) -> str:
    """What was asked, in the schema's own words: the library's message quotes the value."""
    keyword, asked = str(error.validator), cast("Any", error.validator_value)
    if keyword == "required" and isinstance(error.instance, Mapping):
        missing = [name for name in asked if name not in error.instance]
        return f"lacks {', '.join(missing)}"
    if keyword in {"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "$ref"}:
        return f"is not what {keyword} says"
    return f"is to have {keyword} {json.dumps(asked, default=str)[:120]}"
