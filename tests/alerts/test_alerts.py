"""Faults in a running dev stage, and who is told: through its Prometheus and Alertmanager to a receiver.

Each test causes one, waits until the receiver is told, and mends it. The last waits until all are resolved,
since what looks five minutes back takes as long to forget. ``for:`` and the gathering are shortened as
``tests/alerts/shortened.py`` says; the times are printed at the end.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.alerts import faults
from tests.alerts.measured import Measured
from tests.alerts.receiver import PATIENCE_SECONDS
from tests.alerts.stage import AlertStage

pytestmark = pytest.mark.timeout(3 * PATIENCE_SECONDS)


def test_no_backup(stage: AlertStage, measured: Measured) -> None:
    """First of all: a stage that has just come up has none."""
    measured.prove("BackupMissed", began=stage.shortened_at, store="primary")
    mirrored(stage)


@pytest.mark.parametrize(
    ("alert", "workload"),
    [
        ("BackupsUnwatched", "backup-exporter"),
        ("OutboxWorkerDown", "outbox-worker"),
        ("ConsumerDown", "consumer"),
        ("GatewayDown", "gateway"),
        ("ObjectivesUnknown", "objectives-exporter"),
    ],
)
def test_a_part_is_away(stage: AlertStage, measured: Measured, alert: str, workload: str) -> None:
    """Before what tells of tenants: who has no gateway is told nothing of them, their end neither."""
    measured.prove(alert, fault=[stage.without("Deployment", workload)])


# ── What section 6 of the sprint asks for ────────────────────────────────────────────────────────


def test_outbox_lag(stage: AlertStage, measured: Measured) -> None:
    """The bus is away, and events wait."""
    measured.prove("OutboxLag", fault=[stage.without("StatefulSet", "nats"), stage.busy("acme", 1)])


def test_cdc_connector_down(stage: AlertStage, measured: Measured) -> None:
    measured.prove("CdcConnectorDown", fault=[stage.without("StatefulSet", "debezium")])


def test_decrypt_failures(stage: AlertStage, measured: Measured) -> None:
    """A value that was moved to another event, as whoever can write the table could."""
    assert stage.send("acme", email="someone@example.com") == [201]
    measured.prove("FleDecryptFailures", fault=[moved_value(stage)], tenant="acme")


@contextmanager
def moved_value(stage: AlertStage) -> Generator[None]:
    moved = stage.sql(
        "INSERT INTO outbox (tenant, aggregate, aggregate_id, kind, payload, fingerprint) "
        "SELECT tenant, aggregate, gen_random_uuid()::text, kind, payload, 'moved-' || gen_random_uuid() "
        "FROM outbox "
        "WHERE tenant = 'acme' AND payload ? 'email' LIMIT 1 RETURNING fingerprint"
    )
    assert moved
    yield


def test_mirror_drift(stage: AlertStage, measured: Measured) -> None:
    """Somebody writes around the mirror: a tag of the secondary that means another image."""
    measured.prove("MirrorDrift", fault=[moved_tag(stage, mirrored(stage), mirrored(stage))], finding="drift")


@contextmanager
def moved_tag(stage: AlertStage, first: tuple[str, str], second: tuple[str, str]) -> Generator[None]:
    kinds = {"accept": "application/vnd.oci.image.index.v1+json"}
    with httpx.Client(base_url=stage.endpoints.secondary_registry, trust_env=False, timeout=60) as registry:
        other = registry.get("/v2/{}/manifests/{}".format(*second), headers=kinds).raise_for_status()
        registry.put(
            "/v2/{}/manifests/{}".format(*first),
            content=other.content,
            headers={"content-type": other.headers["content-type"]},
        ).raise_for_status()
    yield
    registries = stage.outputs["registries"]
    sides = (
        f"{registries[side]['url']}/{registries['repositories'][0]}" for side in ("primary", "secondary")
    )
    done = stage.kilo("registry", "diff", *sides, "--repair")
    assert done.returncode in {0, 1}, done.stdout + done.stderr


def mirrored(stage: AlertStage) -> tuple[str, str]:
    """Push an image that is mirrored, and back up: the image's repository in the secondary, and its tag."""
    done = stage.kilo("tour", "--count", "1", "--json")
    image = json.loads(done.stdout)["artifacts"]["image"]
    assert image["tag_lag_seconds"] is not None, done.stdout + done.stderr
    name = stage.outputs["registries"]["repositories"][0]
    prefix = stage.outputs["registries"]["secondary"]["url"].partition("/")[2]
    return f"{prefix}/{name}", image["image"].rpartition(":")[2]


