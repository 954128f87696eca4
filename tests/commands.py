"""Runs ``kilo`` as a process of its own, without the seconds that its imports take each time.

A server process imports the command line once and forks for each call. The child has its own arguments,
environment, folder and standard streams, and ends with the command's exit code, as one from a shell does.
Left out: what concerns the start of a process itself, which tests/runtime/test_cli.py has.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self


class Commands:
    """A context manager around the server process; one a test session is enough."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.commands"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(
        self,
        *arguments: str,
        env: Mapping[str, str],
        cwd: Path | None = None,
        value: bytes = b"",
        code: str | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run ``kilo ARGUMENTS`` to its end; ``value`` is its standard input.

        Args:
            code: run this in place of ``kilo``, as ``python -c CODE ARGUMENTS``.
        """
        assert self._process.stdin
        assert self._process.stdout
        with tempfile.TemporaryDirectory() as folder:
            given, out, err = streams = [Path(folder, name) for name in ("in", "out", "err")]
            given.write_bytes(value)
            call = {
                "arguments": arguments,
                "env": dict(env),
                "cwd": str(cwd or Path.cwd()),
                "code": code,
                "streams": [*map(str, streams)],
            }
            self._process.stdin.write(json.dumps(call) + "\n")
            self._process.stdin.flush()
            ended = int(self._process.stdout.readline())
            return subprocess.CompletedProcess(arguments, ended, out.read_bytes(), err.read_bytes())


def _serve() -> None:
    import kilo.cli

    for name in (
        "boto3",
        "infra.promotion.carry",
        "infra.promotion.cli",
        "kilo.fle.cli",
        "kilo.fle.rotation.steps",
    ):
        importlib.import_module(name)

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            # Nothing of the server's own may run in a child, whatever becomes of the command.
            code = 70
            try:
                code = _become(json.loads(line), kilo.cli.main)
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _become(call: dict[str, Any], main: Any) -> int:
    modes = (os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT)
    for number, (path, mode) in enumerate(zip(call["streams"], modes, strict=True)):
        os.dup2(os.open(path, mode, 0o600), number)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, encoding="utf-8", closefd=False) for number, mode in enumerate("rww")
    )
    os.environ.clear()
    os.environ.update(call["env"])
    os.chdir(call["cwd"])
    sys.argv = ["kilo", *call["arguments"]]
    try:
        if call["code"] is None:
            return main()
        exec(compile(call["code"], "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except Exception:
        traceback.print_exc()
        return 1
    else:
        return 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    _serve()
