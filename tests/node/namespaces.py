"""Where a node lives: namespaces of its own, a cgroup of its own and a cable to this machine.

Nothing of the machine changes but for the cable's other end, which goes with the namespaces, and the cgroup,
which :meth:`Namespaces.stop` removes. All that runs inside ends with the first process there. Takes root.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

from kilo.testing.servers.process import ServerProcess
from tests.node.programs import runtime_root
from tests.patience import until

_CGROUPS = Path("/sys/fs/cgroup")
_KINDS = ("mount", "net", "pid", "ipc", "uts")
# What a kubelet sets for the whole machine; it writes into files of its own instead.
_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
_COMMANDS = (
    "iptables",
    "iptables-save",
    "iptables-restore",
    "ip6tables",
    "ip6tables-save",
    "ip6tables-restore",
)


class Namespaces:
    """The namespaces and their first process.

    Attributes:
        name: of the node and of its cgroup.
        address: the node's own.
        machine: this machine's, as the node reaches it.
        cable: the network device of this machine that leads there.
    """

    def __init__(self, home: Path) -> None:
        number = secrets.randbelow(1 << 14)
        self.name = f"kilo-{number:04x}"
        # Of 10.192.0.0/10, four addresses each.
        first = IPv4Address("10.192.0.0") + number * 4
        self.address, self.machine = str(first + 1), str(first + 2)
        self._home = home
        self.cable = f"kilo{number:04x}"
        self._holder = ServerProcess(
            name="the node's namespaces",
            argv=[
                *("unshare", *(f"--{kind}" for kind in _KINDS), "--fork", "--kill-child", "--mount-proc"),
                *("sh", "-euc", self._script()),
            ],
            env={},
            directory=home,
            log_path=home / "namespaces.log",
            ready=(home / "waits").exists,
        )

    def start(self) -> None:
        """Make them, and connect them to this machine."""
        links = self._home / "bin"
        links.mkdir(parents=True)
        for command in _COMMANDS:
            # One program by several names; Debian's scripts, which are not run, would have linked them.
            (links / command).symlink_to("/usr/sbin/xtables-nft-multi")
        self._write_settings()
        self._make_groups()
        self._holder.start()
        peer = ["peer", "name", "node0", "netns", str(self._first_process())]
        _ip("link", "add", self.cable, "type", "veth", *peer)
        _ip("address", "add", f"{self.machine}/30", "dev", self.cable)
        _ip("link", "set", self.cable, "up")
        self.run("ip", "address", "add", f"{self.address}/30", "dev", "node0")
        self.run("ip", "link", "set", "node0", "up")
        self.run("ip", "route", "add", "default", "via", self.machine)

    def stop(self) -> None:
        """End all that runs in them, and remove the cgroup."""
        self._holder.kill()
        # What was killed is gone some moments later.
        until(lambda: all(map(_removed, self._groups())), f"the cgroup {self.name} still has processes")

    def enter(self, *argv: str) -> list[str]:
        """The command that runs ``argv`` inside."""
        entered = [f"--{kind}" for kind in _KINDS]
        path = f"PATH={self._home}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return ["nsenter", f"--target={self._first_process()}", *entered, "--", "env", path, *argv]

    def run(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end."""
        done = subprocess.run(self.enter(*argv), capture_output=True, text=True, check=False, timeout=600)
        assert not check or done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done

    def _first_process(self) -> int:
        holder = self._holder.pid
        (first,) = Path(f"/proc/{holder}/task/{holder}/children").read_text().split()
        return int(first)

    def _script(self) -> str:
        settings = [
            f"mount --bind {self._setting(name)} /proc/sys/{name}"
            for name in _SETTINGS
            if Path("/proc/sys", name).exists()
        ]
        lines = [
            "mount --make-rshared /",
            # runc, CNI and the kubelet write there whatever they are told.
            *(f"mount -t tmpfs tmpfs {place}" for place in ("/run", "/var/lib", "/var/log")),
            f"mount -t overlay overlay -o lowerdir={runtime_root()}/usr:/usr /usr",
            f"hostname {self.name}",
            "ip link set lo up",
            "echo 1 > /proc/sys/net/ipv4/ip_forward",
            "echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables || true",
            *settings,
            f"touch {self._home}/waits",
            # The first process of a namespace becomes the parent of all orphans: a shell waits for them.
            "while :; do sleep 3600 & wait; done",
        ]
        return "\n".join(lines)

    def _setting(self, name: str) -> Path:
        return self._home / "settings" / name.replace("/", ".")

    def _write_settings(self) -> None:
        for name, value in _SETTINGS.items():
            file = self._setting(name)
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"{value}\n")

    def _make_groups(self) -> None:
        for group in self._groups():
            group.mkdir()
        cpus = _CGROUPS / "cpuset"
        # Of version 1: a group may use no processor until it is said which.
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (cpus / name).exists():
                (cpus / self.name / name).write_text((cpus / name).read_text())
        # All its pods together would have the share of one of this machine's terminals.
        for group in self._groups():
            for name, share in (("cpu.shares", 20_480), ("cpu.weight", 2_000)):
                if (group / name).exists():
                    (group / name).write_text(str(share))

    def _groups(self) -> Sequence[Path]:
        """Its cgroup in each hierarchy: of version 2, or several of version 1 and one of 2 beside them."""
        mounted = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
        return [Path(place, self.name) for _, place, kind, *_ in mounted if kind in ("cgroup", "cgroup2")]


def _removed(group: Path) -> bool:
    for child in (*sorted(group.rglob("*/"), reverse=True), group):
        with suppress(OSError):
            child.rmdir()
    return not group.exists()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
