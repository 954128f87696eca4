"""``kilo fle`` as people and scripts use it: bytes in, bytes out, exit codes, one line of error."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.commands import Commands
from tests.patience import PATIENCE_SECONDS

from .conftest import AUDIT_KEY, PEOPLE, Stage, public, url_of
from .test_rotation import counted, fill, read_all


class Kilo:
    """Runs ``kilo fle`` in a stage."""

    def __init__(self, commands: Commands, stage: Stage, folder: Path) -> None:
        self._commands, self.folder = commands, folder
        outputs = folder / "outputs.json"
        outputs.write_text(stage.outputs.model_dump_json())
        self.environment = {**os.environ, "KILO_OUTPUTS": str(outputs), "DATABASE_URL": stage.url}
        (folder / "v1.key").write_bytes(b"k" * 32)
        for name, key in {**PEOPLE, "audit": AUDIT_KEY}.items():
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            (folder / f"{name}.pem").write_bytes(pem)

    def __call__(
        self, *arguments: str, value: bytes = b"", code: int = 0
    ) -> subprocess.CompletedProcess[bytes]:
        done = self._commands.run("fle", *arguments, env=self.environment, cwd=self.folder, value=value)
        assert done.returncode == code, done.stdout + done.stderr
        return done


@pytest.fixture
def kilo(commands: Commands, stage: Stage, tmp_path: Path) -> Kilo:
    return Kilo(commands, stage, tmp_path)


PLACE = ("--tenant", "gold", "--field", "email", "--row", "7")
V1 = ("--format", "v1", "--key-file", "v1.key")
VALUES = [b"ana@example.com", b"", b"line\n", b"\x00\xff\r\n"]


@pytest.mark.parametrize("place", [PLACE, V1])
def test_values_pass_byte_for_byte(kilo: Kilo, place: tuple[str, ...]) -> None:
    for value in VALUES:
        stored = kilo("encrypt", *place, value=value).stdout
        assert kilo("decrypt", *place, value=stored).stdout == value


def test_inspect_tells_what_a_value_says_of_itself(kilo: Kilo) -> None:
    stored = kilo("encrypt", *PLACE, value=b"ana").stdout
    assert json.loads(kilo("inspect", "--json", value=stored).stdout) == {
        "version": 2,
        "suite": "KC-XAES-256-GCM",
        "key_id": 1,
        "plaintext_bytes": 3,
        "overhead_bytes": 78,
    }


def test_tokens(kilo: Kilo) -> None:
    assert kilo("token", *V1, value=b"abc").stdout == kilo("token", *V1, value=b"abc").stdout
    first = kilo(
        "token", "--tenant", "gold", "--field", "email", "--kind", "email", value=b"Ana@example.com"
    ).stdout
    again = kilo(
        "token", "--tenant", "gold", "--field", "email", "--kind", "email", value=b" ana@EXAMPLE.com"
    ).stdout
    assert first == again
    assert [each[:4] for each in first.split()] == [b"3.1.", b"2.1."]
    shown = kilo("token", "--kind", "phone", "--normalised", value=b"+49 (0) 209 22 33 44 55")
    assert shown.stdout.strip() == b"+4920922334455"


@pytest.mark.parametrize(
    ("arguments", "value", "code", "message"),
    [
        (("decrypt", *PLACE), b"ana@example.com", 2, b"plain text where an encrypted value is due"),
        (("decrypt", *PLACE), b"AgEAAAAB!", 2, b"not canonical base64"),
        (("decrypt", *PLACE), b"AgEA", 2, b"too short"),
        (("decrypt", *PLACE), "€uro".encode(), 2, b"plain text"),
        (("decrypt", *PLACE), base64.b64encode(bytes([9]) * 90), 2, b"format version is unknown"),
        (("decrypt", *V1), base64.b64encode(b"\x01" * 40), 2, b"altered"),
        (("encrypt", "--tenant", "gold"), b"x", 2, b"--field"),
        (("encrypt", "--format", "v1"), b"x", 2, b"--key-file"),
        (("encrypt", "--format", "v1", "--key-file", "outputs.json"), b"x", 2, b"32 raw bytes"),
        (("encrypt", "--format", "v1", "--key-file", "none"), b"x", 2, b"can't be read"),
        (("encrypt", "--tenant", "nobody", "--field", "email", "--row", "1"), b"x", 2, b"nobody/email"),
        (("encrypt", "--tenant", "plain", "--field", "email", "--row", "1"), b"x", 2, b"encrypted_fields"),
        (("token", "--tenant", "gold", "--field", "email", "--kind", "email"), b"x", 2, b"local part"),
        (("token", "--tenant", "gold", "--field", "email"), b"\xff", 2, b"not UTF-8"),
        (("rotate", "approve", "xyz", "--as", "a", "--signing-key", "audit.pem"), b"", 2, b"no plan hash"),
        (("audit", "verify", "--export", "none"), b"", 2, b"not a folder"),
    ],
)
def test_bad_input_is_one_line(
    kilo: Kilo, arguments: tuple[str, ...], value: bytes, code: int, message: bytes
) -> None:
    done = kilo(*arguments, value=value, code=code)
    assert message in done.stderr
    assert b"Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert len(value) < 8 or value not in done.stderr


def test_components_out_of_reach_are_exit_code_three(kilo: Kilo) -> None:
    kilo.environment["DATABASE_URL"] = "postgresql://u:hidden@127.0.0.1:1/none"
    done = kilo("keys", "list", code=3)
    assert b"hidden" not in done.stderr
    assert b"hidden" not in kilo("encrypt", *PLACE, value=b"x", code=3).stderr


@pytest.mark.timeout(5 * PATIENCE_SECONDS)
def test_a_rotation_from_plan_to_proof_by_commands(kilo: Kilo, stage: Stage) -> None:
    plain = fill(stage, stage.cipher())
    # Each as the role whose URL the runbook names; a service's own table is granted by the service.
    stage.sql("GRANT SELECT, UPDATE ON customers TO kilo_rotator")
    kilo.environment["DATABASE_URL"] = url_of(stage, "kilo_rotator")
    me = ("--as", "requester", "--signing-key", "requester.pem")
    refused = kilo("rotate", "plan", "--tenant", "gold", *me, "--settle-seconds", "1499", code=2)
    assert b"1499 is too short" in refused.stderr
    made = kilo("rotate", "plan", "--tenant", "gold", *me, "--json").stdout
    plan = json.loads(made)["plan"]
    kilo("rotate", "approve", plan[:10], *me, code=1)
    for name in ("approver.one", "approver.two"):
        kilo("rotate", "approve", plan[:10], "--as", name, "--signing-key", f"{name}.pem")
    kilo("rotate", "run", plan[:10], "--workers", "2", "--batch-rows", "10")
    assert json.loads(kilo("rotate", "status", plan[:10], "--json").stdout)[0]["left"] == 0
    assert json.loads(kilo("rotate", "verify", plan[:10], "--json").stdout) == counted(100)
    assert b"finalize later" in kilo("rotate", "finalize", plan[:10], *me, code=1).stderr
    stage.sql("UPDATE fle_rotations SET switched_at = switched_at - interval '1 day'")
    kilo("rotate", "finalize", plan[:10], *me)
    assert read_all(stage, stage.cipher()) == plain
    rows = json.loads(kilo("coverage", "--json").stdout)
    assert [(row["field"], row["under"], row["values"]) for row in rows] == [
        ("email", "2", 50),
        ("phone", "2", 50),
    ]
    kilo.environment["DATABASE_URL"] = url_of(stage, "kilo_auditor")
    kilo("audit", "checkpoint", "--signing-key", "audit.pem")
    assert b"problems: 0" in kilo("audit", "verify").stdout
    kilo("audit", "export", "proof")
    people = [f"--principal={name}={public(key)}" for name, key in PEOPLE.items()]
    offline = ("--export", "proof", "--stage", "test", "--public-key", public(AUDIT_KEY), *people)
    assert b"problems: 0" in kilo("audit", "verify", *offline).stdout
    log = kilo.folder / "proof" / "database.jsonl"
    log.write_text(log.read_text().replace('"requester"', '"somebody"', 1))
    assert b"entry 1: altered" in kilo("audit", "verify", *offline, code=1).stderr
    stage.sql("UPDATE fle_keys SET destroy_after = now() WHERE state = 'retired'")
    kilo.environment["DATABASE_URL"] = url_of(stage, "kilo_destroyer")
    assert json.loads(kilo("keys", "destroy-due", "--json").stdout) == {"destroyed": [1]}
    assert stage.sql("SELECT key_id FROM fle_wraps") == [(2,)]


def test_shredding_takes_two_people_and_leaves_nothing(kilo: Kilo, stage: Stage) -> None:
    value = stage.cipher("events").encrypt("gold", "email", 7, "ana")
    one, two = "approver.one=approver.one.pem", "approver.two=approver.two.pem"
    kilo("shred", "gold", "--confirm", "gold", "--approver", one, "--approver", one, code=1)
    kilo("shred", "gold", "--confirm", "golf", "--approver", one, "--approver", two, code=2)
    assert kilo("decrypt", *PLACE, value=value.encode()).stdout == b"ana"
    kilo("shred", "gold", "--confirm", "gold", "--approver", one, "--approver", two)
    assert stage.sql("SELECT count(*) FROM fle_wraps") == [(0,)]
    assert b"destroyed" in kilo("decrypt", *PLACE, value=value.encode(), code=2).stderr
    assert b"destroyed" in kilo("encrypt", *PLACE, value=b"x", code=2).stderr


def test_a_v1_key_is_imported_and_its_values_are_read(kilo: Kilo, stage: Stage) -> None:
    stored = kilo("encrypt", *V1, value=b"ana").stdout
    one, two = (
        ("--approver", "approver.one=approver.one.pem"),
        ("--approver", "approver.two=approver.two.pem"),
    )
    alone = kilo("keys", "import", "legacy", "--key-file", "v1.key", *one, *one, code=1)
    assert b"needs two people" in alone.stderr
    assert stage.sql("SELECT count(*) FROM fle_keys") == [(0,)]
    kilo("keys", "import", "legacy", "--key-file", "v1.key", *one, *two)
    kilo("audit", "checkpoint", "--signing-key", "audit.pem")
    assert b"problems: 0" in kilo("audit", "verify").stdout
    place = ("--tenant", "legacy", "--field", "email", "--row", "1")
    assert kilo("decrypt", *place, value=stored).stdout == b"ana"
    written = kilo("encrypt", *place, value=b"bo").stdout
    assert kilo("decrypt", *V1, value=written).stdout == b"bo"
