"""Equal SBOMs are equal however they are written down; any other content is a difference."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from kilo.errors import BadInput
from kilo.promotion.sbom import components

SPDX_3 = "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"


def package(name: str, version: str, **more: object) -> dict[str, Any]:
    return {
        "SPDXID": f"SPDXRef-{name}-{version}",
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "licenseConcluded": "MIT",
        **more,
    }


def spdx_2(packages: list[dict[str, Any]], **more: object) -> dict[str, Any]:
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": "test",
        "documentNamespace": "https://example.com/test",
        "creationInfo": {"created": "2026-01-01T00:00:00Z", "creators": ["Tool: test"]},
        "packages": packages,
        **more,
    }


def file(name: str, checksum: str = "a" * 40, **more: object) -> dict[str, Any]:
    return {
        "SPDXID": f"SPDXRef-{name.strip('/')}",
        "fileName": name,
        "checksums": [{"algorithm": "SHA1", "checksumValue": checksum}],
        **more,
    }


def cyclonedx(*listed: dict[str, Any], **more: Any) -> dict[str, Any]:
    named = [{"type": "library", "name": "x", "version": "1", **entry} for entry in listed]
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": named, **more}


def about(**component: object) -> dict[str, Any]:
    return {"component": {"type": "application", "name": "app", **component}}


def spdx_3(
    version: str = "1", licence: str = "MIT", files: tuple[str, ...] = ("/a",), base: str = "https://x/"
):
    shared = {"creationInfo": "_:made"}
    graph: list[dict[str, Any]] = [
        {
            "type": "CreationInfo",
            "@id": "_:made",
            "specVersion": "3.0.1",
            "created": "2026-01-01T00:00:00Z",
            "createdBy": [f"{base}me"],
        },
        {"type": "Person", "spdxId": f"{base}me", "name": "me", **shared},
        {
            "type": "software_Package",
            "spdxId": f"{base}package",
            "name": "x",
            "software_packageVersion": version,
            "verifiedUsing": [{"type": "Hash", "algorithm": "sha256", "hashValue": "AA"}],
            **shared,
        },
        {
            "type": "simplelicensing_LicenseExpression",
            "spdxId": f"{base}licence",
            "simplelicensing_licenseExpression": licence,
            **shared,
        },
        {
            "type": "Relationship",
            "spdxId": f"{base}licensed",
            "from": f"{base}package",
            "to": [f"{base}licence"],
            "relationshipType": "hasConcludedLicense",
            **shared,
        },
    ]
    graph += [{"type": "software_File", "spdxId": f"{base}{name}", "name": name, **shared} for name in files]
    return {"@context": SPDX_3, "@graph": graph}


X, Y = package("x", "1"), package("y", "2")

SAME = {
    "SPDX packages in another order": (spdx_2([X, Y]), spdx_2([Y, X])),
    "an SPDX document of another time and name": (
        spdx_2([X]),
        spdx_2([X], name="other", creationInfo={"created": "2026-02-02T00:00:00Z", "creators": ["Tool: b"]}),
    ),
    "CycloneDX components in another order": (
        cyclonedx({"name": "a"}, {"name": "b"}),
        cyclonedx({"name": "b"}, {"name": "a"}, serialNumber="urn:uuid:3e671687-395b-41f5-a30f-a58921a69b79"),
    ),
    "hashes in another order and case": (
        cyclonedx({"hashes": [{"alg": "SHA-256", "content": "aa"}, {"alg": "SHA-1", "content": "bb"}]}),
        cyclonedx({"hashes": [{"alg": "SHA-1", "content": "BB"}, {"alg": "SHA-256", "content": "AA"}]}),
    ),
    "an SPDX 3 graph in another order, with other identifiers": (
        spdx_3(files=("/a", "/b")),
        {"@context": SPDX_3, "@graph": spdx_3(files=("/b", "/a"), base="https://other/")["@graph"][::-1]},
    ),
}
OTHER = {
    "an SPDX licence": (spdx_2([X]), spdx_2([package("x", "1", licenseConcluded="GPL-3.0-only")])),
    "an SPDX declared licence": (spdx_2([X]), spdx_2([package("x", "1", licenseDeclared="GPL-3.0-only")])),
    "an SPDX file": (spdx_2([X]), spdx_2([X], files=[file("/evil")])),
    "an SPDX file's contents": (spdx_2([], files=[file("/a")]), spdx_2([], files=[file("/a", "b" * 40)])),
    "an SPDX file's licence": (
        spdx_2([], files=[file("/a", licenseConcluded="MIT")]),
        spdx_2([], files=[file("/a", licenseConcluded="Apache-2.0")]),
    ),
    "a CycloneDX group": (cyclonedx({}), cyclonedx({"group": "evil.org"})),
    "a CycloneDX type": (cyclonedx({}), cyclonedx({"type": "firmware"})),
    "a CycloneDX licence": (cyclonedx({}), cyclonedx({"licenses": [{"license": {"id": "MIT"}}]})),
    "a CycloneDX licence expression": (
        cyclonedx({"licenses": [{"expression": "MIT OR Apache-2.0"}]}),
        cyclonedx({"licenses": [{"expression": "MIT AND Apache-2.0"}]}),
    ),
    "a CycloneDX service": (cyclonedx({}), cyclonedx({}, services=[{"name": "s"}])),
    "a CycloneDX service's endpoint": (
        cyclonedx(services=[{"name": "s", "endpoints": ["https://a"]}]),
        cyclonedx(services=[{"name": "s", "endpoints": ["https://b"]}]),
    ),
    "a CycloneDX subject": (cyclonedx({}), cyclonedx({}, metadata=about(version="2"))),
    "a component of a CycloneDX subject": (
        cyclonedx(metadata=about()),
        cyclonedx(metadata=about(components=[{"type": "library", "name": "evil"}])),
    ),
    "a nested CycloneDX component": (
        cyclonedx({}),
        cyclonedx({"components": [{"type": "library", "name": "inner"}]}),
    ),
    "a CycloneDX hash": (
        cyclonedx({"hashes": [{"alg": "SHA-256", "content": "aa"}]}),
        cyclonedx({"hashes": [{"alg": "SHA-256", "content": "cc"}]}),
    ),
    "an SPDX 3 version": (spdx_3(), spdx_3(version="2")),
    "an SPDX 3 licence": (spdx_3(), spdx_3(licence="GPL-3.0-only")),
    "an SPDX 3 file": (spdx_3(), spdx_3(files=("/a", "/evil"))),
}


@pytest.mark.parametrize("name", SAME)
def test_what_only_looks_different_is_the_same(name: str) -> None:
    one, two = SAME[name]
    assert json.dumps(one) != json.dumps(two)
    assert components(one) == components(two)
    assert components(one)


@pytest.mark.parametrize("name", OTHER)
def test_what_is_different_is_a_difference(name: str) -> None:
    one, two = OTHER[name]
    assert components(one) != components(two)


def test_an_entry_can_be_read() -> None:
    assert components(cyclonedx({"purl": "pkg:npm/x@1"})) == {"library x@1 pkg:npm/x@1"}
    assert components(spdx_2([X])) == {"package x@1 (concluded MIT, declared None)"}
    assert components(spdx_3(files=())) == {"package x@1 sha256:aa (concluded MIT)"}


@pytest.mark.parametrize(
    "document",
    [
        {"spdxVersion": "SPDX-2.3", "packages": [7]},
        {"spdxVersion": "SPDX-2.3", "packages": [{"name": "a"}]},
        {"bomFormat": "CycloneDX", "components": 5},
        cyclonedx({"purl": "nonsense"}),
        {"@context": SPDX_3, "@graph": [7]},
        {"@context": "https://spdx.org/rdf/3.9.9/spdx-context.jsonld", "@graph": []},
    ],
)
def test_what_is_malformed_is_said_so(document: object) -> None:
    with pytest.raises(ValueError, match="malformed"):
        components(document)


@pytest.mark.parametrize("document", [None, [], "spdxVersion", {}, {"other": 1}])
def test_what_is_no_sbom_has_no_components(document: object) -> None:
    assert components(document) is None


def test_a_missing_parser_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cyclonedx.model.bom", None)
    with pytest.raises(BadInput, match=r"kilo\[sbom\]"):
        components(cyclonedx({}))
