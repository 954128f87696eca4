"""What the image is said to hold: all of its locks, as CycloneDX has it."""

from __future__ import annotations

import json

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from sandbox.image.debian import Lock
from sandbox.image.description import PLATFORMS
from sandbox.image.sbom import sbom_text


def test_the_document_is_valid_whole_and_the_same_each_time() -> None:
    platform = PLATFORMS["x86_64"]
    text = sbom_text(platform)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert sbom_text(platform) == text
    assert sbom_text(PLATFORMS["aarch64"]) != text
    found = {each["purl"] for each in json.loads(text)["components"]}
    debian = {purl for purl in found if purl.startswith("pkg:deb/debian/")}
    assert len(debian) == len(Lock.read(platform).packages)
    names = {purl.partition("@")[0] for purl in found}
    assert {"pkg:pypi/boto3", "pkg:pypi/uvloop", "pkg:deb/debian/postgresql-17"} <= names
    # One version of each, and nothing that another system's Python takes.
    assert len([purl for purl in found if purl.startswith("pkg:pypi/numpy@")]) == 1
    assert "pkg:pypi/colorama" not in names
