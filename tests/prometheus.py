"""A real Prometheus with the rules of a test, and what it has counted before it started."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from kilo import cli
from kilo.testing.servers.ports import free_port
from sandbox import toolchain
from tests.events import make_outputs
from tests.patience import until


@contextmanager
def prometheus(
    folder: Path,
    *,
    rules: Mapping[str, Any] | None = None,
    history: str = "",
    targets: Sequence[str] = (),
    interval: str = "1s",
) -> Generator[str]:
    """Run one for as long as the block lasts and yield its URL.

    Args:
        folder: for its files.
        rules: the ``spec`` of a PrometheusRule.
        history: samples in the OpenMetrics text format, which it has from the beginning.
        targets: hosts and ports that it scrapes, as of namespace ``kilo``.
        interval: between two scrapes and between two evaluations.
    """
    (folder / "rules.json").write_text(json.dumps(rules or {"groups": []}), encoding="utf-8")
    config = {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "rule_files": ["rules.json"],
        "scrape_configs": [
            {
                "job_name": "gateway",
                "static_configs": [{"targets": list(targets), "labels": {"namespace": "kilo"}}],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
    if history:
        (folder / "history").write_text(history, encoding="utf-8")
        filling = ["tsdb", "create-blocks-from", "openmetrics", "history", "data"]
        subprocess.run(
            [toolchain.path("promtool"), *filling], cwd=folder, check=True, stdout=subprocess.DEVNULL
        )
    address = f"127.0.0.1:{free_port()}"
    command = [
        str(toolchain.path("prometheus")),
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=data",
        f"--web.listen-address={address}",
    ]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            until(lambda: _is_ready(address), "Prometheus ready")
            yield f"http://{address}"
        finally:
            process.kill()


def _watched_outputs(url: str, file: Path) -> Path:
    """Write the outputs of a stage whose Prometheus is at ``url``, in the namespace of its targets."""
    outputs = make_outputs()
    monitored = outputs.monitoring.model_copy(update={"prometheus_url": url})
    named = outputs.model_copy(update={"monitoring": monitored, "namespace": "kilo"})
    file.write_text(named.model_dump_json(), encoding="utf-8")
    return file


Say = Callable[..., tuple[int, str, str]]
"""Runs a command with its arguments: its exit code, output and error output."""


def saying(
    command: str,
    url: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Say:
    """``kilo COMMAND`` in a stage whose Prometheus is at ``url``, on a terminal of 80 columns."""
    monkeypatch.setenv("KILO_OUTPUTS", str(_watched_outputs(url, folder / "outputs.json")))
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main([command, *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/-/ready", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
