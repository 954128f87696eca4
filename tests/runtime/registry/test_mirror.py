"""Push events become mirrored images; what fails stays in the queue."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from prometheus_client import CollectorRegistry

from kilo.contract import RegistriesOutputs
from kilo.errors import BadInput
from kilo.registry import mirror as mirror_module
from kilo.registry.client import Registries
from kilo.registry.events import PushEvent
from kilo.registry.mirror import Mirror, MirrorMetrics
from kilo.registry.reference import Reference
from kilo.registry.signatures import SignaturePolicy
from kilo.registry.signers import Signers
from kilo.registry.sync import Synchronizer
from kilo.registry.watch import Watch
from sandbox.servers.moto import MotoServer
from tests.patience import PATIENCE_SECONDS
from tests.runtime.registry.images import Shelf
from tests.runtime.registry.proxy import Fault, Proxy

Shelves = Callable[[str], Shelf]


def write_key(directory: Path) -> Path:
    """A key that has signed nothing."""
    path = directory / "key.pub"
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    path.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoServer]:
    server = MotoServer(tmp_path_factory.mktemp("moto"))
    server.start()
    yield server
    server.stop()


@dataclass
class Stage:
    """A primary, a secondary, a queue, and a worker between them."""

    primary: Shelf
    secondary: Shelf
    outputs: RegistriesOutputs
    queue: Any
    metrics: CollectorRegistry
    instruments: MirrorMetrics
    proxy: Proxy

    def push_event(self, digest: str, tag: str | None = None, **changed: object) -> None:
        detail = {
            "action-type": "PUSH",
            "result": "SUCCESS",
            "repository-name": self.primary.repository,
            "image-digest": digest,
            **({"image-tag": tag} if tag else {}),
            **changed,
        }
        body = {"source": "aws.ecr", "time": datetime.now(UTC).isoformat(), "detail": detail}
        self.queue.send_message(QueueUrl=self.outputs.push_queue_url, MessageBody=json.dumps(body))

    def waiting(self) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]

        def count() -> int:
            answer = self.queue.get_queue_attributes(
                QueueUrl=self.outputs.push_queue_url, AttributeNames=names
            )
            return sum(int(value) for value in answer["Attributes"].values())

        # One that becomes visible between the two counts is in neither.
        return max(count(), count())

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.get_sample_value(name, {"repository": "app", **labels})

    def sync_by_hand(self) -> None:
        with Synchronizer() as synchronizer:
            sides = (Reference.parse(self.primary.name), Reference.parse(self.secondary.name))
            synchronizer.sync(*sides)

    def run_until(
        self, done: Callable[[], bool], policy: SignaturePolicy | None = None, *, move_tags: bool = True
    ) -> None:
        stopping = threading.Event()
        registries = Registries(patience_seconds=0.3)
        with Synchronizer(registries=registries, policy=policy, move_tags=move_tags) as synchronizer:
            self.metrics = CollectorRegistry()
            self.instruments = MirrorMetrics(self.metrics, ("app",))
            worker = Mirror(self.outputs, synchronizer, self.instruments)
            thread = threading.Thread(target=worker.run, args=(stopping,))
            thread.start()
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not done() and time.monotonic() < deadline:
                time.sleep(0.05)
            stopping.set()
            thread.join()
        assert done()


@pytest.fixture
def stage(shelf: Shelves, moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    for name, value in {
        "AWS_ENDPOINT_URL": moto.url,
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(mirror_module, "RETRY_SECONDS", 1)
    monkeypatch.setattr(mirror_module, "_LONG_POLL_SECONDS", 1)
    primary, secondary = shelf("without"), shelf("with")
    primary, behind = (Shelf(side.url, f"{side.repository}/app") for side in (primary, secondary))
    proxy = Proxy(behind.url)
    queue = boto3.client("sqs", region_name="eu-central-1")
    name = primary.repository.replace("/", "-")
    outputs = RegistriesOutputs.model_validate(
        {
            "primary": {
                "provider": "aws",
                "url": primary.name.removesuffix("/app"),
                "location": "eu-central-1",
            },
            "secondary": {
                "provider": "gcp",
                "url": f"{proxy.host}/{behind.repository.removesuffix('/app')}",
                "location": "europe-west3",
            },
            "repositories": ["app"],
            "push_queue_url": queue.create_queue(QueueName=name)["QueueUrl"],
            "push_dead_letter_queue_url": queue.create_queue(QueueName=f"{name}-dead")["QueueUrl"],
        }
    )
    metrics = CollectorRegistry()
    yield Stage(primary, behind, outputs, queue, metrics, MirrorMetrics(metrics, ("app",)), proxy)
    proxy.close()


def test_a_push_and_its_signature_are_mirrored_and_their_lag_is_known(stage: Stage) -> None:
    image = stage.primary.image(b"layer", tag="v1")
    stage.push_event(image["digest"], "v1")
    signature = stage.primary.artifact(image, "application/vnd.example.signature", b"signed")
    stage.push_event(signature["digest"])
    stage.run_until(lambda: stage.waiting() == 0)
    assert stage.secondary.digest("v1") == image["digest"]
    assert stage.secondary.referrers(image["digest"]) == {signature["digest"]}
    assert stage.value("registry_mirror_duration_seconds_count") == 2
    assert stage.value("registry_mirror_lag_seconds") == 0


def test_a_push_that_fails_comes_back_until_it_succeeds(stage: Stage) -> None:
    image = stage.primary.image(b"layer", tag="v1")
    stage.push_event(image["digest"], "v1")
    stage.proxy.rule = lambda method, path: Fault(status=503)
    failed = "registry_mirror_copies_total"
    stage.run_until(lambda: stage.value(failed, outcome="failed") is not None)
    assert stage.waiting() == 1
    assert (stage.value("registry_mirror_lag_seconds") or 0) > 0
    assert stage.secondary.tags() == set()
    stage.proxy.rule = lambda _method, _path: None
    stage.run_until(lambda: stage.waiting() == 0)
    assert stage.secondary.digest("v1") == image["digest"]


def test_a_push_that_somebody_else_mirrored_is_no_lag(stage: Stage) -> None:
    image = stage.primary.image(b"layer", tag="v1")
    stage.push_event(image["digest"], "v1")
    stage.proxy.rule = lambda method, path: Fault(status=503)
    stage.run_until(lambda: stage.value("registry_mirror_copies_total", outcome="failed") is not None)
    stage.proxy.rule = lambda _method, _path: None
    watch = Watch(stage.outputs, stage.instruments)
    watch.compare_all()
    assert (stage.value("registry_mirror_lag_seconds") or 0) > 0
    assert stage.value("registry_mirror_drift", finding="missing") == 1
    stage.sync_by_hand()
    watch.compare_all()
    assert stage.value("registry_mirror_lag_seconds") == 0
    assert stage.value("registry_mirror_drift", finding="missing") == 0


def test_what_is_not_signed_is_quarantined_and_is_neither_lag_nor_missing(
    stage: Stage, tmp_path: Path
) -> None:
    policy = SignaturePolicy(Signers.of_files([write_key(tmp_path)], None, None, None))
    image = stage.primary.image(b"layer", tag="v1")
    stage.push_event(image["digest"], "v1")
    quarantined = "registry_mirror_copies_total"
    stage.run_until(lambda: stage.value(quarantined, outcome="quarantined") is not None, policy)
    assert stage.value("registry_mirror_lag_seconds") == 0
    assert stage.waiting() == 1, "its signature may be on its way"
    Watch(stage.outputs, stage.instruments, policy).compare_all()
    assert stage.value("registry_mirror_drift", finding="quarantined") == 1
    assert stage.value("registry_mirror_drift", finding="missing") == 0
    assert stage.secondary.tags() == set()


def test_parked_pushes_are_counted(stage: Stage) -> None:
    stage.queue.send_message(QueueUrl=stage.outputs.push_dead_letter_queue_url, MessageBody="parked")
    Watch(stage.outputs, stage.instruments).compare_all()
    assert stage.metrics.get_sample_value("registry_mirror_parked_pushes") == 1


def test_only_a_comparison_of_everything_counts(stage: Stage) -> None:
    stage.metrics = CollectorRegistry()
    stage.instruments = MirrorMetrics(stage.metrics, ("app",))
    stage.primary.image(b"layer", tag="v1")
    name = "registry_compared_last_success_timestamp_seconds"
    watch = Watch(stage.outputs, stage.instruments)
    stage.proxy.rule = lambda _method, _path: Fault(status=403)
    watch.compare_all()
    assert stage.metrics.get_sample_value(name) == 0
    stage.proxy.rule = lambda _method, _path: None
    begun = time.time()
    watch.compare_all()
    assert (stage.metrics.get_sample_value(name) or 0) >= begun, "that the mirror lacks an image is a result"


def test_a_push_comes_back_soon_and_then_ever_later() -> None:
    waits = [
        mirror_module._retry_seconds({"Attributes": {"ApproximateReceiveCount": str(number)}})  # pyright: ignore[reportPrivateUsage]
        for number in range(1, 11)
    ]
    assert waits == [20, 40, 80, 160, 320, 640, 900, 900, 900, 900]
    assert sum(waits[:3]) < 300, "the goal can still be met"
    assert sum(waits) > 3600, "an outage of an hour parks nothing"


def test_an_event_that_comes_twice_is_copied_once(stage: Stage) -> None:
    image = stage.primary.image(b"layer", tag="v1")
    stage.push_event(image["digest"], "v1")
    stage.run_until(lambda: stage.waiting() == 0)
    stage.push_event(image["digest"], "v1")
    stage.run_until(lambda: stage.waiting() == 0)
    assert stage.value("registry_mirror_copies_total", outcome="present") == 1
    assert stage.proxy.count("PUT", "/manifests/v1") == 1


def test_what_is_no_push_is_dropped_and_what_is_no_event_is_left(stage: Stage) -> None:
    stage.push_event("sha256:" + "0" * 64, "gone", **{"action-type": "DELETE"})
    stage.queue.send_message(QueueUrl=stage.outputs.push_queue_url, MessageBody="not an event")
    stage.run_until(lambda: stage.waiting() == 1)
    assert stage.secondary.tags() == set()


@pytest.mark.parametrize(
    ("text", "place"),
    [("nonsense", "event"), ('{"source": "aws.s3"}', "source"), ('{"source": "aws.ecr"}', "time")],
)
def test_a_bad_event_says_what_is_wrong(text: str, place: str) -> None:
    with pytest.raises(BadInput, match=f"push event: {place}"):
        PushEvent.parse(text)


def test_no_failure_ends_the_comparison(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child of an index that is gone at the source is a finding; what nobody thought of is a failure."""
    child = stage.primary.index(stage.primary.image(b"layer"))
    stage.primary.index(child, tag="v1")
    stage.sync_by_hand()
    stage.primary.delete(child["digest"])
    stopping = threading.Event()
    watch = Watch(stage.outputs, stage.instruments)
    thread = threading.Thread(target=watch.run, args=(0.05, stopping))
    thread.start()

    def wait_for(name: str, least: float, **labels: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (stage.metrics.get_sample_value(name, labels) or 0) < least:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    wait_for("registry_mirror_drift", 1, repository="app", finding="unreadable")
    errors = "registry_mirror_errors_total"
    assert stage.metrics.get_sample_value(errors, {"loop": "comparison"}) == 0
    monkeypatch.setattr("kilo.registry.watch.compare", lambda *_, **__: 1 / 0)
    wait_for(errors, 3, loop="comparison")
    monkeypatch.undo()
    stopping.set()
    thread.join()


def test_no_failure_ends_the_worker(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    image = stage.primary.image(b"layer", tag="v1")
    stage.push_event(image["digest"], "v1")
    left = [3]

    def broken(self: Synchronizer, *arguments: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise ZeroDivisionError
        return sync_push(self, *arguments)

    sync_push = Synchronizer.sync_push
    monkeypatch.setattr(Synchronizer, "sync_push", broken)
    monkeypatch.setattr(mirror_module, "VISIBILITY_SECONDS", 1)
    stage.run_until(lambda: stage.waiting() == 0)
    assert stage.secondary.digest("v1") == image["digest"]
    assert stage.metrics.get_sample_value("registry_mirror_errors_total", {"loop": "push"}) == 3


def test_a_queue_that_can_not_be_read_is_tried_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_module, "_QUEUE_BACK_OFF_SECONDS", 0.05)
    image = stage.primary.image(b"layer", tag="v1")
    url = stage.outputs.push_queue_url
    stage.outputs = stage.outputs.model_copy(update={"push_queue_url": f"{url}-gone"})
    errors = "registry_mirror_errors_total"
    stage.run_until(lambda: (stage.metrics.get_sample_value(errors, {"loop": "queue"}) or 0) >= 3)
    stage.outputs = stage.outputs.model_copy(update={"push_queue_url": url})
    stage.push_event(image["digest"], "v1")
    stage.run_until(lambda: stage.waiting() == 0)
    assert stage.secondary.digest("v1") == image["digest"]


def test_the_mirror_moves_no_tag(stage: Stage) -> None:
    old = stage.secondary.image(b"old", tag="v1")
    new = stage.primary.image(b"new", tag="v1")
    stage.push_event(new["digest"], "v1")
    stage.run_until(
        lambda: stage.value("registry_mirror_copies_total", outcome="failed") is not None, move_tags=False
    )
    assert stage.secondary.digest("v1") == old["digest"]
    Watch(stage.outputs, stage.instruments).compare_all()
    assert stage.value("registry_mirror_drift", finding="drift") == 1
