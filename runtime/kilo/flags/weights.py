"""The weights of the stage's features, from a file that changes while a service runs."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kilo.errors import Unreachable
from kilo.extras import requires
from kilo.tenancy import FeatureId, TenantId

with requires("flags"):
    import xxhash

FLAGS_VARIABLE = "KILO_FLAGS"
FLAGS_MOUNT = "/etc/kilo-flags/flags.json"
"""Where the chart mounts the file, of the gateway's ConfigMap."""
_LOOK_SECONDS = 1.0
"""How often the file is looked at. A kubelet brings a change within its own sync period, a minute or so."""
_LARGEST_BYTES = 1 << 20

_log = logging.getLogger(__name__)


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True)  # what a later gateway adds is not ours

    features: dict[FeatureId, dict[TenantId, int]] = Field(default={})


class Weights:
    """The weights, by feature and tenant; may be asked from any thread.

    A file that is gone or broken changes nothing: the last weights that could be read hold, and the log says
    so.

    Args:
        path: of the file; by default what ``KILO_FLAGS`` names, else where the chart mounts it.
        look_seconds: how often to look whether it changed.
    """

    def __init__(self, path: str | Path | None = None, look_seconds: float = _LOOK_SECONDS) -> None:
        self.path = Path(path or os.environ.get(FLAGS_VARIABLE) or FLAGS_MOUNT)
        self._look_seconds = look_seconds
        self._lock = threading.Lock()
        self._looked = float("-inf")
        self._seen: object = None
        self._features: dict[str, dict[str, int]] | None = None
        self._said: str | None = None

    def load(self) -> None:
        """Read the file now.

        Raises:
            Unreachable: it can't be read, and never could.
        """
        self._look()
        if self._features is None:
            msg = f"{self.path}: {self._said or 'never read'}; name the file with {FLAGS_VARIABLE}"
            raise Unreachable(msg)

    @property
    def ready(self) -> bool:
        """Whether the file could ever be read."""
        return self._features is not None

    def of(self, feature: str, tenant: str) -> int | None:
        """The tenant's weight for the feature, 0 where it has none; none where there is no such feature."""
        if time.monotonic() - self._looked >= self._look_seconds and self._lock.acquire(blocking=False):
            # Whoever comes meanwhile goes on with what is known.
            try:
                self._look()
            finally:
                self._lock.release()
        weights = (self._features or {}).get(feature)
        return None if weights is None else weights.get(tenant, 0)

    def _look(self) -> None:
        self._looked = time.monotonic()
        try:
            found = self.path.stat()
            seen = (found.st_mtime_ns, found.st_size, found.st_ino)
            if seen == self._seen:
                return
            if found.st_size > _LARGEST_BYTES:
                self._problem(f"{found.st_size} bytes, which is no file of weights")
                return
            document = _Document.model_validate_json(self.path.read_bytes())
        except OSError as error:
            self._problem(f"can't be read ({error.strerror})")
            return
        except ValidationError as error:
            self._problem(f"not a file of weights ({error.errors()[0]['type']})")
            return
        self._seen, self._features, self._said = seen, document.features, None

    def _problem(self, what: str) -> None:
        self._seen = None
        if what != self._said:
            kept = "the former weights hold" if self.ready else "flags have their defaults"
            _log.warning("%s: %s; %s", self.path, what, kept)
        self._said = what


def bucket_of(key: str) -> int:
    """The bucket of ``key``, 0 to 99, as Envoy's weighted clusters have it by a hash policy of one header.

    A weight of N is on for the buckets below N, so that raising it takes nobody's away.
    """
    return xxhash.xxh64_intdigest(key.encode()) % 100
