"""What is live in a stage, and since when: a program version, a configuration, and a set of image digests.

The engine's own record says what was deployed when. A release goes live with the end of the first of the
newest updates that had its program and configuration; whatever differed or failed in between starts it anew.
An image that is named by its tag alone is resolved in the mirrored registry, and its digest kept: it is that
digest which is promoted, and the soak begins no earlier than it was first seen.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

import psycopg
import rfc8785
from psycopg.rows import TupleRow

from kilo.contract import StackOutputs
from kilo.errors import KiloError
from kilo.promotion.plan import images_in
from kilo.registry.client import Registries
from kilo.registry.reference import Reference

_NEUTRAL = ("refresh", "rename", "import", "preview")
"""What the engine records and what changes nothing that runs."""
_PINNED = "@sha256:"
_PATIENCE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Live:
    """What runs.

    Attributes:
        program: the commit of the program.
        committed: whether all that was deployed is in that commit.
        configuration: SHA-256 of the stage's configuration.
        images: every image that the stack's resources name, sorted.
        since: seconds since the epoch; None where it is not known.
        update: the number of the engine's update with which it went live.
        trouble: why it is not known.
    """

    program: str = ""
    committed: bool = False
    configuration: str = ""
    images: tuple[str, ...] = ()
    since: float | None = None
    update: int | None = None
    trouble: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of what was deployed; digests of images that stand by their tags come beside."""
        content = {"program": self.program, "configuration": self.configuration, "images": list(self.images)}
        return sha256(rfc8785.dumps(content)).hexdigest()


def read_live(history: Sequence[Mapping[str, Any]], state: Mapping[str, Any]) -> Live:
    """What is live by the engine's record, the newest update first, and its state."""
    images = tuple(sorted(set(_images(state))))
    first: Live | None = None
    for update in history:
        succeeded, kind = update.get("result") == "succeeded", update.get("kind")
        if kind in _NEUTRAL and succeeded:
            continue
        if kind != "update" or not succeeded:
            if first is None:
                said = f"the stack's last {kind} is {update.get('result')}; what runs is not known"
                return Live(images=images, trouble=said)
            break
        found = _of_update(update, images)
        if first is not None and found.digest != first.digest:
            break
        first = found
    return first or Live(images=images, trouble="the engine has no record of an update of the stack")


def _of_update(update: Mapping[str, Any], images: tuple[str, ...]) -> Live:
    environment = update.get("environment") or {}
    program, dirty = environment.get("git.head", ""), environment.get("git.dirty") == "true"
    configuration = json.dumps(update.get("config") or {}, sort_keys=True)
    try:
        since = datetime.fromisoformat(str(update.get("endTime")).replace("Z", "+00:00")).timestamp()
        trouble = "" if program else "the engine's record does not have the program's commit"
    except ValueError:
        since, trouble = None, "the engine's record does not say when the update ended"
    return Live(
        program=program,
        committed=bool(program) and not dirty,
        configuration=sha256(configuration.encode()).hexdigest(),
        images=images,
        since=since,
        update=update.get("version"),
        trouble=trouble,
    )


def _images(state: Mapping[str, Any]) -> Iterator[str]:
    for resource in state["deployment"].get("resources") or ():
        if not resource.get("delete"):
            yield from images_in(resource.get("inputs") or {})


@dataclass(frozen=True, slots=True)
class Digests:
    """The images of a release by digest.

    Attributes:
        known: digest by image.
        unpinned: images of which no digest is known.
        moved: images whose tag has another digest than when the release was first seen, in words.
        since: when the last of those that stand by their tag was first seen, in seconds since the epoch.
    """

    known: Mapping[str, str]
    unpinned: Sequence[str]
    moved: Sequence[str] = ()
    since: float | None = None


def resolve(live: Live, outputs: StackOutputs) -> Digests:
    """The digests as they are now: those in the names, and those of tags in the primary registry."""
    registries = Registries(patience_seconds=_PATIENCE_SECONDS)
    prefix = f"{outputs.registries.primary.url}/"
    known: dict[str, str] = {}
    unpinned: list[str] = []
    for image in live.images:
        if _PINNED in image:
            known[image] = image.partition("@")[2]
            continue
        found = None
        if image.startswith(prefix):
            reference = Reference.parse(image)
            try:
                found = registries.repository(reference).resolve(reference.tag or "latest")
            except KiloError:
                found = None
        if found is None:
            unpinned.append(image)
        else:
            known[image] = found[0]
    return Digests(known, unpinned)


def observe(connection: psycopg.Connection[TupleRow], stage: str, live: Live, digests: Digests) -> Digests:
    """Keep the digests of a release that is seen for the first time, and compare them with those kept."""
    by_tag = {image: digest for image, digest in digests.known.items() if _PINNED not in image}
    with connection.transaction():
        for image, digest in by_tag.items():
            connection.execute(
                "INSERT INTO promotion_releases (stage, release, image, digest) VALUES (%s, %s, %s, %s)"
                " ON CONFLICT DO NOTHING",
                (stage, live.digest, image, digest),
            )
        rows = connection.execute(
            "SELECT image, digest, extract(epoch FROM observed_at)::float8 FROM promotion_releases"
            " WHERE stage = %s AND release = %s",
            (stage, live.digest),
        ).fetchall()
    moved = [
        f"{image}: its tag has {now}, and had {before} when the release was first seen"
        for image, before, _ in rows
        if (now := by_tag.get(image, "nothing")) != before
    ]
    since = max((at for _, _, at in rows), default=None)
    return Digests(digests.known, digests.unpinned, moved, since)
