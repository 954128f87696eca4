"""Ten previews at once come up and go away whole."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.conftest import PATIENCE
from tests.preview.conftest import Platform

pytestmark = pytest.mark.timeout(6 * PATIENCE)
TEN = range(21, 31)


def test_ten_at_once(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    service = platform.service("many")
    began = time.monotonic()
    with ThreadPoolExecutor(len(TEN)) as pool:
        reports = list(pool.map(lambda pr: platform.up(service, pr), TEN))
    up = time.monotonic()
    assert [report["preview"] for report in reports if not report["green"]] == [], reports
    assert len({report["address"] for report in reports}) == len(TEN)
    listed = json.loads(platform.kilo("preview", "list", "--json").stdout)
    assert [each["preview"] for each in listed] == [f"pr-{pr}-many" for pr in TEN]
    down = time.monotonic()
    with ThreadPoolExecutor(len(TEN)) as pool:
        list(pool.map(lambda pr: platform.down(service, pr), TEN))
    ended = time.monotonic()
    assert [left for pr in TEN for left in platform.left_of(f"pr-{pr}-many")] == []
    with capsys.disabled():
        print(f"\nten previews: up after {up - began:.0f} s, down after {ended - down:.0f} s")
