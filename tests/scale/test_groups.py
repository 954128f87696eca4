"""A stage split into three stacks of tenants, and the directory that reads them by StackReference."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from kilo.changes.preview import parse_events
from kilo.errors import CheckFailed
from sandbox.rehearsal import Rehearsal
from tests.goldens.scenarios import ROOT, copy_program

GROUPS = {
    "dev": ("eu-central-1", ["acme", "umbrella"]),
    "dev-2": ("eu-west-1", ["globex", "hooli"]),
    "dev-3": ("us-east-1", ["initech"]),
}
TENANTS = re.compile(r"^  kilo:tenants:\n(?:    .*\n|\n)+", re.MULTILINE)


def split(folder: Path) -> Path:
    """The program with dev's tenants in three groups, each with region, buckets and namespace of its own."""
    copy_program(folder)
    whole = (folder / "Pulumi.dev.yaml").read_text(encoding="utf-8")
    for group, (region, tenants) in GROUPS.items():
        entries = "".join(f"    - {{ id: {tenant}, tier: silver }}\n" for tenant in tenants)
        text = TENANTS.sub(f"  kilo:tenants:\n{entries}\n  kilo:namespace: kilo-{group}\n", whole)
        # A copy is in another region than what it is of.
        text = text.replace("region: eu-west-1", "region: eu-north-1")
        text = text.replace("aws:region: eu-central-1", f"aws:region: {region}")
        text = text.replace("bucket: kilo-dev-", f"bucket: kilo-{group}-in-a-group-")
        text = text.replace("kilo/dev/database-url", f"kilo/{group}/database-url")
        (folder / f"Pulumi.{group}.yaml").write_text(text, encoding="utf-8")
    return folder


def directory(folder: Path, groups: list[str]) -> Path:
    shutil.copytree(ROOT / "docs" / "examples" / "tenant_groups", folder)
    listed = json.dumps([f"organization/kilo/{group}" for group in groups])
    (folder / "Pulumi.all.yaml").write_text(f"config:\n  kilo:groups: {listed}\n", encoding="utf-8")
    return folder


@pytest.mark.timeout(600)
def test_three_groups_come_up_and_one_directory_knows_them_all(tmp_path: Path) -> None:
    program = split(tmp_path / "program")
    whole = directory(tmp_path / "directory", list(GROUPS))
    with Rehearsal() as rehearsal:
        for group in GROUPS:
            rehearsal.carry_out(program, group)
        rehearsal.carry_out(whole, "all")
        assert rehearsal.outputs(whole, "all")["gateways"] == {
            tenant: f"http://gateway.kilo-{group}.svc.cluster.local:10080"
            for tenant, group in sorted(
                (tenant, group) for group, (_, tenants) in GROUPS.items() for tenant in tenants
            )
        }
        # One tenant more touches its own group and no other.
        file = program / "Pulumi.dev-2.yaml"
        text = file.read_text(encoding="utf-8")
        file.write_text(
            text.replace("    - { id: hooli,", "    - { id: acme, tier: silver }\n    - { id: hooli,")
        )
        changed = {group: parse_events(rehearsal.preview(program, group).events).changes for group in GROUPS}
        assert {group for group, found in changed.items() if found} == {"dev-2"}
        # A tenant in two groups is refused before anything is routed to either.
        rehearsal.carry_out(program, "dev-2")
        with pytest.raises(CheckFailed, match="dev-2: acme: in another group too"):
            rehearsal.carry_out(whole, "all")
