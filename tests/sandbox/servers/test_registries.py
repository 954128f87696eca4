"""The registries keep images over a kill, and a push reaches the queue behind EventBridge."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from sandbox.servers.moto import MotoServer
from sandbox.servers.push_events import to_entries
from sandbox.servers.registries import PrimaryRegistry, SecondaryRegistry

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def moto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MotoServer]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "sandbox")
    server = MotoServer(tmp_path / "aws")
    server.start()
    yield server
    server.stop()


def test_a_push_becomes_ecrs_event_in_the_queue(tmp_path: Path, moto: MotoServer) -> None:
    registry = PrimaryRegistry(tmp_path / "primary", aws=moto.url, region="eu-central-1")
    registry.start()
    try:
        queue, sqs = _queue_of_pushes(moto)
        digest = _push(registry.url, "team/app", "v1")
        message = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=20)["Messages"][0]
        event = json.loads(message["Body"])
        assert event["source"] == "aws.ecr"
        assert event["detail-type"] == "ECR Image Action"
        assert event["region"] == "eu-central-1"
        assert event["detail"] == {
            "action-type": "PUSH",
            "result": "SUCCESS",
            "repository-name": "team/app",
            "image-digest": digest,
            "image-tag": "v1",
            "manifest-media-type": _MANIFEST,
        }
    finally:
        registry.stop()


def test_images_survive_a_kill(tmp_path: Path) -> None:
    registry = SecondaryRegistry(tmp_path / "secondary")
    registry.start()
    try:
        digest = _push(registry.url, "team/app", "v1")
        registry.kill()
        registry.start()
        found = httpx.get(
            f"{registry.url}/v2/team/app/manifests/v1", headers={"accept": _MANIFEST}, trust_env=False
        )
        assert found.headers["docker-content-digest"] == digest
    finally:
        registry.stop()


def test_only_pushed_manifests_are_events() -> None:
    target = {"repository": "app", "digest": "sha256:0", "mediaType": _MANIFEST}
    notification = {
        "events": [
            {"action": "pull", "target": target},
            {"action": "push", "target": {**target, "mediaType": "application/octet-stream"}},
            {"action": "push", "target": target},
        ]
    }
    entries = list(to_entries(notification, "eu-central-1"))
    assert len(entries) == 1
    assert "image-tag" not in json.loads(entries[0]["Detail"]), "a push by digest has no tag"


def _queue_of_pushes(moto: MotoServer) -> tuple[str, Any]:
    sqs: Any = boto3.client("sqs", endpoint_url=moto.url, region_name="eu-central-1")
    events: Any = boto3.client("events", endpoint_url=moto.url, region_name="eu-central-1")
    queue: str = sqs.create_queue(QueueName="pushes")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    pattern = {
        "source": ["aws.ecr"],
        "detail-type": ["ECR Image Action"],
        "detail": {"action-type": ["PUSH"]},
    }
    events.put_rule(Name="pushes", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="pushes", Targets=[{"Id": "queue", "Arn": arn}])
    return queue, sqs


def _push(url: str, repository: str, tag: str) -> str:
    with httpx.Client(base_url=f"{url}/v2/{repository}", trust_env=False) as registry:

        def blob(content: bytes) -> str:
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            place = registry.post("/blobs/uploads/").headers["location"]
            registry.put(
                place, params={**httpx.URL(place).params, "digest": digest}, content=content
            ).raise_for_status()
            return digest

        config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": blob(b"{}"), "size": 2}
        layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": blob(b"layer"), "size": 5}
        manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": [layer]}
        content = json.dumps(manifest).encode()
        put = registry.put(f"/manifests/{tag}", content=content, headers={"content-type": _MANIFEST})
        put.raise_for_status()
        return put.headers["docker-content-digest"]
