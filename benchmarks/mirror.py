"""The mirror against crane, oras, regctl, regsync and skopeo, on CNCF Distribution registries on loopback.

Cold: a multi-platform image with referrers on its children, copied into an empty registry; the median of
rounds in which the tools take turns. crane and skopeo copy no referrers; their column says so.

Nothing to do: a repository of many tags copied a second time. A tool that takes one image at a time is
called once a tag, for a sample whose time is scaled to all. Requests are counted by a proxy in a run of
their own over the sample, since counting costs time.

Events: small images pushed ten a second to a registry whose push events go through EventBridge and SQS (moto)
to ``kilo registry mirror``; from the push's answer until the secondary has the tag, which comes last.

    make bench NAME=mirror ARGS="--megabytes 1000 --tags 1000"

``--before CHECKOUT`` measures an earlier version in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import urllib3

from benchmarks.harness import Cost, measure, show
from benchmarks.mirror_tools import BEFORE, KILO, Tool, tools
from benchmarks.rounds import save
from kilo.testing.servers.ports import free_port
from kilo.tour.report import percentile
from sandbox.servers.moto import MotoServer
from sandbox.servers.registries import PrimaryRegistry, SecondaryRegistry
from tests.events import REGION, make_outputs
from tests.runtime.registry.images import Shelf
from tests.runtime.registry.proxy import Proxy

PLATFORMS, LAYERS = 2, 4
SAMPLE = 50
PUSHES_PER_SECOND = 10


@dataclass(frozen=True)
class Setting:
    """What the comparisons share, and where they put their ratios."""

    source: SecondaryRegistry
    tools: dict[str, Tool]
    directory: Path
    rounds: int
    ratios: dict[str, float]


def main() -> None:
    """Run all three measurements."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--tags", type=int, default=200)
    parser.add_argument("--pushes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", type=Path, help="a checkout of an earlier version, measured beside")
    arguments = parser.parse_args()
    ratios: dict[str, float] = {}
    measured: dict[str, Any] = {}
    # Logins of whoever runs this must not matter.
    with tempfile.TemporaryDirectory(prefix="kilo-bench-") as name:
        os.environ["DOCKER_CONFIG"] = name
        directory = Path(name)
        with _registry(directory / "source") as source:
            setting = Setting(source, tools(directory, arguments.before), directory, arguments.rounds, ratios)
            measured["cold"] = cold(setting, arguments.megabytes)
            measured["nothing_to_do"] = nothing_to_do(setting, arguments.tags)
        measured["events"] = events(directory, arguments.pushes, ratios)
    lines = [f"- {name}: {value}" for name, value in ratios.items()]
    if not shutil.which("skopeo"):
        lines.append("- skopeo is not installed on this machine, so it was not measured")
    text = "### Ratios, each better the larger\n\n" + "\n".join(lines) + "\n"
    save(
        "mirror",
        {
            "ratios": ratios,
            "arguments": {k: str(v) for k, v in vars(arguments).items()},
            "measured": measured,
        },
        text,
    )


