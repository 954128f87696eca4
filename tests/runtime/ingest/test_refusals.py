"""What is refused is in the log, at its level, and no client can fill it or write into it."""

from __future__ import annotations

import logging
from http import HTTPStatus

import httpx
import pytest

from kilo.ingest import refusals
from kilo.ingest.refusals import RefusalLog
from kilo.web.problem import Problem, refused
from tests.runtime.ingest.test_ingest import post, with_payload


async def test_a_refusal_is_logged_without_what_the_client_chose(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "kilo")
    await post(client, '{"secret-name\\nERROR forged": 1}', key="ana.secret@example.org")
    await post(client, with_payload("{"), key="k2")
    assert [(each.levelname, each.name) for each in caplog.records] == [
        ("INFO", refusals.__name__), ("INFO", refusals.__name__)
    ]  # fmt: skip
    assert "refused a request of acme: " in caplog.text
    assert "secret" not in caplog.text
    assert "\nERROR" not in caplog.text


def test_many_refusals_are_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kilo")
    log = RefusalLog(together_seconds=3600)
    for _ in range(1000):
        log.note(
            "acme",
            refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"pointer": "#", "detail": "more than 10 bytes"}),
        )
        log.note("globex", Problem(HTTPStatus.SERVICE_UNAVAILABLE, "the database\ndoes not answer"))
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
        ("INFO", "refused a request of acme: 413 more than 10 bytes"),
        ("WARNING", "refused a request of globex: 503 the database\\ndoes not answer"),
    ]
    log = RefusalLog(together_seconds=0)
    caplog.clear()
    for _ in range(2):
        log.note("acme", Problem(HTTPStatus.SERVICE_UNAVAILABLE, "away"))
    assert len(caplog.records) == 2
