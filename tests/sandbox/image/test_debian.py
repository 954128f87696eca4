"""The lock of Debian's packages: how it reads, and that nothing but its bytes is taken."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from kilo.errors import BadInput, Unreachable
from sandbox.image.debian import Lock, fetch
from sandbox.image.description import PLATFORMS, REPOSITORY, describe
from sandbox.toolchain.progress import Step

CONTENT = b"a package"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
TEXT = f"# 20260102T030405Z\n{SHA256}  debian/pool/main/k/kilo/kilo_1%3a2_all.deb\n"


def test_a_lock_reads_as_it_was_written() -> None:
    lock = Lock.parse(TEXT, "lock")
    assert lock.text() == TEXT
    assert (lock.packages[0].name, lock.packages[0].version) == ("kilo", "1:2")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "line 1"),
        ("# yesterday\n", "line 1"),
        (TEXT + "\n", "line 3"),
        (TEXT.replace("pool/", "pool/../../"), "line 2"),
        (TEXT.replace(SHA256, SHA256[1:]), "line 2"),
    ],
)
def test_a_damaged_lock_names_its_line(text: str, place: str) -> None:
    with pytest.raises(BadInput, match=f"^LOCK: {place}"):
        Lock.parse(text, "LOCK")


def mirror(root: Path, name: str, content: bytes) -> str:
    path = root / name / "debian/pool/main/k/kilo/kilo_1%3a2_all.deb"
    path.parent.mkdir(parents=True)
    # urlopen reads %3a of a file's URL as a colon.
    path.with_name("kilo_1:2_all.deb").write_bytes(content)
    return f"file://{root}/{name}/{{archive}}/{{path}}"


def test_other_bytes_than_the_locks_are_taken_from_no_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lying, honest = mirror(tmp_path, "lying", b"other bytes"), mirror(tmp_path, "honest", CONTENT)
    lock, step = Lock.parse(TEXT, "lock"), Step(lambda _: None)
    with pytest.raises(Unreachable, match=r"kilo 1:2: on no mirror .*other bytes.*kilo image lock"):
        fetch(lock, [lying], step)
    (path,) = fetch(lock, [f"file://{tmp_path}/gone/{{archive}}/{{path}}", lying, honest], step)
    assert path.read_bytes() == CONTENT
    # From now on it is in the cache.
    assert fetch(lock, [], step) == [path]


def test_every_architecture_has_the_described_packages() -> None:
    description = describe()
    for target in PLATFORMS.values():
        names = {package.name for package in Lock.read(target).packages}
        assert set(description.debian.packages) <= names
        assert not names & set(description.debian.without)


def test_the_wheels_are_locked_for_the_extras_that_the_description_names() -> None:
    (line,) = [
        line for line in (REPOSITORY / "Makefile").read_text().splitlines() if line.startswith("IMAGE_EXTRAS")
    ]
    assert line.partition("= ")[2].split()[1::2] == sorted(describe().extras)


def test_pods_run_as_the_images_user() -> None:
    from components.pods import pod

    assert str(describe().user) in Path(pod.__file__).read_text().replace("_", "")
