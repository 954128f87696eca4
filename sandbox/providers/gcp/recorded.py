"""Keys, registries, service accounts and grants of Google Cloud: recorded, with the ids that it would give.

Nothing here proves how Google Cloud behaves. In particular a key ring can be deleted here, which Google
Cloud never does.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from sandbox.providers.base import Autoname
from sandbox.providers.gcp.project import PROJECT, Recorded
from sandbox.providers.rules import matches, one_of
from sandbox.providers.schema import Failure
from sandbox.providers.values import Properties

_DAY_SECONDS = 86_400


class KeyRing(Recorded):
    """A group of keys in one place."""

    type_name = "gcp:kms/keyRing:KeyRing"
    immutable = ("name", "location", "project")
    autoname = Autoname(maximum=63)

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """Cloud KMS's naming rule."""
        yield from super().check(inputs)
        yield from matches(
            inputs, "name", r"[a-zA-Z0-9_-]{1,63}", "1 to 63 letters, digits, hyphens and underscores"
        )

    def resource_id(self, inputs: Properties) -> str:
        return f"projects/{inputs['project']}/locations/{inputs['location']}/keyRings/{inputs['name']}"


class CryptoKey(Recorded):
    """A key with a rotation period."""

    type_name = "gcp:kms/cryptoKey:CryptoKey"
    labelled = True
    in_project = False
    immutable = (
        "name",
        "keyRing",
        "purpose",
        "destroyScheduledDuration",
        "importOnly",
        "skipInitialVersionCreation",
        "cryptoKeyBackend",
    )
    autoname = Autoname(maximum=63)
    defaults = {"purpose": "ENCRYPT_DECRYPT"}
    server_chosen = ("destroyScheduledDuration", "importOnly", "versionTemplate", "cryptoKeyBackend")

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """Cloud KMS's ranges."""
        yield from matches(
            inputs, "name", r"[a-zA-Z0-9_-]{1,63}", "1 to 63 letters, digits, hyphens and underscores"
        )
        yield from one_of(
            inputs,
            "purpose",
            ("ENCRYPT_DECRYPT", "ASYMMETRIC_SIGN", "ASYMMETRIC_DECRYPT", "MAC", "RAW_ENCRYPT_DECRYPT"),
        )
        for name in ("rotationPeriod", "destroyScheduledDuration"):
            value = inputs.get(name)
            if isinstance(value, str):
                found = re.fullmatch(r"(\d+)(\.\d+)?s", value)
                if not found or int(found[1]) < _DAY_SECONDS:
                    yield Failure(name, f'must be at least "{_DAY_SECONDS}s", and is "{value}"')

    def resource_id(self, inputs: Properties) -> str:
        return f"{inputs['keyRing']}/cryptoKeys/{inputs['name']}"

    def computed(self, resource_id: str, inputs: Properties) -> Properties:
        version = f"{resource_id}/cryptoKeyVersions/1"
        primaries = (
            [] if inputs.get("skipInitialVersionCreation") else [{"name": version, "state": "ENABLED"}]
        )
        return {"primaries": primaries}


class ArtifactRepository(Recorded):
    """A registry of images."""

    type_name = "gcp:artifactregistry/repository:Repository"
    labelled = True
    immutable = ("repositoryId", "format", "location", "project", "kmsKeyName", "mode")
    defaults = {"mode": "STANDARD_REPOSITORY"}
    server_chosen = ("project", "location", "vulnerabilityScanningConfig")

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """Artifact Registry's naming rule."""
        yield from super().check(inputs)
        yield from matches(
            inputs,
            "repositoryId",
            r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?",
            "1 to 63 lower-case letters, digits and hyphens, a letter first",
        )
        if not (inputs.get("location") or PROJECT.region):
            yield Failure("location", "missing: set it here, or gcp:region in the stack's configuration")

    def preview_outputs(self, inputs: Properties) -> Properties:
        """The provider's region stands in for the location."""
        return super().preview_outputs(inputs) | {"location": inputs.get("location") or PROJECT.region}

    def resource_id(self, inputs: Properties) -> str:
        place = f"projects/{inputs['project']}/locations/{inputs['location']}"
        return f"{place}/repositories/{inputs['repositoryId']}"

    def computed(self, resource_id: str, inputs: Properties) -> Properties:
        host = f"{inputs['location']}-{inputs['format'].lower()}.pkg.dev"
        return {
            "name": inputs["repositoryId"],
            "registryUri": f"{host}/{inputs['project']}/{inputs['repositoryId']}",
        }


