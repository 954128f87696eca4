"""Reads a stage's configuration and turns every mistake in it into one line.

The program reads what the engine passes it, so that ``pulumi config set`` and the Automation API
count; tools that look at a stage without the engine read the YAML file. Both end in the same
:class:`~infra.settings.Settings`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from infra.rules import violations
from infra.settings import Settings
from kilo.errors import BadInput

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

PROJECT = "kilo"
# Provider settings that are ours as well: where they stand in the file, and in the model.
PROVIDER_KEYS = {
    "aws:region": ("aws", "region"),
    "gcp:project": ("gcp", "project"),
    "gcp:region": ("gcp", "region"),
}


# What is right instead, for pydantic's own kinds of mistake (https://docs.pydantic.dev/latest/errors/).
_RIGHT = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "float_parsing": "a number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "model_type": "a mapping",
    "string_type": "text in quotes",
    "too_short": "a list of at least {min_length}",
    "tuple_type": "a list",
}


def parse(config: Mapping[str, object], stage: str, file: str) -> Settings:
    """Check the ``config:`` mapping of ``file`` and return it as settings.

    Args:
        config: keys with their namespace (``kilo:tenants``, ``aws:region``) and plain values.
        stage: the stack's name.
        file: what messages call the place, such as ``Pulumi.dev.yaml``.

    Raises:
        BadInput: one line for each mistake, all of them at once.
    """
    document: dict[str, Any] = {"stage": stage}
    for key, value in config.items():
        namespace, _, name = key.partition(":")
        if namespace == PROJECT and name != "stage":
            document[name] = dict(value) if isinstance(value, Mapping) else value
    for key, (part, name) in PROVIDER_KEYS.items():
        inner = document.setdefault(part, {})
        if key in config and isinstance(inner, dict):
            inner[name] = config[key]
    try:
        settings = Settings.model_validate(document)
    except ValidationError as error:
        lines = (_line(file, details, config) for details in _own_mistakes(error))
        raise BadInput("\n".join(lines)) from error
    said = [(f"{PROJECT}:{path}", message) for path, message in violations(settings)]
    said += _providers_lead_elsewhere(settings, config)
    if said:
        raise BadInput("\n".join(f"{file}: {path}: {message}" for path, message in said))
    return settings


def _providers_lead_elsewhere(settings: Settings, config: Mapping[str, object]) -> list[tuple[str, str]]:
    """What the providers must be told to refuse other credentials and another cluster by themselves."""
    wanted, found = [settings.aws.account_id], []
    allowed = config.get("aws:allowedAccountIds")
    if allowed is None and settings.is_dev:
        pass
    elif allowed != wanted:
        shown = "missing" if allowed is None else f"{_shown(allowed)} is not right"
        found.append(
            ("aws:allowedAccountIds", f"{shown}; use {json.dumps(wanted)}, the stage's aws.account_id")
        )
    if not settings.is_dev and not config.get("kubernetes:context"):
        found.append(
            ("kubernetes:context", "missing; use the name of this stage's context in the kubeconfig")
        )
    return found


def read_stage_file(path: Path) -> Settings:
    """Read ``Pulumi.<stage>.yaml`` without the engine.

    Raises:
        BadInput: the file is missing, no YAML, or holds mistakes.
    """
    from ruamel.yaml import YAML, YAMLError  # noqa: PLC0415  the program itself never needs it

    try:
        document: object = YAML(typ="safe").load(path)
    except OSError as error:
        msg = f"{path}: can't be read ({error.strerror}); name a stage that has a Pulumi.<stage>.yaml"
        raise BadInput(msg) from error
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path.name}:{mark.line + 1}" if mark else path.name
        problem = str(getattr(error, "problem", None) or error)
        # ruamel's own words go on with the values, which may be long, or not for every eye.
        duplicate = re.match(r'found duplicate key "([^"]*)"', problem)
        what = f"{duplicate[1]} stands here a second time; keep one" if duplicate else f"not YAML: {problem}"
        msg = f"{place}: {what}"
        raise BadInput(msg) from error
    config = document.get("config") if isinstance(document, dict) else None
    if not isinstance(config, dict):
        msg = f"{path.name}: config: missing; a stage's settings stand under it"
        raise BadInput(msg)
    stage = path.name.removeprefix("Pulumi.").removesuffix(".yaml")
    return parse({str(key): value for key, value in config.items()}, stage, path.name)


def kubernetes_context(path: Path) -> str | None:
    """The context of the kubeconfig that a stage's file names, which :func:`read_stage_file` could read."""
    from ruamel.yaml import YAML  # noqa: PLC0415  the program itself never needs it

    return YAML(typ="safe").load(path)["config"].get("kubernetes:context")


def from_engine(values: Mapping[str, str], stage: str) -> Settings:
    """Read the configuration that the engine passes: every value is text, structured ones are JSON.

    Raises:
        BadInput: one line for each mistake.
    """
    return parse({key: _plain(value) for key, value in values.items()}, stage, f"Pulumi.{stage}.yaml")


