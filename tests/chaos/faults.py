"""What is done to the platform while events flow, each thing at random, and what starts again what ended."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from kilo.errors import Unreachable
from tests.chaos.proxy import Proxy
from tests.events import Platform

DISK_BYTES = 512 * 1024 * 1024


@contextmanager
def small_disk(directory: Path) -> Generator[bool]:
    """A disk of 512 MiB at ``directory``; whether this machine lets one be mounted."""
    directory.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "kilo-chaos", str(directory)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(directory)], check=False)


class Faults:
    """Does them.

    Args:
        platform: with everything started.
        to_bus: between processes and bus.
        to_database: between processes and database.
        disk: the bus's disk, when it is a small one of its own.
        seed: of the order in which faults come.
    """

    def __init__(
        self, platform: Platform, to_bus: Proxy, to_database: Proxy, disk: Path | None, seed: int
    ) -> None:
        self._platform = platform
        self._to_bus, self._to_database = to_bus, to_database
        self._disk = disk
        self._order = random.Random(seed)
        self._left: list[str] = []
        self.counts: Counter[str] = Counter()
        self.times: list[tuple[float, str]] = []
        self.restarts: Counter[str] = Counter()
        """What ended by itself and was started again, as Kubernetes does."""
        processes = platform.processes
        self._kinds: dict[str, Callable[[], None]] = {
            **{f"{name} killed": lambda p=process: _restart(p) for name, process in processes.items()},
            "worker stopped in order": lambda: _restart(processes["worker"], in_order=True),
            "consumer stopped in order": lambda: _restart(processes["consumer"], in_order=True),
            "worker frozen beyond its lease": lambda: self._freeze("worker", 12),
            "consumer frozen": lambda: self._freeze("consumer", 3),
            "debezium killed": lambda: _restart(platform.debezium),
            "bus killed": lambda: _restart(platform.bus),
            "database killed": lambda: _restart(platform.postgres),
            "database sessions ended": self._end_sessions,
            "connections to the bus cut": to_bus.cut,
            "connections to the database cut": to_database.cut,
            "connections to the bus stalled": lambda: self._stall(to_bus),
            "connections to the database stalled": lambda: self._stall(to_database),
            "everything killed at once": self._kill_all,
        }
        if disk:
            self._kinds["disk of the bus filled"] = self._fill

    @property
    def names(self) -> list[str]:
        """Every fault there is."""
        return list(self._kinds)

    def one(self, at: float) -> str:
        """Do the next fault, ``at`` seconds after the start; every kind comes before any comes again."""
        if not self._left:
            self._left = self._order.sample(self.names, len(self.names))
        name = self._left.pop()
        self.times.append((at, name))
        self._kinds[name]()
        self.counts[name] += 1
        self.supervise()
        return name

    def supervise(self) -> None:
        """Start what has ended, until everything is there."""
        for name, part in self._platform.processes.items():
            if not part.running:
                self.restarts[name] += 1
                for _ in range(5):
                    try:
                        part.start()
                    except Unreachable:
                        continue
                    break
        for _ in range(5):
            try:
                self.restarts["debezium"] += self._platform.keep_connector_alive()
            except Unreachable:
                continue
            break

    def pause(self) -> None:
        """Wait for a while between two faults."""
        time.sleep(self._order.uniform(0.2, 2.0))

    def _freeze(self, name: str, seconds: float) -> None:
        """A process that gets no time: it goes on later as if nothing had been."""
        pid = self._platform.processes[name].pid
        assert pid
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(pid, signal.SIGCONT)

    def _stall(self, proxy: Proxy) -> None:
        proxy.stall()
        time.sleep(self._order.uniform(1, 8))
        proxy.flow()

    def _end_sessions(self) -> None:
        self._platform.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    def _fill(self) -> None:
        assert self._disk
        filler = self._disk / "filler"
        try:
            with filler.open("wb", buffering=0) as file:
                while True:
                    file.write(b"\0" * (1 << 20))
        except OSError:
            pass
        time.sleep(self._order.uniform(3, 6))
        filler.unlink()
        # A bus that gave its storage up does not take it again by itself; its liveness probe sees to that.
        _restart(self._platform.bus)

    def _kill_all(self) -> None:
        platform = self._platform
        servers = (platform.bus, platform.postgres)
        for each in (*platform.processes.values(), platform.debezium, *servers):
            if each:
                each.kill()
        for each in (*servers, *platform.processes.values(), platform.debezium):
            if each:
                each.start()


def _restart(part: object, *, in_order: bool = False) -> None:
    end = part.stop if in_order else part.kill  # pyright: ignore[reportAttributeAccessIssue]
    end()
    part.start()  # pyright: ignore[reportAttributeAccessIssue]
