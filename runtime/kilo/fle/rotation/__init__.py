"""Rotation of a tenant's data key: online, approved by two, reversible until it is final.

:mod:`plan` says what will be done and hashes it, :mod:`approval` checks signatures, :mod:`steps` moves
a rotation from state to state, :mod:`backfill` re-encrypts rows, :mod:`coverage` counts what lies under
which key. ``docs/runbooks/fle-rotation.md`` is the runbook.

There is one column a field, not two: values name their key, so readers read old and new side by side
while writers write new. That is what writing twice is for, without a second copy to keep equal; the
old key stays usable until finalize, and rolling back writes the values under it again.
"""
