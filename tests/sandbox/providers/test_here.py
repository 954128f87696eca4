"""Endpoints of the sandbox's providers are this machine's, whatever it is called."""

from __future__ import annotations

import pytest

from sandbox.providers.here import is_here


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost"])
def test_its_own_addresses_are(host: str) -> None:
    assert is_here(f"http://{host}:1")


@pytest.mark.parametrize(
    "host", ["198.51.100.1", "kms.eu-central-1.amazonaws.com", "0.0.0.0", "", "[2001:db8::1]"]
)
def test_others_and_names_are_not(host: str) -> None:
    assert not is_here(f"http://{host}:1")
