"""Whether a store locks what it was given: read back and compared, not assumed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from kilo.backup.stores import Lock, Store
from kilo.contract import BucketOutputs
from kilo.errors import CheckFailed

PROVEN = "proven"
"""The object itself carries the lock."""
CONFIGURED = "configured"
"""The bucket's configuration asks for it; the store does not show it on the object."""

UNPROVEN = "unproven"
"""The store is an emulator that knows of no locks."""

_SLACK = timedelta(minutes=5)


def is_over(created_at: datetime, expected: BucketOutputs) -> bool:
    """Whether an object made then may be gone: its lock is over, and lifecycles and pruning may remove it.

    They remove the objects of a backup in any order, and those of one store days before the other's.
    """
    return created_at + timedelta(days=expected.retention_days) < datetime.now(UTC)


def check_lock(store: Store, expected: BucketOutputs, lock: Lock) -> str:
    """Hold an object's ``lock`` against what the contract asks of its bucket.

    Times are compared with each other, not with the clock here. An upload in parts is as old as its
    beginning, and so is its lock.

    Returns:
        :data:`PROVEN`, :data:`CONFIGURED` or :data:`UNPROVEN`.

    Raises:
        CheckFailed: the object is not locked as it must be.
        StoreError: the store can't be asked.
    """
    wanted = f"{expected.lock_mode}, {expected.retention_days} days"
    if lock.until is not None:
        days = timedelta(days=expected.retention_days) - _SLACK
        if lock.until - lock.created_at < days or (
            expected.provider == "aws" and lock.mode != expected.lock_mode
        ):
            until = f"{lock.until:%Y-%m-%d %H:%M}Z"
            msg = f"{store.describe()}: locked {lock.mode} until {until}; asked for {wanted}"
            raise CheckFailed(msg)
        if expected.provider == "aws" or expected.lock_mode == "unlocked":
            return PROVEN
    mode, configured_days = store.configured_lock()
    if mode == "unknown":
        return UNPROVEN
    strong_enough = mode in {expected.lock_mode, "locked"} and configured_days >= expected.retention_days
    if expected.provider == "aws" or not strong_enough:
        msg = f"{store.describe()}: not locked (bucket: {mode}, {configured_days} days); asked for {wanted}"
        raise CheckFailed(msg)
    return PROVEN if lock.until is not None else CONFIGURED
