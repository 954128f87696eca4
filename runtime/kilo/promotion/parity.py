"""Comparing what every registry of the compared stages knows of an image with the first of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kilo.contract import StackOutputs
from kilo.errors import BadInput, KiloError, Unreachable
from kilo.promotion.evidence import Evidence, gather
from kilo.registry.client import Registries
from kilo.registry.drift import Kind
from kilo.registry.errors import NotFound
from kilo.registry.reference import Reference
from kilo.registry.signers import Signers


@dataclass(frozen=True, slots=True)
class RegistryLocation:
    """One registry of one stage."""

    stage: str
    side: str
    location: str
    url: str

    def __str__(self) -> str:
        return f"{self.stage}/{self.side} ({self.location})"


@dataclass(frozen=True, slots=True)
class Difference:
    """How an image in one place differs from the same image in the first place."""

    image: str
    place: RegistryLocation
    kind: Kind
    detail: str

    def document(self) -> dict[str, str]:
        """The JSON form."""
        return {"image": self.image, "place": str(self.place), "kind": self.kind.value, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class Parity:
    """One image: its digest at the first place, and every difference elsewhere."""

    image: str
    digest: str
    places: tuple[RegistryLocation, ...]
    claims: int
    differences: tuple[Difference, ...]


def registry_locations(stages: Sequence[StackOutputs]) -> tuple[RegistryLocation, ...]:
    """Every registry of the stages, each registry once."""
    found: dict[str, RegistryLocation] = {}
    for outputs in stages:
        registries = outputs.registries
        for side, registry in (
            ("primary", registries.primary),
            ("secondary", registries.secondary),
            *(("replica", replica) for replica in registries.replicas),
        ):
            found.setdefault(
                registry.url, RegistryLocation(outputs.stage, side, registry.location, registry.url)
            )
    return tuple(found.values())


def check_parity(
    image: str, places: Sequence[RegistryLocation], signers: Signers, registries: Registries
) -> Parity:
    """Compare ``image`` (NAME:TAG or NAME@DIGEST below every registry's URL); failures are differences.

    Raises:
        BadInput: ``image`` is neither.
    """
    name, colon, tag = image.rpartition(":")
    if not colon or not name:
        msg = f"{image}: expected NAME:TAG or NAME@DIGEST, the name as below the registries' URLs"
        raise BadInput(msg)
    references = {place: Reference.parse(f"{place.url}/{name}:{tag}") for place in places}
    known: dict[RegistryLocation, Evidence] = {}
    differences: list[Difference] = []
    for place, reference in references.items():
        try:
            known[place] = gather(registries, reference, signers)
        except NotFound as error:
            differences.append(Difference(image, place, Kind.MISSING, str(error)))
        except Unreachable as error:
            differences.append(Difference(image, place, Kind.UNREACHABLE, str(error)))
        except KiloError as error:
            differences.append(Difference(image, place, Kind.DRIFT, str(error)))
    if not known:
        return Parity(image, "", tuple(places), 0, tuple(differences))
    (first, expected), *others = known.items()
    for place, found in others:
        differences += [Difference(image, place, *entry) for entry in _compare(first, expected, found)]
    return Parity(image, expected.digest, tuple(places), len(expected.claims), tuple(differences))


def _compare(first: RegistryLocation, expected: Evidence, found: Evidence) -> list[tuple[Kind, str]]:
    if expected.digest != found.digest:
        return [(Kind.DRIFT, f"{found.digest} here, {expected.digest} at {first}")]
    differences = [
        (Kind.MISSING_ATTESTATION, f"lacks {claim}") for claim in sorted(expected.claims - found.claims)
    ]
    differences += [(Kind.EXTRA, f"only here: {claim}") for claim in sorted(found.claims - expected.claims)]
    lost = sorted(component for _, component in expected.sboms - found.sboms)
    new = sorted(component for _, component in found.sboms - expected.sboms)
    if lost or new:
        detail = "; ".join(
            f"{word} {', '.join(entries[:3])}{'…' if len(entries) > 3 else ''}"
            for word, entries in (("lacks", lost), ("adds", new))
            if entries
        )
        differences.append((Kind.DRIFT, f"SBOM {detail}"))
    return differences
