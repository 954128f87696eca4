"""A node to try things on: ``python -m tests.node`` says how it is reached, and ends by Ctrl-C or SIGTERM."""

from __future__ import annotations

import shlex
import shutil
import signal
import tempfile
from pathlib import Path

from tests.node.bring_up import bring_up
from tests.node.node import CONTEXT, RealNode
from tests.node.programs import node_programs

if __name__ == "__main__":
    # A shell that starts it in the background lets it ignore Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    home = Path(tempfile.mkdtemp(prefix="kn-"))
    node = RealNode(home)
    try:
        bring_up(node)
        print(f"export KUBECONFIG={node.kubeconfig} PATH={node_programs()}:$PATH")
        load = shlex.quote(shlex.join(node.loader()))
        print(f"kilo up --context {CONTEXT} --address {node.machine} --load {load}", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        node.stop()
        shutil.rmtree(home)
