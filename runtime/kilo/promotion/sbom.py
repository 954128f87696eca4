"""What an SBOM says is in the software, whichever format it is in: components, services, files, licences.

CycloneDX JSON (https://cyclonedx.org/specification/overview/), SPDX 2 JSON
(https://spdx.github.io/spdx-spec/v2.3/) and SPDX 3 JSON-LD (https://spdx.github.io/spdx-spec/v3.0.1/), read
by their projects' own parsers (``pip install 'kilo[sbom]'``). What describes the document rather than the
software (its namespace, serial number, time, tool, identifiers) is left out, as is order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

from kilo.errors import BadInput

_LICENSED = {"hasConcludedLicense": "concluded", "hasDeclaredLicense": "declared"}


def components(document: object) -> frozenset[str] | None:
    """Everything that an SBOM lists, an entry each: kind, name and version, package URL, checksums, licences.

    Returns:
        None for what is no SBOM.

    Raises:
        ValueError: it says to be an SBOM, and its format's parser does not take it.
        BadInput: the parsers are not installed.
    """
    if not isinstance(document, dict):
        return None
    members = cast("dict[str, Any]", document)
    reader = _reader(members)
    if reader is None:
        return None
    try:
        return frozenset(reader(members))
    except ModuleNotFoundError as error:
        msg = "SBOMs are compared by parsers that are not installed here: pip install 'kilo[sbom]'"
        raise BadInput(msg) from error
    except Exception as error:
        # Whatever somebody's document makes of the parsers, it is malformed.
        msg = f"a malformed SBOM ({type(error).__name__})"
        raise ValueError(msg) from error


def _reader(members: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Iterable[str]] | None:
    if members.get("bomFormat") == "CycloneDX":
        return _cyclonedx
    if "spdxVersion" in members:
        return _spdx_2
    return _spdx_3 if "spdx.org/rdf/3" in str(members.get("@context", "")) else None


def _cyclonedx(document: Mapping[str, Any]) -> Iterator[str]:
    from cyclonedx.model.bom import Bom  # noqa: PLC0415 - an extra

    bom: Any = cast("Any", Bom).from_json(dict(document))
    subject = bom.metadata.component
    listed = [*bom.components, *(subject.components if subject is not None else ())]
    found = [(entry.type.value, entry) for entry in _nested(listed, "components")]
    if subject is not None:
        found.append((f"subject, {subject.type.value}", subject))
    for kind, entry in found:
        sums = [_checksum(each.alg.value, each.content) for each in entry.hashes]
        yield _entry(
            kind,
            _grouped(entry),
            entry.version,
            entry.purl,
            checksums=sums,
            licences=_cyclonedx_licences(entry.licenses),
        )
    for service in _nested(bom.services, "services"):
        endpoints = sorted(str(endpoint) for endpoint in service.endpoints)
        yield _entry("service", _grouped(service), service.version, " ".join(endpoints))


def _nested(entries: Iterable[Any], member: str) -> Iterator[Any]:
    for entry in entries:
        yield entry
        yield from _nested(getattr(entry, member), member)


def _grouped(entry: Any) -> str:
    return f"{entry.group}/{entry.name}" if entry.group else str(entry.name)


def _cyclonedx_licences(licences: Iterable[Any]) -> list[str]:
    """License identifiers, names or expressions."""
    return [
        str(getattr(entry, "value", None) or getattr(entry, "id", None) or entry.name) for entry in licences
    ]


def _spdx_2(document: Mapping[str, Any]) -> Iterator[str]:
    from spdx_tools.spdx.parser.jsonlikedict import json_like_dict_parser  # noqa: PLC0415 - an extra

    parsed: Any = json_like_dict_parser.JsonLikeDictParser().parse(cast("Any", dict(document)))
    for package in parsed.packages:
        urls = sorted(
            entry.locator for entry in package.external_references if entry.reference_type == "purl"
        )
        licences = [
            f"concluded {package.license_concluded}",
            f"declared {package.license_declared}",
            *(f"from files {found}" for found in package.license_info_from_files),
        ]
        sums = [_checksum(entry.algorithm.name, entry.value) for entry in package.checksums]
        yield _entry(
            "package", package.name, package.version, " ".join(urls), checksums=sums, licences=licences
        )
    for file in parsed.files:
        licences = [
            f"concluded {file.license_concluded}",
            *(f"in file {x}" for x in file.license_info_in_file),
        ]
        sums = [_checksum(entry.algorithm.name, entry.value) for entry in file.checksums]
        yield _entry("file", file.name, None, None, checksums=sums, licences=licences)


def _spdx_3(document: Mapping[str, Any]) -> Iterator[str]:
    import spdx_python_model  # noqa: PLC0415 - an extra

    _, parsed = spdx_python_model.load_data(dict(document))
    elements: Any = parsed
    licences: dict[Any, list[str]] = {}
    for relationship in elements.foreach_type("Relationship"):
        kind = _LICENSED.get(_term(relationship.relationshipType))
        if kind:
            named = sorted(_spdx_3_licence(target) for target in relationship.to)
            licences.setdefault(relationship.from_, []).append(f"{kind} {' '.join(named)}")
    for package in elements.foreach_type("software_Package"):
        yield _entry(
            "package",
            package.name,
            package.software_packageVersion,
            package.software_packageUrl,
            checksums=_spdx_3_hashes(package),
            licences=licences.get(package, ()),
        )
    for file in elements.foreach_type("software_File"):
        yield _entry(
            "file", file.name, None, None, checksums=_spdx_3_hashes(file), licences=licences.get(file, ())
        )


def _spdx_3_licence(element: Any) -> str:
    if isinstance(element, str):
        return element
    expression = getattr(element, "simplelicensing_licenseExpression", None)
    return str(expression or element.name or type(element).__name__)


def _spdx_3_hashes(element: Any) -> list[str]:
    return [
        _checksum(_term(entry.algorithm), entry.hashValue)
        for entry in element.verifiedUsing
        if getattr(entry, "hashValue", None)
    ]


def _term(iri: object) -> str:
    return str(iri).rpartition("/")[2]


def _entry(
    kind: str,
    name: object,
    version: object,
    url: object,
    *,
    checksums: Iterable[str] = (),
    licences: Iterable[str] = (),
) -> str:
    """One line that is equal for equal things and that a person can read."""
    parts = [kind, f"{name}@{version}" if version else str(name), str(url or ""), *sorted(set(checksums))]
    licensed = ", ".join(sorted(set(licences)))
    return " ".join([part for part in parts if part] + ([f"({licensed})"] if licensed else []))


def _checksum(algorithm: str, value: str) -> str:
    """SPDX writes SHA256 where CycloneDX writes SHA-256."""
    return f"{algorithm.replace('-', '').replace('_', '').lower()}:{value.lower()}"
