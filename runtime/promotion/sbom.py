"""The components of an SBOM, whichever format it is in.

SPDX 2.3 JSON (https://spdx.github.io/spdx-spec/v2.3/) by package URL or name and version, CycloneDX
1.x JSON (https://cyclonedx.org/specification/overview/) likewise, nested components included.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast


def components(document: object) -> frozenset[str] | None:
    """The components of an SBOM as package URLs, or ``name@version``; None for what is no SBOM."""
    if not isinstance(document, dict):
        return None
    members = cast("dict[str, Any]", document)
    if "spdxVersion" in members:
        return frozenset(_spdx(members))
    if members.get("bomFormat") == "CycloneDX":
        return frozenset(_cyclonedx(members.get("components") or []))
    return None


def _spdx(document: dict[str, Any]) -> Iterator[str]:
    for package in document.get("packages") or []:
        references = package.get("externalRefs") or []
        urls = [entry["referenceLocator"] for entry in references if entry.get("referenceType") == "purl"]
        yield urls[0] if urls else f"{package.get('name')}@{package.get('versionInfo', '')}"


def _cyclonedx(entries: list[dict[str, Any]]) -> Iterator[str]:
    for entry in entries:
        yield str(entry.get("purl") or f"{entry.get('name')}@{entry.get('version', '')}")
        yield from _cyclonedx(entry.get("components") or [])