def _plain(value: str) -> object:
    if value[:1] in "[{":
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _own_mistakes(error: ValidationError) -> list[ErrorDetails]:
    """Every mistake but those that only follow from others: a list is short when its items are wrong."""
    found = error.errors()
    places = [details["loc"] for details in found]
    return [
        details
        for details in found
        if details["type"] != "too_short"
        or not any(
            len(place) > len(details["loc"]) and place[: len(details["loc"])] == details["loc"]
            for place in places
        )
    ]


def _line(file: str, details: ErrorDetails, config: Mapping[str, object]) -> str:
    path = _path(details["loc"])
    return f"{file}: {path}: {_message(details)}{_misspelt(path, details, config)}"


def _misspelt(path: str, details: ErrorDetails, config: Mapping[str, object]) -> str:
    """What stands in the file in the place of a missing key: other namespaces are not ours to refuse."""
    given = [key for key in config if key.partition(":")[0] != PROJECT and key not in PROVIDER_KEYS]
    close = get_close_matches(path, given, n=1, cutoff=0.8) if details["type"] == "missing" else []
    return f"; the file has '{close[0]}', is that what it was to be?" if close else ""


def _path(location: Sequence[int | str]) -> str:
    for key, where in PROVIDER_KEYS.items():
        if tuple(location) == where:
            return key
    if location == ("stage",):
        return "stack name"
    text = ""
    for part in location:
        if part == "[key]":
            continue
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return f"{PROJECT}:{text.removeprefix('.')}"


def _message(details: ErrorDetails) -> str:
    kind, given = details["type"], details["input"]
    context = details.get("ctx", {})
    if kind == "missing":
        return f"missing; use {_what_is_right(details['loc']) or 'a value'}"
    if kind == "extra_forbidden":
        known = _fields_at(details["loc"][:-1])
        name = str(details["loc"][-1])
        close = get_close_matches(name, known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known here: {', '.join(sorted(known))}"
        return f"unknown setting; {hint}"
    shown = _shown(given)
    if kind in _RIGHT:
        right = _what_is_right(details["loc"]) or _RIGHT[kind].format(**context)
        return f"{shown} is not right; use {right}"
    if kind == "string_pattern_mismatch":
        right = _what_is_right(details["loc"]) or f"what matches {context['pattern']}"
        return f"{shown} is not right; use {right}"
    if kind == "literal_error":
        return f"{shown} is not known; use {context['expected']}"
    message = str(context["error"]) if kind == "value_error" else details["msg"]
    return f"{shown}: {message[0].lower()}{message[1:]}"


def _shown(given: object) -> str:
    """What stands in the file, short, and without the credentials of a URL pasted where none belongs."""
    text = re.sub(r"//[^/@\s]*@", "//…@", json.dumps(given, default=str, ensure_ascii=False))
    return text if len(text) <= 60 else f"{text[:57]}..."


def _what_is_right(location: Sequence[int | str]) -> str | None:
    """The description of the field at ``location``: what a right value looks like."""
    parents = [part for part in location if isinstance(part, str) and part != "[key]"]
    if not parents:
        return None
    model = _model_at(location[: _last_name(location)])
    field = model.model_fields.get(parents[-1]) if model else None
    if field is None:
        return None
    if field.description:
        return field.description
    for item in _arguments(field.annotation):
        for extra in getattr(item, "__metadata__", ()):
            if getattr(extra, "description", None):
                return str(extra.description)
    return None


def _last_name(location: Sequence[int | str]) -> int:
    return max(index for index, part in enumerate(location) if isinstance(part, str) and part != "[key]")


def _fields_at(location: Sequence[int | str]) -> list[str]:
    model = _model_at(location)
    if model is None:
        return []
    return [
        name
        for name in model.model_fields
        if (*location, name) not in PROVIDER_KEYS.values() and name != "stage"
    ]


def _model_at(location: Sequence[int | str]) -> type[BaseModel] | None:
    """The model whose fields stand at ``location`` of the settings."""
    model: type[BaseModel] = Settings
    inside_mapping = False
    for part in location:
        if isinstance(part, int) or part == "[key]":
            continue
        if inside_mapping:
            inside_mapping = False
            continue
        field = model.model_fields.get(part)
        if field is None:
            return None
        models = [
            item
            for item in _arguments(field.annotation)
            if isinstance(item, type) and issubclass(item, BaseModel)
        ]
        if not models:
            return None
        model = models[0]
        inside_mapping = getattr(field.annotation, "__origin__", None) is dict
    return model


def _arguments(annotation: object) -> list[Any]:
    """``annotation`` and everything inside it, flat."""
    found: list[Any] = [annotation]
    for inner in getattr(annotation, "__args__", ()):
        found.extend(_arguments(inner))
    return found
