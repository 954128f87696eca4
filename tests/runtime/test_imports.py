"""What a service's import loads when it runs, and what it says when an extra is missing."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from kilo.extras import MissingExtra, extra_of, requires

HEAVY = (
    "boto3",
    "cryptography",
    "httpx",
    "nats",
    "opentelemetry",
    "prometheus_client",
    "psycopg",
    "pydantic",
    "rich",
    "ruamel",
    "starlette",
    "typer",
)


def loaded(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_writing_events_loads_none_of_the_libraries_that_take_long() -> None:
    found = loaded("from kilo.outbox import Event, enqueue, enqueue_many_async")
    assert found & {*HEAVY} == set()
    assert "kilo" in found


@pytest.mark.parametrize(
    ("statement", "needed"),
    [
        ("import kilo.bus", set[str]()),
        ("import kilo.contract, kilo.environment, kilo.errors, kilo.tenancy", {"pydantic"}),
        ("import kilo.health", {"prometheus_client"}),
        (
            "import kilo.fle",
            {"boto3", "cryptography", "prometheus_client", "psycopg", "pydantic"},
        ),
        (
            "import kilo.consumer",
            {"boto3", "cryptography", "prometheus_client", "psycopg", "pydantic"},
        ),
    ],
)
def test_an_import_loads_what_it_stands_on_and_no_more(statement: str, needed: set[str]) -> None:
    assert loaded(statement) & {*HEAVY} == needed


def test_a_missing_package_is_an_error_that_names_the_extra() -> None:
    with (
        pytest.raises(
            MissingExtra, match=r"nats\.js is not installed: pip install 'kilo\[consumer\]'"
        ) as told,
        requires(),
    ):
        raise ModuleNotFoundError(name="nats.js")
    assert told.value.name == "nats.js"
    # One extra may bring another.
    with pytest.raises(MissingExtra, match=r"kilo\[consumer\]"), requires("consumer"), requires("fle"):
        raise ModuleNotFoundError(name="boto3")


def test_what_no_extra_brings_is_not_called_one() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"^$") as told, requires("fle"):
        raise ModuleNotFoundError(name="kilo.gone")
    assert type(told.value) is ModuleNotFoundError
    assert (extra_of("opentelemetry.sdk.trace"), extra_of("opentelemetry.trace")) == ("otel", "consumer")


def test_each_library_of_an_extra_is_known_to_come_with_it() -> None:
    """Else the error would be a traceback, or name an extra that does not help."""
    file = Path(__file__).parents[2] / "runtime" / "pyproject.toml"
    project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    plain = {"kilo", *map(name_of, project["dependencies"])}
    extras: dict[str, set[str]] = {}
    for extra, wanted in project["optional-dependencies"].items():
        for each in wanted:
            extras.setdefault(name_of(each), set()).add(extra)
    wrong = {
        module: extra_of(module)
        for module, owners in packages_distributions().items()
        for owner in owners
        if (bringing := extras.get(name_of(owner)))
        and name_of(owner) not in plain
        and not module.startswith("_")
        # A namespace that several extras share is told apart further down (opentelemetry.sdk).
        if len(owners) == 1 and extra_of(module) not in bringing
    }
    assert wrong == {}


def name_of(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-").replace(".", "-")
