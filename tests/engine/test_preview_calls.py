"""What a preview asks AWS for, by the engine and the sandbox's providers: next to nothing without a refresh.

So the role that previews needs no right to look at resources. The vendor's providers are not tried here.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from components.clouds.key_policy import AUDIT
from infra.configuration import read_stage_file
from infra.target.rights import drift_policies, merged, preview_policies
from kilo.changes.preview import parse_events
from sandbox.rehearsal import Previewed, Rehearsal
from tests.goldens.scenarios import copy_program

STAGE = "prod"
OF_ANYBODY = {"sts:GetCallerIdentity"}
"""What AWS answers to whoever has credentials."""

pytestmark = pytest.mark.timeout(600)


class Recorded(Rehearsal):
    """A rehearsal that notes each request to AWS."""

    def requests(self, program: Path, *options: str) -> tuple[Previewed, set[str]]:
        """A preview, and what it asked for, such as ``kms:DescribeKey``; of S3 the method."""
        configuration = self._prepare(program, STAGE)
        recorder = f"{self._aws.url}/moto-api/recorder"
        for step in ("reset", "start"):
            httpx.post(f"{recorder}/{step}-recording").raise_for_status()
        command = ["preview", "--json", "--stack", STAGE, "--non-interactive", *options]
        done = self._pulumi(program, [*command, "--config-file", str(configuration)])
        httpx.post(f"{recorder}/stop-recording").raise_for_status()
        lines = httpx.get(f"{recorder}/download-recording").text.splitlines()
        said = Previewed(done.stdout, done.returncode != 0, done.stderr)
        return said, {operation(json.loads(line)) for line in lines}


def operation(request: dict[str, Any]) -> str:
    """Which right a request to moto takes, where its protocol says so."""
    headers: dict[str, str] = {name.lower(): value for name, value in request["headers"].items()}
    found = re.search(r"Credential=[^/]+/\d+/[^/]+/([^/]+)/", headers["authorization"])
    assert found, request
    if target := headers.get("x-amz-target"):
        return f"{found[1]}:{target.rpartition('.')[2]}"
    body = str(request["body"])
    text = base64.b64decode(body).decode() if request.get("body_encoded") else body
    return f"{found[1]}:{parse_qs(text).get('Action', [str(request['method'])])[0]}"


def changed(root: Path) -> None:
    """There is something to make and something to change."""
    file = root / f"Pulumi.{STAGE}.yaml"
    text = file.read_text(encoding="utf-8")
    for old, new in (
        ("kilo:tenants:\n", "kilo:tenants:\n    - { id: acorn, tier: silver }\n"),
        ("shop/orders, shop/payments, shop/search", "shop/orders, shop/payments, shop/search, shop/carts"),
        ("key_deletion_window_days: 30", "key_deletion_window_days: 20"),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    with Recorded() as place:
        place.carry_out(copy_program(tmp_path_factory.mktemp("base")), STAGE)
        yield place


def rights(document: dict[str, list[dict[str, list[str]]]]) -> set[str]:
    return {action for statement in document["Statement"] for action in statement["Action"]}


def test_a_preview_asks_for_no_resource_and_a_refresh_for_what_the_role_sees(
    deployed: Recorded, tmp_path: Path
) -> None:
    head = copy_program(tmp_path / "head", changed)
    settings = read_stage_file(head / f"Pulumi.{STAGE}.yaml")
    said, asked = deployed.requests(head)
    operations = {(each.operation, each.type.partition(":")[0]) for each in parse_events(said.events).changes}
    assert {(done, "aws") for done in ("create", "update")} <= operations
    assert asked >= OF_ANYBODY
    assert asked <= OF_ANYBODY | rights(dict(merged(preview_policies(settings))))
    assert {each.partition(":")[0] for each in asked} <= {"sts"}

    said, looked = deployed.requests(head, "--refresh")
    assert not said.refused, said.said
    seen = rights(dict(merged(drift_policies(settings)))) | {*AUDIT}
    of_s3 = {"s3:GET", "s3:HEAD"}
    assert of_s3 | {"kms:GetKeyPolicy", "iam:GetRole", "ecr:DescribeRepositories"} <= looked
    assert looked - asked - of_s3 <= seen
