"""The project's own promises: what is locked, what is imported by what, what the documents name."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LOCKS = [*sorted((ROOT / "requirements").glob("*.lock")), ROOT / "sandbox" / "toolchain" / "go.lock"]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
PINNED = re.compile(r"^([a-z0-9-]+)(?:\[[^\]]*\])?==(\S+)", re.MULTILINE)


def pins(name: str) -> dict[str, str]:
    return dict(PINNED.findall((ROOT / "requirements" / f"{name}.lock").read_text()))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_lock_has_hashes_and_names_no_index(lock: Path) -> None:
    text = lock.read_text()
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links|--trusted-host", text)
    for block in re.split(r"\n(?=\S)", text.strip()):
        assert PINNED.match(block), block
        assert "--hash=sha256:" in block, block


def test_each_lock_is_a_subset_of_the_larger_one() -> None:
    runtime, dev, bench = pins("runtime"), pins("dev"), pins("bench")
    assert runtime.items() <= dev.items() <= bench.items()
    assert len(runtime) < len(dev) < len(bench)


def test_bootstrap_lock_is_uv_alone_at_the_version_that_dev_has() -> None:
    assert pins("bootstrap") == {"uv": pins("dev")["uv"]}


def test_plain_install_brings_no_pulumi() -> None:
    names = pins("runtime").keys()
    assert not [name for name in names if "pulumi" in name]
    assert {"pydantic", "psycopg", "nats-py", "cryptography"} <= names


def test_sdk_imports_with_the_plain_install_alone() -> None:
    """Every package of the runtime imports when only what runtime.lock pins can be imported."""
    code = """
import importlib.abc, importlib.metadata, pathlib, re, sys

locked = set(sys.argv[1].split())
owners = importlib.metadata.packages_distributions()
foreign = {
    module
    for module, names in owners.items()
    if module not in sys.stdlib_module_names
    and not {re.sub("[-_.]+", "-", name).lower() for name in names} & locked
}

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in foreign:
            raise ModuleNotFoundError(f"{name} is not in the plain install", name=name)

sys.meta_path.insert(0, Refuse())
import kilo.cli, kilo.contract, kilo.tenancy
for package in sorted(pathlib.Path(kilo.__path__[0]).glob("*/__init__.py")):
    if package.parent.name in {"flags", "testing"}:
        continue  # They are for services: OpenFeature and pytest, which no image of the platform has.
    importlib.import_module(f"kilo.{package.parent.name}")
    print(package.parent.name)
assert "pulumi" in foreign and "pulumi" not in sys.modules
"""
    locked = " ".join([*pins("runtime"), "kilo"])
    run = subprocess.run([sys.executable, "-c", code, locked], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert {"fle", "outbox", "bus"} <= set(run.stdout.split())


def in_code(text: str) -> str:
    """What stands in code blocks and between backticks."""
    blocks = re.findall(r"```.*?\n(.*?)```", text, re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_commands_that_documents_name_exist(document: Path) -> None:
    code = in_code(document.read_text())
    # What a service of the template has beside the checkout's own.
    makefiles = (ROOT / "Makefile", ROOT / "templates" / "service" / "Makefile.jinja")
    targets = {
        name
        for makefile in makefiles
        for name in re.findall(r"^([a-z]+):", makefile.read_text(), re.MULTILINE)
    }
    commands = {point.name for point in importlib.metadata.entry_points(group="kilo.commands")}
    named_targets = set(re.findall(r"(?<![\w-])make ([a-z]+)\b", code))
    named_commands = set(re.findall(r"(?<![\w/-])(?:\.venv/bin/)?kilo ([a-z][a-z-]*)\b", code))
    assert named_targets <= targets
    assert named_commands <= commands


def test_actions_are_pinned_by_commit() -> None:
    for workflow in (ROOT / ".github").rglob("*.yml"):
        for action in re.findall(r"uses: (\S+)", workflow.read_text()):
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action) or action.startswith("./"), action


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages <= set(re.findall(r"\]\(([\w.-]+)\)", index))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_between_files_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []
