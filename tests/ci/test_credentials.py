"""The workflows' credentials, by the SDK's own way: fetched anew, with a new token each time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import botocore.session
import pytest
from botocore.credentials import RefreshableCredentials

from sandbox.servers.moto import MotoServer

SCRIPT = Path(__file__).parents[2] / ".ci" / "aws-credentials"
ROLE = "arn:aws:iam::123456789012:role/deployer"


class Issuer:
    """GitHub's side: answers each request with a token of its own, and may fail."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.failures = 0
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append((self.path, self.headers["Authorization"]))
                issuer.failures -= 1
                self.send_response(503 if issuer.failures >= 0 else 200)
                self.end_headers()
                self.wfile.write(json.dumps({"value": f"token-{len(issuer.asked)}"}).encode())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base's name
                """Requests are looked at in ``asked``."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/token?api-version=2"


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = MotoServer(tmp_path_factory.mktemp("aws"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
def job(issuer: Issuer, aws: str) -> dict[str, str]:
    """The variables of a job that may ask for tokens."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {
        **kept,
        "ACTIONS_ID_TOKEN_REQUEST_URL": issuer.url,
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-secret",
        "AWS_ENDPOINT_URL": aws,
        "AWS_REGION": "eu-central-1",
        "AWS_ROLE_ARN": ROLE,
        "GITHUB_RUN_ID": "42",
    }


def run(job: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT)]
    return subprocess.run(command, env=job, capture_output=True, text=True, timeout=120, check=False)


def test_the_sdk_comes_again_before_the_credentials_end(
    job: dict[str, str], issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    config.write_text(f'[default]\ncredential_process = "{sys.executable}" "{SCRIPT}"\n')
    for name, value in {**job, "AWS_CONFIG_FILE": str(config)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    found: Any = botocore.session.get_session().get_credentials()
    assert isinstance(found, RefreshableCredentials)
    first = found.get_frozen_credentials()
    assert found.get_frozen_credentials() == first
    assert len(issuer.asked) == 1
    found._expiry_time = datetime.now(UTC) + timedelta(minutes=2)  # pyright: ignore[reportPrivateUsage]
    assert found.get_frozen_credentials().access_key != first.access_key
    assert issuer.asked == [("/token?api-version=2&audience=sts.amazonaws.com", "bearer request-secret")] * 2


def test_an_issuer_that_fails_for_a_moment_is_asked_again(job: dict[str, str], issuer: Issuer) -> None:
    issuer.failures = 2
    done = run(job)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == {
        "Version",
        "AccessKeyId",
        "SecretAccessKey",
        "SessionToken",
        "Expiration",
    }
    assert len(issuer.asked) == 3


def test_what_is_missing_is_said_without_a_traceback_and_without_a_token(
    job: dict[str, str], issuer: Issuer
) -> None:
    without = {name: value for name, value in job.items() if name != "ACTIONS_ID_TOKEN_REQUEST_TOKEN"}
    done = run(without)
    assert done.returncode == 1
    assert "ACTIONS_ID_TOKEN_REQUEST_TOKEN is not set" in done.stderr
    issuer.failures = 10
    done = run(job)
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"error: no credentials of {ROLE}: the issuer of the job's token answers HTTP 503"
    )
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr
    assert not done.stdout
