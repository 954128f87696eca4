"""The stores by themselves: locks, versions, and connections that break."""

from __future__ import annotations

import os
from datetime import timedelta
from io import BytesIO

import boto3
import pytest

from kilo.backup.fanout import Pipe, fan_out
from kilo.backup.locks import check_lock
from kilo.backup.stores import Lock, Store, open_stores
from kilo.backup.stores.base import AlreadyExists, StoreError
from kilo.backup.stores.s3 import _part_bytes  # pyright: ignore[reportPrivateUsage] - what a limit comes to
from kilo.contract import StackOutputs
from kilo.errors import CheckFailed, KiloError
from tests.runtime.registry.proxy import Fault, Proxy

Stores = dict[str, Store]
MIB = 1024 * 1024


def test_a_host_whose_clock_is_days_off_does_not_misjudge_locks(
    outputs: StackOutputs, stores: Stores
) -> None:
    """The lock's length is told by the store's times alone."""
    lock = stores["primary"].create("backups/x/clock", BytesIO(b"x"))
    assert lock.until
    for days in (-40, 40):
        moved = Lock(lock.mode, lock.until + timedelta(days=days), lock.created_at + timedelta(days=days))
        assert check_lock(stores["primary"], outputs.backups.primary, moved) == "proven"
    shorter = Lock(lock.mode, lock.until - timedelta(days=1), lock.created_at)
    with pytest.raises(CheckFailed, match="asked for compliance, 7 days"):
        check_lock(stores["primary"], outputs.backups.primary, shorter)


def test_a_version_under_an_attackers_is_still_the_first_after_many(
    outputs: StackOutputs, stores: Stores
) -> None:
    """Within one second, and with markers in between."""
    s3, bucket = boto3.client("s3"), outputs.backups.primary.bucket
    stores["primary"].create("backups/x/one", BytesIO(b"true"))
    for number in range(4):
        s3.put_object(Bucket=bucket, Key="backups/x/one", Body=b"false %d" % number)
        s3.delete_object(Bucket=bucket, Key="backups/x/one")
    assert b"".join(stores["primary"].read("backups/x/one")) == b"true"
    [info] = stores["primary"].list("backups/x/")
    assert (info.size, info.covered) == (4, "hidden by a delete marker")
    with pytest.raises(KeyError):
        stores["primary"].lock("backups/x/on")


