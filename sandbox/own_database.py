"""The sandbox's PostgreSQL as the dev stage knows it: where it is, in place of what the stage's file says.

The file names the database of a cluster. Here the server listens on a port that was free, without TLS.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from io import StringIO
from pathlib import Path

from ruamel.yaml import YAML, YAMLError

from sandbox.backing import Ports
from sandbox.contexts.forwarding import address_of

DATABASE = "kilo"
SERVER = "postgres"


def ports_of(home: Path) -> Ports:
    """The ports of the sandbox whose ``.kilo`` is ``home``."""
    return Ports(home / "ports.json")


def with_own_database(text: str, home: Path) -> str:
    """The ``text`` of a stage's file, its database being that of the sandbox whose ``.kilo`` is ``home``.

    What can't be read stays as it is: the program itself reports what is wrong with it.
    """
    port = ports_of(home).known(SERVER)
    yaml = YAML()
    # A line that is folded would be another text in a block.
    yaml.width = 1 << 20
    try:
        document = yaml.load(text)
        database = document["config"]["kilo:database"]
    except (YAMLError, KeyError, TypeError):
        return text
    if port is None or not isinstance(database, MutableMapping):
        return text
    database.update({"host": address_of(home), "port": port, "name": DATABASE})
    for of_tls in ("sslmode", "ca"):
        database.pop(of_tls, None)
    written = StringIO()
    yaml.dump(document, written)
    return written.getvalue()
