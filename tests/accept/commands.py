"""Commands of the acceptance: what one says, or why the acceptance ends with it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from tests.e2e.conftest import KILO, Stage

SETTLED = (
    sys.executable,
    "-c",
    "import sys, kilo.fle.rotation.plan as plan; plan.LEAST_SETTLE_SECONDS = 0;"
    " from kilo.cli import main; sys.exit(main(sys.argv[1:]))",
)
"""`kilo` that takes a settle time of seconds; the processes that it is for are restarted in its place."""


class Refused(Exception):
    """A step did not come to what it must."""


def run(
    stage: Stage,
    *arguments: str,
    ok: Sequence[int] = (0,),
    variables: Mapping[str, str] | None = None,
    given: str | None = None,
    program: Sequence[str] = KILO,
) -> str:
    """What ``kilo ARGUMENTS`` writes, as :meth:`Stage.kilo` runs it.

    Raises:
        Refused: it ended with another code than those of ``ok``.
    """
    # On a busy machine each takes as long as it needs.
    done = stage.kilo(*arguments, variables=variables, given=given, program=program, seconds=None)
    if done.returncode not in ok:
        said = (done.stderr or done.stdout).strip()[-600:]
        msg = f"kilo {' '.join(arguments[:3])} ended with {done.returncode}: {said}"
        raise Refused(msg)
    return done.stdout
