"""The hash of a password that the sandbox makes: NATS lets in who has the password, and nobody else."""

from __future__ import annotations

from pathlib import Path

import nats
import pytest
from nats.errors import Error as NatsError

from kilo.bus.config import render_users
from kilo.bus.roles import BusUser
from kilo.testing.servers.nats import NatsServer
from sandbox.providers.random.hashing import bcrypt
from tests.events import make_outputs

PASSWORD = "correct-horse-battery-staple-of-more-than-40-characters"


async def test_nats_knows_the_password_by_its_hash(tmp_path: Path) -> None:
    user = BusUser("worker-1", "worker", bcrypt(PASSWORD))
    server = NatsServer(tmp_path, access=render_users([user], make_outputs().bus))
    server.start()
    try:
        client = await nats.connect(
            server.url, user=user.name, password=PASSWORD, inbox_prefix="_INBOX_worker-1"
        )
        await client.close()
        with pytest.raises(NatsError, match="Authorization Violation"):
            await nats.connect(
                server.url,
                user=user.name,
                password=PASSWORD[:-1],
                allow_reconnect=False,
                max_reconnect_attempts=1,
            )
    finally:
        server.stop()


def test_each_hash_has_a_salt_of_its_own_and_the_official_providers_cost() -> None:
    one, two = bcrypt(PASSWORD), bcrypt(PASSWORD)
    assert one != two
    assert one.startswith("$2b$10$")
    assert len(one) == len(two) == 60
