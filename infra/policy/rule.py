"""What a rule is: the resource types it looks at, and a pure check of one resource.

Rules know nothing of the policy SDK, so that each is tested as the plain function it is;
:mod:`infra.policy.__main__` hands them to the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Properties = Mapping[str, Any]


@dataclass(frozen=True)
class Resource:
    """A resource as the engine is about to create it.

    ``dependencies`` has, by input property, the URNs of the resources whose outputs it was made of.
    """

    type: str
    name: str
    properties: Properties
    protect: bool = False
    urn: str = ""
    dependencies: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])


@dataclass(frozen=True)
class Rule:
    """A rule about one resource by itself.

    ``check`` yields one message for each thing that breaks the rule, and says in it what to do.
    """

    name: str
    description: str
    types: frozenset[str]
    check: Callable[[Resource], Iterable[str]]


@dataclass(frozen=True)
class StackRule:
    """A rule that needs all resources of the stack: yields pairs of an URN and a message."""

    name: str
    description: str
    check: Callable[[Sequence[Resource]], Iterable[tuple[str, str]]]
