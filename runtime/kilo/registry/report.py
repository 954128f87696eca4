"""What the registry commands show to a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rich.console import Console
from rich.table import Column, Table

from kilo.registry.drift import Comparison, Kind
from kilo.registry.sync import TagResult


def whole_table(*columns: str) -> Table:
    """A table that breaks what is too long for its column: names and digests are of no use shortened."""
    return Table(*(Column(name, overflow="fold") for name in columns))


def show_results(results: Iterable[TagResult]) -> None:
    """Print a table of what was copied, one row a tag, and the sums."""
    console = Console()
    table = whole_table("repository", "tag", "outcome", "manifests", "blobs", "MB", "why")
    counts: Counter[str] = Counter()
    for result in results:
        counts[result.outcome] += 1
        if result.outcome == "present" and not result.left_out:
            continue
        copied = result.copied
        table.add_row(
            result.repository,
            result.name,
            result.outcome,
            str(copied.manifests + copied.tags),
            str(copied.blobs),
            f"{copied.sent_bytes / 1e6:.1f}",
            str(result.error or "; ".join(f"left out: {error}" for error in result.left_out)),
        )
    if table.row_count:
        console.print(table)
    console.print(
        ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())) or "nothing to do"
    )


def show_comparisons(comparisons: Iterable[Comparison]) -> None:
    """Print the findings, one row each, and one line a repository."""
    console = Console()
    table = whole_table("kind", "repository", "tag", "detail")
    lines: list[str] = []
    for comparison in comparisons:
        for finding in comparison.findings:
            table.add_row(finding.kind.value, finding.repository, finding.tag, finding.detail)
        counts = comparison.counts()
        found = ", ".join(f"{counts[kind]} {kind.value}" for kind in Kind if counts[kind]) or "identical"
        lines.append(f"{comparison.repository}: {comparison.tags} tags compared, {found}")
    if table.row_count:
        console.print(table)
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
