"""Evidence of key management that an auditor can verify without trusting us.

Entries are chained by hash; signed checkpoints of the log, with the entries since the checkpoint
before, go to an object-locked bucket. :mod:`log` appends, :mod:`notes` signs, :mod:`store` keeps,
:mod:`verify` checks.
"""
