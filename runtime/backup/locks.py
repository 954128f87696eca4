"""Whether a store locks what it was given: read back and compared, not assumed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from runtime.backup.stores import Lock, Store
from runtime.contract import BucketOutputs
from runtime.errors import CheckFailed

PROVEN = "proven"
"""The object itself carries the lock."""
CONFIGURED = "configured"
"""The bucket's configuration asks for it; the store does not show it on the object."""

UNPROVEN = "unproven"
"""The store is an emulator that knows of no locks."""

_SLACK = timedelta(minutes=5)


def check_lock(store: Store, expected: BucketOutputs, lock: Lock) -> str:
    """Hold a new object's ``lock`` against what the contract asks of its bucket.

    Returns:
        :data:`PROVEN`, :data:`CONFIGURED` or :data:`UNPROVEN`.

    Raises:
        CheckFailed: the object is not locked as it must be.
        StoreError: the store can't be asked.
    """
    due = datetime.now(UTC) + timedelta(days=expected.retention_days) - _SLACK
    wanted = f"{expected.lock_mode}, {expected.retention_days} days"
    if lock.until is not None:
        if lock.until < due or (expected.provider == "aws" and lock.mode != expected.lock_mode):
            until = f"{lock.until:%Y-%m-%d %H:%M}Z"
            msg = f"{store.describe()}: locked {lock.mode} until {until}; asked for {wanted}"
            raise CheckFailed(msg)
        if expected.provider == "aws" or expected.lock_mode == "unlocked":
            return PROVEN
    mode, days = store.configured_lock()
    if mode == "unknown":
        return UNPROVEN
    strong_enough = mode in {expected.lock_mode, "locked"} and days >= expected.retention_days
    if expected.provider == "aws" or not strong_enough:
        msg = f"{store.describe()}: not locked (bucket: {mode}, {days} days); asked for {wanted}"
        raise CheckFailed(msg)
    return PROVEN if lock.until is not None else CONFIGURED