class ServiceAccount(Recorded):
    """An identity for a workload."""

    type_name = "gcp:serviceaccount/account:Account"
    immutable = ("accountId", "project")
    autoname = Autoname(property="accountId", maximum=30, lower=True)
    defaults = {"disabled": False}

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """IAM's naming rule."""
        yield from super().check(inputs)
        words = "6 to 30 lower-case letters, digits and hyphens, beginning with a letter"
        yield from matches(inputs, "accountId", r"[a-z][a-z0-9-]{4,28}[a-z0-9]", words)

    def resource_id(self, inputs: Properties) -> str:
        return f"projects/{inputs['project']}/serviceAccounts/{_email(inputs)}"

    def computed(self, resource_id: str, inputs: Properties) -> Properties:
        number = int(hashlib.sha256(resource_id.encode()).hexdigest()[:15], 16)
        return {
            "email": _email(inputs),
            "member": f"serviceAccount:{_email(inputs)}",
            "name": resource_id,
            "uniqueId": f"{10**20 + number}",
        }


def _email(inputs: Properties) -> str:
    return f"{inputs['accountId']}@{inputs['project']}.iam.gserviceaccount.com"


class Pool(Recorded):
    """A group of identities from outside."""

    type_name = "gcp:iam/workloadIdentityPool:WorkloadIdentityPool"
    immutable = ("workloadIdentityPoolId", "project", "mode")
    server_chosen = ("project", "mode")
    defaults = {"disabled": False}

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """IAM's naming rule."""
        yield from super().check(inputs)
        yield from matches(inputs, "workloadIdentityPoolId", _POOL, _POOL_WORDS)

    def resource_id(self, inputs: Properties) -> str:
        """By the project's id, in which the official provider keeps it."""
        return f"{_pools(inputs['project'])}/{inputs['workloadIdentityPoolId']}"

    def computed(self, resource_id: str, inputs: Properties) -> Properties:
        return {"name": f"{_pools(PROJECT.number)}/{inputs['workloadIdentityPoolId']}", "state": "ACTIVE"}


class PoolProvider(Recorded):
    """Who signs the tokens of a pool's identities."""

    type_name = "gcp:iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider"
    immutable = ("workloadIdentityPoolId", "workloadIdentityPoolProviderId", "project")
    server_chosen = ("project",)
    defaults = {"disabled": False}
    unsupported = ("aws", "saml", "x509")

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """IAM's naming rule; without a mapping of the subject no token is anybody's."""
        yield from super().check(inputs)
        yield from matches(inputs, "workloadIdentityPoolProviderId", _POOL, _POOL_WORDS)
        mapping = inputs.get("attributeMapping")
        if not isinstance(mapping, dict) or "google.subject" not in mapping:
            yield Failure("attributeMapping", "missing: google.subject, as in assertion.sub")
        condition, oidc = inputs.get("attributeCondition"), inputs.get("oidc")
        issuer = oidc.get("issuerUri") if isinstance(oidc, dict) else None
        # https://cloud.google.com/iam/docs/workload-identity-federation-with-deployment-pipelines
        if issuer == "https://token.actions.githubusercontent.com" and not condition:
            yield Failure("attributeCondition", "missing: anybody's repository would get in")

    def resource_id(self, inputs: Properties) -> str:
        pool = f"{_pools(inputs['project'])}/{inputs['workloadIdentityPoolId']}"
        return f"{pool}/providers/{inputs['workloadIdentityPoolProviderId']}"

    def computed(self, resource_id: str, inputs: Properties) -> Properties:
        pool = f"{_pools(PROJECT.number)}/{inputs['workloadIdentityPoolId']}"
        name = f"{pool}/providers/{inputs['workloadIdentityPoolProviderId']}"
        return {"name": name, "state": "ACTIVE"}


_POOL = r"(?!gcp-)[a-z0-9-]{4,32}"
_POOL_WORDS = "4 to 32 lower-case letters, digits and hyphens, not beginning with gcp-"


