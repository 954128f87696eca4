"""The tour's second half: an image through the mirror, a backup through a drill, and what is said of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from kilo.contract import StackOutputs
from kilo.errors import KiloError
from kilo.tables import make_table
from kilo.tour.backup import Drilled, back_up_and_drill
from kilo.tour.image import PLATFORMS, Mirrored, push_and_compare


@dataclass(frozen=True)
class Artifacts:
    """What became of the image and of the backup; None where a step failed as a whole."""

    image: Mirrored | None
    backup: Drilled | None
    problems: tuple[str, ...]

    def document(self) -> dict[str, object]:
        """The JSON form."""
        return {
            "image": self.image.document() if self.image else None,
            "backup": self.backup.document() if self.backup else None,
            "problems": list(self.problems),
        }


def show_artifacts(
    outputs: StackOutputs,
    database: str,
    *,
    timeout_seconds: float,
    progress: Callable[[str], None] = lambda _: None,
) -> Artifacts:
    """Push an image and follow it, take a backup and drill it. One that fails does not stop the other."""
    image, backup, problems = None, None, list[str]()
    signers = outputs.registries.signers
    # Nothing here can sign as a stage asks for; the mirror would rightly quarantine the image.
    if not (signers.keys or signers.identities):
        try:
            image = push_and_compare(outputs, timeout_seconds=timeout_seconds, progress=progress)
            problems += [f"image not mirrored: {missing}" for missing in image.missing]
            problems += [
                f"not at parity: {found.place}: {found.detail}" for found in image.parity.differences
            ]
        except KiloError as error:
            problems.append(f"image: {error}")
    try:
        backup = back_up_and_drill(outputs, database, progress=progress)
        problems += backup.problems
    except KiloError as error:
        problems.append(f"backup: {error}")
    return Artifacts(image, backup, tuple(problems))


def as_table(artifacts: Artifacts) -> Table:
    """One line a step."""
    steps = (*_image_lines(artifacts.image), *_backup_lines(artifacts.backup))
    rows = [(Text(step, style="bold"), Text.from_markup(said)) for step, said in steps]
    failed = [(Text("failed", style="bold red"), Text(problem)) for problem in artifacts.problems]
    return make_table(("", ""), [*rows, *failed])


def _image_lines(image: Mirrored | None) -> list[tuple[str, str]]:
    if image is None:
        return []
    lags = [("tag lag", image.tag_lag_seconds), ("lag of the attestations", image.whole_lag_seconds)]
    arrived = [f"{what} {seconds:.1f} s" for what, seconds in lags if seconds is not None]
    places = ", ".join(str(place) for place in image.parity.places)
    same = "the same" if not image.parity.differences else "[red]not the same[/]"
    return [
        ("image", f"{image.image}, {len(PLATFORMS)} platforms, {image.attestations} attestations"),
        ("mirrored", ", ".join(arrived) or "[red]nothing[/]"),
        ("parity", f"{same} digest and {image.parity.claims} claims at {places}"),
    ]


def _backup_lines(backup: Drilled | None) -> list[tuple[str, str]]:
    if backup is None:
        return []
    manifest = backup.taken.manifest
    rows = sum(state.rows for state in manifest.tables.values())
    held = " and ".join(
        f"{store.store} (lock {store.lock})" for store in backup.taken.stores if store.error is None
    )
    drilled = [
        f"{found.store} restored in {found.recovery_time_seconds:.1f} s, {found.rows:,} rows equal"
        for found in backup.evidence
        if found.error is None
    ]
    return [
        (
            "backup",
            f"{manifest.id}, {len(manifest.tables)} tables, {rows:,} rows, {manifest.size / 1e6:.1f} MB "
            f"in {manifest.duration_seconds:.1f} s to {held or 'no store'}",
        ),
        ("drill", "; ".join(drilled) or "[red]nothing was restored[/]"),
    ]
