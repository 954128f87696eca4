"""Checkpoints and destruction on a schedule: each as its own role, which can do that and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from prometheus_client import REGISTRY

from kilo.environment import AUDIT_KEY_VARIABLE
from kilo.fle.audit.log import append, read
from kilo.fle.audit.store import S3Store
from kilo.fle.audit.verify import check
from kilo.fle.upkeep import EncryptionUpkeep

from .conftest import AUDIT_KEY, PEOPLE, Stage, url_of
from .test_cli import Kilo, kilo

__all__ = ["kilo"]

PUBLIC = AUDIT_KEY.public_key().public_bytes_raw()


def pem(name: str) -> str:
    key = AUDIT_KEY if name == "audit" else PEOPLE[name]
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def act(stage: Stage) -> None:
    with psycopg.connect(stage.url) as connection:
        append(connection, "ana", "rewrap", "tenant/gold", {})


def due(stage: Stage) -> int:
    """A retired key whose waiting period is over; its number."""
    key = stage.cipher().keyring.create("gold", "field-data", "retiring")
    stage.sql(
        "UPDATE fle_keys SET state = 'retired', destroy_after = now() - interval '3 days' WHERE id = %s", key
    )
    return key


def gauges(stage: Stage, role: str = "kilo_consumer") -> tuple[float, float]:
    EncryptionUpkeep(stage.outputs, url_of(stage, role)).count()
    names = ("fle_audit_unsigned_age_seconds", "fle_key_destruction_overdue_seconds")
    first, second = (REGISTRY.get_sample_value(name) for name in names)
    assert first is not None
    assert second is not None
    return first, second


def test_a_checkpoint_is_signed_by_the_auditor_role_with_the_key_of_its_environment(
    stage: Stage, kilo: Kilo
) -> None:
    act(stage)
    kilo.environment |= {"DATABASE_URL": url_of(stage, "kilo_auditor"), AUDIT_KEY_VARIABLE: pem("audit")}
    assert kilo("audit", "checkpoint").stdout == b"checkpoint at 1 entries\n"
    assert kilo("audit", "checkpoint").stdout == b"nothing new since the last checkpoint\n"
    with psycopg.connect(stage.url) as connection:
        report = check(S3Store(stage.outputs.audit), "test", PUBLIC, {}, read(connection))
    assert (report.checkpoints, report.uncovered, report.problems) == (1, 0, [])


def test_a_checkpoint_under_another_key_than_the_stage_s_is_refused(stage: Stage, kilo: Kilo) -> None:
    act(stage)
    kilo.environment[AUDIT_KEY_VARIABLE] = pem("stranger")
    assert b"not the key whose public half" in kilo("audit", "checkpoint", code=2).stderr
    kilo.environment[AUDIT_KEY_VARIABLE] = "no key"
    refused = kilo("audit", "checkpoint", code=2).stderr
    assert AUDIT_KEY_VARIABLE.encode() in refused
    assert b"no key" not in refused
    del kilo.environment[AUDIT_KEY_VARIABLE]
    assert b"is set" in kilo("audit", "checkpoint", code=2).stderr


def test_a_checkpoint_that_died_before_it_was_noted_is_noted_by_the_next(stage: Stage, kilo: Kilo) -> None:
    act(stage)
    kilo("audit", "checkpoint", "--signing-key", "audit.pem")
    stage.sql(
        "ALTER TABLE fle_checkpoints DISABLE TRIGGER ALL; DELETE FROM fle_checkpoints;"
        "ALTER TABLE fle_checkpoints ENABLE TRIGGER ALL"
    )
    assert gauges(stage)[0] > 0
    kilo("audit", "checkpoint", "--signing-key", "audit.pem")
    assert gauges(stage)[0] == 0


def test_due_keys_are_destroyed_by_a_role_of_its_own(stage: Stage, kilo: Kilo) -> None:
    key = due(stage)
    kilo.environment["DATABASE_URL"] = url_of(stage, "kilo_destroyer")
    assert kilo("keys", "destroy-due", "--json").stdout == f'{{"destroyed": [{key}]}}\n'.encode()
    assert stage.sql("SELECT state FROM fle_keys WHERE id = %s", key) == [("destroyed",)]
    assert stage.sql("SELECT count(*) FROM fle_wraps WHERE key_id = %s", key) == [(0,)]
    assert stage.sql("SELECT entry::jsonb ->> 'action' FROM fle_audit ORDER BY seq") == [
        ("make-key",),
        ("destroy",),
    ]
    assert kilo("keys", "destroy-due", "--json").stdout == b'{"destroyed": []}\n'


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("kilo_auditor", "INSERT INTO fle_audit VALUES (9, '', decode(repeat('00', 32), 'hex'))"),
        ("kilo_auditor", "UPDATE fle_checkpoints SET size = 1"),
        ("kilo_auditor", "SELECT FROM fle_wraps"),
        ("kilo_destroyer", "SELECT wrapped FROM fle_wraps"),
        ("kilo_destroyer", "UPDATE fle_keys SET destroy_after = now()"),
        ("kilo_destroyer", "UPDATE fle_keys SET state = 'destroyed' WHERE state = 'active'"),
        ("kilo_destroyer", "UPDATE fle_keys SET state = 'active' WHERE state = 'retired'"),
        ("kilo_destroyer", "DELETE FROM fle_wraps"),
        ("kilo_destroyer", "DELETE FROM fle_audit"),
        ("kilo_destroyer", "SELECT FROM events"),
        ("kilo_consumer", "SELECT FROM fle_audit"),
    ],
)
def test_the_roles_can_do_nothing_else(stage: Stage, role: str, statement: str) -> None:
    stage.cipher().encrypt("gold", "email", 1, "x")
    due(stage)
    act(stage)
    refusals = (psycopg.errors.InsufficientPrivilege, psycopg.errors.RaiseException)
    with psycopg.connect(url_of(stage, role)) as connection, pytest.raises(refusals):
        connection.execute(statement.encode())


@pytest.mark.parametrize("wait", [act, due])
def test_what_waits_too_long_shows(stage: Stage, wait: Callable[[Stage], object], kilo: Kilo) -> None:
    assert gauges(stage) == (0, 0)
    wait(stage)
    unsigned, overdue = gauges(stage)
    if overdue:
        assert overdue >= timedelta(days=3).total_seconds()
        kilo("keys", "destroy-due")
        assert gauges(stage)[1] == 0
    else:
        assert 0 < unsigned < 60
    kilo("audit", "checkpoint", "--signing-key", "audit.pem")
    assert gauges(stage) == (0, 0)
