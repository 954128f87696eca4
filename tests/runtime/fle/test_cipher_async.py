"""One FieldCipher shared by threads and tasks, which never waits for a KMS on the loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from kilo.fle import AsyncFieldCipher, formats

from .conftest import Stage


def test_threads_share_a_cipher_and_no_nonce_repeats(stage: Stage) -> None:
    cipher = stage.cipher()

    def work(number: int) -> list[str]:
        return [cipher.encrypt("gold", "email", number, f"{number}") for _ in range(500)]

    with ThreadPoolExecutor(8) as pool:
        found = [each for values in pool.map(work, range(8)) for each in values]
    assert len({formats.to_bytes(each)[6:30] for each in found}) == 4000
    assert stage.sql("SELECT count(*) FROM fle_keys WHERE tenant = 'gold' AND purpose = 'field-data'") == [
        (1,)
    ]


async def test_async_does_the_same(stage: Stage) -> None:
    cipher = AsyncFieldCipher(stage.cipher())
    values = await asyncio.gather(*(cipher.encrypt("gold", "email", n, f"v{n}") for n in range(20)))
    assert [await cipher.decrypt("gold", "email", n, value) for n, value in enumerate(values)] == [
        f"v{n}" for n in range(20)
    ]
    rows = list(range(600))
    column = await cipher.encrypt_column("gold", "email", rows, ["x"] * 600)
    assert await cipher.decrypt_column("gold", "email", rows, column) == ["x"] * 600
    assert stage.cipher().decrypt("gold", "email", 3, values[3]) == "v3"


async def test_async_never_waits_for_kms_on_the_loop(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    sync = stage.cipher()
    loop_thread, seen = threading.get_ident(), set[int]()
    read = sync.keyring.table.read

    def spy(tenant: str) -> object:
        seen.add(threading.get_ident())
        return read(tenant)

    monkeypatch.setattr(sync.keyring.table, "read", spy)
    await AsyncFieldCipher(sync).encrypt("gold", "email", 1, "x")
    assert seen
    assert loop_thread not in seen


async def test_async_never_waits_for_another_thread_s_fetch_on_the_loop(stage: Stage) -> None:
    """A thread that fetches holds the tenant's lock; the loop goes on meanwhile."""
    import threading

    sync = stage.cipher()
    value = sync.encrypt("gold", "email", 1, "x")
    sync.keyring.keysets["gold"].keys.clear()
    sync.keyring.keysets["gold"].readers.clear()
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with sync.keyring._lock("gold"):  # pyright: ignore[reportPrivateUsage]
            held.set()
            release.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    task = asyncio.create_task(AsyncFieldCipher(sync).decrypt("gold", "email", 1, value))
    for _ in range(5):
        await asyncio.sleep(0.01)
    assert not task.done()
    release.set()
    assert await task == "x"
    thread.join()
