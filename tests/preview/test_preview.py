"""From nothing to a preview with green checks, what it can't touch, and that nothing of it is left."""

from __future__ import annotations

import json
import ssl
import time
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import boto3
import httpx
import psycopg
import pytest
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from kilo.goals.previews import read_previews
from sandbox.cluster.client import connect
from tests.e2e.conftest import PATIENCE
from tests.e2e.wire import access_of, client_of
from tests.patience import until
from tests.preview.conftest import EVERY_CHECK, Platform

pytestmark = pytest.mark.timeout(3 * PATIENCE)
_REFUSED = r"authentication failed|does not exist"
CLOUD = {"aws_access_key_id": "sandbox", "aws_secret_access_key": "sandbox"}
SPOKEN = {"x-tenant-id": "preview"}


def objects(platform: Platform, path: str) -> list[dict[str, Any]]:
    with connect(platform.endpoints.cluster) as client:
        return client.get(path).raise_for_status().json()["items"]


def state_of(report: dict[str, Any]) -> dict[str, str]:
    return {check["check"]: check["state"] for check in report["checks"]}


def with_place(url: str, other: str) -> str:
    """The user and password of one URL at the server of another."""
    one, two = urlsplit(url), urlsplit(other)
    place = f"{one.netloc.rpartition('@')[0]}@{two.netloc.rpartition('@')[2]}"
    return urlunsplit(two._replace(netloc=place))


