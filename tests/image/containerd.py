"""A real container runtime: containerd and runc, as root in namespaces of their own, and nothing left behind.

They are Debian's packages, unpacked over the machine's ``/usr`` in the namespace of mounts alone. Containers
have a user, capabilities, seccomp's profile, a read-only root and a limit of memory as a kubelet gives them.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kilo.testing.servers.process import ServerProcess
from sandbox.toolchain import debian
from sandbox.toolchain.cache import install
from sandbox.toolchain.progress import Step

_CGROUPS = Path("/sys/fs/cgroup")
_SECONDS = 300


@dataclass(frozen=True)
class Ran:
    """How a container ended."""

    code: int
    output: str


class Containerd:
    """The runtime with its state under ``home``."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.group = f"kilo-{secrets.token_hex(4)}"
        self._socket = home / "containerd.sock"
        self._process = ServerProcess(
            name="containerd",
            argv=[
                *("unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child"),
                *("--mount-proc", "sh", "-euc", self._script()),
            ],
            env={},
            directory=home,
            log_path=home / "containerd.log",
            ready=lambda: bool(self.ctr("version")),
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._home.mkdir(parents=True, exist_ok=True)
        (self._home / "containerd.toml").write_text(
            f'version = 2\nroot = "{self._home}/root"\nstate = "{self._home}/state"\n'
            f'[grpc]\n  address = "{self._socket}"\n'
        )
        self._process.start()

    def stop(self) -> None:
        """End it and all containers: the namespace of processes goes with its first."""
        self._process.kill()
        for group in _CGROUPS.glob(f"**/{self.group}"):
            for child in sorted(group.rglob("*/"), reverse=True):
                with suppress(OSError):
                    child.rmdir()
            group.rmdir()

    def ctr(self, *words: str) -> str:
        """containerd's own command."""
        done = self._ctr(words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run(self, image: str, *argv: str, memory_bytes: int) -> Ran:
        """Run a container to its end as the stage's pods run, with ``/tmp`` to write to and no network."""
        name = secrets.token_hex(4)
        done = self._ctr(
            (
                *("run", "--rm", "--read-only", "--seccomp", f"--memory-limit={memory_bytes}"),
                *(f"--cap-drop={each}" for each in _CAPABILITIES),
                f"--cgroup=/{self.group}/{name}",
                "--mount=type=tmpfs,src=tmpfs,dst=/tmp,options=mode=1777:size=512m",
                *(image, name, *argv),
            )
        )
        return Ran(done.returncode, done.stdout + done.stderr)

    def _ctr(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        enter = ["nsenter", f"--target={children[0]}", "--mount", "--net", "--pid", "--ipc", "--uts", "--"]
        argv = [*enter, "ctr", f"--address={self._socket}", "--namespace=k8s.io", *words]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=_SECONDS)

    def _script(self) -> str:
        lines = [
            "mount --make-rshared /",
            f"mount -t overlay overlay -o lowerdir={_programs()}/usr:/usr /usr",
            f"exec containerd --config {self._home}/containerd.toml",
        ]
        return "\n".join(lines)


_CAPABILITIES = (
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID"),
    *("CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL"),
    "CAP_AUDIT_WRITE",
)
"""All that containerd gives by default."""


def _programs() -> Path:
    recipe = debian.package(
        *("containerd", "runc", "libseccomp2"),
        summary="a container runtime from Debian's packages, 40 MB",
        disk_bytes=300_000_000,
    )
    return install(recipe, Step(lambda _: None))
