"""A backup's manifest: what it holds, how to tell that it does, and which manifests came before.

JSON in the canonical form of RFC 8785, so that its digest is of its meaning. The key under which it
lies has its place in the chain and its digest, ``manifests/SEQUENCE-ID-SHA256.json``: whoever lists
keys can extend the chain without reading, and nobody can swap a manifest unseen. ``previous`` names
the manifests of the highest place that were there: two runs at once make a fork, and the next run
joins it. Places end at :data:`LAST_PLACE`, which only an invented key can reach; from there on the ids,
which begin with the time, give the order, so that such a key can't end the chain.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Self

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kilo.backup.signatures import Signature, Signer, Verifier
from kilo.errors import CheckFailed

MANIFESTS = "manifests/"
OBJECTS = "backups/"
LAST_PLACE = 10**12 - 1
_PURPOSE = "manifest"
_MOST_HEADS = 16
"""Far more than runs can meet; whoever invents keys can't make manifests grow without end."""
_KEY = re.compile(
    r"manifests/(?P<sequence>\d{8,12})-(?P<id>[0-9TZa-z]+-[0-9a-f]{6})-(?P<sha256>[0-9a-f]{64})\.json"
)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TableState(_Model):
    """How many rows a table has, and their fingerprint.

    ``hashed`` says by which rules: "values" are those of :mod:`kilo.backup.fingerprints`, "record" and "text"
    those of format 2 (:mod:`kilo.backup.former`).
    """

    rows: int
    fingerprint: str
    hashed: Literal["record", "text", "values"]


class DefinitionState(_Model):
    """How many objects of a kind there are, and the SHA-256 of what defines them, as canonical JSON."""

    objects: int
    sha256: str


class Locale(_Model):
    """A database's encoding and locale, as pg_database and pg_collation_actual_version have them.

    ``version`` is the collations' (of ICU or the C library); empty where they have none, as of C.
    """

    encoding: str
    provider: Literal["libc", "icu", "builtin"]
    collate: str
    ctype: str
    locale: str = ""
    icu_rules: str = ""
    version: str = ""


class ObjectState(_Model):
    """One encrypted object: what lies in the stores, and how much it decrypts to."""

    key: str
    size: int
    sha256: str
    plaintext_size: int


class Encryption(_Model):
    """How the objects are encrypted, and the wrapped data key."""

    algorithm: str
    key: str
    context: dict[str, str]
    wrapped_key: str


_SINCE_3 = frozenset({"bootstrap_role", "locale", "fingerprint_seed", "definitions"})


class Manifest(_Model):
    """A backup. Times are UTC. Format 2 has none of :data:`_SINCE_3`, nor an object of definitions."""

    format: Literal[2, 3] = 3
    id: str
    sequence: int
    previous: tuple[str, ...]
    stage: str
    database: str
    snapshot_at: datetime
    finished_at: datetime
    duration_seconds: float
    server_version: str
    schema_version: str
    lsn: str
    bootstrap_role: str = "postgres"
    locale: Locale | None = None
    fingerprint_seed: int = 0
    definitions: dict[str, DefinitionState] = Field(default_factory=dict[str, DefinitionState])
    tables: dict[str, TableState]
    objects: dict[str, ObjectState]
    encryption: Encryption
    signature: Signature | None = None

    def signed(self, signer: Signer) -> Self:
        """This manifest with its signature. Raises as :meth:`~kilo.backup.signatures.Signer.sign`."""
        return self.model_copy(update={"signature": signer.sign(_PURPOSE, self._unsigned())})

    def check_signature(self, verifier: Verifier, place: str) -> None:
        """Check the signature; ``place`` says where the manifest lies.

        Raises:
            CheckFailed: the manifest is not signed, by another key, or was altered.
            Unreachable: KMS does not answer.
        """
        verifier.verify(self.signature, _PURPOSE, self._unsigned(), place)

    def content(self) -> bytes:
        """The canonical bytes."""
        beyond = _SINCE_3 if self.format == 2 else frozenset[str]()
        return rfc8785.dumps(json.loads(self.model_dump_json(exclude=set(beyond))))

    def key(self) -> str:
        """The key under which the manifest lies."""
        digest = hashlib.sha256(self.content()).hexdigest()
        return f"{MANIFESTS}{self.sequence:08d}-{self.id}-{digest}.json"

    @property
    def size(self) -> int:
        """Bytes of all objects as they lie in a store."""
        return sum(state.size for state in self.objects.values())

    def _unsigned(self) -> bytes:
        return self.model_copy(update={"signature": None}).content()


@dataclass(frozen=True, slots=True)
class ManifestKey:
    """What a manifest's key says."""

    key: str
    sequence: int
    id: str
    sha256: str

    @property
    def started_at(self) -> datetime:
        """When the run started, by its own clock; the end of time where the id says no time."""
        try:
            return datetime.strptime(self.id.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except ValueError:
            return datetime.max.replace(tzinfo=UTC)

    @classmethod
    def parse(cls, key: str) -> Self | None:
        """Read a key; None when it is no manifest's."""
        match = _KEY.fullmatch(key)
        return cls(key, int(match["sequence"]), match["id"], match["sha256"]) if match else None


def heads(keys: Iterable[str]) -> tuple[ManifestKey, ...]:
    """The manifests at the end of the chain, by their keys, the newest last."""
    known = [found for found in map(ManifestKey.parse, keys) if found]
    highest = max((found.sequence for found in known), default=0)
    ends = sorted((found for found in known if found.sequence == highest), key=lambda found: found.key)
    return tuple(ends[-_MOST_HEADS:])


def next_place(ends: Sequence[ManifestKey]) -> int:
    """The place of a manifest that follows ``ends``."""
    return min(ends[0].sequence + 1, LAST_PLACE) if ends else 1


def parse_manifest(key: ManifestKey, content: bytes, place: str, verifier: Verifier) -> Manifest:
    """Read a manifest, hold it against its key and check its signature.

    Raises:
        CheckFailed: its bytes are not those whose digest the key has, it is not of this format, or not
            signed by the stage.
        Unreachable: KMS does not answer.
    """
    if hashlib.sha256(content).hexdigest() != key.sha256:
        msg = f"{place}/{key.key}: the content is not what the key's digest says"
        raise CheckFailed(msg)
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        msg = f"{place}/{key.key}: {where}: {first['msg']}"
        raise CheckFailed(msg) from error
    if manifest.content() != content:
        # What is not in the canonical form is not under the signature.
        msg = f"{place}/{key.key}: is not the canonical form of what it says"
        raise CheckFailed(msg)
    if (manifest.id, manifest.sequence) != (key.id, key.sequence):
        msg = f"{place}/{key.key}: says that it is backup {manifest.id}, {manifest.sequence} of the chain"
        raise CheckFailed(msg)
    manifest.check_signature(verifier, f"{place}/{key.key}")
    return manifest
