"""Flags of the stage's features, by OpenFeature's own client: what is on, and what goes wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode, ProviderNotReadyError
from openfeature.flag_evaluation import Reason

from kilo.context import acting_for
from kilo.flags import StageFlags, Weights, bucket_of
from kilo.traffic.flags_file import FLAGS_FILE

KILO = Path(sys.executable).parent / "kilo"
ROOT = Path(__file__).parents[3]


def write(path: Path, **features: dict[str, int]) -> None:
    """As a kubelet does: another file of the same name."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"sticky_header": "idempotency-key", "features": features}))
    new.replace(path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / FLAGS_FILE
    write(path, checkout={"acme": 25, "globex": 100}, search={})
    return path


@pytest.fixture
def client(file: Path) -> Iterator[OpenFeatureClient]:
    api.set_provider_and_wait(StageFlags(weights=Weights(file, look_seconds=0)))
    yield api.get_client()
    api.clear_providers()


def of(tenant: str, key: str | None = None) -> EvaluationContext:
    return EvaluationContext(key, {"tenant": tenant})


def test_a_share_of_keys_is_on_and_each_stays_where_it_is(client: OpenFeatureClient, file: Path) -> None:
    keys = [f"key-{number}" for number in range(4_000)]

    def on() -> set[str]:
        return {key for key in keys if client.get_boolean_value("checkout", False, of("acme", key))}

    first = on()
    assert abs(len(first) - 1_000) < 140
    assert on() == first
    write(file, checkout={"acme": 50})
    more = on()
    assert first < more
    write(file, checkout={"acme": 0})
    assert on() == set()


def test_what_is_on_for_a_whole_tenant_needs_no_key(client: OpenFeatureClient) -> None:
    found = client.get_boolean_details("checkout", False, of("globex"))
    assert (found.value, found.variant, found.reason) == (True, "next", Reason.STATIC)
    found = client.get_boolean_details("checkout", True, of("initech"))
    assert (found.value, found.variant) == (False, "stable")
    assert client.get_boolean_value("search", True, of("globex")) is False
    assert client.get_string_value("checkout", "?", of("globex")) == "next"


def test_the_tenant_is_that_of_the_request(client: OpenFeatureClient) -> None:
    with acting_for("globex"):
        assert client.get_boolean_value("checkout", False) is True
        # What the caller says itself counts before it.
        assert client.get_boolean_value("checkout", True, of("initech")) is False
    with acting_for("initech"):
        assert client.get_boolean_value("checkout", True) is False


@pytest.mark.parametrize(
    ("flag", "context", "code"),
    [
        ("nothing", of("acme", "k"), ErrorCode.FLAG_NOT_FOUND),
        ("checkout", of("acme"), ErrorCode.TARGETING_KEY_MISSING),
        ("checkout", EvaluationContext("k"), ErrorCode.INVALID_CONTEXT),
    ],
)
def test_what_cannot_be_told_has_its_default(
    flag: str, context: EvaluationContext, code: ErrorCode, client: OpenFeatureClient
) -> None:
    for default in (True, False):
        found = client.get_boolean_details(flag, default, context)
        assert (found.value, found.error_code) == (default, code)
    assert client.get_integer_details("checkout", 7, of("globex")).error_code == ErrorCode.TYPE_MISMATCH
    assert client.get_object_value("checkout", {"a": 1}, of("globex")) == {"a": 1}


@pytest.mark.parametrize("text", ["", "{", '{"features": {"checkout": {"acme": "all"}}}', "[]", "\x00" * 40])
def test_a_file_that_breaks_changes_nothing(
    text: str, client: OpenFeatureClient, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert client.get_boolean_value("checkout", False, of("globex")) is True
    file.write_text(text)
    for _ in range(3):
        assert client.get_boolean_value("checkout", False, of("globex")) is True
    assert caplog.text.count("the former weights hold") == 1
    file.unlink()
    assert client.get_boolean_value("checkout", False, of("globex")) is True
    write(file, checkout={"globex": 0})
    assert client.get_boolean_value("checkout", True, of("globex")) is False


def test_without_a_file_flags_have_their_defaults_until_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "none" / FLAGS_FILE
    with pytest.raises(ProviderNotReadyError, match="KILO_FLAGS"):
        api.set_provider_and_wait(StageFlags(weights=Weights(path, look_seconds=0)))
    client = api.get_client()
    found = client.get_boolean_details("checkout", True, of("globex"))
    assert (found.value, found.error_code) == (True, ErrorCode.PROVIDER_NOT_READY)
    api.clear_providers()
    path.parent.mkdir()
    weights = Weights(path, look_seconds=0)
    assert weights.of("checkout", "globex") is None
    write(path, checkout={"globex": 100})
    assert weights.of("checkout", "globex") == 100


def test_many_threads_ask_while_it_changes(file: Path) -> None:
    weights, wrong = Weights(file, look_seconds=0), list[object]()
    weights.load()

    def ask() -> None:
        for _ in range(300):
            if (found := weights.of("checkout", "globex")) not in {0, 100}:
                wrong.append(found)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for number in range(60):
        write(file, checkout={"globex": 100 * (number % 2)})
    for thread in threads:
        thread.join()
    assert wrong == []


def test_buckets_are_even() -> None:
    counts = Counter(bucket_of(f"order-{number}") for number in range(50_000))
    assert counts.keys() == set(range(100))
    assert max(counts.values()) < 1.4 * 500


def test_the_stages_own_weights_are_printed() -> None:
    done = subprocess.run(
        [KILO, "traffic", "flags", "-s", "dev"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert "rehearsal" in document["features"]
