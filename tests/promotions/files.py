"""What the stages of these tests are configured by: the checkout's own files, as this machine allows."""

from __future__ import annotations

import re
from pathlib import Path

from tests.e2e.conftest import ROOT
from tests.infra.ramps.test_publish import git
from tests.people import field_encryption, make_keys

_DEV = (
    # So that there is a weight to be reverted.
    (r"(id: acme .*\n.*\n.*\n.*rehearsal:) 0", r"\1 100"),
)
_STAGE = (
    # One of each is enough for a machine of two cores.
    (r"replicas: [23]", "replicas: 1"),
    (r"workers: 2", "workers: 1"),
    (r"network: 10.20.0.0/16", "network: 127.0.0.0/8"),
    # Whoever sends from this machine has shown who he is.
    (
        r"    identity:\n      jwt:\n(        .*\n)+",
        "    identity: { trusted_proxy: { networks: [127.0.0.0/8] } }\n",
    ),
    # What the promotion switches on.
    (r"(gold:\n      encrypted_fields:) \[email, phone\]", r"\1 []"),
    (r"sweep_schedule: .*", 'sweep_schedule: "* * * * *"\n    mirroring: false'),
)
_ASKED = {
    "dev": "{ verify_minutes: 0.5 }",
    # A soak of 43 seconds, and a look of half a minute.
    "stage": "{ soak_factor: 0.0005, verify_minutes: 1000, require_digests: false }",
}


def write_files(directory: Path) -> None:
    """Both stages' files, people's keys, and all but these in a commit."""
    people = make_keys(directory / "keys")
    for stage, changes in (("dev", _DEV), ("stage", _STAGE)):
        text = (ROOT / f"Pulumi.{stage}.yaml").read_text(encoding="utf-8")
        for pattern, here in changes:
            text, changed = re.subn(pattern, here, text)
            assert changed, pattern
        asked = f"  kilo:promotion: {_ASKED[stage]}\n"
        text = f"{text.rstrip()}\n{asked}{field_encryption(people)}"
        (directory / f"Pulumi.{stage}.yaml").write_text(text, encoding="utf-8")
    (directory / ".gitignore").write_text(".kilo\n.venv\nkeys\n__pycache__\n", encoding="utf-8")
    git(directory, "init", "--quiet")
    git(directory, "add", ".")
    git(
        directory, "-c", "user.name=ana", "-c", "user.email=a@example.com", "commit", "--quiet", "-m", "first"
    )
