"""The programs that the sandbox runs: found, built or downloaded once, then cached.

``ensure("pulumi", "debezium")`` makes what is missing, with progress, and says where each lies;
``path("pulumi")`` does it for one. Versions are pinned, downloads are checked (go.sum, apt's signed index,
SHA-256, locked wheels), and nothing needs root. An official ``pulumi`` on PATH that is new enough is used
as it is.
"""

from sandbox.toolchain.catalogue import NAMES, ensure, path

__all__ = ["NAMES", "ensure", "path"]
