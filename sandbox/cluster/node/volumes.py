"""A container's file system: its mounts under one directory, kept up to date as the kubelet keeps them.

Files of ConfigMaps, Secrets and the downward API are written beside and come to be seen by one rename of
the link ``..data``, all at once, so that a process that watches the directory never sees a half.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from sandbox.cluster.node.lookup import Lookup, field_value
from sandbox.cluster.node.text import ContainerText, Names
from sandbox.cluster.objects import Object

_DATA = "..data"
_TOKEN_SECONDS = 3600


class VolumeError(Exception):
    """A volume of a kind that one machine can't have."""


class FileSystem:
    """The mounts of one container.

    Args:
        pod: the pod.
        container: the container's specification.
        address: the pod's.
        pod_directory: where emptyDir volumes lie.
        claims: where persistent volumes of the namespace lie.
        lookup: for ConfigMaps and Secrets.
        names: for names in mounted text.
    """

    def __init__(
        self,
        pod: Object,
        container: Object,
        *,
        address: str,
        pod_directory: Path,
        claims: Path,
        lookup: Lookup,
        names: Names,
    ) -> None:
        self._pod = pod
        self._address = address
        self._shared = pod_directory / "volumes"
        self._claims = claims
        self._lookup = lookup
        self._volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes") or ()}
        self._mounts = sorted(container.get("volumeMounts") or (), key=lambda mount: len(mount["mountPath"]))
        self.root = pod_directory / "containers" / container["name"]
        self.text = ContainerText(names, {m["mountPath"]: self.local(m["mountPath"]) for m in self._mounts})

    def local(self, path: str) -> Path:
        """Where a path in the container lies."""
        return self.root / path.strip("/")

    def prepare(self) -> None:
        """Make all mounts.

        Raises:
            MissingReference: a ConfigMap or Secret is not there.
            VolumeError: the volume can't be had here.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        for mount in self._mounts:
            volume, local = self._volumes[mount["name"]], self.local(mount["mountPath"])
            local.parent.mkdir(parents=True, exist_ok=True)
            if (shared := self._directory(volume)) is not None:
                target = shared / mount["subPath"] if mount.get("subPath") else shared
                target.mkdir(parents=True, exist_ok=True)
                if not local.is_symlink():
                    local.symlink_to(target)
            elif mount.get("subPath"):
                local.write_bytes(self._files(volume)[mount["subPath"]][0])
            else:
                write_files(local, self._files(volume))

    def refresh(self) -> None:
        """Bring mounted files up to date; what is gone meanwhile keeps its files. subPath mounts stay."""
        for mount in self._mounts:
            volume = self._volumes[mount["name"]]
            if self._directory(volume) is None and not mount.get("subPath"):
                write_files(self.local(mount["mountPath"]), self._files(volume))

    def _directory(self, volume: Object) -> Path | None:
        """The directory of a volume that is one, as opposed to files made from objects."""
        if volume.get("emptyDir") is not None:
            return self._shared / volume["name"]
        if claim := volume.get("persistentVolumeClaim"):
            return self._claims / claim["claimName"]
        known = ("configMap", "secret", "projected", "downwardAPI")
        if not any(volume.get(name) is not None for name in known):
            kind = next((name for name in volume if name != "name"), "none")
            msg = f'volume "{volume["name"]}": the sandbox has no {kind} volumes; it has emptyDir, '
            raise VolumeError(msg + f"persistentVolumeClaim, {', '.join(known)}")
        return None

    def _files(self, volume: Object) -> dict[str, tuple[bytes, int]]:
        if projected := volume.get("projected"):
            sources, mode = projected.get("sources") or [], projected.get("defaultMode")
        else:
            sources = [{name: value for name, value in volume.items() if name != "name"}]
            mode = next(iter(sources[0].values())).get("defaultMode")
        return {
            name: (self.text.replace_bytes(content), own or mode or 0o644)
            for source in sources
            for name, content, own in self._source(source)
        }

    def _source(self, source: Object) -> Iterator[tuple[str, bytes, int | None]]:
        for field, read in (("configMap", self._lookup.config_map), ("secret", self._lookup.secret)):
            if (reference := source.get(field)) is not None:
                name = reference.get("name") or reference.get("secretName")
                yield from _items(reference, read(name, optional=bool(reference.get("optional"))))
        if (downward := source.get("downwardAPI")) is not None:
            for item in downward.get("items") or ():
                value = field_value(self._pod, item["fieldRef"]["fieldPath"], self._address)
                yield item["path"], value.encode(), item.get("mode")
        if token := source.get("serviceAccountToken"):
            yield token["path"], self._token(token), 0o600

    def _token(self, token: Object) -> bytes:
        """A token of the form that the API server issues, unsigned: nothing here would check a signature."""
        metadata, spec = self._pod["metadata"], self._pod["spec"]
        issued = int(time.time()) // _TOKEN_SECONDS * _TOKEN_SECONDS
        account = spec.get("serviceAccountName") or "default"
        claims = {
            "aud": [token.get("audience") or "https://kubernetes.default.svc"],
            "exp": issued + 2 * _TOKEN_SECONDS,
            "iat": issued,
            "sub": f"system:serviceaccount:{metadata['namespace']}:{account}",
        }
        parts = [json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT"}, claims)]
        return b".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts), b""])


def _items(reference: Object, content: dict[str, bytes]) -> Iterator[tuple[str, bytes, int | None]]:
    items = reference.get("items")
    if items is None:
        yield from ((name, value, None) for name, value in content.items())
        return
    for item in items:
        if item["key"] in content:
            yield item["path"], content[item["key"]], item.get("mode")


def write_files(directory: Path, files: dict[str, tuple[bytes, int]]) -> None:
    """Show exactly ``files`` (content and mode by relative path) in ``directory``, all by one rename."""
    directory.mkdir(parents=True, exist_ok=True)
    current = directory / _DATA
    if _holds(current, files):
        return
    fresh = directory / f"..{time.time_ns()}"
    for name, (content, mode) in files.items():
        path = fresh / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(content)
        path.chmod(mode)
    fresh.mkdir(exist_ok=True)
    old = os.readlink(current) if current.is_symlink() else None
    link = directory / "..data_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.rename(current)
    tops = {Path(name).parts[0] for name in files}
    for top in tops:
        if not (directory / top).is_symlink():
            (directory / top).symlink_to(Path(_DATA) / top)
    for entry in directory.iterdir():
        if not entry.name.startswith("..") and entry.name not in tops:
            entry.unlink()
    if old is not None:
        shutil.rmtree(directory / old, ignore_errors=True)


def _holds(current: Path, files: dict[str, tuple[bytes, int]]) -> bool:
    if not current.is_dir():
        return False
    there = {str(path.relative_to(current)) for path in current.rglob("*") if path.is_file()}
    return there == files.keys() and all(
        (current / n).read_bytes() == content for n, (content, _) in files.items()
    )
