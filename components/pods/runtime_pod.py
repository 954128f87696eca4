"""The pod of a platform process: the runtime image, its outputs file, its health port.

Every process reads the stack's outputs from a file, its database URL from the Secret of its own
role, and answers ``/livez``, ``/readyz`` and ``/metrics`` on one port.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

import pulumi

from components.clouds.cloud_identity import CloudIdentity
from components.pods.access import CLOUD_APIS, AccessArgs, From, To
from components.pods.bus_user import GENERATION, BusUsers
from components.pods.database_address import CA_FILE, DatabaseAddress
from components.pods.database_role import GENERATION as DATABASE_GENERATION
from components.pods.database_role import URL_KEY, DatabaseRole
from components.pods.pod import (
    GOOGLE_CREDENTIALS_CONFIG_MAP,
    GOOGLE_CREDENTIALS_DIRECTORY,
    ConfigFiles,
    HttpCheck,
    PodArgs,
    Scratch,
    SecretFiles,
    SecretKey,
)
from components.pods.stage_namespace import OUTPUTS_CONFIG_MAP, OUTPUTS_FILE
from kilo.bus.roles import BusRole
from kilo.callers import database_secret
from kilo.contract import OUTPUTS_MOUNT
from kilo.environment import OUTPUTS_VARIABLE
from kilo.observe.logs import LOG_VARIABLE
from kilo.observe.tracing import ENDPOINT_VARIABLE, SHARE_VARIABLE

HTTP = "http"
CHECKSUM = "kilo.dev/outputs-checksum"
_OUTPUTS_DIRECTORY = OUTPUTS_MOUNT.removesuffix(f"/{OUTPUTS_FILE}")
OUTPUTS = ConfigFiles(OUTPUTS_CONFIG_MAP, _OUTPUTS_DIRECTORY)
DATABASE_CA = f"{_OUTPUTS_DIRECTORY}/{CA_FILE}"
TENANTS_CHECKSUM = "kilo.dev/tenants-checksum"


@dataclass(frozen=True)
class RuntimeContext:
    """What all the platform's processes of a stage have in common."""

    namespace: str
    image: str
    aws_region: str
    google_project: str
    outputs_checksum: pulumi.Output[str]
    """Of the outputs without the tenants: pods which read them once are replaced when it changes."""
    tenants_checksum: pulumi.Output[str]
    """Of the tenants: what works for every tenant alike needs no new pod for one more."""
    database_network: str
    database: DatabaseAddress
    monitoring_namespace: str
    database_workload: str | None = None
    """The database, where it is a workload of the namespace and no network outside."""
    collector_url: str | None = None
    """Where processes that serve send their spans; none where there is no collector."""
    database_generation: int = 1
    """Which users of the database there are. Pods are replaced when it changes."""
    bus_users: BusUsers | None = None
    """Of the bus; ``None`` where it knows none."""

    def with_image(self, image: str) -> RuntimeContext:
        """The same context with another version."""
        return replace(self, image=image)


@dataclass(frozen=True)
class Process:
    """One kind of process: its command line and what it needs."""

    arguments: Sequence[pulumi.Input[str]]
    cpu_millicores: int
    memory_mebibytes: int
    port: int | None = None
    """Its health port; also given as ``--port``. ``None`` for work that runs to its end."""
    database_role: DatabaseRole | None = None
    bus_role: BusRole | None = None
    """As which it uses the bus, where that knows users."""
    secrets: Mapping[str, SecretKey] = field(default_factory=dict[str, SecretKey])
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    """What it has besides what all have."""
    identity: CloudIdentity | None = None
    reads_tenants: bool = False
    """Whether it reads the tenants in the outputs."""
    annotations: Mapping[str, str] = field(default_factory=dict[str, str])
    """On the pods: a change of one replaces them."""
    files: Sequence[ConfigFiles] = ()
    """ConfigMaps that it reads besides the outputs."""
    scratch: Sequence[Scratch] = (Scratch("/tmp", 64),)  # noqa: S108  the pod's own
    stop_seconds: int = 30
    copies: int = 1
    """How many of it run, which share each tenant's allowance of spans."""


