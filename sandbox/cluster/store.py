"""Objects on disk, and who is told when one changes.

Each object is one file that is replaced by a rename after it was synced, so that a kill or a power cut
leaves the old one or the new one. Its status is a file beside it and not synced: controllers and the
node write it anew. All of it is in memory too; one process has the directory at a time.
"""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from sandbox.cluster.objects import Key, Object, is_deleting, key_of, new_uid, timestamp

Listener = Callable[[Key, Object | None], None]
"""Told the key and the object as it is now, None when it is gone."""


class Store:
    """The objects under a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._objects: dict[Key, Object] = {}
        self._listeners: list[Listener] = []
        # Later than any handed out before, without a file for a counter: nobody writes once a microsecond.
        self._version = time.time_ns() // 1_000
        directory.mkdir(parents=True, exist_ok=True)
        for path in directory.glob("*/*/*.json"):
            if not path.name.startswith("."):
                self._load(path)

    def _load(self, path: Path) -> None:
        obj: Object = json.loads(path.read_bytes())
        try:
            obj["status"] = json.loads(path.with_name(f"{path.stem}.status").read_bytes())
        except (OSError, ValueError):
            obj["status"] = {}
        self._objects[key_of(obj)] = obj

    def subscribe(self, listener: Listener) -> None:
        """Tell ``listener`` of every change from now on, within the call that makes it."""
        self._listeners.append(listener)

    def get(self, key: Key) -> Object | None:
        """A copy of the object."""
        found = self._objects.get(key)
        return copy.deepcopy(found) if found is not None else None

    def all_keys(self) -> list[Key]:
        """The keys of all objects."""
        return list(self._objects)

    def list(self, api_version: str, kind: str, namespace: str | None = None) -> Iterator[Object]:
        """Copies of all objects of a kind, oldest first."""
        found = [
            obj
            for key, obj in self._objects.items()
            if key[:2] == (api_version, kind) and namespace in (None, key.namespace)
        ]
        found.sort(key=lambda obj: int(obj["metadata"]["resourceVersion"]))
        found.sort(key=lambda obj: obj["metadata"]["creationTimestamp"])
        return (copy.deepcopy(obj) for obj in found)

    def put(self, obj: Object) -> Object:
        """Create or replace the object, all but its status, and answer with it as stored.

        The generation rises with every change outside metadata, as the API server has it.
        """
        key = key_of(obj)
        old = self._objects.get(key)
        new = {name: copy.deepcopy(value) for name, value in obj.items() if name != "status"}
        metadata = new["metadata"]
        if old is None:
            metadata.update({"uid": new_uid(), "creationTimestamp": timestamp(), "generation": 1})
            new["status"] = copy.deepcopy(obj.get("status") or {})
        else:
            kept = ("uid", "creationTimestamp", "generation", "resourceVersion")
            metadata.update({name: old["metadata"][name] for name in kept})
            new["status"] = old["status"]
            if new == old:
                return copy.deepcopy(old)
            if _content(new) != _content(old):
                metadata["generation"] += 1
        self._commit(key, new, synced=True)
        return copy.deepcopy(new)

    def put_status(self, key: Key, status: Object) -> None:
        """Replace the object's status; nothing happens when it is the same or the object is gone."""
        old = self._objects.get(key)
        if old is None or old["status"] == status:
            return
        self._commit(
            key, {**old, "metadata": dict(old["metadata"]), "status": copy.deepcopy(status)}, synced=False
        )

    def begin_deletion(self, key: Key) -> None:
        """Mark the object as being deleted; whoever answers for its kind removes it."""
        old = self._objects.get(key)
        if old is not None and not is_deleting(old):
            metadata = {**old["metadata"], "deletionTimestamp": timestamp()}
            self._commit(key, {**old, "metadata": metadata}, synced=True)

    def remove(self, key: Key) -> None:
        """Remove the object for good."""
        if self._objects.pop(key, None) is None:
            return
        path = self._path(key)
        path.unlink(missing_ok=True)
        path.with_name(f"{key.name}.status").unlink(missing_ok=True)
        # The last of its kind in its namespace leaves no trace of the namespace.
        with suppress(OSError):
            path.parent.rmdir()
        self._tell(key, None)

    def _commit(self, key: Key, obj: Object, *, synced: bool) -> None:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        self._objects[key] = obj
        path = self._path(key)
        if synced:
            _write(path, {name: value for name, value in obj.items() if name != "status"}, synced=True)
        if obj["status"]:
            _write(path.with_name(f"{key.name}.status"), obj["status"], synced=False)
        self._tell(key, obj)

    def _tell(self, key: Key, obj: Object | None) -> None:
        for listener in self._listeners:
            listener(key, obj)

    def _path(self, key: Key) -> Path:
        group = key.api_version.replace("/", "_")
        return self._directory / f"{key.kind}.{group}" / (key.namespace or "_cluster") / f"{key.name}.json"


def _content(obj: Object) -> dict[str, Any]:
    return {name: value for name, value in obj.items() if name not in {"metadata", "status"}}


def _write(path: Path, value: object, *, synced: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    # Secrets are among the objects.
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(value, file, separators=(",", ":"))
        if synced:
            file.flush()
            os.fsync(file.fileno())
    beside.replace(path)
