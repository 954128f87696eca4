"""A cluster in a process of its own, for tests that kill it: ``python cluster_process.py HOME``.

It does with processes what the daemon does: whatever it starts carries its mark.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from sandbox.cluster.service import ClusterService, ServerUrls
from sandbox.servers.leftovers import MARK, end_processes_of, start_guardian


async def serve(home: Path) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    nowhere = "http://127.0.0.1:9"
    cluster = ClusterService(home, ServerUrls(nowhere, nowhere, nowhere, nowhere, Path("/nowhere")))
    print(await cluster.start(), flush=True)
    await stopped.wait()
    await cluster.stop()


if __name__ == "__main__":
    home = Path(sys.argv[1])
    end_processes_of(str(home))
    os.environ[MARK] = str(home)
    start_guardian(str(home))
    asyncio.run(serve(home))