@contextmanager
def _registry(directory: Path) -> Generator[SecondaryRegistry]:
    server = SecondaryRegistry(directory)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def cold(setting: Setting, megabytes: int) -> dict[str, Any]:
    """Copy one large image into an empty registry."""
    here = Shelf(setting.source.url, "bench/large")
    size = megabytes * 1_000_000 // (PLATFORMS * LAYERS)
    children = [here.image(*(os.urandom(size) for _ in range(LAYERS))) for _ in range(PLATFORMS)]
    index = here.index(*children, tag="v1")
    for subject in (*children, index):
        here.artifact(subject, "application/spdx+json", os.urandom(2_000))
    costs: dict[str, list[Cost]] = {}
    referrers: dict[str, int] = {}
    for _ in range(setting.rounds):
        for name, tool in setting.tools.items():
            if tool.one is None:
                continue
            with _registry(setting.directory / "cold") as target:
                there = Shelf(target.url, here.repository)
                costs.setdefault(name, []).append(measure(tool.one(here, there, "v1")))
                referrers[name] = sum(len(there.referrers(part["digest"])) for part in (*children, index))
            shutil.rmtree(setting.directory / "cold")
    seconds = {name: statistics.median(cost.seconds for cost in each) for name, each in costs.items()}
    fastest = min(value for name, value in seconds.items() if name not in {"kilo", BEFORE})
    peak = max(cost.peak_megabytes for cost in costs["kilo"])
    setting.ratios["cold: fastest other's seconds over kilo's"] = round(fastest / seconds["kilo"], 2)
    setting.ratios["cold: 100 MB over kilo's peak memory"] = round(100 / peak, 2)
    show(
        f"Cold copy of {megabytes} MB, {PLATFORMS} platforms, median of {setting.rounds}",
        ("tool", "seconds", "of the fastest other", "MB/s", "CPU s", "peak MB", "referrers copied"),
        [
            [
                name,
                f"{seconds[name]:.2f}",
                f"{seconds[name] / fastest:.2f}",
                f"{megabytes / seconds[name]:.0f}",
                f"{statistics.median(cost.processor_seconds for cost in each):.2f}",
                f"{max(cost.peak_megabytes for cost in each):.0f}",
                f"{referrers[name]} of {PLATFORMS + 1}",
            ]
            for name, each in costs.items()
        ],
    )
    return {
        name: {"seconds": [cost.seconds for cost in each], "peak_megabytes": [c.peak_megabytes for c in each]}
        for name, each in costs.items()
    }


def nothing_to_do(setting: Setting, tags: int) -> dict[str, Any]:
    """Copy many tags that are there already."""
    here = Shelf(setting.source.url, "bench/tags")
    for number in range(tags):
        here.image(f"layer {number}".encode(), tag=f"v{number}")
    sampled = Shelf(setting.source.url, "bench/sample")
    for number in range(min(SAMPLE, tags)):
        sampled.image(f"layer {number}".encode(), tag=f"v{number}")
    seconds: dict[str, list[float]] = {}
    requests: dict[str, float] = {}
    with _registry(setting.directory / "tags") as target:
        there, sample_there = (Shelf(target.url, shelf.repository) for shelf in (here, sampled))
        for pair in ((here, there), (sampled, sample_there)):
            measure(setting.tools["kilo"].every(*pair, ""))  # pyright: ignore[reportOptionalCall]
        for _ in range(setting.rounds):
            for name, tool in setting.tools.items():
                if tool.every:
                    cost = measure(tool.every(here, there, "")).seconds
                else:
                    cost = _one_by_one(tool, sampled, sample_there) * tags / min(SAMPLE, tags)
                seconds.setdefault(name, []).append(cost)
        for name, tool in setting.tools.items():
            requests[name] = _requests(tool, sampled, sample_there)
    median = {name: statistics.median(each) for name, each in seconds.items()}
    for name in setting.tools:
        if name != "kilo":
            setting.ratios[f"nothing to do: {name}'s seconds over kilo's"] = round(
                median[name] / median["kilo"], 2
            )
    fewest = min(value for name, value in requests.items() if name not in {"kilo", BEFORE})
    setting.ratios["nothing to do: fewest other requests over kilo's"] = round(fewest / requests["kilo"], 2)
    show(
        f"Nothing to do for {tags} tags, median of {setting.rounds}",
        ("tool", "seconds", "times kilo's", f"requests a tag, of {min(SAMPLE, tags)}", "how"),
        [
            [
                name,
                f"{median[name]:.2f}",
                f"{median[name] / median['kilo']:.1f}",
                f"{requests[name]:.2f}",
                "all at once" if tool.every else f"once a tag, {min(SAMPLE, tags)} tags scaled",
            ]
            for name, tool in setting.tools.items()
        ],
    )
    return {name: {"seconds": each, "requests_per_tag": requests[name]} for name, each in seconds.items()}


def _one_by_one(tool: Tool, here: Shelf, there: Shelf) -> float:
    assert tool.one is not None
    tags = sorted(here.tags())
    return sum(measure(tool.one(here, there, tag)).seconds for tag in tags)


def _requests(tool: Tool, here: Shelf, there: Shelf) -> float:
    """Requests a tag, to both sides together."""
    tags = len(here.tags())
    proxies = [Proxy(here.url), Proxy(there.url)]
    ends = [Shelf(proxy.url, shelf.repository) for proxy, shelf in zip(proxies, (here, there), strict=True)]
    if tool.every:
        measure(tool.every(ends[0], ends[1], ""))
    else:
        _one_by_one(tool, ends[0], ends[1])
    for proxy in proxies:
        proxy.close()
    # The list of tags that says what to call a tool for is not the tool's.
    return (sum(len(proxy.asked) for proxy in proxies) - (0 if tool.every else 1)) / tags


