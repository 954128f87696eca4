"""A parity report as other tools read it: JSON, JUnit XML, SARIF 2.1.0, workflow annotations.

SARIF: https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html. Annotations are the workflow
commands of GitHub Actions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from kilo.promotion.parity import Parity
from kilo.registry.drift import Kind


def as_json(results: Sequence[Parity]) -> str:
    """An object an image."""
    return json.dumps(
        [
            {
                "image": result.image,
                "digest": result.digest,
                "places": [str(place) for place in result.places],
                "claims": result.claims,
                "parity": not result.differences,
                "differences": [difference.document() for difference in result.differences],
            }
            for result in results
        ],
        indent=2,
    )


def as_junit(results: Sequence[Parity]) -> str:
    """A test case an image and place; unreachable is an error, any other difference a failure."""
    suite = ET.Element("testsuite", name="promotion parity")
    failures = errors = tests = 0
    for result in results:
        for place in result.places:
            tests += 1
            case = ET.SubElement(suite, "testcase", classname=result.image, name=str(place))
            for difference in (found for found in result.differences if found.place == place):
                unreachable = difference.kind is Kind.UNREACHABLE
                errors, failures = errors + unreachable, failures + (not unreachable)
                tag = "error" if unreachable else "failure"
                ET.SubElement(case, tag, type=difference.kind.value, message=difference.detail)
    suite.attrib |= {"tests": str(tests), "failures": str(failures), "errors": str(errors)}
    return ET.tostring(suite, encoding="unicode", xml_declaration=True)


def as_sarif(results: Sequence[Parity]) -> str:
    """One result a difference."""
    document = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "kilo promote parity",
                        "rules": [{"id": kind.value, "name": kind.name} for kind in Kind],
                    }
                },
                "results": [
                    {
                        "ruleId": difference.kind.value,
                        "level": "error",
                        "message": {"text": f"{difference.image} at {difference.place}: {difference.detail}"},
                        "locations": [
                            {"logicalLocations": [{"name": difference.image, "kind": "image"}]},
                        ],
                    }
                    for result in results
                    for difference in result.differences
                ],
            }
        ],
    }
    return json.dumps(document, indent=2)


def as_annotations(results: Sequence[Parity]) -> str:
    """One workflow command a difference."""
    lines: list[str] = []
    for result in results:
        for difference in result.differences:
            text = f"{difference.place}: {difference.detail}".replace("%", "%25").replace("\n", "%0A")
            lines.append(f"::error title={difference.kind.value} {difference.image}::{text}")
    return "\n".join(lines)
