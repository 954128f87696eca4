"""Opening the stores that the contract names."""

from __future__ import annotations

from kilo.backup.stores.base import Store
from kilo.contract import BackupOutputs, BucketOutputs
from kilo.errors import BadInput


def open_store(bucket: BucketOutputs) -> Store:
    """Open one store; nothing is sent yet."""
    if bucket.provider == "aws":
        from kilo.backup.stores.s3 import S3Store  # noqa: PLC0415 - each cloud's library only where used

        return S3Store(bucket)
    from kilo.backup.stores.gcs import GcsStore  # noqa: PLC0415

    return GcsStore(bucket)


def open_stores(outputs: BackupOutputs) -> dict[str, Store]:
    """Open both stores, by their names ``primary`` and ``secondary``."""
    return {name: open_store(bucket) for name, bucket in outputs.buckets.items()}


def open_replica(outputs: BackupOutputs) -> Store:
    """Open the primary store's copy in another region, which only the cloud writes.

    Raises:
        BadInput: the stage has none.
    """
    if outputs.replica is None:
        msg = "the stage has no replica of its primary store (backups.replica in its configuration)"
        raise BadInput(msg)
    return open_store(outputs.replica)
