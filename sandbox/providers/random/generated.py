"""Passwords, strings, ids, pet names, integers and UUIDs.

What is generated lies in the engine's state alone, so reading one back finds what the state says, and
any changed input generates anew. Randomness is the operating system's; ``bcryptHash`` is by its libcrypt.
"""

from __future__ import annotations

import base64
import secrets
import string
import uuid
from collections.abc import Iterable
from typing import Any

from sandbox.providers.base import ResourceType
from sandbox.providers.random.hashing import bcrypt
from sandbox.providers.rules import within
from sandbox.providers.schema import Failure
from sandbox.providers.values import Properties

_SPECIAL = "!@#$%&*()-_=+[]{}<>:?"
_GROUPS = {"lower": string.ascii_lowercase, "upper": string.ascii_uppercase, "numeric": string.digits}


class _Generated(ResourceType):
    """A value that exists in the state alone."""

    def generate(self, inputs: Properties) -> tuple[str, Properties]:
        """The id and the generated outputs."""
        raise NotImplementedError

    def imported(self, resource_id: str) -> Properties | None:
        """The outputs that an id given to ``pulumi import`` stands for."""
        del resource_id
        return None

    def create(self, inputs: Properties) -> str:
        """Generate, and leave the outputs where :meth:`read` finds them right after."""
        resource_id, outputs = self.generate(inputs)
        inputs.update(outputs)
        return resource_id

    def read(self, resource_id: str, known: Properties) -> Properties | None:
        """What the state says is what there is."""
        return dict(known) or self.imported(resource_id)

    def update(self, resource_id: str, old: Properties, new: Properties) -> None:
        """Every change of an input replaces, so there is never anything to do."""

    def delete(self, resource_id: str, known: Properties) -> None:
        """Nothing lies outside the state."""


class RandomString(_Generated):
    """Characters of chosen groups."""

    type_name = "random:index/randomString:RandomString"
    immutable = [
        "length",
        "lower",
        "upper",
        "numeric",
        "number",
        "special",
        "minLower",
        "minUpper",
        "minNumeric",
        "minSpecial",
        "overrideSpecial",
        "keepers",
    ]
    defaults = {
        **dict.fromkeys(("lower", "upper", "numeric", "number", "special"), True),
        **dict.fromkeys(("minLower", "minUpper", "minNumeric", "minSpecial"), 0),
    }

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """The length holds what is asked of each group."""
        yield from within(inputs, "length", 1, 100_000)
        least = [inputs[name] for name in ("minLower", "minUpper", "minNumeric", "minSpecial")]
        if all(isinstance(n, int) for n in [*least, inputs["length"]]) and sum(least) > inputs["length"]:
            yield Failure(
                "length", f"must hold the minimums, {sum(least)} together, and is {inputs['length']}"
            )
        if not any(inputs[name] for name in ("lower", "upper", "numeric", "special")):
            yield Failure("special", "at least one group of characters must be on")

    def generate(self, inputs: Properties) -> tuple[str, Properties]:
        special = inputs.get("overrideSpecial") or _SPECIAL
        groups = {**_GROUPS, "special": special}
        on = {name: characters for name, characters in groups.items() if inputs[name]}
        minimum = {name: inputs[f"min{name.capitalize()}"] for name in groups}
        chosen = [secrets.choice(groups[name]) for name, count in minimum.items() for _ in range(count)]
        alphabet = "".join(on.values())
        chosen += [secrets.choice(alphabet) for _ in range(inputs["length"] - len(chosen))]
        secrets.SystemRandom().shuffle(chosen)
        result = "".join(chosen)
        return result, {"result": result}

    def imported(self, resource_id: str) -> Properties | None:
        return {**self.defaults, "length": len(resource_id), "result": resource_id}


class RandomPassword(RandomString):
    """As a string, and secret; its id says nothing of it."""

    type_name = "random:index/randomPassword:RandomPassword"
    secret_outputs = ("result", "bcryptHash")

    def generate(self, inputs: Properties) -> tuple[str, Properties]:
        outputs = super().generate(inputs)[1]
        return "none", {**outputs, "bcryptHash": bcrypt(outputs["result"])}


class RandomId(_Generated):
    """Random bytes in several writings. Its id is those bytes in the clear: never key material."""

    type_name = "random:index/randomId:RandomId"
    immutable = ("byteLength", "keepers", "prefix")

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """At least a byte."""
        yield from within(inputs, "byteLength", 1, 100_000)

    def generate(self, inputs: Properties) -> tuple[str, Properties]:
        data = secrets.token_bytes(inputs["byteLength"])
        return _url(data), _writings(data, inputs.get("prefix") or "")

    def imported(self, resource_id: str) -> Properties | None:
        prefix, _, text = resource_id.rpartition(",")
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        own: Properties = {"prefix": prefix} if prefix else {}
        return {"byteLength": len(data), **own, **_writings(data, prefix)}


def _url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _writings(data: bytes, prefix: str) -> Properties:
    return {
        "b64Std": prefix + base64.b64encode(data).decode(),
        "b64Url": prefix + _url(data),
        "dec": prefix + str(int.from_bytes(data, "big")),
        "hex": prefix + data.hex(),
    }


class RandomInteger(_Generated):
    """An integer between two bounds, both included."""

    type_name = "random:index/randomInteger:RandomInteger"
    immutable = ("min", "max", "keepers", "seed")

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """The bounds are in order."""
        least, most = inputs["min"], inputs["max"]
        if isinstance(least, int) and isinstance(most, int) and least > most:
            yield Failure("min", f"must not be above max ({most}), and is {least}")
        if inputs.get("seed") is not None:
            yield Failure("seed", "the sandbox can't generate the official provider's seeded numbers")

    def generate(self, inputs: Properties) -> tuple[str, Properties]:
        number = inputs["min"] + secrets.randbelow(inputs["max"] - inputs["min"] + 1)
        return str(number), {"result": number}


class RandomUuid(_Generated):
    """A random UUID."""

    type_name = "random:index/randomUuid:RandomUuid"
    immutable = ("keepers",)

    def generate(self, inputs: Properties) -> tuple[str, Properties]:
        result = str(uuid.uuid4())
        return result, {"result": result}

    def imported(self, resource_id: str) -> Properties | None:
        return {"result": resource_id}


TYPES: tuple[Any, ...] = (RandomString(), RandomPassword(), RandomId(), RandomInteger(), RandomUuid())
