"""``kilo bus apply`` declares what it is told, and nothing that it was not told."""

from __future__ import annotations

import fnmatch
import json
import re
from pathlib import Path

import nats
import pytest
from nats.js.api import DiscardPolicy, StreamConfig

from kilo.bus.port import DECLARE_AGAIN
from tests.commands import Commands
from tests.runtime.conftest import BusServer

STAGE = {"--replicas": "1", "--retention-days": "14", "--max-gibibytes": "1"}
ROOT = Path(__file__).parents[3]


async def stream_of(bus: BusServer) -> StreamConfig:
    client = await nats.connect(bus.server.url)
    try:
        return (await client.jetstream().stream_info(bus.outputs.bus.stream)).config
    finally:
        await client.close()


def environment(bus: BusServer, folder: Path) -> dict[str, str]:
    file = folder / "outputs.json"
    file.write_text(bus.outputs.model_dump_json())
    return {"KILO_OUTPUTS": str(file)}


async def test_what_is_left_out_is_named_and_no_stream_is_changed(
    bus: BusServer, commands: Commands, tmp_path: Path
) -> None:
    variables = environment(bus, tmp_path)
    whole = [f"{name}={value}" for name, value in STAGE.items()]
    done = commands.run("bus", "apply", *whole, env=variables)
    assert done.returncode == 0, done.stderr
    declared = await stream_of(bus)
    assert (declared.max_age, declared.max_bytes) == (14 * 86_400, 1 << 30)
    assert declared.discard == DiscardPolicy.NEW
    for left_out in ([], *([each] for each in whole)):
        refused = commands.run("bus", "apply", *left_out, env=variables)
        missing = [name for name in STAGE if not any(name in each for each in left_out)]
        assert refused.returncode == 2
        assert f"{', '.join(missing)}: not given" in refused.stderr.decode()
        assert DECLARE_AGAIN in refused.stderr.decode()
        assert await stream_of(bus) == declared


def test_a_kafka_is_given_no_size_beyond_which_it_would_drop_events(
    commands: Commands, tmp_path: Path, bus: BusServer
) -> None:
    variables = environment(bus, tmp_path)
    kafka = json.loads(Path(variables["KILO_OUTPUTS"]).read_text())
    kafka["bus"]["url"] = "kafka://127.0.0.1:1"
    Path(variables["KILO_OUTPUTS"]).write_text(json.dumps(kafka))
    given = [f"{name}={value}" for name, value in STAGE.items()]
    done = commands.run("bus", "apply", *given, env=variables)
    assert (done.returncode, b"--max-gibibytes: a Kafka would drop" in done.stderr) == (2, True)


@pytest.mark.parametrize("stage", ["dev", "stage", "prod"])
def test_what_people_are_told_to_replace_is_one_job_of_each_stage(stage: str) -> None:
    told = re.search(r"'(.*)'", DECLARE_AGAIN)
    assert told
    # The engine's ** stands for anything, as one * does here.
    pattern = told[1].replace("**", "*")
    golden = (ROOT / "tests" / "goldens" / "previews" / f"{stage}.txt").read_text()
    found = [
        f"urn:pulumi:{stage}::kilo::kilo:events:MessageBus$kilo:cluster:Task${kind}::{name}"
        for kind, name in re.findall(r"^─+ (\S+) (\S+)$", golden, re.MULTILINE)
    ]
    assert [each for each in found if fnmatch.fnmatchcase(each, pattern)] == [
        f"urn:pulumi:{stage}::kilo::kilo:events:MessageBus$kilo:cluster:Task$kubernetes:batch/v1:Job::bus-streams"
    ]
