"""What stands for the network's names and the mounts in the text that a container gets.

Names are replaced in full only (``NAME.NAMESPACE.svc.cluster.local``, with a pod's name before it for
pods of a StatefulSet), which is how the platform writes them. A mount path is replaced where a path begins
with it, and not inside a longer word or a URL's path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from sandbox.cluster.addresses import Addresses

_CLUSTER_NAME = re.compile(r"(?<![a-z0-9.-])((?:[a-z0-9]([-a-z0-9]*[a-z0-9])?\.){2,3})svc\.cluster\.local\b")


class Names:
    """Addresses for names: of Services and pods, and of servers outside the cluster.

    Args:
        addresses: of the cluster.
        outside: by full name, servers beside the cluster, such as ``postgres.sandbox.internal``.
    """

    def __init__(self, addresses: Addresses, outside: Mapping[str, str]) -> None:
        self._addresses = addresses
        self._outside = dict(outside)
        names = "|".join(re.escape(name) for name in self._outside)
        self._outside_name = re.compile(rf"(?<![a-z0-9.-])({names})(?![a-z0-9-])") if names else None

    def replace(self, text: str) -> str:
        """``text`` with addresses in place of names."""
        if self._outside_name:
            text = self._outside_name.sub(lambda match: self._outside[match[1]], text)
        return _CLUSTER_NAME.sub(self._address, text)

    def _address(self, match: re.Match[str]) -> str:
        parts = match[1].rstrip(".").split(".")
        if len(parts) == 3:
            pod, _, namespace = parts
            return self._addresses.pod(namespace, pod)
        service, namespace = parts
        return self._addresses.service(namespace, service)


class ContainerText:
    """Text as one container sees it."""

    def __init__(self, names: Names, mounts: Mapping[str, Path]) -> None:
        self._names = names
        self._mounts = {path.rstrip("/"): str(local) for path, local in mounts.items()}
        longest_first = sorted(self._mounts, key=len, reverse=True)
        paths = "|".join(re.escape(path) for path in longest_first)
        self._mount = re.compile(rf"(?:(?<=://)|(?<![\w.\-/]))({paths})(?![\w.\-])") if paths else None

    def replace(self, text: str) -> str:
        """``text`` with local directories in place of mount paths, and addresses in place of names."""
        if self._mount:
            text = self._mount.sub(lambda match: self._mounts[match[1]], text)
        return self._names.replace(text)

    def replace_bytes(self, content: bytes) -> bytes:
        """The same for a file's content; one that is not text stays as it is."""
        try:
            return self.replace(content.decode()).encode()
        except UnicodeDecodeError:
            return content
