"""What is in the image, as CycloneDX: from the locks that it is built by.

The image keeps no status of dpkg's, so a scanner that looks into it finds none of Debian's packages.
https://cyclonedx.org/docs/1.6/json/, https://github.com/package-url/purl-spec
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

from packaging.requirements import Requirement

from sandbox.image.debian import Lock
from sandbox.image.description import WHEELS_LOCK, Platform, describe


def sbom_text(platform: Platform) -> str:
    """The document for one architecture; the same locks give the same text."""
    components = [*_debian(platform), *_wheels()]
    content = json.dumps(components, sort_keys=True)
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_OID, content).urn,
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "bom-ref": "kilo",
                "name": "kilo",
                "version": version("kilo"),
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            }
        },
        "components": components,
    }
    return json.dumps(document, indent=2) + "\n"


def _debian(platform: Platform) -> Iterator[dict[str, Any]]:
    for package in Lock.read(platform).packages:
        name = f"pkg:deb/debian/{package.name}@{quote(package.version, safe='')}?arch={platform.debian}"
        yield {
            "type": "library",
            "bom-ref": name,
            "name": package.name,
            "version": package.version,
            "purl": name,
            "hashes": [{"alg": "SHA-256", "content": package.sha256}],
        }


def _wheels() -> Iterator[dict[str, Any]]:
    """The locked wheels that an image takes; which of a version's files it is depends on the architecture."""
    minor = describe().python
    python = {"platform_system": "Linux", "python_version": minor, "python_full_version": f"{minor}.0"}
    for line in WHEELS_LOCK.read_text(encoding="utf-8").splitlines():
        if line.startswith((" ", "#")) or not line.strip():
            continue
        requirement = Requirement(line.removesuffix("\\").strip())
        if requirement.marker and not requirement.marker.evaluate(dict(python)):
            continue
        (pinned,) = requirement.specifier
        name = f"pkg:pypi/{requirement.name.lower()}@{quote(pinned.version, safe='')}"
        yield {
            "type": "library",
            "bom-ref": name,
            "name": requirement.name,
            "version": pinned.version,
            "purl": name,
        }
