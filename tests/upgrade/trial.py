"""``make upgrade``: are newer SDKs and providers safe to take?

In a copy of the working tree, the locks move to the newest versions that pyproject.toml allows, an
environment of its own is made from them, and every stage is previewed on the state that the last release
made. What that says is printed; the working tree stays as it is. The engine is the one that is cached:
its own version moves with ``sandbox/toolchain``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

from tests.upgrade.recorded import ROOT

PACKAGES = ("pulumi", "pulumi-aws", "pulumi-gcp", "pulumi-kubernetes", "pulumi-policy", "pulumi-random")
_COPY = ROOT / "build" / "upgrade"
_PIN = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)


def main() -> int:
    """Try it with the packages that the command line names, or all of Pulumi's; 1 when it is not safe."""
    packages = sys.argv[1:] or list(PACKAGES)
    shutil.rmtree(_COPY, ignore_errors=True)
    _copy_tree()
    moved = _move(packages)
    if not moved:
        print("Nothing newer: the locks have the newest versions that pyproject.toml allows.")
        return 0
    print("\n".join(["| package | now | newer |", "| --- | --- | --- |", *moved]), flush=True)
    for command in (
        [sys.executable, "sandbox/bootstrap.py", "dev"],
        [".venv/bin/python", "-m", "tests.upgrade", "report"],
    ):
        if code := subprocess.run(command, cwd=_COPY, check=False).returncode:
            print(
                f"error: `{' '.join(command)}` failed in {_COPY} ({code}); its own lines are above",
                file=sys.stderr,
            )
            return 1
    flags = " ".join(f"--upgrade-package {package}" for package in packages)
    print(f'To take them: make lock UPGRADE="{flags}", and the pins in requirements/constraints.txt')
    return 0


def _copy_tree() -> None:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (_COPY / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, _COPY / name)


def _move(packages: list[str]) -> list[str]:
    """Resolve the locks of the copy again, and answer with what moved as rows of a table."""
    constraints = _COPY / "requirements" / "constraints.txt"
    kept = [
        line
        for line in constraints.read_text().splitlines()
        if line.partition("==")[0].strip() not in packages
    ]
    constraints.write_text("\n".join(kept) + "\n")
    before = _pins()
    # For as long as it resolves, the copy uses the uv that is here.
    (_COPY / ".venv").symlink_to(ROOT / ".venv")
    flags = " ".join(f"--upgrade-package {package}" for package in packages)
    subprocess.run(
        ["make", "--old-file=environment", "lock", f"UPGRADE={flags}"],
        cwd=_COPY,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (_COPY / ".venv").unlink()
    after = _pins()
    return [
        f"| {name} | {before.get(name, '-')} | {after[name]} |"
        for name in after
        if before.get(name) != after[name]
    ]


def _pins() -> dict[str, str]:
    return dict(_PIN.findall((_COPY / "requirements" / "dev.lock").read_text()))


if __name__ == "__main__":
    sys.exit(main())