def events(directory: Path, pushes: int, ratios: dict[str, float]) -> dict[str, Any]:
    """Push small images and wait for each in the secondary."""
    os.environ |= {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_REGION": REGION}
    moto = MotoServer(directory / "aws")
    moto.start()
    primary = PrimaryRegistry(directory / "primary", aws=moto.url, region=REGION)
    primary.start()
    try:
        with _registry(directory / "secondary") as secondary:
            here, there = Shelf(primary.url, "kilo/app"), Shelf(secondary.url, "kilo/app")
            with _worker(directory, moto.url, here, there):
                lags = _lags(here, there, pushes)
    finally:
        primary.stop()
        moto.stop()
    p50, p99 = (percentile(lags, percent) or 0 for percent in (50, 99))
    ratios["events: 10 s over the p99 from push to mirrored"] = round(10 / p99, 2)
    show(
        f"From push to mirrored, {pushes} images, {PUSHES_PER_SECOND} a second",
        ("p50", "p99", "longest"),
        [[f"{value:.2f} s" for value in (p50, p99, max(lags))]],
    )
    return {"seconds": lags}


@contextmanager
def _worker(directory: Path, aws: str, here: Shelf, there: Shelf) -> Generator[None]:
    sqs: Any = boto3.client("sqs", endpoint_url=aws, region_name=REGION)
    bridge: Any = boto3.client("events", endpoint_url=aws, region_name=REGION)
    queue: str = sqs.create_queue(QueueName="pushes")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    bridge.put_rule(Name="pushes", EventPattern=json.dumps({"source": ["aws.ecr"]}))
    bridge.put_targets(Rule="pushes", Targets=[{"Id": "queue", "Arn": arn}])
    outputs = make_outputs().model_dump(mode="json")
    outputs["registries"] |= {
        "primary": {"provider": "aws", "url": here.name.removesuffix("/app"), "location": REGION},
        "secondary": {"provider": "gcp", "url": there.name.removesuffix("/app"), "location": REGION},
        "repositories": ["app"],
        "push_queue_url": queue,
    }
    (directory / "outputs.json").write_text(json.dumps(outputs))
    port = free_port()
    environment = {**os.environ, "AWS_ENDPOINT_URL": aws, "KILO_OUTPUTS": str(directory / "outputs.json")}
    with (
        (directory / "worker.log").open("w") as log,
        subprocess.Popen(
            [*KILO, "mirror", "--port", str(port)], env=environment, stdout=log, stderr=log
        ) as worker,
    ):
        try:
            _wait_ready(f"http://127.0.0.1:{port}/readyz")
            yield
        finally:
            worker.terminate()


def _wait_ready(url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if urllib3.request("GET", url, retries=False).status == 200:
                return
        except urllib3.exceptions.HTTPError:
            pass
        time.sleep(0.2)
    msg = "the mirror worker did not become ready"
    raise RuntimeError(msg)


def _lags(here: Shelf, there: Shelf, pushes: int) -> list[float]:
    """Seconds from each push's answer until the secondary has its tag."""
    pushed: dict[str, float] = {}
    lags: dict[str, float] = {}
    deadline = time.monotonic() + pushes / PUSHES_PER_SECOND + 120

    def watch() -> None:
        while len(lags) < pushes and time.monotonic() < deadline:
            for tag in there.tags() - lags.keys():
                if tag in pushed:
                    lags[tag] = time.monotonic() - pushed[tag]
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun = time.monotonic()
    for number in range(pushes):
        time.sleep(max(0.0, begun + number / PUSHES_PER_SECOND - time.monotonic()))
        here.image(os.urandom(10_000), tag=f"v{number}")
        pushed[f"v{number}"] = time.monotonic()
    watcher.join()
    if len(lags) < pushes:
        msg = f"only {len(lags)} of {pushes} pushes were mirrored in time"
        raise RuntimeError(msg)
    return [lags[tag] for tag in pushed]


if __name__ == "__main__":
    main()
