"""The two object stores, behind the few operations that locked, create-only backups need."""

from kilo.backup.stores.base import Lock, ObjectInfo, Store, StoreError
from kilo.backup.stores.open import open_replica, open_store, open_stores

__all__ = ["Lock", "ObjectInfo", "Store", "StoreError", "open_replica", "open_store", "open_stores"]