def _pools(project: str) -> str:
    return f"projects/{project}/locations/global/workloadIdentityPools"


class Service(Recorded):
    """An API that is on."""

    type_name = "gcp:projects/service:Service"
    immutable = ("service", "project")
    server_chosen = ("project",)
    defaults = {"disableOnDestroy": False}

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """A name of Google's."""
        yield from super().check(inputs)
        yield from matches(inputs, "service", r"[a-z0-9-]+\.googleapis\.com", 'as in "iam.googleapis.com"')

    def resource_id(self, inputs: Properties) -> str:
        return f"{inputs['project']}/{inputs['service']}"


class _Grant(Recorded):
    """One member's role on something."""

    in_project = False
    server_chosen = ()
    target: str

    def check(self, inputs: Properties) -> Iterable[Failure]:
        """IAM's writing of roles and members."""
        yield from super().check(inputs)
        kinds = (
            "user|serviceAccount|group|domain|principal|principalSet|projectOwner|projectEditor|projectViewer"
        )
        words = 'as in "serviceAccount:name@project.iam.gserviceaccount.com"'
        yield from matches(
            inputs, "member", rf"allUsers|allAuthenticatedUsers|(deleted:)?({kinds}):.+", words
        )
        pattern = r"roles/[\w.]+|(projects|organizations)/[^/]+/roles/[\w.]+"
        yield from matches(inputs, "role", pattern, 'as in "roles/storage.objectViewer"')

    def resource_id(self, inputs: Properties) -> str:
        return f"{inputs[self.target]}/{inputs['role']}/{inputs['member']}"

    def computed(self, resource_id: str, inputs: Properties) -> Properties:
        return {"etag": hashlib.sha256(resource_id.encode()).hexdigest()[:16]}


class BucketGrant(_Grant):
    """A role on a bucket."""

    type_name = "gcp:storage/bucketIAMMember:BucketIAMMember"
    target = "bucket"
    immutable = ("bucket", "role", "member", "condition")

    def resource_id(self, inputs: Properties) -> str:
        return f"b/{super().resource_id(inputs)}"


class CryptoKeyGrant(_Grant):
    """A role on a key."""

    type_name = "gcp:kms/cryptoKeyIAMMember:CryptoKeyIAMMember"
    target = "cryptoKeyId"
    immutable = ("cryptoKeyId", "role", "member", "condition")


class KeyRingGrant(_Grant):
    """A role on every key of a ring."""

    type_name = "gcp:kms/keyRingIAMMember:KeyRingIAMMember"
    target = "keyRingId"
    immutable = ("keyRingId", "role", "member", "condition")


class RepositoryGrant(_Grant):
    """A role on a registry."""

    type_name = "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember"
    target = "repository"
    in_project = True
    immutable = ("repository", "location", "project", "role", "member", "condition")
    server_chosen = ("project", "location")

    def preview_outputs(self, inputs: Properties) -> Properties:
        """The provider's region stands in for the location."""
        return super().preview_outputs(inputs) | {"location": inputs.get("location") or PROJECT.region}

    def resource_id(self, inputs: Properties) -> str:
        repository: str = inputs["repository"]
        if not repository.startswith("projects/"):
            repository = (
                f"projects/{inputs['project']}/locations/{inputs['location']}/repositories/{repository}"
            )
        return f"{repository}/{inputs['role']}/{inputs['member']}"


class ServiceAccountGrant(_Grant):
    """A role on a service account."""

    type_name = "gcp:serviceaccount/iAMMember:IAMMember"
    target = "serviceAccountId"
    immutable = ("serviceAccountId", "role", "member", "condition")


class ProjectGrant(_Grant):
    """A role on the whole project."""

    type_name = "gcp:projects/iAMMember:IAMMember"
    target = "project"
    immutable = ("project", "role", "member", "condition")


TYPES = (
    KeyRing(),
    CryptoKey(),
    ArtifactRepository(),
    ServiceAccount(),
    Pool(),
    PoolProvider(),
    Service(),
    BucketGrant(),
    CryptoKeyGrant(),
    KeyRingGrant(),
    RepositoryGrant(),
    ServiceAccountGrant(),
    ProjectGrant(),
)
