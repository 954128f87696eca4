"""Load on the stage while a test does something to it."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.node.bring_up import ROOT
from tests.node.patience import until
from tests.node.stage import NAMESPACE, StageOnNode

TENANT = "acme"
_KINDS = ("keep", "new")


@dataclass(frozen=True)
class Load:
    """What became of the requests so far, of clients that keep their connections and of those that don't."""

    stage: StageOnNode
    files: tuple[Path, ...]

    @property
    def acknowledged(self) -> list[str]:
        """Fingerprints of events."""
        return self._said("acknowledged")

    @property
    def failures(self) -> list[str]:
        """How the other requests ended."""
        return self._said("failure")

    def wait_for_more(self, count: int) -> None:
        """Wait until that many more events are acknowledged of each kind of client."""
        before = [len(_lines(file)) for file in self.files]
        until(
            lambda: all(
                len(_lines(file)) >= start + count for file, start in zip(self.files, before, strict=True)
            ),
            f"no {count} requests were answered: {self.failures[-3:]}",
        )

    def wait_delivered(self) -> None:
        """Wait until a consumer has every event that was acknowledged."""
        sent = self.acknowledged
        query = "SELECT count(DISTINCT fingerprint) FROM inbox WHERE fingerprint = ANY (%s)"
        until(
            lambda: self.stage.ask(query, sent) == [(len(sent),)], "acknowledged events reached no consumer"
        )

    def _said(self, what: str) -> list[str]:
        return [line[what] for file in self.files for line in _lines(file) if what in line]


@contextmanager
def load(stage: StageOnNode) -> Generator[Load]:
    """Clients of both kinds, until the block ends."""
    service = stage.node.get(f"/api/v1/namespaces/{NAMESPACE}/services/gateway")["spec"]
    url = f"http://{service['clusterIP']}:{service['ports'][0]['port']}"
    name = secrets.token_hex(4)
    stop = stage.node.home / f"{name}.stop"
    files = tuple(stage.node.home / f"{name}.{kind}.jsonl" for kind in _KINDS)
    senders: list[subprocess.Popen[bytes]] = []
    with ExitStack() as opened:
        for kind, file in zip(_KINDS, files, strict=True):
            variables = ["env", f"PYTHONPATH={ROOT}:{ROOT / 'runtime'}"]
            python = [sys.executable, "-m", "tests.node.load", url, TENANT, kind, str(stop)]
            argv = stage.node.namespaces.enter(*variables, *python)
            senders.append(subprocess.Popen(argv, stdout=opened.enter_context(file.open("wb"))))
    try:
        yield Load(stage, files)
    finally:
        stop.touch()
        for sender in senders:
            sender.wait()


def _lines(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
