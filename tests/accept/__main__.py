"""``make accept``: the sprint's acceptance in the sandbox, from nothing to a verified pack, under faults.

A dev stage of its own is brought up under ``build/accept`` with people's keys and an audit key that are made
for it. Events flow through it while its worker is killed, its bus restarted, a tenant surges, a next version
fails and the second registry is away. A tenant's key is rotated by the runbook, a new service is made from
the template and previewed, and the primary region is lost. Then the gate is asked, the evidence built, put
under lock, verified, and verified again with a byte changed.

Times that take hours or days are multiplied by one factor, which the pack states in large letters: the soak
of the gate, and the time that a rotation waits for processes to forget a key (they are restarted instead).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.accept.commands import Refused
from tests.accept.steps import Acceptance
from tests.e2e.conftest import ROOT
from tests.people import PEOPLE, field_encryption, make_keys
from tests.preview.conftest import Platform
from tests.runtime.scaffold.variants import template_repository

HOME = ROOT / "build" / "accept"
FACTOR = 0.0005
"""24 hours are 43 seconds."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make accept")
    parser.add_argument("--soak-factor", type=float, default=FACTOR, help="Multiplies soak times.")
    parser.add_argument("--keep", action="store_true", help="Leave the stage running.")
    options = parser.parse_args()
    began = time.monotonic()
    _clear()
    keys = make_keys(HOME / "keys", ("audit", *PEOPLE))
    stage = Platform(HOME, template_repository(HOME / "template"))
    _configure(stage, keys, options.soak_factor)
    acceptance = Acceptance(stage, keys, options.soak_factor)
    say, ok = _said(began), False
    try:
        ok = acceptance.run(say)
    except Refused as error:
        say(str(error))
    finally:
        if not options.keep:
            stage.kilo("down")
    minutes = (time.monotonic() - began) / 60
    print(f"\n{'accepted' if ok else 'NOT ACCEPTED'} after {minutes:.1f} min; pack: {acceptance.pack}")
    return 0 if ok else 1


def _said(began: float) -> Callable[[str], None]:
    def say(what: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {what}", flush=True)

    return say


def _clear() -> None:
    """What an earlier run left: its stage is stopped, its packs stay."""
    if (HOME / ".kilo").exists():
        subprocess.run([str(Path(sys.executable).parent / "kilo"), "down"], cwd=HOME, check=False)
    for path in HOME.iterdir() if HOME.is_dir() else ():
        if path.suffix == ".zip":
            continue
        if path.is_symlink() or path.is_file():
            path.unlink()
        else:
            shutil.rmtree(path)
    HOME.mkdir(parents=True, exist_ok=True)


def _configure(stage: Platform, keys: dict[str, str], factor: float) -> None:
    """The stages' files as they are in the checkout, with people, an audit key and what a rehearsal needs."""
    people = {name: keys[name] for name in PEOPLE}
    dev = stage.directory / "Pulumi.dev.yaml"
    text = dev.read_text(encoding="utf-8")
    text = text.replace(
        "gateway_scrape_seconds: 1", "key_spans: [ingest.accept]\n    gateway_scrape_seconds: 1"
    )
    replicas = "tenant_key_replicas: { regions: [eu-west-1] }"
    text = text.replace(f"# {replicas}", replicas)
    encryption = field_encryption(people, audit=keys["audit"])
    dev.write_text(f"{text.rstrip()}\n{encryption}", encoding="utf-8")
    target = stage.directory / "Pulumi.stage.yaml"
    asked = f"{{ soak_hours: 24, soak_factor: {factor}, require_digests: false }}"
    text = (ROOT / "Pulumi.stage.yaml").read_text(encoding="utf-8").rstrip()
    target.write_text(f"{text}\n  kilo:promotion: {asked}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
