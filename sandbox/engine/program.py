"""Runs one Pulumi program as the official executor does: settings in, program by ``runpy``, exit code out.

The settings come as JSON on standard input, so that a secret of the stack's configuration lies
neither in the arguments nor in the environment of a process.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import runpy
import signal
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pulumi
import pulumi.runtime

_EXPLAINED = 32


def main() -> int:
    """Run the program that standard input names.

    Returns:
        0 when it succeeded, 32 when the engine has its error already, 1 otherwise.
    """
    # The engine has said why it stops a program; a traceback of where it was stopped helps nobody.
    signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))
    given = json.load(sys.stdin)
    pulumi.runtime.set_all_config(given["config"], given["secret_keys"])
    names = ("monitor", "engine", "project", "stack", "organization", "root_directory", "parallel", "dry_run")
    if "KILO_DEBUG" not in os.environ:
        # Five calls of the engine a resource, each waited for, of what it shows nobody without --debug.
        pulumi.log.debug = _say_nothing
    pulumi.runtime.configure(pulumi.runtime.Settings(**{name: given[name] for name in names}))
    # This file's own folder must not shadow the program's modules; runpy puts the program's there. A
    # project's packages are its own, even when another checkout is installed in the environment.
    root = Path(given["root_directory"])
    sys.path[0:1] = [str(root), str(root / "runtime")]
    os.chdir(given["pwd"])
    sys.argv = [given["program"], *given["arguments"]]
    # A failed program leaves futures that nobody awaits, and asyncio would complain of each.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    return asyncio.run(_run(given))


def _say_nothing(*_message: object, **_options: object) -> None:
    pass


async def _run(given: dict[str, Any]) -> int:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(max(given["parallel"], 1) * 4))

    def program() -> None:
        runpy.run_path(given["program"], run_name="__main__")

    try:
        await pulumi.runtime.run_in_stack(program)
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
        return 1
    except Exception:
        pulumi.log.error("Program failed with an unhandled exception:\n" + traceback.format_exc())
        return _EXPLAINED
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
