"""What the conformance suite needs to know of a provider: programs, and hands on the world behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Example:
    """One provider's resource "one", seen through everything that can happen to it.

    Attributes:
        head: what every one of its programs begins with.
        create: a program with the resource "one", which exports its physical name as ``name``.
        update: the same with a change in place.
        updated: the path and kind of that change in the detailed diff.
        replace: the same with a change that takes a new resource.
        replaced: the path and kind of that change.
        wrong: a program with an unknown property in a nested place and a wrong type.
        wrong_paths: the paths that the errors must name.
        unknown_type: a token that the official SDK does not have.
        missing_type: one that it has and the sandbox has not.
        unknowns: a program in which "two" takes an output of "one" that a preview can't know.
        secret: a program in which the secret ``"correct horse"`` goes into "one" or comes out of it.
        exists: whether the thing with a physical name is there; None where nothing lies outside the state.
        drift: changes the thing behind the engine's back.
        drifted: the path that a refresh must show.
        remove: deletes the thing behind the engine's back.
        adopt: makes a thing behind the engine's back and answers with the program that imports it.
        config: of the stack.
    """

    head: str
    create: str
    update: str | None
    updated: dict[str, str]
    replace: str
    replaced: dict[str, str]
    wrong: str
    wrong_paths: tuple[str, ...]
    unknown_type: str
    missing_type: str
    unknowns: str
    secret: str
    exists: Callable[[str], bool] | None = None
    drift: Callable[[str], None] | None = None
    drifted: str = ""
    remove: Callable[[str], None] | None = None
    adopt: Callable[[], str] | None = None
    config: dict[str, str] = field(default_factory=dict[str, str])


def raw(token: str, properties: dict[str, Any]) -> str:
    """A program that registers a resource as an SDK without types would."""
    return f"""
class Raw(pulumi.CustomResource):
    pass
Raw({token!r}, "one", {properties!r})
"""
