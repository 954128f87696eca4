"""Opening the stores that the contract names."""

from __future__ import annotations

from runtime.backup.stores.base import Store
from runtime.contract import BackupOutputs, BucketOutputs


def open_store(bucket: BucketOutputs) -> Store:
    """Open one store; nothing is sent yet."""
    if bucket.provider == "aws":
        from runtime.backup.stores.s3 import S3Store  # noqa: PLC0415 - each cloud's library only where used

        return S3Store(bucket)
    from runtime.backup.stores.gcs import GcsStore  # noqa: PLC0415

    return GcsStore(bucket)


def open_stores(outputs: BackupOutputs) -> dict[str, Store]:
    """Open both stores, by their names ``primary`` and ``secondary``."""
    return {"primary": open_store(outputs.primary), "secondary": open_store(outputs.secondary)}
