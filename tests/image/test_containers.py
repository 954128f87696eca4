"""The image under a real container runtime, as a cluster's pods run it: user, rights, root, memory.

The sandbox runs pods as plain processes, so that here alone a limit of memory is one. Run as root:
``make test TESTS=tests/image``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.__main__ import deploy
from infra.configuration import read_stage_file
from sandbox.image.archive import write_archive
from sandbox.image.build import Image
from tests.components.recorder import record
from tests.image.containerd import Containerd

ROOT = Path(__file__).parents[2]
NAME = "registry.example.com/kilo:tried"
MEBIBYTE = 1 << 20

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and containers take root"),
]


@pytest.fixture(scope="module")
def runtime(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    home = tmp_path_factory.mktemp("containerd")
    made = Containerd(home)
    try:
        made.start()
        archive = home / "image.tar"
        write_archive(image.directory, NAME, archive)
        made.ctr("images", "import", str(archive))
        yield made
    finally:
        made.stop()
    # Others of this machine mount and start meanwhile.
    assert str(home) not in Path("/proc/self/mounts").read_text()
    assert not [group for group in Path("/sys/fs/cgroup").rglob("*") if group.name == made.group]
    lines = [file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline")]
    assert not [line for line in lines if str(home).encode() in line]


def test_it_is_there_under_its_name_and_digest(runtime: Containerd, image: Image) -> None:
    assert f"{NAME} " in (listed := runtime.ctr("images", "list"))
    assert image.digest in listed


def test_a_process_has_no_rights_and_one_place_to_write_to(runtime: Containerd) -> None:
    code = (
        "import json, os, pwd\n"
        "status = dict(line.split(':\\t') for line in open('/proc/self/status').read().splitlines())\n"
        "places = [p for p in ('/', '/usr', '/etc', '/var', '/tmp') if os.access(p, os.W_OK)]\n"
        "print(json.dumps([pwd.getpwuid(os.getuid()).pw_name, places, int(status['CapEff'], 16),"
        " int(status['Seccomp']), int(status['CapBnd'], 16)]))\n"
    )
    ran = runtime.run(NAME, "/usr/bin/python3", "-c", code, memory_bytes=256 * MEBIBYTE)
    assert ran.code == 0, ran.output
    assert json.loads(ran.output) == ["kilo", ["/tmp"], 0, 2, 0]


def test_a_limit_of_memory_is_one(runtime: Containerd) -> None:
    code = "print(len(b'x' * (256 << 20)))"
    ended = runtime.run(NAME, "/usr/bin/python3", "-c", code, memory_bytes=64 * MEBIBYTE)
    assert ended.code == 137, ended.output
    ran = runtime.run(NAME, "/usr/bin/python3", "-c", code, memory_bytes=512 * MEBIBYTE)
    assert (ran.code, ran.output.strip()) == (0, str(256 << 20))


def test_every_command_of_the_stage_loads_within_its_limit_of_memory(runtime: Containerd) -> None:
    failed: dict[str, str] = {}
    found = dict(commands())
    assert len(found) >= 15
    for name, (arguments, memory_bytes) in found.items():
        ran = runtime.run(NAME, "/usr/local/bin/kilo", *arguments, "--help", memory_bytes=memory_bytes)
        if ran.code or "Usage: kilo" not in ran.output:
            failed[name] = f"{ran.code}: {ran.output[-500:]}"
    assert failed == {}


def commands() -> Iterator[tuple[str, tuple[list[str], int]]]:
    """Each container of dev that runs the platform's image: its command's words and its limit."""
    settings = read_stage_file(ROOT / "Pulumi.dev.yaml")
    recording = record(lambda: deploy(settings), stack="dev")
    for kind in ("apps/v1:Deployment", "apps/v1:StatefulSet", "batch/v1:Job", "batch/v1:CronJob"):
        for workload in recording.of(f"kubernetes:{kind}"):
            spec: dict[str, Any] = workload.inputs["spec"]
            pod = spec.get("jobTemplate", {}).get("spec", spec)["template"]["spec"]
            for container in pod["containers"]:
                if container["image"] != settings.images.runtime:
                    continue
                words = [word for word in container["args"] if not word.startswith("-")]
                limit = container["resources"]["limits"]["memory"]
                yield (
                    f"{workload.name}/{container['name']}",
                    (words, int(limit.removesuffix("Mi")) * MEBIBYTE),
                )


def test_a_drill_restores_within_its_limit_of_memory(runtime: Containerd) -> None:
    code = (
        "from kilo.backup.scratch import scratch_database; import psycopg\n"
        "with scratch_database('kilo', 'admin', None) as made:\n"
        "    print(psycopg.connect(made.url).execute('SELECT count(*) FROM pg_class').fetchone()[0] > 0)\n"
    )
    limit = dict(commands())["backup-drill/backup-drill"][1]
    ran = runtime.run(NAME, "/usr/bin/python3", "-c", code, memory_bytes=limit)
    assert (ran.code, ran.output.strip()) == (0, "True"), ran.output
