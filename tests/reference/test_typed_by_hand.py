"""What pages tell people to type beside `kilo`: kubectl, SQL of the platform's tables, a stage's settings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from pydantic import BaseModel

from infra.settings import Settings
from kilo.contract import StackOutputs
from tests.test_project import in_code

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
RUNBOOKS = ROOT / "docs" / "runbooks"
_IN_A_NAMESPACE = re.compile(r"\bkubectl (?:[a-z-]|$).*")
_OF_THE_CLUSTER = re.compile(r"\bkubectl (?:-n|--namespace|config|version)\b| (?:-n|--namespace) ")
_SETTING = re.compile(r"^(?:kilo:)?([a-z_]+(?:\.[A-Za-z_]+)+)(?:: .*)?$")
_STATEMENT = re.compile(r"^select [^;]* from (?:outbox|leases)\b[^;]*", re.IGNORECASE)


def pieces(page: Path) -> list[str]:
    """Each line of a page's code."""
    text = page.read_text("utf-8")
    indented = re.findall(r"^ {7,}(\S.*)$", text, re.MULTILINE)
    return [line.strip() for line in [*in_code(text).replace("\\\n", " ").splitlines(), *indented]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_kubectl_is_told_which_namespace(page: Path) -> None:
    lines = [found[0] for line in pieces(page) if (found := _IN_A_NAMESPACE.search(line))]
    assert [line for line in lines if not _OF_THE_CLUSTER.search(line)] == []


def has(model: type[BaseModel], path: list[str]) -> bool:
    """Whether a setting is there; what is not a section of its own may be anything below."""
    field = model.model_fields.get(path[0])
    if field is None:
        return False
    inner = [each for each in _models(field.annotation) if path[1:]]
    return not inner or any(has(each, path[1:]) for each in inner)


def _models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for each in getattr(annotation, "__args__", ()) for found in _models(each)]


def _of_the_chart(schema: Mapping[str, Any], path: list[str]) -> bool:
    found: Any = schema
    for name in path:
        found = found.get("properties", {}).get(name, {})
    return found != {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_settings_and_outputs_that_a_page_names_are_there(page: Path) -> None:
    sections = {*Settings.model_fields, *StackOutputs.model_fields}
    values = json.loads((ROOT / "charts" / "service" / "values.schema.json").read_text("utf-8"))
    named = [found[1].split(".") for piece in pieces(page) if (found := _SETTING.match(piece))]
    missing = [
        ".".join(path)
        for path in named
        if path[0] in sections
        and not has(Settings, path)
        and not has(StackOutputs, path)
        and not _of_the_chart(values, path)
    ]
    assert missing == []


def test_rows_that_wait_are_told_apart_by_publisher(database_url: str) -> None:
    (statement,) = (line for line in pieces(RUNBOOKS / "OutboxLag.md") if _STATEMENT.match(line))
    row = "INSERT INTO outbox (id, aggregate, aggregate_id, kind, payload, fingerprint, tenant) VALUES"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO outbox_cdc_aggregates VALUES ('payment')")
        for number, aggregate in enumerate(("order", "order", "payment"), start=1):
            connection.execute(
                f"{row} (%s, %s, 'a', 'x.done', '{{}}', %s, 'acme')", (number, aggregate, f"f{number}")
            )
        connection.execute("UPDATE outbox SET dequeued_at = now() WHERE fingerprint = 'f1'")
        found = connection.execute(sql.SQL(statement)).fetchall()  # pyright: ignore[reportArgumentType]
    assert sorted(found) == [("cdc", 1), ("worker", 1)]


def test_a_slot_that_is_read_is_given_up_before_it_is_dropped() -> None:
    mend = (RUNBOOKS / "SlotWalRetention.md").read_text("utf-8")
    assert mend.index("outbox.cdc_paused: true") < mend.index("pg_drop_replication_slot")
    assert mend.index("pg_drop_replication_slot") < mend.index("kilo db migrate") < mend.rindex("cdc_paused")
