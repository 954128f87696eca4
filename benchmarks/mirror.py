"""The mirror against crane, oras, regctl and skopeo, on two CNCF Distribution registries on loopback.

Cold: a multi-platform image with referrers on its children, copied into an empty registry. Nothing to
do: a repository of many tags copied a second time. Requests are counted by a proxy in a run of their
own, since counting costs time. crane and skopeo copy no referrers; their column says so.

    make bench NAME=mirror ARGS="--megabytes 1000 --tags 1000"
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import Cost, measure, show
from sandbox import toolchain
from sandbox.servers.registries import SecondaryRegistry
from tests.runtime.registry.images import Shelf
from tests.runtime.registry.programs import program
from tests.runtime.registry.proxy import Proxy

KILO = [
    sys.executable,
    "-c",
    "from runtime.cli import main; raise SystemExit(main())",
    "registry",
    "sync",
    "--json",
]
PLATFORMS, LAYERS = 2, 4

Command = Callable[[Shelf, Shelf, str], list[str]]


def tools() -> dict[str, tuple[Command, Command | None]]:
    """Each tool's command for one tag, and for all tags at once where it has one."""
    crane, oras, regctl = str(toolchain.path("crane")), program("oras"), program("regctl")
    found: dict[str, tuple[Command, Command | None]] = {
        "kilo": (
            lambda here, there, tag: [*KILO, f"{here.name}:{tag}", there.name],
            lambda here, there, _: [*KILO, here.name, there.name],
        ),
        "crane": (
            lambda here, there, tag: [crane, "copy", f"{here.name}:{tag}", f"{there.name}:{tag}"],
            lambda here, there, _: [crane, "copy", "--all-tags", here.name, there.name],
        ),
        "oras": (lambda here, there, tag: [*_oras(oras), f"{here.name}:{tag}", f"{there.name}:{tag}"], None),
        "regctl": (
            lambda here, there, tag: [
                *_regctl(regctl, here, there),
                f"{here.name}:{tag}",
                f"{there.name}:{tag}",
            ],
            None,
        ),
    }
    if skopeo := shutil.which("skopeo"):
        copy = [
            skopeo,
            "--insecure-policy",
            "copy",
            "--all",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
        ]
        found["skopeo"] = (
            lambda here, there, tag: [*copy, f"docker://{here.name}:{tag}", f"docker://{there.name}:{tag}"],
            None,
        )
    return found


def _oras(path: str) -> list[str]:
    return [path, "cp", "-r", "--from-plain-http", "--to-plain-http"]


def _regctl(path: str, here: Shelf, there: Shelf) -> list[str]:
    hosts = [f"--host=reg={shelf.url.removeprefix('http://')},tls=disabled" for shelf in (here, there)]
    return [path, *hosts, "image", "copy", "--referrers", "--digest-tags"]


def main() -> None:
    """Run both measurements."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--tags", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    # Logins of whoever runs this must not matter.
    with tempfile.TemporaryDirectory(prefix="kilo-bench-") as name:
        os.environ["DOCKER_CONFIG"] = name
        directory = Path(name)
        source = SecondaryRegistry(directory / "source")
        source.start()
        try:
            cold(source, directory, arguments.megabytes, arguments.rounds)
            nothing_to_do(source, directory, arguments.tags)
        finally:
            source.stop()


def cold(source: SecondaryRegistry, directory: Path, megabytes: int, rounds: int) -> None:
    """Copy one large image into an empty registry, the best of some rounds."""
    here = Shelf(source.url, "bench/large")
    size = megabytes * 1_000_000 // (PLATFORMS * LAYERS)
    children = [here.image(*(os.urandom(size) for _ in range(LAYERS))) for _ in range(PLATFORMS)]
    index = here.index(*children, tag="v1")
    for subject in (*children, index):
        here.artifact(subject, "application/spdx+json", os.urandom(2_000))
    rows: list[list[str]] = []
    best: dict[str, tuple[Cost, int]] = {}
    for number in range(rounds):
        for name, (command, _) in tools().items():
            target = SecondaryRegistry(directory / f"cold-{name}-{number}")
            target.start()
            there = Shelf(target.url, here.repository)
            cost = measure(command(here, there, "v1"))
            referrers = sum(len(there.referrers(part["digest"])) for part in (*children, index))
            target.stop()
            shutil.rmtree(directory / f"cold-{name}-{number}")
            if name not in best or cost.seconds < best[name][0].seconds:
                best[name] = (cost, referrers)
    fastest = min(cost.seconds for name, (cost, _) in best.items() if name != "kilo")
    for name, (cost, referrers) in best.items():
        rows.append(
            [
                name,
                f"{cost.seconds:.2f}",
                f"{cost.seconds / fastest:.2f}",
                f"{megabytes / cost.seconds:.0f}",
                f"{cost.processor_seconds:.2f}",
                f"{cost.peak_megabytes:.0f}",
                f"{referrers} of {PLATFORMS + 1}",
            ]
        )
    columns = ("tool", "seconds", "of the fastest other", "MB/s", "CPU s", "peak MB", "referrers copied")
    show(f"Cold copy of {megabytes} MB, {PLATFORMS} platforms, best of {rounds}", columns, rows)


def nothing_to_do(source: SecondaryRegistry, directory: Path, tags: int) -> None:
    """Copy many tags that are there already; tools that take one tag at a time are called once a tag."""
    here = Shelf(source.url, "bench/tags")
    for number in range(tags):
        here.image(f"layer {number}".encode(), tag=f"v{number}")
    target = SecondaryRegistry(directory / "tags")
    target.start()
    try:
        there = Shelf(target.url, here.repository)
        measure([*KILO, here.name, there.name])
        costs: dict[str, tuple[Cost, float]] = {}
        for name, (one, every) in tools().items():
            costs[name] = _repeat(here, there, one, every, tags), _requests(here, there, one, every, tags)
        ours = costs["kilo"][0].seconds
        rows = [
            [
                name,
                f"{cost.seconds:.2f}",
                f"{cost.seconds / ours:.1f}",
                f"{requests:.2f}",
                f"{cost.peak_megabytes:.0f}",
            ]
            for name, (cost, requests) in costs.items()
        ]
    finally:
        target.stop()
    show(
        f"Nothing to do for {tags} tags",
        ("tool", "seconds", "times kilo's", "requests a tag", "peak MB"),
        rows,
    )


def _repeat(here: Shelf, there: Shelf, one: Command, every: Command | None, tags: int) -> Cost:
    if every:
        return measure(every(here, there, ""))
    total = Cost(0, 0, 0)
    for number in range(tags):
        total = total.plus(measure(one(here, there, f"v{number}")))
    return total


def _requests(here: Shelf, there: Shelf, one: Command, every: Command | None, tags: int) -> float:
    """Requests a tag, to both sides together."""
    sample = tags if every else min(tags, 10)
    proxies = [Proxy(here.url), Proxy(there.url)]
    ends = [Shelf(proxy.url, here.repository) for proxy in proxies]
    if every:
        measure(every(ends[0], ends[1], ""))
    else:
        for number in range(sample):
            measure(one(ends[0], ends[1], f"v{number}"))
    for proxy in proxies:
        proxy.close()
    return sum(len(proxy.asked) for proxy in proxies) / sample


if __name__ == "__main__":
    main()
