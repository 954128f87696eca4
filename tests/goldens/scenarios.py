"""Changes to the program or to a stage's file whose comments are kept as goldens."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
STAGE = "stage"
CANARY = "canary"
# The host and the name are public, as the contract's outputs; who logs in and how are not.
DATABASE_URL = f"postgresql://{CANARY}-user:{CANARY}-password@database.invalid:5432/kilo"

Edit = Callable[[Path], None]


def _replaced(file: str, old: str, new: str) -> Edit:
    def edit(root: Path) -> None:
        text = (root / file).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{file} has {old!r} {text.count(old)} times"
        (root / file).write_text(text.replace(old, new), encoding="utf-8")

    return edit


_FILE = f"Pulumi.{STAGE}.yaml"

SCENARIOS: Mapping[str, Edit] = {
    "nothing": lambda _: None,
    "new-tenant": _replaced(
        _FILE, "    - { id: initech,", "    - { id: acorn, tier: silver }\n    - { id: initech,"
    ),
    "removed-tenant": _replaced(_FILE, "    - { id: initech, tier: bronze }\n", ""),
    "renamed-tenant": _replaced(_FILE, "{ id: initech,", "{ id: initrode,"),
    "tier-change": _replaced(_FILE, "{ id: globex, tier: silver }", "{ id: globex, tier: gold }"),
    "limit-change": _replaced(
        _FILE, "requests_per_second: 20, burst: 40", "requests_per_second: 30, burst: 60"
    ),
    "own-limit": _replaced(
        _FILE,
        "{ id: vandelay, tier: silver }",
        "{ id: vandelay, tier: silver, limit: { requests_per_second: 9, burst: 9 } }",
    ),
    "retention-shortened": _replaced(
        _FILE, "lock_days: 7\n    keep_days: 30", "lock_days: 3\n    keep_days: 10"
    ),
    "bus-retention-shortened": _replaced(_FILE, "retention_days: 7 }", "retention_days: 2 }"),
    "key-administrators": _replaced(_FILE, "      - arn:aws:iam::210987654321:role/deployer\n", ""),
    "key-replaced": _replaced(
        "components/clouds/tenant_keys.py",
        "        return aws.kms.Key(\n            name,",
        '        return aws.kms.Key(\n            f"{name}-anew",',
    ),
    "component-renamed": _replaced("infra/clouds.py", '            "audit",\n', '            "audit-log",\n'),
    "image-bump": _replaced(_FILE, "kilo:0.1.0", "kilo:0.2.0"),
    "replicas": _replaced(_FILE, "kilo:ingest: { replicas: 2 }", "kilo:ingest: { replicas: 3 }"),
    "database-password-replaced": _replaced(
        "components/processes/database_roles.py", "length=40", "length=48"
    ),
    "policy-broken": _replaced(
        "components/pods/pod.py", "read_only_root_filesystem=True", "read_only_root_filesystem=False"
    ),
    "protection-off": _replaced(_FILE, "config:\n", "config:\n  kilo:protect: false\n"),
}


def copy_program(folder: Path, edit: Edit = lambda _: None) -> Path:
    """The program and the stages' files in ``folder``, edited, with a secret planted in each stage's file."""
    for name in ("infra", "components", "runtime"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ROOT.glob("Pulumi*.yaml"):
        shutil.copy(file, folder)
    (folder / ".venv").symlink_to(sys.prefix)
    edit(folder)
    for file in folder.glob("Pulumi.*.yaml"):
        planted = f"config:\n  vault:token:\n    secure: v1:{CANARY}:{CANARY}-ciphertext\n"
        file.write_text(file.read_text(encoding="utf-8").replace("config:\n", planted, 1), encoding="utf-8")
    return folder
