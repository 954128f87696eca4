"""``python -m reference DIRECTORY``: the site's pages as Markdown, ready for the generator."""

from __future__ import annotations

import sys
from pathlib import Path

from reference.source import write_source

ROOT = Path(__file__).resolve().parent.parent

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m reference DIRECTORY")
    count = write_source(ROOT, Path(sys.argv[1]))
    print(f"{count} pages")
