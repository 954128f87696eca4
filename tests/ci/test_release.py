"""A release's push: what a tag names in the registry is what was built, or nothing is signed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ci.workflows import load, run, step_with, write_program

DIGEST, OTHER = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
IMAGE = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/kilo"


@pytest.mark.parametrize(
    ("there", "comes", "code", "pushes"),
    [
        ("", DIGEST, 0, 1),
        # A run that was cut off before it signed, given again.
        (DIGEST, DIGEST, 0, 0),
        (OTHER, DIGEST, 1, 0),
        # A registry that has something else than what was pushed.
        ("", OTHER, 1, 1),
    ],
)
def test_what_is_signed_is_what_was_built(
    there: str, comes: str, code: int, pushes: int, tmp_path: Path
) -> None:
    registry, output = tmp_path / "registry", tmp_path / "output"
    registry.write_text(there)
    write_program(tmp_path / ".venv" / "bin", "kilo", f"echo {tmp_path}/crane")
    write_program(
        tmp_path,
        "crane",
        f'echo "$*" >> {tmp_path}/called\n'
        f'if [ "$1" = push ]; then echo {comes} > {registry}; else grep . {registry}; fi',
    )
    variables = {
        "IMAGE": IMAGE,
        "TAG": "v1.2.3",
        "DIGEST": DIGEST,
        "GITHUB_OUTPUT": str(output),
    }
    done = run(
        load("release.yml"),
        '"$crane" push',
        place=tmp_path,
        programs=tmp_path / "programs",
        variables=variables,
    )
    assert done.returncode == code, done.stderr
    called = (tmp_path / "called").read_text().splitlines()
    assert called.count(f"push build/image {IMAGE}:v1.2.3") == pushes
    assert output.exists() == (code == 0)
    if code == 0:
        assert output.read_text() == f"image={IMAGE}@{DIGEST}\n"


def test_it_is_verified_as_what_it_was_signed_as() -> None:
    """Fulcio names a job by GitHub's address and the workflow with its ref, which the event says."""
    verify = step_with(load("release.yml"), "cosign verify ")
    assert verify["env"]["IDENTITY"] == "${{ github.server_url }}/${{ github.workflow_ref }}"
    assert verify["run"].count('--certificate-identity "$IDENTITY"') == 2
