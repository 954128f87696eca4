"""How far a service is on the paved road: one check a promise, each with what would make it true.

A check looks at files alone and asks nobody, so that it runs in any pipeline.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kilo.extras import requires
from kilo.scaffold.template import Service

with requires("scaffold"):
    import yaml

_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}\s*$")
_ACTION = re.compile(r"^\s*(?:- )?uses:\s*(?P<action>[^\s#]+)", re.MULTILINE)
_PINNED = re.compile(r"@[0-9a-f]{40}$")


@dataclass(frozen=True, slots=True)
class Result:
    """What a check found; ``repair`` says what would be right where it failed."""

    check: str
    passed: bool
    repair: str = ""


def score(service: Service, newest: str | None = None) -> list[Result]:
    """Every check of ``service``.

    Args:
        service: what is looked at.
        newest: the template's newest version, where it is known; none leaves the check out.
    """
    results = [
        Result(name, not repair, repair) for name, check in _CHECKS.items() for repair in [check(service)]
    ]
    if newest is not None:
        behind = service.version != newest
        results.append(
            Result(
                "template is the newest", not behind, f"kilo svc update: {newest} is there" if behind else ""
            )
        )
    return results


def _text(service: Service, *names: str) -> str:
    try:
        return service.directory.joinpath(*names).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _values(service: Service) -> dict[str, Any]:
    try:
        found = yaml.safe_load(_text(service, "deploy", "values.yaml"))
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _base_is_pinned(service: Service) -> str:
    pinned = _DIGEST.search(_text(service, "deploy", "base-image"))
    return "" if pinned else "deploy/base-image names no digest: make pin"


def _dependencies_are_locked(service: Service) -> str:
    locked = "--hash=sha256:" in _text(service, "requirements.lock")
    return "" if locked else "no requirements.lock: make lock"


def _image_is_not_root(service: Service) -> str:
    users = re.findall(r"^USER\s+(\S+)", _text(service, "Dockerfile"), re.MULTILINE)
    return "" if users and users[-1].startswith("10001") else "Dockerfile: its last USER is not 10001:10001"


def _actions_are_pinned(service: Service) -> str:
    workflows = sorted(Path(service.directory, ".github", "workflows").glob("*.y*ml"))
    if not workflows:
        return ".github/workflows: no workflow"
    for path in workflows:
        for found in _ACTION.finditer(path.read_text(encoding="utf-8")):
            action = found["action"]
            if not action.startswith("./") and not _PINNED.search(action):
                return f"{path.relative_to(service.directory)}: {action} is not pinned to a commit"
    return ""


def _has_tests(service: Service) -> str:
    tests = Path(service.directory, "tests")
    found = any("def test_" in each.read_text(encoding="utf-8") for each in tests.glob("**/test_*.py"))
    return "" if found else "tests: no test"


def _runs_on_the_chart(service: Service) -> str:
    values = _values(service)
    if not values.get("image"):
        return "deploy/values.yaml: no values of the chart service"
    return "" if _text(service, "deploy", "chart-version").strip() else "deploy/chart-version: missing"


def _is_watched(service: Service) -> str:
    monitoring = _values(service).get("monitoring") or {}
    return "deploy/values.yaml: monitoring.enabled is false" if monitoring.get("enabled") is False else ""


def _events_are_described(service: Service) -> str:
    answers = service.answers
    has_events = answers.get("kind") == "consumer" or (answers.get("database") and answers.get("outbox"))
    described = any(Path(service.directory, "events").glob("*.json"))
    return "" if described or not has_events else "events: no KIND.json for the events; see kilo events check"


def _has_a_runbook(service: Service) -> str:
    return "" if _text(service, "docs", "runbook.md").strip() else "docs/runbook.md: missing"


_CHECKS: dict[str, Callable[[Service], str]] = {
    "base image is pinned": _base_is_pinned,
    "dependencies are locked": _dependencies_are_locked,
    "image is not root": _image_is_not_root,
    "actions are pinned": _actions_are_pinned,
    "has tests": _has_tests,
    "runs on the chart": _runs_on_the_chart,
    "is watched": _is_watched,
    "events are described": _events_are_described,
    "has a runbook": _has_a_runbook,
}
