"""The tools that copy images, each by its command: kilo, crane, oras, regctl, regsync and skopeo."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sandbox import toolchain
from tests.runtime.registry.images import Shelf
from tests.runtime.registry.programs import program

KILO = [sys.executable, "-c", "from kilo.cli import main; raise SystemExit(main())", "registry"]
BEFORE = "kilo before"
Command = Callable[[Shelf, Shelf, str], list[str]]


@dataclass(frozen=True)
class Tool:
    """One tool's command for one image, and for a whole repository where it has one."""

    one: Command | None
    every: Command | None = None


def _kilo(*prefix: str) -> Tool:
    command = [*prefix, *KILO, "sync", "--json"]
    return Tool(
        lambda here, there, tag: [*command, f"{here.name}:{tag}", there.name],
        lambda here, there, _: [*command, here.name, there.name],
    )


def tools(directory: Path, before: Path | None) -> dict[str, Tool]:
    """The tools that are there, kilo first."""
    crane, oras, regctl = str(toolchain.path("crane")), program("oras"), program("regctl")
    found = {
        "kilo": _kilo(),
        **({BEFORE: _kilo("env", f"PYTHONPATH={before / 'runtime'}")} if before else {}),
        "crane copy": Tool(
            lambda here, there, tag: [crane, "copy", f"{here.name}:{tag}", f"{there.name}:{tag}"]
        ),
        "crane copy --all-tags": Tool(
            None, lambda here, there, _: [crane, "copy", "--all-tags", here.name, there.name]
        ),
        "oras cp -r": Tool(
            lambda here, there, tag: [
                *(oras, "cp", "-r", "--from-plain-http", "--to-plain-http"),
                *(f"{here.name}:{tag}", f"{there.name}:{tag}"),
            ]
        ),
        "regctl image copy": Tool(
            lambda here, there, tag: [
                *(regctl, *_plain_hosts(here, there), "image", "copy", "--referrers", "--digest-tags"),
                *(f"{here.name}:{tag}", f"{there.name}:{tag}"),
            ]
        ),
        "regsync once": Tool(
            None,
            lambda here, there, _: [
                *(program("regsync"), "once", "--config", str(_regsync(directory, here, there)))
            ],
        ),
    }
    if skopeo := shutil.which("skopeo"):
        plain = ["--src-tls-verify=false", "--dest-tls-verify=false"]
        found["skopeo copy --all"] = Tool(
            lambda here, there, tag: [
                *(skopeo, "--insecure-policy", "copy", "--all", *plain),
                *(f"docker://{here.name}:{tag}", f"docker://{there.name}:{tag}"),
            ]
        )
        found["skopeo sync --all"] = Tool(
            None,
            lambda here, there, _: [
                *(
                    skopeo,
                    "--insecure-policy",
                    "sync",
                    "--all",
                    *plain,
                    "--src",
                    "docker",
                    "--dest",
                    "docker",
                ),
                *(here.name, there.name.rpartition("/")[0]),
            ],
        )
    return found


def _plain_hosts(*shelves: Shelf) -> list[str]:
    return [f"--host=reg={shelf.url.removeprefix('http://')},tls=disabled" for shelf in shelves]


def _regsync(directory: Path, here: Shelf, there: Shelf) -> Path:
    hosts = [
        {"registry": shelf.url.removeprefix("http://"), "tls": "disabled", "reqConcurrent": 10}
        for shelf in (here, there)
    ]
    entry = {"source": here.name, "target": there.name, "type": "repository"}
    path = directory / "regsync.json"
    defaults = {"referrers": True, "digestTags": True, "parallel": 8}
    path.write_text(json.dumps({"version": 1, "creds": hosts, "defaults": defaults, "sync": [entry]}))
    return path
