"""The signers that the pages name are the workflows that sign releases, and none that signs a preview's."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

import pytest
import yaml

from tests.ci.workflows import ROOT

SUBJECT = "https://github.com/kilo-platform/{}/.github/workflows/{}@{}"
RELEASES = {
    "the platform's image": ("kilo", "release.yml", "refs/tags/v1.2.3"),
    "the chart": ("kilo", "deploy.yml", "refs/heads/main"),
    "a service's image": ("orders", "ci.yml", "refs/heads/main"),
}
PREVIEWS = {
    "a fork's": ("orders", "preview.yml", "refs/heads/main"),
    "a branch's": ("orders", "preview.yml", "refs/pull/12/merge"),
    "a branch's own release": ("orders", "ci.yml", "refs/pull/12/merge"),
    "a branch's own deployment": ("kilo", "deploy.yml", "refs/heads/try"),
}


def named(page: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    if page.endswith(".yaml"):
        # The file has it as a comment, to be taken out of it.
        block = re.search(r"^    # signers:\n((?:    #  .*\n)+)", text, re.MULTILINE)
        assert block
        found = yaml.safe_load(re.sub(r"^    # ?", "", block[1], flags=re.MULTILINE))
    else:
        block = re.search(r"```yaml\n(  kilo:registry:\n    signers:\n.*?)```", text, re.DOTALL)
        assert block
        found = yaml.safe_load(block[1])["kilo:registry"]["signers"]
    return [each["subject"] for each in found["identities"]]


@pytest.mark.parametrize("page", ["docs/mirror.md", "Pulumi.dev.yaml"])
def test_what_is_released_is_mirrored_and_what_a_pull_request_built_is_not(page: str) -> None:
    subjects = named(page)

    def taken(who: tuple[str, str, str]) -> bool:
        return any(fnmatchcase(SUBJECT.format(*who), subject) for subject in subjects)

    assert [what for what, who in RELEASES.items() if not taken(who)] == []
    assert [what for what, who in PREVIEWS.items() if taken(who)] == []


def test_no_other_workflow_signs() -> None:
    places = [ROOT / ".github" / "workflows", ROOT / "templates" / "service" / ".github" / "workflows"]
    signing = {
        path.name.removesuffix(".jinja")
        for place in places
        for path in place.iterdir()
        if re.search(r"cosign sign|\.ci/chart", path.read_text(encoding="utf-8"))
    }
    assert signing == {who[1] for who in (*RELEASES.values(), *PREVIEWS.values())}