def database_ca(database: DatabaseAddress) -> dict[str, str]:
    """The variable by which libpq finds the certificates that the server is known by, if there are any."""
    return {"PGSSLROOTCERT": DATABASE_CA} if database.has_ca else {}


def database_egress(context: RuntimeContext) -> To:
    """What a process that uses the database connects to."""
    if context.database_workload:
        return To(port=context.database.port, workload=context.database_workload)
    return To(port=context.database.port, network=context.database_network)


def runtime_pod(context: RuntimeContext, process: Process) -> PodArgs:
    """The pod of ``process``."""
    files: list[ConfigFiles | SecretFiles] = [OUTPUTS, *process.files]
    if process.identity and process.identity.google_identity_provider:
        files.append(ConfigFiles(GOOGLE_CREDENTIALS_CONFIG_MAP, GOOGLE_CREDENTIALS_DIRECTORY))
    environment = {OUTPUTS_VARIABLE: OUTPUTS_MOUNT, LOG_VARIABLE: "json", **process.environment}
    if context.collector_url and process.port is not None:
        environment[ENDPOINT_VARIABLE] = context.collector_url
        environment[SHARE_VARIABLE] = str(1 / process.copies)
    if process.identity and process.identity.google_identity_provider:
        environment["GOOGLE_CLOUD_PROJECT"] = context.google_project
    secrets = dict(process.secrets)
    identity = _identity(context, process)
    annotations: dict[str, pulumi.Input[str]] = {**process.annotations, CHECKSUM: context.outputs_checksum}
    if process.database_role:
        secrets[URL_KEY] = SecretKey(database_secret(process.database_role), URL_KEY)
        annotations[DATABASE_GENERATION] = str(context.database_generation)
        environment |= database_ca(context.database)
    if process.reads_tenants:
        annotations[TENANTS_CHECKSUM] = context.tenants_checksum
    if process.bus_role and (users := context.bus_users):
        secrets |= users.variables(process.bus_role)
        environment |= users.places()
        files.append(users.files(process.bus_role))
        annotations[GENERATION] = users.generation
    serves = process.port is not None
    return PodArgs(
        image=context.image,
        arguments=[*process.arguments, "--port", str(process.port)] if serves else process.arguments,
        environment=environment,
        secrets=secrets,
        files=files,
        scratch=process.scratch,
        ports={HTTP: process.port} if process.port is not None else {},
        alive=HttpCheck("/livez", HTTP) if serves else None,
        ready=HttpCheck("/readyz", HTTP) if serves else None,
        cpu_millicores=process.cpu_millicores,
        memory_mebibytes=process.memory_mebibytes,
        stop_seconds=process.stop_seconds,
        identity=identity,
        aws_region=context.aws_region,
        annotations=annotations,
    )


def runtime_access(
    context: RuntimeContext, process: Process, *, ingress: Sequence[From] = (), egress: Sequence[To] = ()
) -> AccessArgs:
    """The network of ``process``: what it is asked for here, and what its settings imply."""
    admitted, reached = list(ingress), list(egress)
    if process.port is not None:
        admitted.append(From(port=process.port, namespace=context.monitoring_namespace))
    if process.database_role:
        reached.append(database_egress(context))
    identity = _identity(context, process)
    if identity:
        reached.append(CLOUD_APIS)
    if context.collector_url and process.port is not None:
        reached.append(_collector(context.collector_url))
    return AccessArgs(namespace=context.namespace, identity=identity, ingress=admitted, egress=reached)


def _identity(context: RuntimeContext, process: Process) -> CloudIdentity | None:
    if process.identity is None and process.bus_role and context.bus_users:
        return context.bus_users.identities.get(process.bus_role)
    return process.identity


def _collector(url: str) -> To:
    address = urlsplit(url)
    return To(port=address.port or 80, workload=(address.hostname or "").partition(".")[0])
