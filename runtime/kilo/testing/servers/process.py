"""One long-running process of the sandbox: started, waited for, stopped, and never left behind.

A process is the leader of a session of its own, so that an interrupt at the terminal does not reach it
and its children can be ended with it. Where util-linux has ``setpriv`` the kernel ends the process together
with the one that started it, however that one ends; what outlives even this is found by its mark
(see :mod:`sandbox.servers.leftovers`).

Logs go straight to a file that the process appends to: no pump in between can lose a line or stall it.
:func:`bound_log` keeps such a file within bounds.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from kilo.errors import Unreachable

LOG_BYTES = 10 * 1024 * 1024
_SETPRIV = shutil.which("setpriv")
# The kernel's parent-death signal follows the thread that forked. This one lives as long as the interpreter.
_forker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="forker")


def command(argv: Sequence[str]) -> list[str]:
    """``argv`` so that the process ends with its parent, where the machine has util-linux 2.33 or later."""
    return [_SETPRIV, "--pdeathsig", "KILL", "--", *argv] if _SETPRIV else list(argv)


def tail(path: Path, lines: int = 20) -> str:
    """The last lines of a log, or nothing when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 64 * 1024))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def bound_log(path: Path, limit_bytes: int = LOG_BYTES) -> None:
    """Move a log that has grown over ``limit_bytes`` to ``NAME.1`` and empty it.

    Its process may go on appending; what it writes between the copy and the truncation is lost, as with
    logrotate's copytruncate.
    """
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > limit_bytes:
            shutil.copyfile(path, path.with_name(f"{path.name}.1"))
            os.truncate(path, 0)


def signal_group(pid: int, number: signal.Signals) -> None:
    """Signal the process group that ``pid`` leads; one that is gone is fine."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


@dataclass
class ServerProcess:
    """A server and what it takes to run it.

    Attributes:
        name: for errors and tables.
        argv: program and arguments; the program by path or found on PATH.
        env: variables over this process's own.
        directory: the working directory, made if missing.
        log_path: where its output is appended.
        ready: asked until it answers True; an exception counts as not yet.
        start_seconds: how long it may take until it is ready; one that ends before is told at once.
        stop_seconds: how long it may take to stop before it is killed.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    directory: Path
    log_path: Path
    ready: Callable[[], bool]
    start_seconds: float = 300
    stop_seconds: float = 10
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self.running else None

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """The exit code once it has ended; negative for a signal."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Start it and return when it is ready; does nothing while it runs.

        Raises:
            Unreachable: it can't be started, ended, or was not ready in time; with its last lines.
        """
        if self.running:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self._process = _forker.submit(self._fork).result()
        try:
            self._wait_ready()
        except BaseException:
            self.kill()
            raise

    def _fork(self) -> subprocess.Popen[bytes]:
        program = shutil.which(self.argv[0])
        if program is None:
            msg = f"{self.name}: {self.argv[0]} is not an executable; `kilo doctor` says how to get it"
            raise Unreachable(msg)
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                command([program, *self.argv[1:]]),
                cwd=self.directory,
                env={**os.environ, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait_ready(self) -> None:
        started = time.monotonic()
        pause = 0.01
        while not self._is_ready():
            if not self.running:
                msg = (
                    f"{self.name} ended with exit code {self.returncode} at its start:\n{tail(self.log_path)}"
                )
                raise Unreachable(msg)
            if time.monotonic() > started + self.start_seconds:
                msg = f"{self.name} was not ready within {self.start_seconds:.0f} s:\n{tail(self.log_path)}"
                raise Unreachable(msg)
            time.sleep(pause)
            pause = min(pause * 1.5, 0.2)

    def _is_ready(self) -> bool:
        try:
            return self.ready()
        except Exception:  # whatever a client raises before its server answers
            return False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to stop with ``number``, kill it when it does not in time, its children with it."""
        if self._process is None:
            return
        if self.running:
            self._process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self.stop_seconds)
        self.kill()

    def kill(self) -> None:
        """End it and its children at once, as a power cut would."""
        if self._process is None:
            return
        signal_group(self._process.pid, signal.SIGKILL)
        self._process.wait()


class OneProcess:
    """A server that is one process; a kind of server makes the process and may do more at its start."""

    _process: ServerProcess

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid

    def start(self) -> None:
        """Start it and return when it answers.

        Raises:
            Unreachable: it ended or did not answer in time; with its last lines.
        """
        self._process.start()

    def stop(self) -> None:
        """Stop it."""
        self._process.stop()

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._process.kill()
