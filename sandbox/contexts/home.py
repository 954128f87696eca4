"""Where a context's stage lies on this machine, and what it has of the checkout.

It is a project of its own, ``.kilo-contexts/NAME``, whose program is the checkout's by a link: its state,
servers and data are apart from those of ``kilo up`` without a context. The stage's file is the checkout's,
rewritten at every ``up``, with what only a cluster of the user's asks for: its context, the network of the
database, and the image by the name under which it was loaded.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

from ruamel.yaml import YAML

from kilo.errors import BadInput
from sandbox.backing import write_atomically
from sandbox.stages import stage_config

STAGE = "dev"
_FOLDER = ".kilo-contexts"
_LINKS = ("Pulumi.yaml", "infra", "charts", ".venv")
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Chosen:
    """What was said of a context when its stage was brought up.

    Attributes:
        address: of this machine, as the cluster's pods reach it.
        image: the platform's image, by the name under which the cluster has it; empty for the stage's own.
    """

    address: str = ""
    image: str = ""


@dataclass(frozen=True)
class ContextHome:
    """The folder of a context's stage in a checkout."""

    checkout: Path
    context: str

    @property
    def project(self) -> Path:
        """The project, with a ``.kilo`` of its own."""
        name = _UNSAFE.sub("_", self.context)
        # Two contexts whose names differ in what was replaced have two folders.
        suffix = "" if name == self.context else f"-{zlib.crc32(self.context.encode()):08x}"
        return self.checkout / _FOLDER / f"{name}{suffix}"

    @property
    def loopback(self) -> str:
        """The address by which this machine reaches the cluster's Services while they are forwarded."""
        number = zlib.crc32(self.context.encode())
        return f"127.127.{number >> 8 & 255}.{number & 255 or 1}"

    @property
    def namespace(self) -> str:
        """The stage's."""
        return str(stage_config(self.checkout, STAGE).get("kilo:namespace", "kilo"))

    @property
    def image(self) -> str:
        """What the checkout's stage calls the platform's image."""
        return str(stage_config(self.checkout, STAGE)["kilo:images"]["runtime"])

    def chosen(self) -> Chosen:
        """What was said the last time.

        Raises:
            BadInput: nothing was: no stage was brought up on the context.
        """
        try:
            return Chosen(**json.loads(self._memory.read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            msg = f"--context {self.context}: no stage was brought up there; kilo up --context {self.context}"
            raise BadInput(msg) from error

    def write(self, chosen: Chosen) -> None:
        """Make the project, or bring it up to date with the checkout."""
        self.project.mkdir(parents=True, exist_ok=True)
        for name in _LINKS:
            link = self.project / name
            if not link.is_symlink():
                link.symlink_to(self.checkout / name)
        write_atomically(self._memory, asdict(chosen))
        yaml = YAML()
        yaml.width = 1 << 20
        text = (self.checkout / f"Pulumi.{STAGE}.yaml").read_text(encoding="utf-8")
        document = yaml.load(text.replace(self.image, chosen.image) if chosen.image else text)
        config = document["config"]
        config["kubernetes:context"] = self.context
        config["kilo:database"]["network"] = f"{chosen.address}/32"
        with (self.project / f"Pulumi.{STAGE}.yaml").open("w", encoding="utf-8") as file:
            yaml.dump(document, file)

    @property
    def _memory(self) -> Path:
        return self.project / ".kilo" / "context.json"
