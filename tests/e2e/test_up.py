"""The dev stage from nothing to nothing, as a user has it: up, events, changes, accidents, destroyed.

One stage is brought up for all tests of this file, which build on each other in order.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import psycopg
import pytest

from kilo.contract import load_outputs
from sandbox import daemon
from sandbox.cluster.client import connect
from tests.e2e.conftest import PATIENCE, Stage

pytestmark = pytest.mark.timeout(3 * PATIENCE)


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def statuses(stage: Stage) -> dict[str, str]:
    return {
        component["name"]: component["state"]
        for component in json.loads(stage.kilo("status", "--json").stdout)
    }


def test_one_command_brings_everything_up(stage: Stage) -> None:
    ok(stage.kilo("up", "--no-tour"))
    ok(stage.kilo("status"))
    found = statuses(stage)
    assert {"daemon", "postgres", "aws", "gcs", "registry-primary", "registry-secondary"} <= found.keys()
    pods = [name for name in found if "/" in name]
    assert any("ingest" in name for name in pods)
    assert set(found.values()) <= {"running", "ready", "completed"}


def test_events_go_through_all_of_it_and_none_is_lost(stage: Stage) -> None:
    total = tour(stage, "--count", "20", "--events-only")["total"]
    assert total["acknowledged"] == total["sent"] == total["in_outbox"]
    assert total["lost"] == total["altered"] == 0
    assert total["delivered_by_worker"] > 0
    assert total["delivered_by_cdc"] > 0
    assert total["encrypted"]["email"] > 0


def test_an_image_is_mirrored_whole_and_a_backup_restored_from_both_stores(stage: Stage) -> None:
    artifacts = tour(stage, "--count", "1")["artifacts"]
    assert artifacts["problems"] == []
    image, backup = artifacts["image"], artifacts["backup"]
    assert image["parity"]
    assert (image["platforms"], image["attestations"], image["claims"], image["missing"]) == (2, 4, 4, [])
    assert image["tag_lag_seconds"] is not None
    assert {store["store"] for store in backup["stores"]} == {"primary", "secondary"}
    assert all(store["lock"] and not store["error"] for store in backup["stores"])
    assert [drill["rows"] for drill in backup["drills"]] == [backup["rows"]] * 2


def tour(stage: Stage, *arguments: str) -> dict[str, Any]:
    return json.loads(ok(stage.kilo("tour", "--json", *arguments)))


def test_wrong_events_are_refused_by_line_and_nothing_of_them_is_kept(stage: Stage, tmp_path: Path) -> None:
    good = {
        "tenant": "acme",
        "aggregate": "order",
        "aggregate_id": "1",
        "kind": "order.created",
        "payload": {},
    }
    lines = [good, {**good, "tenant": "nobody"}, {**good, "aggregate": "not a token"}]
    file = tmp_path / "events.ndjson"
    file.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    done = stage.kilo("tour", "--events", str(file), "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert report["total"]["acknowledged"] == 1
    assert [text.split(": ")[0].rpartition(":")[2] for text in report["refusals"]] == ["2", "3"]


def test_payloads_arrive_whole_up_to_the_limit_and_are_refused_above_it(stage: Stage, tmp_path: Path) -> None:
    limit = stage.outputs["outbox"]["payload_limit_bytes"]
    payloads = [
        '{"big": 123456789012345678901234567890123456789, "fraction": 0.10000000000000000000001}',
        '{"text": "Zoë 田中 🚚 \u2028 \\u0001", "": [[], {}, null, true, 1E+300]}',
        '{"customers": [{"email": "zoë@example.com", "phone": "+49 1"}, {"email": null}]}',
        f'{{"edge": "{"é" * ((limit - 12) // 2)}"}}',
    ]

    def line(aggregate: str, number: int, payload: str) -> str:
        return (
            f'{{"tenant": "acme", "aggregate": "{aggregate}", "aggregate_id": "{number}",'
            f' "kind": "{aggregate}.made", "payload": {payload}}}'
        )

    lines = [
        line(aggregate, number, payload)
        for aggregate in ("order", "payment")
        for number, payload in enumerate(payloads)
    ]
    file = tmp_path / "events.ndjson"
    over = line("order", 9, f'{{"over": "{"x" * (limit - 11)}"}}')
    file.write_text("\n".join([*lines, over]), encoding="utf-8")
    refused = stage.kilo("tour", "--events", str(file), "--json")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert (
        f"{file}:9: payload: {limit + 1:,} bytes of JSON; the stage takes at most {limit:,}" in refused.stderr
    )
    file.write_text("\n".join(lines), encoding="utf-8")
    done = stage.kilo("tour", "--events", str(file), "--json")
    report = json.loads(done.stdout)
    total = report["total"]
    assert (total["acknowledged"], total["lost"], total["altered"]) == (8, 0, 0), done.stdout + done.stderr
    assert total["encrypted"] == {"email": 2, "phone": 2}
    assert total["plain"] == {}
    assert len(report["refusals"]) == total["refused"] == 0


def test_outputs_are_of_the_contract(stage: Stage) -> None:
    outputs = load_outputs(stage.home / "outputs.json")
    assert outputs.stage == "dev"
    assert {"acme", "globex"} <= outputs.tenants.keys()


def test_no_secret_lies_in_outputs_state_or_the_stages_file(stage: Stage) -> None:
    password = urlsplit(daemon.database_url(stage.directory)).password
    assert password
    files = [stage.home / "outputs.json", *(stage.home / "state").rglob("*.json*")]
    assert len(files) > 1
    for file in files:
        assert password not in file.read_text(encoding="utf-8", errors="replace"), file
    assert "encryptionsalt" not in (stage.directory / "Pulumi.dev.yaml").read_text(encoding="utf-8")


def test_a_mistake_in_the_configuration_is_one_line_and_changes_nothing(stage: Stage) -> None:
    file = stage.directory / "Pulumi.dev.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("tier: bronze", "tier: platinum", 1), encoding="utf-8")
    before = stage.outputs
    done = stage.kilo("up", "--no-tour")
    file.write_text(text, encoding="utf-8")
    said = done.stdout + done.stderr
    assert done.returncode == 2
    assert "Pulumi.dev.yaml: kilo:tenants[" in said
    assert "'gold', 'silver' or 'bronze'" in said
    assert "Traceback" not in said
    assert stage.outputs == before


def test_a_second_up_changes_nothing(stage: Stage) -> None:
    before = {pod["metadata"]["uid"] for pod in pods(stage)}
    ok(stage.kilo("up", "--no-tour"))
    ok(stage.pulumi("preview", "--stack", "dev", "--refresh", "--expect-no-changes", "--non-interactive"))
    assert {pod["metadata"]["uid"] for pod in pods(stage)} == before


def pods(stage: Stage) -> list[dict[str, Any]]:
    with connect(stage.endpoints.cluster) as client:
        return client.get("/api/v1/pods").raise_for_status().json()["items"]


def test_drift_is_found_and_healed(stage: Stage) -> None:
    namespace = stage.outputs["namespace"]
    queue = aws(stage, "sqs")
    url = stage.outputs["registries"]["push_queue_url"]
    queue.delete_queue(QueueUrl=url)
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/ingest"
    with connect(stage.endpoints.cluster) as client:
        drifted = client.get(path).json()
        drifted["spec"]["replicas"] += 1
        client.put(path, content=json.dumps(drifted)).raise_for_status()
        seen = stage.pulumi(
            "refresh", "--stack", "dev", "--preview-only", "--expect-no-changes", "--non-interactive"
        )
        assert seen.returncode != 0
        assert "ingest" in seen.stdout
        ok(stage.pulumi("up", "--stack", "dev", "--yes", "--refresh", "--skip-preview", "--non-interactive"))
        assert client.get(path).json()["spec"]["replicas"] == drifted["spec"]["replicas"] - 1
    assert queue.get_queue_attributes(QueueUrl=url)


def aws(stage: Stage, service: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=stage.endpoints.aws,
        region_name="eu-central-1",
        aws_access_key_id="sandbox",
        aws_secret_access_key="sandbox",
    )


def test_a_power_cut_leaves_no_process_and_loses_nothing(stage: Stage) -> None:
    with psycopg.connect(daemon.database_url(stage.directory), autocommit=True) as connection:
        connection.execute("CREATE TABLE witness (word text)")
        connection.execute("INSERT INTO witness VALUES ('kept')")
    keys = {key["KeyId"] for key in aws(stage, "kms").list_keys()["Keys"]}
    assert keys
    # Those that are to go are drained for some seconds.
    staying = (pod["metadata"] for pod in pods(stage) if "deletionTimestamp" not in pod["metadata"])
    before = {metadata["name"] for metadata in staying}
    os.kill(stage.endpoints.pid, signal.SIGKILL)
    wait_until_all_are_gone(stage)
    assert stage.kilo("status").returncode == 1
    ok(stage.kilo("up", "--no-tour"))
    ok(stage.kilo("status"))
    assert {pod["metadata"]["name"] for pod in pods(stage)} == before
    assert {key["KeyId"] for key in aws(stage, "kms").list_keys()["Keys"]} == keys
    with psycopg.connect(daemon.database_url(stage.directory)) as connection:
        assert connection.execute("SELECT word FROM witness").fetchall() == [("kept",)]


def test_power_loss_in_the_middle_of_the_tour_loses_nothing(stage: Stage) -> None:
    running = stage.begin("kilo tour --json --events-only --count 400 --timeout 500")
    time.sleep(4)
    os.kill(stage.endpoints.pid, signal.SIGKILL)
    wait_until_all_are_gone(stage)
    assert running.poll() is None, "the power went off after the tour"
    ok(stage.kilo("up", "--no-tour"))
    output, errors = running.communicate(timeout=2 * PATIENCE)
    assert output, errors
    total = json.loads(output)["total"]
    assert total["lost"] == total["altered"] == total["refused"] == 0, errors
    assert total["acknowledged"] == total["sent"]


def wait_until_all_are_gone(stage: Stage) -> None:
    deadline = time.monotonic() + PATIENCE
    while stage.processes():
        assert time.monotonic() < deadline, stage.processes()
        time.sleep(0.1)


def test_an_engine_killed_in_the_middle_of_a_change_leaves_nothing_to_mend(stage: Stage) -> None:
    file = stage.directory / "Pulumi.dev.yaml"
    text = file.read_text()
    file.write_text(text.replace("kilo:ingest: { replicas: 1 }", "kilo:ingest: { replicas: 2 }"))
    assert file.read_text() != text
    namespace = stage.outputs["namespace"]
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/ingest"
    engine = stage.begin("pulumi up --stack dev --yes --skip-preview --non-interactive")
    with connect(stage.endpoints.cluster) as client:
        while engine.poll() is None and client.get(path).json()["spec"]["replicas"] != 2:
            time.sleep(0.02)
        os.killpg(engine.pid, signal.SIGKILL)
        engine.communicate()
        ok(stage.kilo("up", "--no-tour"))
        assert client.get(path).json()["status"]["availableReplicas"] == 2
        file.write_text(text)
        ok(stage.kilo("up", "--no-tour"))
        assert client.get(path).json()["status"]["availableReplicas"] == 1


def test_what_status_and_outputs_say_is_reached_from_this_machine(stage: Stage) -> None:
    lines = ok(stage.kilo("status")).splitlines()
    said = dict(re.split(r" {2,}", line, maxsplit=1) for line in lines[lines.index("") + 1 :])
    here = json.loads(ok(stage.kilo("outputs", "-s", "dev")))
    assert said["gateway"] == here["gateway"]["url"] == stage.outputs["gateway"]["url"]
    there = json.loads(ok(stage.kilo("outputs", "-s", "dev", "--for", "cluster")))
    assert "svc.cluster.local" in there["gateway"]["url"]
    answer = subprocess.run(["sh", "-c", said["send an event"]], capture_output=True, text=True, check=True)
    assert answer.stdout.startswith("HTTP/1.1 20"), answer.stdout
    counted = stage.begin(
        'psql "$DATABASE_URL" -Atc "SELECT count(*) FROM outbox WHERE aggregate_id = \'42\'"'
    )
    assert int(counted.communicate(timeout=PATIENCE)[0]) >= 1
    assert said["PostgreSQL"].endswith('eval "$(kilo env)" && psql "$DATABASE_URL"')


def test_destroying_leaves_nothing(stage: Stage) -> None:
    ok(stage.kilo("down", "--destroy"))
    assert stage.processes() == []
    assert not stage.home.exists()
    assert stage.kilo("status").returncode == 1
    ok(stage.kilo("down"))