def test_throttled_tenant(stage: AlertStage, measured: Measured) -> None:
    measured.prove("TenantThrottled", fault=[stage.busy("initech", 60, 0.2)], tenant="initech")


def test_nobody_counts_limits(stage: AlertStage, measured: Measured) -> None:
    """Each gateway goes by its part of a tenant's limit."""
    fault = [stage.without("Deployment", "rate-limits"), stage.busy("acme", 5)]
    measured.prove("LimitsUncounted", fault=fault)


def test_sampling_guard(stage: AlertStage, measured: Measured) -> None:
    """A tenant with an allowance of one span a second, and far more requests."""
    measured.prove("SamplingGuardTripped", fault=[stage.busy("initech", 20, 0.5)], tenant="initech")


# ── Pages ────────────────────────────────────────────────────────────────────────────────────────


def test_gateway_refuses_its_configuration(stage: AlertStage, measured: Measured) -> None:
    measured.prove("GatewayConfigRejected", fault=[wrong_routes(stage)])


@contextmanager
def wrong_routes(stage: AlertStage) -> Generator[None]:
    before = stage.object("ConfigMap", "gateway-envoy")["data"]
    file = next(name for name in before if "route" in name)
    wrong = {**before, file: before[file].replace('"name"', '"nome"', 1)}
    stage.object("ConfigMap", "gateway-envoy", lambda found: found.update(data=wrong))
    try:
        yield
    finally:
        stage.object("ConfigMap", "gateway-envoy", lambda found: found.update(data=before))


def test_a_key_is_disabled(stage: AlertStage, measured: Measured) -> None:
    measured.prove("TenantKeyDisabled", fault=[key(stage, "disable_key")], tenant="hooli")


def test_a_key_is_to_be_deleted(stage: AlertStage, measured: Measured) -> None:
    deleted = key(stage, "schedule_key_deletion", PendingWindowInDays=7)
    measured.prove("TenantKeyDeletionScheduled", fault=[deleted], tenant="hooli")


@contextmanager
def key(stage: AlertStage, call: str, **arguments: Any) -> Generator[None]:
    kms, name = stage.aws("kms"), stage.key_of("hooli")
    getattr(kms, call)(KeyId=name, **arguments)
    try:
        yield
    finally:
        if call == "schedule_key_deletion":
            kms.cancel_key_deletion(KeyId=name)
        kms.enable_key(KeyId=name)


@pytest.mark.parametrize("table", ["projection", "inbox"])
def test_a_consumer_waits_for_a_lock(stage: AlertStage, measured: Measured, table: str) -> None:
    """Its process is well: what its handlers write is locked, or what it claims its events in."""
    fault = [stage.locked(table), stage.busy("acme", 1)]
    measured.prove("ConsumerStalled", fault=fault, job="consumer")


def test_the_stream_is_purged(stage: AlertStage, measured: Measured) -> None:
    measured.prove("ConsumerBehindRetention", "OutboxEventsLost", fault=[faults.purged_stream(stage)])


def test_wal_piles_up(stage: AlertStage, measured: Measured) -> None:
    measured.prove("SlotNearLoss", fault=[faults.retained_wal(stage)])


def test_a_tenant_is_not_served(stage: AlertStage, measured: Measured) -> None:
    """Nothing is behind the gateway, and the tenant, who asked for nothing before, goes on asking."""
    away = [stage.without("Deployment", "ingest"), stage.busy("hooli", 5)]
    names = "TenantAvailabilityBurn", "TenantUnserved"
    measured.prove(*names, fault=away, tenant="hooli", severity="page")


def test_a_tenant_waits(stage: AlertStage, measured: Measured) -> None:
    """Each event of it takes a second; the slower burn would take half an hour to end."""
    slow = [faults.slow_inserts(stage, "globex", 1.0), stage.busy("globex", 5)]
    measured.prove("TenantLatencyBurn", fault=slow, tenant="globex", burn_rate="14.4")


# ── And at last ──────────────────────────────────────────────────────────────────────────────────


def test_all_are_resolved(stage: AlertStage, measured: Measured) -> None:
    assert measured.told
    # A counter that is born with one request has not grown: it takes more to say that the tenant is served.
    with stage.busy("hooli", 1):
        measured.resolve()
