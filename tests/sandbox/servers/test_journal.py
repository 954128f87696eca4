"""What was flushed is there, whatever byte a kill fell on."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from kilo.errors import Unreachable
from sandbox.servers.journal import Journal

_RECORDS = [b"first", b"", b"third \x00\xff" * 1000]


def _written(path: Path) -> bytes:
    journal = Journal(path)
    assert list(journal.replay()) == []
    for record in _RECORDS:
        journal.flush(journal.append(record))
    journal.close()
    return path.read_bytes()


def test_records_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    _written(path)
    assert list(Journal(path).replay()) == _RECORDS
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_record_cut_off_anywhere_is_dropped_and_writing_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    whole = _written(path)
    end_of_second = len(whole) - len(_RECORDS[2]) - 8
    for cut in (*range(end_of_second, end_of_second + 12), len(whole) - 1):
        path.write_bytes(whole[:cut])
        journal = Journal(path)
        assert list(journal.replay()) == _RECORDS[:2]
        journal.flush(journal.append(b"after"))
        journal.close()
        assert list(Journal(path).replay()) == [*_RECORDS[:2], b"after"]


def test_a_file_cut_off_at_its_very_beginning_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    whole = _written(path)
    for cut in range(10):
        path.write_bytes(whole[:cut])
        assert list(Journal(path).replay()) == []


def test_damage_that_no_kill_explains_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    damaged = bytearray(_written(path))
    damaged[len(damaged) - len(_RECORDS[2]) - 18] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(Unreachable, match="damaged at byte"):
        list(Journal(path).replay())
