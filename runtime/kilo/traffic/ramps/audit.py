"""Copies recorded steps into the audit log, each once, after they were made.

Not in the transaction that makes them: whoever holds the log's lock, and any role can, would keep a revert
waiting. A step is in ``ramp_steps``, which nobody can change, until it is in the log too.
"""

from __future__ import annotations

from typing import Any

import psycopg

from kilo.fle.audit import log

_MISSING = """
SELECT s.id, s.who, s.act, s.weight_from, s.weight_to, s.reason, s.program, s.at, r.stage, r.tenant, r.feature
FROM ramp_steps s JOIN ramps r ON r.id = s.ramp
WHERE r.stage = %s AND NOT EXISTS (SELECT FROM ramp_steps_audited a WHERE a.step = s.id)
ORDER BY s.id
"""


def export(connection: psycopg.Connection[Any], stage: str) -> int:
    """Append what the audit log lacks of a stage's steps; returns how many there were.

    Raises:
        CheckFailed: somebody holds the log; the next call finds the same steps again.
    """
    with connection.transaction():
        # Two processes at once would append a step twice.
        connection.execute("LOCK TABLE ramp_steps_audited IN SHARE ROW EXCLUSIVE MODE")
        steps = connection.execute(_MISSING, (stage,)).fetchall()
        for number, who, act, before, after, reason, program, at, *subject in steps:
            details = {
                "from": before,
                "to": after,
                "reason": reason,
                "program": program,
                "at": at.isoformat(),
            }
            entry = log.append(connection, who, f"ramp-{act}", f"ramp/{'/'.join(subject)}", details)
            connection.execute("INSERT INTO ramp_steps_audited VALUES (%s, %s)", (number, entry.seq))
    return len(steps)
