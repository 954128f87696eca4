"""The database's roles: who has which password, which generations get in, and in which order they come."""

from __future__ import annotations

import dataclasses
from typing import Any

import pulumi
import pytest

from components.pods.database_role import DatabaseRole, roles_of, user_of
from components.pods.runtime_pod import Process, runtime_pod
from components.processes.database_roles import DatabaseRoles, DatabaseRolesArgs, GivenAdministrator
from kilo.logins import password_variable
from tests.components.recorder import Recording, record
from tests.components.support import runtime_context, template

SECRET, PASSWORD, JOB = (
    "kubernetes:core/v1:Secret",
    "random:index/randomPassword:RandomPassword",
    "kubernetes:batch/v1:Job",
)
ADMIN_URL = "postgresql://admin:correct-horse@db.example:5433/kilo"
ROLES = roles_of(usage=False)
CASES: tuple[tuple[int, DatabaseRole | None], ...] = ((1, "worker"), (2, "worker"), (2, None))


def roles(generation: int = 1, *, former_accepted: bool = False) -> Recording:
    def make() -> None:
        context = dataclasses.replace(runtime_context(), database_generation=generation)
        given = GivenAdministrator(pulumi.Output.secret(ADMIN_URL))
        args = DatabaseRolesArgs(context, given, "checksum", former_accepted=former_accepted)
        DatabaseRoles("database", args)

    return record(make)


def of_role(recording: Recording, role: DatabaseRole) -> dict[str, str]:
    return recording.one(SECRET, f"database-{role}").inputs["stringData"]


def of_migration(recording: Recording) -> dict[str, str]:
    return recording.one(SECRET, "database-passwords").inputs["stringData"]


def container(recording: Recording) -> dict[str, Any]:
    (found,) = template(recording, JOB)["spec"]["containers"]
    return found


@pytest.mark.parametrize("role", ROLES)
def test_a_role_has_its_own_password_and_nobody_elses(role: DatabaseRole) -> None:
    recording = roles()
    secret = of_role(recording, role)
    password = f"generated-password-database-{role}"
    assert (
        secret["DATABASE_URL"] == f"postgresql://kilo_{role}:{password}@db.example:5433/kilo?sslmode=require"
    )
    assert (secret["username"], secret["password"]) == (f"kilo_{role}", password)
    assert "correct-horse" not in str(secret)
    assert "stringData" in recording.one(SECRET, f"database-{role}").secret_inputs


def test_the_first_generation_is_that_of_stages_which_knew_none() -> None:
    recording = roles()
    assert {one.name for one in recording.of(PASSWORD)} == {f"database-{role}" for role in ROLES}
    assert set(of_migration(recording)) == {
        "DATABASE_URL",
        *(f"KILO_{role.upper()}_PASSWORD" for role in ROLES),
    }


def test_while_the_former_is_accepted_the_migration_has_passwords_of_both() -> None:
    before, during, after = roles(1), roles(2, former_accepted=True), roles(2)
    former, new = password_variable("kilo_worker"), password_variable("kilo_worker_2")
    # One made anew would shut out whoever has not been replaced yet.
    assert of_migration(during)[former] == of_migration(before)[former]
    assert of_migration(during)[new] == of_migration(after)[new] == "generated-password-database-worker-2"
    assert former not in of_migration(after)
    for recording in (during, after):
        secret = of_role(recording, "worker")
        assert secret["username"] == user_of("worker", 2) == "kilo_worker_2"
        assert secret["password"] == "generated-password-database-worker-2"
    arguments = [container(each)["args"][2:] for each in (before, during, after)]
    assert arguments == [
        ["--generation", "1"],
        ["--generation", "2", "--former-accepted"],
        ["--generation", "2"],
    ]
    given = {variable["name"] for variable in container(during)["env"]}
    assert given >= {former, new, "DATABASE_URL"}


def test_the_database_knows_a_login_before_any_process_has_it() -> None:
    recording = roles()
    job = recording.one(JOB, "schema")
    assert recording.one(SECRET, "database-passwords").urn in recording.one("kilo:cluster:Task").dependencies
    for role in ROLES:
        assert job.urn in recording.one(SECRET, f"database-{role}").dependencies


def test_who_has_a_login_is_replaced_with_it() -> None:
    found: list[object] = []

    def make() -> None:
        for generation, role in CASES:
            context = dataclasses.replace(runtime_context(), database_generation=generation)
            process = Process(["serve"], cpu_millicores=1, memory_mebibytes=1, database_role=role)
            found.append(runtime_pod(context, process).annotations.get("kilo.dev/database-credentials"))

    record(make)
    assert found == ["1", "2", None]
