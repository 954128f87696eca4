"""The template as it was at each release, for the test that services of any age can be updated.

``python -m tests.scaffold.released v0.2.0`` (``make states`` calls it) records it; a record is never changed.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.runtime.scaffold.variants import ROOT, commit

RECORDS = Path(__file__).parent / "released"
VERSIONS = sorted(path.name.removesuffix(".tar.gz") for path in RECORDS.glob("v*.tar.gz"))


def record(version: str) -> Path:
    """Record the template of HEAD, the same bytes for the same commit."""
    path = RECORDS / f"{version}.tar.gz"
    if path.exists():
        sys.exit(f"{path}: is recorded already, and a release does not change")
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", "--format=tar", "HEAD", "copier.yml", "templates"],
        check=True,
        capture_output=True,
    ).stdout
    path.write_bytes(gzip.compress(archive, 9, mtime=0))
    return path


def repository(version: str, directory: Path) -> Path:
    """A repository with the template as ``version`` had it, tagged so."""
    directory.mkdir(parents=True)
    with tarfile.open(RECORDS / f"{version}.tar.gz") as archive:
        archive.extractall(directory, filter="data")
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "main", str(directory)], check=True)
    commit(directory, version, tag=version)
    return directory


if __name__ == "__main__":
    print(record(sys.argv[1]))
