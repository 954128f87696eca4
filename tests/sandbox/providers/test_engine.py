"""The lightest provider through the real engine; all of them, in all that may happen, in ``tests/engine``."""

from __future__ import annotations

import pytest

from tests.engine import test_conformance as suite

pytestmark = pytest.mark.parametrize("example", ["random"], indirect=True)

test_lives_through_create_update_replace_and_destroy = (
    suite.test_lives_through_create_update_replace_and_destroy
)
test_a_secret_is_encrypted_wherever_it_lies = suite.test_a_secret_is_encrypted_wherever_it_lies
