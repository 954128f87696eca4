"""Who upgrades sees no change, apart from those that the changelog announces."""

from __future__ import annotations

import pytest

from kilo.changes.preview import Change, Preview
from tests.upgrade.recorded import ROOT, STAGES, announced, needless, preview, unannounced

CHANGELOG = """
## [Unreleased]

### Shown in previews

- `schema` (Job) is made anew: the migrations changed. So are `tenant-keys-*`.

### Fixed

- `gateway-envoy` was wrong.

## [0.1.0]

### Shown in previews

- `ingest`
"""


@pytest.mark.timeout(600)
def test_an_upgrade_shows_what_the_changelog_announces_and_nothing_else() -> None:
    patterns = announced((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    found = {stage: preview(stage) for stage in STAGES}
    for stage, each in found.items():
        assert each.errors == (), stage
        assert unannounced(each, patterns) == [], stage
    assert needless(list(found.values()), patterns) == []


def test_the_changelog_announces_under_a_heading_of_its_own() -> None:
    patterns = announced(CHANGELOG)
    assert patterns == ["schema", "tenant-keys-*"]
    changes = Preview(
        tuple(Change("replace", "t", name, "urn") for name in ("schema", "tenant-keys-acme", "ingest"))
    )
    assert unannounced(changes, patterns) == ["replace t ingest"]
    assert needless([changes], [*patterns, "gone"]) == ["gone"]
    assert announced("## [Unreleased]\n\n### Added\n\n- `x`\n") == []
