"""What the registry commands show to a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from kilo.registry.drift import Comparison, Kind
from kilo.registry.sync import TagResult
from kilo.tables import make_console, make_table


def show_results(results: Iterable[TagResult]) -> None:
    """Print a table of what was copied, one row a tag, and the sums."""
    console = make_console()
    rows: list[tuple[object, ...]] = []
    counts: Counter[str] = Counter()
    for result in results:
        counts[result.outcome] += 1
        if result.outcome == "present" and not result.left_out:
            continue
        copied = result.copied
        why = result.error or "; ".join(f"left out: {error}" for error in result.left_out)
        sent = f"{copied.sent_bytes / 1e6:.1f}"
        manifests = copied.manifests + copied.tags
        rows.append((result.repository, result.name, result.outcome, manifests, copied.blobs, sent, why))
    if rows:
        columns = ("repository", "tag", "outcome", "manifests", "blobs", "MB", "why")
        console.print(make_table(columns, rows, numbers=("manifests", "blobs", "MB")))
    console.print(
        ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())) or "nothing to do"
    )


def show_comparisons(comparisons: Iterable[Comparison]) -> None:
    """Print the findings, one row each, and one line a repository."""
    console = make_console()
    rows: list[tuple[str, ...]] = []
    lines: list[str] = []
    for comparison in comparisons:
        rows += [(each.kind.value, each.repository, each.tag, each.detail) for each in comparison.findings]
        counts = comparison.counts()
        found = ", ".join(f"{counts[kind]} {kind.value}" for kind in Kind if counts[kind]) or "identical"
        lines.append(f"{comparison.repository}: {comparison.tags} tags compared, {found}")
    if rows:
        console.print(make_table(("kind", "repository", "tag", "detail"), rows))
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
