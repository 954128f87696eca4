"""``make states`` records the stages' states at a release; with ``report``, previews them and reports."""

from __future__ import annotations

import sys

from kilo.changes.comment import render_comment
from tests.upgrade.recorded import STAGES, preview, record


def main() -> int:
    """Record, or report; 1 when a preview is refused."""
    if sys.argv[1:] != ["report"]:
        record()
        return 0
    found = {stage: preview(stage) for stage in STAGES}
    print(render_comment(found, limited=False))
    return int(any(each.errors for each in found.values()))


if __name__ == "__main__":
    sys.exit(main())
