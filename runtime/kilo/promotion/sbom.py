"""The components of an SBOM, whichever format it is in.

SPDX 2.3 JSON (https://spdx.github.io/spdx-spec/v2.3/) by package URL or name and version, CycloneDX
1.x JSON (https://cyclonedx.org/specification/overview/) likewise, nested components included; each
with its checksums, since a component with the same name and other contents is another one. What
describes the document rather than the software (its namespace, serial number, time, tool) is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast


def components(document: object) -> frozenset[str] | None:
    """The components of an SBOM as package URLs, or ``name@version``, each with its checksums.

    Returns:
        None for what is no SBOM.

    Raises:
        ValueError: it says to be an SBOM, and its members are not what the format has.
    """
    if not isinstance(document, dict):
        return None
    members = cast("dict[str, Any]", document)
    try:
        if "spdxVersion" in members:
            return frozenset(_spdx(members))
        if members.get("bomFormat") == "CycloneDX":
            return frozenset(_cyclonedx(members.get("components") or []))
    except (AttributeError, LookupError, TypeError) as error:
        msg = f"a malformed SBOM ({type(error).__name__})"
        raise ValueError(msg) from error
    return None


def _spdx(document: Mapping[str, Any]) -> Iterator[str]:
    for package in document.get("packages") or []:
        references = package.get("externalRefs") or []
        urls = sorted(
            str(entry["referenceLocator"]) for entry in references if entry.get("referenceType") == "purl"
        )
        name = " ".join(urls) or f"{package.get('name')}@{package.get('versionInfo', '')}"
        yield _with_checksums(name, package.get("checksums") or [], "algorithm", "checksumValue")


def _cyclonedx(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for entry in entries:
        name = str(entry.get("purl") or f"{entry.get('name')}@{entry.get('version', '')}")
        yield _with_checksums(name, entry.get("hashes") or [], "alg", "content")
        yield from _cyclonedx(entry.get("components") or [])


def _with_checksums(name: str, checksums: Sequence[Mapping[str, Any]], algorithm: str, value: str) -> str:
    # SPDX writes SHA256 where CycloneDX writes SHA-256.
    listed = sorted(
        f"{str(entry[algorithm]).replace('-', '').lower()}:{str(entry[value]).lower()}" for entry in checksums
    )
    return " ".join([name, *listed])
