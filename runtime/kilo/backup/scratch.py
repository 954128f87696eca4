"""A PostgreSQL server of one's own with one empty database, for as long as a drill needs it.

From initdb and postgres on PATH, in a directory that is removed afterwards, reachable through a
socket in that directory alone. PostgreSQL refuses to run as root; there it runs as ``nobody``.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg

from kilo.backup.locales import create_database
from kilo.backup.manifest import Locale
from kilo.errors import BadInput, Unreachable

_START_SECONDS = 60
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "logical",
    "max_wal_size": "4GB",
    "maintenance_work_mem": "256MB",
    # A restore in one transaction locks every table.
    "max_locks_per_transaction": "4096",
}


@dataclass(frozen=True, slots=True)
class Scratch:
    """The URL of the database, and in what its locale is not the source's, if it is not."""

    url: str
    note: str | None


@contextmanager
def scratch_database(name: str, superuser: str, locale: Locale | None) -> Generator[Scratch]:
    """Start a server and make an empty database in it; both are gone when the block ends.

    Args:
        name: the database's, as at the source.
        superuser: the name that the source's first superuser has. A managed server's is the provider's, and
            ``postgres`` there is a role like others, which a restore creates.
        locale: the source's; None for C with UTF8.

    Raises:
        BadInput: PostgreSQL's server programs are not on PATH.
        Unreachable: it did not start.
    """
    for needed in ("initdb", "postgres"):
        if shutil.which(needed) is None:
            msg = f"{needed} is not on PATH; a drill needs PostgreSQL's server programs"
            raise BadInput(msg)
    with tempfile.TemporaryDirectory(prefix="kilo-drill-", ignore_cleanup_errors=True) as made:
        directory = Path(made)
        give_away(directory)
        data = directory / "data"
        _run(
            [
                "initdb",
                f"--pgdata={data}",
                f"--username={superuser}",
                "--auth=trust",
                "--encoding=UTF8",
                "--no-locale",
            ]
        )
        settings = [part for key, value in _SETTINGS.items() for part in ("-c", f"{key}={value}")]
        argv = [program("postgres"), "-D", str(data), "-k", str(directory), *settings]
        process = subprocess.Popen(as_user(argv), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            _wait(process, _url(superuser, "template1", directory))
            with psycopg.connect(_url(superuser, "template1", directory), autocommit=True) as connection:
                connection.execute("DROP DATABASE postgres")
                wanted = locale or Locale(encoding="UTF8", provider="libc", collate="C", ctype="C")
                substitute = create_database(connection, name, wanted)
            yield Scratch(_url(superuser, name, directory), str(substitute) if substitute else None)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _url(user: str, name: str, directory: Path) -> str:
    """The URL of a database of the server whose socket is in ``directory``."""
    return (
        f"postgresql://{quote(user, safe='')}@/{quote(name, safe='')}?host={quote(str(directory), safe='')}"
    )


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                msg = f"the scratch PostgreSQL did not start: {' '.join(str(error).split())}"
                raise Unreachable(msg) from error
            time.sleep(0.1)
        else:
            return


def _run(argv: list[str]) -> None:
    done = subprocess.run(as_user([program(argv[0]), *argv[1:]]), capture_output=True, check=False)
    if done.returncode != 0:
        msg = f"{argv[0]} failed: {done.stderr.decode(errors='replace').strip()[-300:]}"
        raise Unreachable(msg)


def program(name: str) -> str:
    """The file of one of PostgreSQL's programs on PATH."""
    # initdb looks for postgres beside itself as the user that it runs as, who may not pass where a link lies.
    return str(Path(shutil.which(name) or name).resolve())


def give_away(directory: Path) -> None:
    """Have the directory belong to whom :func:`as_user` runs programs as."""
    if os.geteuid() == 0:
        account = pwd.getpwnam("nobody")
        os.chown(directory, account.pw_uid, account.pw_gid)


def as_user(argv: list[str]) -> list[str]:
    """Drop root, keeping only the right to pass directories that root alone may enter."""
    if os.geteuid() != 0:
        return argv
    account = pwd.getpwnam("nobody")
    ids = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    return ["setpriv", *ids, "--inh-caps=+dac_override", "--ambient-caps=+dac_override", *argv]
