"""Each entry is added once: files renamed, copied, emptied and torn; collectors doubled and frozen out."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path

import psycopg
import pytest

from kilo.database.session import connect
from kilo.health import Health
from kilo.usage.collector import Collector
from kilo.usage.files import Chunk, LogFiles
from kilo.usage.store import Moved, UsageStore
from kilo.usage.sums import add_up
from tests.patience import eventually
from tests.runtime.usage.support import append, line, rows, totals, write


@contextlib.asynccontextmanager
async def collecting(url: str, files: LogFiles, source: str = "gateway-0") -> AsyncGenerator[Collector]:
    stopping = asyncio.Event()
    collector = Collector(url, files, source, Health("database"), pause_seconds=0.02)
    working = asyncio.ensure_future(collector.run(stopping))
    try:
        yield collector
    finally:
        stopping.set()
        await working


async def collect_all(url: str, path: Path, source: str = "gateway-0") -> None:
    """A collector that comes, reads all there is, and goes."""
    async with collecting(url, LogFiles(path), source):
        pass


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.log"


async def test_entries_are_added_by_hour_and_day(database_url: str, path: Path) -> None:
    write(path, line() + line(at="2026-03-01T23:59:59.9") + line(at="2026-03-02T00:00:00.0", tenant="globex"))
    await collect_all(database_url, path)
    assert totals(database_url) == {"acme": 2, "globex": 1}
    assert rows(database_url, "SELECT day::text, tenant, requests FROM usage_request_days ORDER BY 1, 2") == [
        ("2026-03-01", "acme", 2),
        ("2026-03-02", "globex", 1),
    ]


async def test_what_is_read_again_changes_nothing(database_url: str, path: Path, tmp_path: Path) -> None:
    write(path, line() * 3)
    await collect_all(database_url, path)
    await collect_all(database_url, path)
    # A copy, as a backup or a log rotation makes one, is the same file; what took its name is another.
    shutil.copy(path, tmp_path / "usage.log.1")
    write(path, line(at="2026-03-01T15:00:00.0"))
    await collect_all(database_url, path)
    assert totals(database_url) == {"acme": 4}


async def test_a_file_that_is_emptied_and_written_again_is_another(database_url: str, path: Path) -> None:
    write(path, line() * 2)
    async with collecting(database_url, LogFiles(path)):
        await eventually(lambda: totals(database_url) == {"acme": 2})
        write(path, line(at="2026-03-01T16:00:00.0") * 5)
        await eventually(lambda: totals(database_url) == {"acme": 7})


async def test_a_line_is_added_when_it_is_whole(database_url: str, path: Path) -> None:
    whole = line(tenant="globex")
    write(path, line())
    async with collecting(database_url, LogFiles(path)):
        for place in range(len(whole)):
            append(path, whole[place : place + 1])
            await asyncio.sleep(0)
        await eventually(lambda: totals(database_url) == {"acme": 1, "globex": 1})
    assert rows(database_url, "SELECT unreadable FROM usage_files") == [(0,)]


async def test_a_finished_file_goes_when_it_is_read_and_its_torn_end_is_told(
    database_url: str, path: Path, tmp_path: Path
) -> None:
    former = tmp_path / "usage.log.7"
    write(former, line() * 2 + line()[:30])
    write(path, line(at="2026-03-01T15:00:00.0"))
    await collect_all(database_url, path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["usage.log"]  # noqa: ASYNC240
    assert totals(database_url) == {"acme": 3}
    assert rows(database_url, "SELECT sum(unreadable)::int FROM usage_files") == [(1,)]


async def test_two_collectors_of_one_gateway_add_an_entry_once(database_url: str, path: Path) -> None:
    async with collecting(database_url, LogFiles(path)), collecting(database_url, LogFiles(path)):
        for number in range(60):
            append(path, line(sent=number) * 10)
            await asyncio.sleep(0.01)
        await eventually(lambda: totals(database_url) == {"acme": 600})
    assert totals(database_url) == {"acme": 600}


async def test_gateways_add_to_the_same_sums(database_url: str, tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(4)]
    tenants = [f"t{number}" for number in range(50)]
    for path in paths:
        write(path, b"".join(line(tenant=tenant) for tenant in tenants) * 20)
    await asyncio.gather(*(collect_all(database_url, path, path.name) for path in paths))
    assert totals(database_url) == dict.fromkeys(tenants, 80)


async def test_a_chunk_that_was_added_is_not_added_by_a_process_that_wakes(database_url: str) -> None:
    chunk = Chunk("file", 0, len(line()), line())
    async with await connect(database_url, "one") as connection:
        store = UsageStore(connection, "gateway-0")
        assert await store.read_to("file") == 0
        await store.add(chunk, add_up(chunk.text))
        with pytest.raises(Moved):
            await store.add(chunk, add_up(chunk.text))
        assert await store.read_to("file") == len(line())
    assert totals(database_url) == {"acme": 1}


async def test_sums_that_fail_leave_the_file_unread(database_url: str) -> None:
    chunk = Chunk("file", 0, len(line()), line())
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE usage_request_days ADD CHECK (requests < 0)")
    async with await connect(database_url, "one") as connection:
        store = UsageStore(connection, "gateway-0")
        await store.read_to("file")
        with pytest.raises(psycopg.errors.CheckViolation):
            await store.add(chunk, add_up(chunk.text))
        assert await store.read_to("file") == 0
    assert totals(database_url) == {}


async def test_the_disk_is_the_gateways_and_what_went_unread_is_told(
    database_url: str, path: Path, tmp_path: Path
) -> None:
    for number in (1, 2, 3):
        write(tmp_path / f"usage.log.{number}", line(received=number) * 100)
    write(path, line())
    files = LogFiles(path, keep_bytes=len(line() * 250))
    stopping = asyncio.Event()
    collector = Collector("postgresql://nobody@127.0.0.1:1/x", files, "gateway-0", Health("database"), 0.02)
    working = asyncio.ensure_future(collector.run(stopping))
    await eventually(lambda: not (tmp_path / "usage.log.1").exists())
    collector._url = database_url  # pyright: ignore[reportPrivateUsage] - the database is back
    await eventually(lambda: totals(database_url) == {"acme": 201})
    stopping.set()
    await working
    assert rows(database_url, "SELECT sum(dropped_bytes)::int FROM usage_files") == [
        (len(line(received=1)) * 100,)
    ]