def test_parts_grow_with_an_object_and_one_with_too_many_is_refused_whole(
    outputs: StackOutputs, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = 5 * MIB
    monkeypatch.setattr("kilo.backup.stores.s3.PART_BYTES", part)
    monkeypatch.setattr("kilo.backup.stores.s3._PARTS_OF_ONE_SIZE", 1)
    monkeypatch.setattr("kilo.backup.stores.s3._MOST_PARTS", 3)
    s3, bucket = boto3.client("s3"), outputs.backups.primary.bucket
    content = os.urandom(part * 7)
    for name, size in (("full", part * 7), ("short", part * 3 + 1)):
        stores["primary"].create(name, BytesIO(content[:size]))
        assert b"".join(stores["primary"].read(name)) == content[:size]
        found = s3.head_object(Bucket=bucket, Key=name)
        assert (found["ContentLength"], found["ETag"].strip('"')[-2:]) == (size, "-3")
    with pytest.raises(StoreError, match=r"larger than the 0\.0 GB that 3 parts hold"):
        stores["primary"].create("larger", BytesIO(content + b"x"))
    assert not stores["primary"].list("larger")
    assert not s3.list_multipart_uploads(Bucket=bucket).get("Uploads")


def test_the_largest_object_has_two_terabytes_in_parts_of_half_a_gibibyte() -> None:
    sizes = [_part_bytes(number) for number in range(1, 10_001)]
    assert sizes[0] == sizes[1_999] == 32 * MIB
    assert sizes[2_000] == 64 * MIB
    assert sizes[-1] == 512 * MIB
    assert 2.0e12 < sum(sizes) < 2.1e12


def test_a_marker_without_a_version_is_no_object(outputs: StackOutputs, stores: Stores) -> None:
    boto3.client("s3").delete_object(Bucket=outputs.backups.primary.bucket, Key="backups/none")
    assert stores["primary"].list("backups/") == []


def test_what_the_lifecycle_has_expired_is_no_longer_listed(
    outputs: StackOutputs, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores["primary"].create("backups/x/one", BytesIO(b"old"))
    boto3.client("s3").delete_object(Bucket=outputs.backups.primary.bucket, Key="backups/x/one")
    assert len(stores["primary"].list("backups/")) == 1
    monkeypatch.setattr(stores["primary"], "_retention", timedelta(days=-1))
    assert stores["primary"].list("backups/") == []


def test_an_answer_that_was_lost_is_no_failure(
    s3_proxy: Proxy, outputs: StackOutputs, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 has taken it, the connection breaks, and the library asks again: what is in the way is our own."""
    monkeypatch.setattr("kilo.backup.stores.s3.PART_BYTES", MIB * 8)
    lost: list[str] = []

    def lose(method: str, url: str) -> Fault | None:
        finishing = "uploadId" in url and "partNumber" not in url if "large" in url else method == "PUT"
        if "backups/lost" in url and finishing and not any(url.partition("?")[0] in each for each in lost):
            lost.append(url)
            return Fault(cut_answer_after=0)
        return None

    s3_proxy.rule = lose
    store = open_stores(outputs.backups)["primary"]
    assert store.create("backups/lost/small", BytesIO(b"small")).mode == "compliance"
    large = os.urandom(9 * MIB)
    assert store.create("backups/lost/large", BytesIO(large)).mode == "compliance"
    assert len(lost) == 2
    assert b"".join(store.read("backups/lost/large")) == large
    with pytest.raises(AlreadyExists):
        store.create("backups/lost/small", BytesIO(b"other"))
    assert stores["primary"].list("backups/lost/")[0].covered == ""


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kilo.backup.stores.gcs.CHUNK_BYTES", MIB * 8)


def upload_with_a_hitch(
    proxy: Proxy, outputs: StackOutputs, fault: Fault, content: bytes
) -> KiloError | None:
    """Upload to Google with ``fault`` on the first and third chunk; what came of it."""
    hit: list[str] = []

    def once_a_chunk(method: str, url: str) -> Fault | None:
        if method == "PUT" and "upload" in url:
            hit.append(url)
            return fault if len(hit) in {1, 3} else None
        return None

    proxy.rule = once_a_chunk
    store = open_stores(outputs.backups)["secondary"]
    pieces = [content[start : start + 1_000_000] for start in range(0, len(content), 1_000_000)]

    def consume(pipe: Pipe) -> KiloError | None:
        try:
            store.create("backups/x/hitch", pipe)
        except StoreError as error:
            return error
        assert b"".join(store.read("backups/x/hitch")) == content
        return None

    return fan_out(pieces, {"secondary": consume})["secondary"].result


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(
    "fault", [Fault(status=503), Fault(cut_request_after=3_000_000)], ids=["unavailable", "request cut"]
)
def test_an_upload_to_google_goes_on_after_a_hitch(
    gcs_proxy: Proxy, outputs: StackOutputs, fault: Fault
) -> None:
    """A chunk is sent again, though the stream can't be read twice."""
    assert upload_with_a_hitch(gcs_proxy, outputs, fault, os.urandom(20 * MIB)) is None


@pytest.mark.usefixtures("small_chunks")
def test_an_upload_that_arrives_otherwise_is_no_backup(gcs_proxy: Proxy, outputs: StackOutputs) -> None:
    """Google knows what it has when an answer is lost; the emulator takes a chunk twice. That is caught."""
    fault = Fault(cut_answer_after=0)
    error = upload_with_a_hitch(gcs_proxy, outputs, fault, os.urandom(20 * MIB))
    assert "DataCorruption" in str(error)


def test_reading_goes_on_where_the_connection_broke(s3_proxy: Proxy, outputs: StackOutputs) -> None:
    store = open_stores(outputs.backups)["primary"]
    content = os.urandom(5 * MIB)
    store.create("backups/x/cut", BytesIO(content))
    broken: list[str] = []

    def cut(method: str, url: str) -> Fault | None:
        if method == "GET" and "backups/x/cut" in url and len(broken) < 3:
            broken.append(url)
            return Fault(cut_answer_after=1_500_000)
        return None

    s3_proxy.rule = cut
    assert b"".join(store.read("backups/x/cut")) == content
    assert len(broken) == 3
    s3_proxy.rule = lambda method, url: Fault(cut_answer_after=0) if "x/cut" in url else None
    with pytest.raises(KiloError, match="broke off"):
        list(store.read("backups/x/cut"))
