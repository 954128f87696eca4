"""A real Prometheus that holds the samples of a test, and a stage's database."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import psycopg
import pytest

from kilo.contract import StackOutputs
from kilo.observe.prometheus import Prometheus
from kilo.observe.rules import render_rules
from kilo.testing.servers.ports import free_port
from sandbox import toolchain
from tests.events import make_outputs
from tests.patience import until

Series = Mapping[str, float]


class History:
    """A Prometheus over samples that are written before it starts, at the ages given."""

    def __init__(self, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self._folder = folder
        self._samples: list[tuple[str, float, float]] = []
        self._process: subprocess.Popen[bytes] | None = None

    def add(self, series: str, value: float, *, ages: tuple[float, ...] = (60, 45, 30, 15, 1)) -> None:
        """One series, such as ``outbox_lost_events{a="b"}``, with a value at each age in seconds."""
        name, _, labels = series.partition("{")
        inside = f'namespace="kilo"{"," if labels else ""}{labels.removesuffix("}").replace(", ", ",")}'
        self._samples += [(f"{name}{{{inside}}}", value, time.time() - age) for age in ages]

    def start(self, *, rules: bool = False) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{name} {value} {at:.3f}\n" for name, value, at in sorted(self._samples)) + "# EOF\n"
        given, data = self._folder / "samples.txt", self._folder / "data"
        given.write_text(text)
        if self._samples:
            subprocess.run(
                [toolchain.path("promtool"), "tsdb", "create-blocks-from", "openmetrics", given, data],
                check=True,
                capture_output=True,
            )
        config: dict[str, object] = {"global": {"evaluation_interval": "1s"}}
        if rules:
            found = render_rules("test", "kilo")
            for group in found["groups"]:
                group["interval"] = "1s"
            (self._folder / "rules.json").write_text(json.dumps(found))
            config["rule_files"] = ["rules.json"]
        (self._folder / "prometheus.yml").write_text(json.dumps(config))
        self._process = subprocess.Popen(
            [
                toolchain.path("prometheus"),
                f"--config.file={self._folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={data}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(self._ready, "Prometheus ready")

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready").status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    found = History(tmp_path / "prometheus")
    yield found
    found.stop()


@pytest.fixture
def prometheus(history: History) -> Iterator[Prometheus]:
    with Prometheus(history.url) as found:
        yield found


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(database_url, autocommit=True) as found:
        yield found


@pytest.fixture
def outputs() -> StackOutputs:
    return make_outputs(keys={})