def environment_of(platform: Platform, namespace: str, workload: str) -> dict[str, str]:
    """What a workload's process has in its environment, on this machine."""
    found = until(
        lambda: [
            pod
            for pod in objects(platform, f"/api/v1/namespaces/{namespace}/pods")
            if pod["metadata"]["labels"]["app.kubernetes.io/name"] == workload
            and any(each.get("containerID") for each in pod["status"].get("containerStatuses", ()))
        ]
    )
    pid = found[0]["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
    with open(f"/proc/{pid}/environ", "rb") as file:
        return dict(each.split("=", 1) for each in file.read().decode().split("\0") if "=" in each)


def test_from_nothing_to_green_checks_and_back(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    service = platform.service("orders")
    made = time.monotonic()
    report = platform.up(service, 12)
    up = time.monotonic()
    states = state_of(report)
    assert tuple(states) == EVERY_CHECK
    green = {"rollout", "probes", "smoke test", "event", "objective", "policy", "trace"}
    assert {name for name, state in states.items() if state == "green"} == green, report["checks"]
    assert states["signature"] == "not signed", report["checks"]
    seeded = httpx.get(f"{report['address']}/v1/items/seeded", headers=SPOKEN)
    assert seeded.json() == {"quantity": 3}, "deploy/seed.sql was run"
    listed = json.loads(platform.kilo("preview", "list", "--json").stdout)
    assert [(each["preview"], each["state"], each["address"]) for each in listed] == [
        ("pr-12-orders", "up", report["address"])
    ]
    # Others were tried on this stage before.
    record = read_previews(platform.home / "previews")[-1]
    assert (record["service"], record["checks"]) == ("orders", report["checks"])
    down = time.monotonic()
    platform.down(service, 12)
    ended = time.monotonic()
    assert platform.left_of("pr-12-orders") == []
    assert objects(platform, "/api/v1/namespaces/preview-pr-12-orders/pods") == []
    assert json.loads(platform.kilo("preview", "list", "--json").stdout) == []
    with capsys.disabled():
        print(
            f"\nkilo svc new {made - began:.1f} s, kilo preview up {up - made:.1f} s "
            f"(rollout {report['checks'][0]['seconds']:.1f} s), from nothing to green {up - began:.1f} s, "
            f"kilo preview down {ended - down:.1f} s"
        )


def test_two_previews_and_the_stage_do_not_touch_each_other(platform: Platform) -> None:
    service = platform.service("bills")
    one, two = platform.up(service, 1), platform.up(service, 2)
    assert one["green"], one["checks"]
    assert two["green"], two["checks"]
    try:
        _requests_stay_where_they_are_made(platform, one["address"], two["address"])
        _credentials_open_nothing_else(platform)
        _outputs_name_nothing_of_the_stage(platform)
        _streams_are_its_own(platform)
        _networks_are_closed(platform)
    finally:
        platform.down(service, 1)
    # One goes, the other stays as it is.
    assert httpx.get(f"{two['address']}/v1/items/seeded", headers=SPOKEN).status_code == 200
    platform.down(service, 2)
    assert platform.left_of("pr-1-bills") == platform.left_of("pr-2-bills") == []


def _requests_stay_where_they_are_made(platform: Platform, one: str, two: str) -> None:
    put = httpx.put(f"{one}/v1/items/mine", json={"quantity": 7}, headers=SPOKEN)
    assert put.status_code == 204
    assert httpx.get(f"{two}/v1/items/mine", headers=SPOKEN).status_code == 404
    gateway = platform.outputs["gateway"]["url"]
    for tenant in platform.outputs["tenants"]:
        refused = httpx.get(f"{one}/v1/items/mine", headers={"x-tenant-id": tenant})
        assert refused.status_code >= 400, "a tenant of the stage means nothing to a preview"
    event = {"aggregate": "order", "aggregate_id": "1", "kind": "order.paid", "payload": {}}
    refused = httpx.post(f"{gateway}/v1/events", json=event, headers={**SPOKEN, "idempotency-key": "p"})
    assert refused.status_code >= 400, "the tenant of a preview means nothing to the stage"


def _credentials_open_nothing_else(platform: Platform) -> None:
    own = environment_of(platform, "preview-pr-1-bills", "bills")["DATABASE_URL"]
    other = environment_of(platform, "preview-pr-2-bills", "bills")["DATABASE_URL"]
    stage = environment_of(platform, "kilo", "ingest")["DATABASE_URL"]
    with psycopg.connect(own) as connection:
        assert connection.execute("SELECT count(*) FROM items").fetchone()
        # Of the platform's tables it may do what a service may, in its own database too.
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM outbox")
    for elsewhere in (other, stage):
        with pytest.raises(psycopg.OperationalError, match=_REFUSED):
            psycopg.connect(with_place(own, elsewhere))
        with pytest.raises(psycopg.OperationalError, match=_REFUSED):
            psycopg.connect(with_place(elsewhere, own))
    secrets = objects(platform, "/api/v1/namespaces/preview-pr-1-bills/secrets")
    stages = {json.dumps(each["data"]) for each in objects(platform, "/api/v1/namespaces/kilo/secrets")}
    assert not stages & {json.dumps(each["data"]) for each in secrets}


def _outputs_name_nothing_of_the_stage(platform: Platform) -> None:
    (found,) = [
        each["data"]["outputs.json"]
        for each in objects(platform, "/api/v1/namespaces/preview-pr-1-bills/configmaps")
        if each["metadata"]["name"] == "kilo-outputs"
    ]
    outputs = platform.outputs
    names = [
        *outputs["tenants"],
        *(each["encryption_key"]["key"] for each in outputs["tenants"].values()),
        outputs["backups"]["primary"]["bucket"],
        outputs["backups"]["secondary"]["bucket"],
        outputs["audit"]["bucket"],
        outputs["registries"]["push_queue_url"],
        outputs["registries"]["primary"]["url"],
    ]
    assert [name for name in names if name in found] == []
    assert json.loads(found)["tenants"].keys() == {"preview"}


def _streams_are_its_own(platform: Platform) -> None:
    import asyncio

    async def has(url: str, namespace: str, stream: str) -> bool:
        """Whether a bus has the stream, by its operator, who may ask for those that it declares."""
        async with client_of(url, access_of(platform, "operator", namespace)) as client:
            with suppress(NotFoundError, TimeoutError):
                await client.jetstream().stream_info(stream)
                return True
        return False

    addresses = json.loads((platform.home / "addresses.json").read_bytes())
    own = f"tls://{addresses['service/preview-pr-1-bills/nats']}:4222"
    stage, namespace = platform.outputs["bus"]["url"], platform.outputs["namespace"]
    for stream in ("PR-1-BILLS", "PR-1-BILLS-HEARTBEATS"):
        assert asyncio.run(has(own, "preview-pr-1-bills", stream))
        assert not asyncio.run(has(stage, namespace, stream))
    # Neither lets in who belongs to the other.
    with pytest.raises((NatsError, ssl.SSLError)):
        asyncio.run(has(own, namespace, "PR-1-BILLS"))


def _networks_are_closed(platform: Platform) -> None:
    """The sandbox enforces no policy, so they are read: where pods may connect, and from where."""
    path = "/apis/networking.k8s.io/v1/namespaces/preview-pr-1-bills/networkpolicies"
    policies = objects(platform, path)
    everything = [each for each in policies if not each["spec"]["podSelector"]]
    assert [each["spec"]["policyTypes"] for each in everything] == [["Ingress", "Egress"]]
    for policy in policies:
        for rule in policy["spec"].get("egress") or ():
            for peer in rule["to"]:
                named = peer.get("namespaceSelector", {}).get("matchLabels", {})
                assert "ipBlock" not in peer, policy["metadata"]["name"]
                assert set(named.values()) <= {"kube-system"}, policy["metadata"]["name"]
        for rule in policy["spec"].get("ingress") or ():
            if not rule.get("from"):
                assert policy["metadata"]["name"] == "gateway", "only the gateway is asked from outside"
            for peer in rule.get("from") or ():
                named = peer.get("namespaceSelector", {}).get("matchLabels", {})
                assert set(named.values()) <= {"monitoring"}, policy["metadata"]["name"]


def test_a_consumer_and_a_job_are_tried_in_their_own_way(platform: Platform) -> None:
    consumer, job = (
        platform.service("counter", "--kind", "consumer"),
        platform.service("closer", "--kind", "job"),
    )
    states = state_of(platform.up(consumer, 5))
    assert states["event"] == states["rollout"] == "green"
    assert states["smoke test"] == "not checked"
    report = platform.up(job, 5)
    assert state_of(report)["rollout"] == "green"
    logs = platform.kilo("preview", "logs", "--pr", "5", "--service", "closer", "closer-now")
    assert "1 items closed" in logs.stdout, logs.stderr
    for service in (consumer, job):
        platform.down(service, 5)
    assert platform.left_of("pr-5-counter") == platform.left_of("pr-5-closer") == []


def test_personal_data_is_encrypted_under_a_key_of_the_previews_own(platform: Platform) -> None:
    service = platform.service("people", "--encrypted")
    kms: Any = boto3.client("kms", endpoint_url=platform.endpoints.aws, region_name="eu-central-1", **CLOUD)
    before = states_of_keys(kms)
    report = platform.up(service, 6)
    assert report["green"], report["checks"]
    own = environment_of(platform, "preview-pr-6-people", "people")["DATABASE_URL"]
    with psycopg.connect(own) as connection:
        (stored,) = connection.execute("SELECT email FROM items WHERE id = 'smoke'").fetchone() or ("",)
    assert stored
    assert "smoke" not in stored
    shown = httpx.get(f"{report['address']}/v1/items/smoke", headers=SPOKEN).json()
    assert shown["email"] == "smoke@example.com"
    (made,) = states_of_keys(kms).keys() - before.keys()
    policy = kms.get_key_policy(KeyId=made, PolicyName="default")["Policy"]
    assert "kilo-preview-" in policy
    assert "role/kilo-dev-ingest" not in policy
    platform.down(service, 6)
    after = states_of_keys(kms)
    assert after.pop(made) == "PendingDeletion"
    assert after == before, "the stage's own keys are as they were"
    assert platform.left_of("pr-6-people") == []


def states_of_keys(kms: Any) -> dict[str, str]:
    keys = [each["KeyId"] for page in kms.get_paginator("list_keys").paginate() for each in page["Keys"]]
    return {key: kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] for key in keys}


def test_a_service_that_does_not_work_is_red_and_its_mended_sources_are_green(platform: Platform) -> None:
    service = platform.service("broken", "--no-database")
    app = service / "src" / "broken" / "app.py"
    right = app.read_text()
    app.write_text(right.replace('return JSONResponse({"hello"', 'raise RuntimeError({"hello"'))
    report = platform.up(service, 7)
    checks = {check["check"]: check for check in report["checks"]}
    assert checks["smoke test"]["state"] == "red"
    assert "500, not 200" in checks["smoke test"]["detail"]
    assert checks["rollout"]["state"] == "green"
    app.write_text(right)
    assert platform.up(service, 7)["green"]
    platform.down(service, 7)


def test_what_is_over_is_collected_by_the_sandbox(platform: Platform) -> None:
    service = platform.service("brief", "--no-database")
    assert platform.up(service, 9, "--lifetime", "1m")["green"]
    done = platform.kilo("preview", "extend", str(service), "--pr", "9", "--lifetime", "1h", "--json")
    assert done.returncode == 0, done.stderr
    collected = json.loads(platform.kilo("preview", "collect", "--json").stdout)
    assert collected == {"removed": [], "kept": []}
    made = platform.make(service, "preview", "PR=9")
    assert "smoke test  green" in made.stdout, made.stdout + made.stderr
    platform.up(service, 9, "--lifetime", "1m")
    until(lambda: not (platform.home / "previews" / "pr-9-brief").exists() or None, "it was not collected")
    assert platform.left_of("pr-9-brief") == []
