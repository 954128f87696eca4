"""The wheel alone and with each extra alone, in empty environments: what imports, and what each lacks."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.wheel.environments import (
    EXTRAS,
    PYTHONS,
    ROOT,
    Environment,
    build_wheel,
    make_environment,
)

EXAMPLE = ROOT / "docs" / "examples" / "service.py"
PLAIN = (
    "kilo",
    "kilo.bus",
    "kilo.context",
    "kilo.contract",
    "kilo.environment",
    "kilo.errors",
    "kilo.outbox",
    "kilo.tenancy",
)
NEEDS = {
    "kilo.client": {"client"},
    "kilo.consumer": {"consumer"},
    "kilo.fle": {"fle"},
    "kilo.fle.integrations.psycopg_rows": {"fle"},
    "kilo.fle.integrations.pydantic_field": {"fle"},
    "kilo.fle.integrations.sqlalchemy_type": {"fle", "sqlalchemy"},
    "kilo.health": {"fle"},
    "kilo.outbox.sqlalchemy_session": {"sqlalchemy"},
    "kilo.testing": {"testing"},
    "kilo.web": {"web"},
}
"""Public modules that the plain install lacks something for, and the extras that bring it."""

BRINGS = {
    "consumer": {"fle"},
    "gcp": {"fle"},
    "kafka": {"consumer", "fle"},
    "msk": {"consumer", "fle", "kafka"},
    "otel": {"consumer", "fle"},
    "parquet": {"client", "consumer", "fle", "platform", "web"},
    "platform": {"client", "consumer", "fle", "web"},
    "sbom": {"client", "consumer", "fle", "platform", "web"},
    "scaffold": {"client", "consumer", "fle", "platform", "web"},
    "signatures": {"client", "consumer", "fle", "platform", "web"},
    "testing": {"client", "consumer", "fle"},
}
"""What an extra brings besides itself."""

IMPORT = """
import importlib, json, sys
found = {}
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
    except Exception as error:
        found[name] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""
EVERYTHING = """
import importlib, json, pkgutil, kilo
found = {}
for module in pkgutil.walk_packages(kilo.__path__, "kilo."):
    try:
        importlib.import_module(module.name)
    except Exception as error:
        found[module.name] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""
ADAPTERS = {
    "arro3": "parquet",
    "confluent_kafka": "kafka",
    "copier": "scaffold",
    "datasketches": "otel",
    "google": "gcp",
    "openfeature": "flags",
    "pytest": "testing",
    "sqlalchemy": "sqlalchemy",
    "xxhash": "flags",
    "yaml": "scaffold",
}
BROUGHT_BY_OTHERS_TOO = {"kilo.consumer", "kilo.health"}
"""The bus's library is loaded when it is connected to, and Prometheus' is in several extras."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module", params=PYTHONS)
def plain(
    request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    return make_environment(tmp_path_factory.mktemp("plain") / "venv", request.param, wheel, None)


def failures(environment: Environment, code: str, *arguments: str) -> dict[str, str]:
    run = environment.run("-c", code, *arguments)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_the_wheel_holds_the_sdk_and_nothing_that_others_call_theirs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names} == {"kilo", "kilo-0.1.0.dist-info"}
    assert "kilo/py.typed" in names
    assert [name for name in names if name.endswith(".sql")]


def test_the_plain_install_is_small_and_says_which_extra_the_rest_needs(plain: Environment) -> None:
    found = failures(plain, IMPORT, json.dumps([*PLAIN, *NEEDS]))
    assert found.keys() == NEEDS.keys()
    for module, problem in found.items():
        named = {extra for extra in NEEDS[module] if problem.endswith(f"pip install 'kilo[{extra}]'")}
        assert named, problem
    names = json.loads(
        plain.run(
            "-c",
            "import importlib.metadata, json;"
            "print(json.dumps([each.name.lower() for each in importlib.metadata.distributions()]))",
        ).stdout
    )
    assert {"kilo", "psycopg", "pydantic"} <= {*names}
    assert len(names) <= 12, names


def test_the_command_line_of_the_plain_install_says_how_to_get_it(plain: Environment) -> None:
    run = subprocess.run(
        [plain.folder / "bin" / "kilo", "dlq", "list"], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("kilo: error: ")
    assert run.stderr.endswith("pip install 'kilo[platform]'\n")
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("extra", EXTRAS)
def test_each_extra_alone_imports_what_it_is_for(
    extra: str, python: str, wheel: Path, tmp_path: Path
) -> None:
    environment = make_environment(tmp_path / "venv", python, wheel, extra)
    brought = {extra, *BRINGS.get(extra, set[str]())}
    found = failures(environment, IMPORT, json.dumps([*PLAIN, *NEEDS]))
    without = {module for module, needed in NEEDS.items() if not needed <= brought}
    assert without - BROUGHT_BY_OTHERS_TOO <= found.keys() <= without
    if "platform" in brought:
        # All of the package, apart from the adapters of other extras.
        for module, problem in failures(environment, EVERYTHING).items():
            lacking = {needed for library, needed in ADAPTERS.items() if library in problem}
            assert lacking - brought, (module, problem)
        help_of = subprocess.run(
            [environment.folder / "bin" / "kilo", "--help"], capture_output=True, text=True, check=False
        )
        assert help_of.returncode == 0, help_of.stderr
        assert " dlq " in help_of.stdout


def test_the_sample_service_is_typed_strictly_by_the_wheel(plain: Environment, tmp_path: Path) -> None:
    service = tmp_path / "service.py"
    service.write_text(EXAMPLE.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict"}), encoding="utf-8")
    checker = Path(sys.executable).parent / "basedpyright"
    run = subprocess.run(
        [checker, "--pythonpath", plain.python, "--project", tmp_path, service],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    service.write_text(service.read_text(encoding="utf-8").replace('"order.placed"', "1"), encoding="utf-8")
    wrong = subprocess.run(
        [checker, "--pythonpath", plain.python, "--project", tmp_path, service],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 'cannot be assigned to parameter "kind"' in wrong.stdout


@pytest.fixture
def service(plain: Environment, database_url: str) -> Iterator[str]:
    process = subprocess.Popen(
        [plain.python, "-I", EXAMPLE, "0"],
        env={"DATABASE_URL": database_url},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def post(url: str, body: str, key: str) -> tuple[int, str]:
    request = urllib.request.Request(url, body.encode(), {"Idempotency-Key": key})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_the_sample_service_writes_an_order_and_its_event_once(service: str, database_url: str) -> None:
    assert post(f"{service}/acme/orders/42", '{"total": 12}', "7") == (201, "acme/7")
    assert post(f"{service}/acme/orders/42", '{"total": 12}', "7") == (200, "acme/7")
    status, problem = post(f"{service}/acme/orders/42", '{"total": 13}', "7")
    assert status == 400
    assert "give a new event a key of its own" in problem
    assert post(f"{service}/acme/orders/42", '{"total": NaN}', "8")[0] == 400
    with psycopg.connect(database_url) as connection:
        orders = connection.execute("SELECT tenant, id, body FROM orders").fetchall()
        events = connection.execute(
            "SELECT tenant, aggregate, aggregate_id, kind, payload FROM outbox"
        ).fetchall()
    assert orders == [("acme", "42", {"total": 12})]
    assert events == [("acme", "order", "42", "order.placed", {"total": 12})]
