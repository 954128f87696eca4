"""The bus's users and certificates: who has which, which generations get in, and in which order they come."""

from __future__ import annotations

from typing import Any

import pytest

from components.processes.bus_credentials import user_of
from components.processes.message_bus import INCLUDE_ACCESS, MessageBus, MessageBusArgs
from kilo.bus.certificates import Certificates, make_certificates
from kilo.bus.roles import BUS_ROLES, BusRole
from kilo.contract import BusOutputs
from tests.components.recorder import Recording, record
from tests.components.support import runtime_context, template

SECRET, STATEFUL_SET = "kubernetes:core/v1:Secret", "kubernetes:apps/v1:StatefulSet"
BUS = BusOutputs(
    url="tls://nats.kilo.svc.cluster.local:4222",
    stream="EVENTS",
    subject_prefix="events",
    heartbeat_stream="HEARTBEATS",
    duplicate_window_seconds=120,
)
NAMES = [
    "nats.kilo",
    "nats.kilo.svc.cluster.local",
    *(f"nats-{n}.nats-headless.kilo.svc.cluster.local" for n in range(3)),
]


def bus(generation: int = 1, *, former_accepted: bool = False, **more: Any) -> Recording:
    given: dict[str, Any] = {
        "image": "docker.io/library/nats:2.15.1-alpine",
        "replicas": 3,
        "storage_gibibytes": 1,
        "storage_class": None,
        "config": INCLUDE_ACCESS,
        "bus": BUS,
        "streams_arguments": ["bus", "apply"],
        "clients": ["consumer"],
        "generation": generation,
        "former_accepted": former_accepted,
        **more,
    }
    return record(lambda: MessageBus("nats", MessageBusArgs(context=runtime_context(), **given)))


def made(generation: int) -> Certificates:
    return make_certificates(f"generated-password-nats-authority-{generation}", NAMES)


def of_role(recording: Recording, role: BusRole) -> dict[str, str]:
    return recording.one(SECRET, f"bus-{role}").inputs["stringData"]


def of_server(recording: Recording) -> dict[str, str]:
    return recording.one(SECRET, "nats-access").inputs["stringData"]


def users(recording: Recording) -> list[str]:
    lines = of_server(recording)["access.conf"].splitlines()
    return [line.split('"')[1] for line in lines if "{user:" in line]


@pytest.mark.parametrize("role", BUS_ROLES)
def test_a_role_has_its_own_password_and_nobody_elses(role: BusRole) -> None:
    recording = bus()
    secret = of_role(recording, role)
    assert secret == {
        "KILO_BUS_USER": f"{role}-1",
        "KILO_BUS_PASSWORD": f"generated-password-nats-{role}-1",
        "KILO_BUS_NAME": "nats.kilo",
        "ca.pem": made(1).authority,
    }
    found = recording.one(SECRET, f"bus-{role}")
    assert "stringData" in found.secret_inputs
    assert found.name == found.inputs["metadata"]["name"]


def test_the_server_has_hashes_and_no_password() -> None:
    files = of_server(bus())
    assert users(bus()) == [user_of(role, 1) for role in BUS_ROLES]
    for role in BUS_ROLES:
        assert f'password: "$2a$10$generated-password-nats-{role}-1"' in files["access.conf"]
        assert f'"generated-password-nats-{role}-1"' not in files["access.conf"]
    assert files["tls.crt"] == made(1).certificate
    assert files["tls.key"] == made(1).key


def test_while_the_former_is_accepted_both_get_in_and_who_waits_believes_what_is_shown() -> None:
    before, during, after = bus(1), bus(2, former_accepted=True), bus(2)
    assert users(during) == [user_of(role, generation) for role in BUS_ROLES for generation in (1, 2)]
    assert users(after) == [user_of(role, 2) for role in BUS_ROLES]
    # Each believes what the server shows, before and after its own turn.
    assert of_server(during)["tls.crt"] == of_server(before)["tls.crt"] == made(1).certificate
    assert of_server(after)["tls.crt"] == made(2).certificate
    assert of_role(during, "worker")["ca.pem"] == made(1).authority + made(2).authority
    assert of_role(after, "worker")["ca.pem"] == made(2).authority
    assert (
        of_role(during, "worker")["KILO_BUS_USER"] == of_role(after, "worker")["KILO_BUS_USER"] == "worker-2"
    )


def test_members_that_are_not_replaced_yet_stay_in_the_cluster() -> None:
    for recording in (bus(2, former_accepted=True), bus(2)):
        routes = of_server(recording)["routes.conf"]
        assert f'["{made(1).pin}", "{made(2).pin}"]' in routes
        assert of_server(recording)["ca.pem"] == made(1).authority + made(2).authority
    assert f'["{made(2).pin}", "{made(3).pin}"]' in of_server(bus(3))["routes.conf"]


def test_the_servers_pods_are_replaced_when_what_they_are_given_changes() -> None:
    def checksum(recording: Recording) -> str:
        annotations = template(recording, STATEFUL_SET)["metadata"]["annotations"]
        return annotations["kilo.dev/access-checksum"]

    known = {
        checksum(bus()),
        checksum(bus(2)),
        checksum(bus(2, former_accepted=True)),
        checksum(bus(bus=BUS.model_copy(update={"subject_prefix": "other"}))),
        checksum(bus(replicas=1)),
    }
    assert len(known) == 5
    assert checksum(bus()) == checksum(bus())


def test_the_server_knows_a_password_before_any_client_has_it() -> None:
    recording = bus()
    server_secret = recording.one(SECRET, "nats-access")
    servers = recording.one("kilo:cluster:StatefulWorkload", "nats")
    assert server_secret.urn in servers.dependencies
    for role in BUS_ROLES:
        assert recording.one(STATEFUL_SET).urn in recording.one(SECRET, f"bus-{role}").dependencies
    job = recording.one("kilo:cluster:Task", "bus-streams")
    assert recording.one(SECRET, "bus-operator").urn in job.dependencies
