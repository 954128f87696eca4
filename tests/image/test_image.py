"""The platform's own image: built twice, pushed by another's program, and run as a cluster runs it.

Run as root, since a root directory of its own takes it: ``make test TESTS=tests/image``.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox import toolchain
from sandbox.image.build import Image, build
from sandbox.image.description import describe
from sandbox.servers.registries import SecondaryRegistry
from sandbox.toolchain.progress import Step

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="a root directory of its own takes root"),
]

_RUN = """\
mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && mount -t tmpfs tmpfs "$1/tmp" &&
mount --rbind /dev "$1/dev" && mount -t proc proc "$1/proc" || exit 99
root=$1; shift
exec chroot --userspec=10001:10001 "$root" "$@"
"""


def document(image: Image, digest: str) -> dict[str, Any]:
    return json.loads((image.directory / "blobs" / digest.replace(":", "/")).read_text())


@pytest.fixture(scope="module")
def root(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a runtime makes of the layers."""
    place = tmp_path_factory.mktemp("root")
    place.chmod(0o755)  # pytest makes it for its own user alone
    for layer in document(image, image.digest)["layers"]:
        with tarfile.open(image.directory / "blobs" / layer["digest"].replace(":", "/")) as archive:
            archive.extractall(place, filter="fully_trusted")
    return place


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    server = SecondaryRegistry(tmp_path / "registry")
    server.start()
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        server.stop()


def run(root: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """As a cluster does: the image's environment and user, a read-only root but for /tmp; and no network."""
    words = ["env", "-i", *(f"{name}={value}" for name, value in describe().environment.items())]
    script = _RUN.replace("exec chroot", f"exec {shlex.join(words)} /usr/sbin/chroot")
    command = [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--net",
        "--ipc",
        "sh",
        "-c",
        script,
        "sh",
        str(root),
        *argv,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def python(root: Path, code: str) -> str:
    done = run(root, "/usr/bin/python3", "-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_same_checkout_gives_the_same_digest(image: Image, tmp_path: Path) -> None:
    again = build(tmp_path / "elsewhere" / "two", Step(lambda _: None))
    assert again.digest == image.digest


def test_another_program_pushes_and_validates_it(image: Image, registry: str) -> None:
    crane = str(toolchain.path("crane"))
    subprocess.run(
        [crane, "push", str(image.directory), f"{registry}/kilo:1"], check=True, capture_output=True
    )
    done = subprocess.run([crane, "digest", f"{registry}/kilo:1"], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == image.digest
    validated = subprocess.run(
        [crane, "validate", "--remote", f"{registry}/kilo:1"], capture_output=True, text=True, check=False
    )
    assert validated.returncode == 0, validated.stdout + validated.stderr


def test_its_user_is_no_root_and_nothing_raises_rights(image: Image, root: Path) -> None:
    config = document(image, document(image, image.digest)["config"]["digest"])["config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["/usr/local/bin/kilo"]
    special = [
        path
        for path in root.rglob("*")
        if not path.is_symlink() and path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)
    ]
    assert not special
    assert {path.name for path in (root / "usr/bin").iterdir()} == {"dash", "python3", "python3.13", "sh"}
    assert not list((root / "usr/sbin").iterdir())
    notices = {path.parent.name for path in root.glob("usr/share/doc/*/copyright")}
    assert {"postgresql-17", "libc6", "dash"} <= notices


def test_it_starts_as_the_user_on_a_root_that_can_not_be_written(root: Path) -> None:
    done = run(root, "/usr/local/bin/kilo", "--version")
    assert done.returncode == 0, done.stderr
    for command in ("backup", "bus", "cdc", "consumer", "db", "fle", "ingest", "outbox", "registry", "usage"):
        done = run(root, "/usr/local/bin/kilo", command, "--help")
        assert done.returncode == 0, (command, done.stderr)
    code = (
        "import os, pwd; print(pwd.getpwuid(os.getuid()).pw_name,"
        " os.access('/', os.W_OK), os.access('/tmp', os.W_OK))"
    )
    assert python(root, code) == "kilo False True"


def test_every_module_of_the_extras_imports_from_bytecode(root: Path) -> None:
    code = (
        "import boto3, confluent_kafka, google.cloud.kms, google.cloud.storage, nats, opentelemetry.sdk\n"
        "import os, sys\nfrom importlib.util import cache_from_source\n"
        "files = [getattr(module, '__file__', None) or '' for module in list(sys.modules.values())]\n"
        "sources = [file for file in files if file.endswith('.py')]\n"
        "print([file for file in sources if not os.path.exists(cache_from_source(file))])\n"
    )
    assert python(root, code) == "[]"


def test_it_trusts_the_public_authorities(root: Path) -> None:
    code = "import ssl; print(len(ssl.create_default_context().get_ca_certs()) > 100)"
    assert python(root, code) == "True"


def test_a_drill_has_its_database(root: Path) -> None:
    """Without an entry in passwd initdb ended with "could not look up effective user ID"."""
    code = (
        "from kilo.backup.scratch import scratch_database; import psycopg\n"
        "with scratch_database('kilo', 'admin', None) as made:\n"
        "    print(psycopg.connect(made.url).execute('SHOW server_version').fetchone()[0][:3])\n"
    )
    assert python(root, code) == "17."
    for program in ("pg_dump", "pg_dumpall", "pg_restore", "psql"):
        done = run(root, f"/usr/lib/postgresql/17/bin/{program}", "--version")
        assert "(PostgreSQL) 17." in done.stdout, done.stderr
