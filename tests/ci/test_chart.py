"""The deploy workflow's chart: pushed to a real registry, signed by its digest once, also after a cut.

``kilo outputs`` answers without an engine here, and ``cosign`` is a stand-in that keeps how it was called.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kilo.contract import SERVICE_CHART, SignersOutputs
from kilo.scaffold.chart import pack
from sandbox.servers.registries import SecondaryRegistry
from tests.events import make_outputs
from tests.runtime.registry.images import Shelf
from tests.runtime.registry.signer import Signer

ROOT = Path(__file__).parents[2]
DIGEST = pack(ROOT / "charts" / "service").manifest().digest


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = SecondaryRegistry(tmp_path_factory.mktemp("registry"))
    server.start()
    yield server.url
    server.stop()


def publish(directory: Path, registry: str, signers: SignersOutputs) -> tuple[str, str]:
    """Run the script; what it says, and how cosign was called since."""
    side = f"{registry.removeprefix('http://')}/{directory.name.replace('_', '-')}"
    outputs = make_outputs()
    primary = outputs.registries.primary.model_copy(update={"url": side})
    update = {"primary": primary, "repositories": (SERVICE_CHART,), "signers": signers}
    document = outputs.model_copy(update={"registries": outputs.registries.model_copy(update=update)})
    (directory / "outputs.json").write_text(document.model_dump_json())
    kilo, called = Path(sys.executable).with_name("kilo"), directory / "called"
    called.unlink(missing_ok=True)
    programs = {
        "kilo": f'[ "$1" = outputs ] && exec cat {directory}/outputs.json\nexec {kilo} "$@"',
        "cosign": f'echo "$@" >> {called}',
    }
    for name, text in programs.items():
        (directory / name).write_text(f"#!/bin/sh\n{text}\n")
        (directory / name).chmod(0o755)
    done = subprocess.run(
        [str(ROOT / ".ci" / "chart"), "dev"],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{directory}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), called.read_text().strip() if called.exists() else ""


def test_its_digest_is_signed_and_signed_once(tmp_path: Path, registry: str) -> None:
    signer, stranger = Signer(), Signer()
    signers = SignersOutputs(keys=(signer.write_key(tmp_path).read_text(),))
    chart, called = publish(tmp_path, registry, signers)
    assert chart.endswith(f"/{SERVICE_CHART}@{DIGEST}")
    assert called == f"sign --yes {chart}"
    # Cut off before it was signed: it is there, and the next run signs it. A stranger's signature is none.
    place = chart.partition("/")[2].partition("@")[0]
    shelf, image = Shelf(registry, place), {"digest": DIGEST}
    stranger.sign_by_tag(shelf, image)
    assert publish(tmp_path, registry, signers)[1] == f"sign --yes {chart}"
    signer.sign_by_tag(shelf, image)
    assert publish(tmp_path, registry, signers) == (chart, "")


def test_without_signers_anybodys_signature_will_do(tmp_path: Path, registry: str) -> None:
    chart, called = publish(tmp_path, registry, SignersOutputs())
    assert called == f"sign --yes {chart}"
    place = chart.partition("/")[2].partition("@")[0]
    Signer().sign_by_tag(Shelf(registry, place), {"digest": DIGEST})
    assert publish(tmp_path, registry, SignersOutputs())[1] == ""
