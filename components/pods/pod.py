"""The hardened pod that every workload runs in.

Non-root with a read-only root filesystem, no capabilities, no privilege escalation, the runtime's
default seccomp profile, no token of the cluster's API, spread over zones and nodes. There is no
switch to turn any of it off: a program that needs to write gets a scratch directory.

A pod tells its container its own address as ``POD_IP``, to which it binds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi
from pulumi_kubernetes import core, meta

from components.clouds.cloud_identity import CloudIdentity
from components.pods.labels import labels, selector

USER_ID = 10_001
GOOGLE_CREDENTIALS_CONFIG_MAP = "google-credentials"
GOOGLE_CREDENTIALS_FILE = "credentials.json"
GOOGLE_CREDENTIALS_DIRECTORY = "/etc/google"
GOOGLE_TOKEN_DIRECTORY = "/var/run/secrets/google"  # noqa: S105  a directory, no token
GOOGLE_TOKEN_FILE = "token"  # noqa: S105  a file name, no token


@dataclass(frozen=True)
class SecretKey:
    """One key of a Secret in the workload's namespace."""

    secret: pulumi.Input[str]
    key: str


@dataclass(frozen=True)
class ConfigFiles:
    """A ConfigMap as a read-only directory."""

    config_map: pulumi.Input[str]
    directory: str


@dataclass(frozen=True)
class SecretFiles:
    """A Secret of the workload's namespace as a read-only directory; a change of it reaches running pods."""

    secret: str
    directory: str


@dataclass(frozen=True)
class Scratch:
    """A directory that may be written and goes with the pod."""

    directory: str
    size_mebibytes: int
    shared: str | None = None
    """A name, by which the pod's other containers have the same directory."""
    storage_class: str | None = None
    """Where it is to be a disk of its own, which is made with the pod, rather than a part of the node's."""

    def volume(self, prefix: str, index: int) -> str:
        """What its volume is called."""
        return self.shared or f"{prefix}scratch-{index}"


@dataclass(frozen=True)
class HttpCheck:
    """An HTTP GET that answers 200 when all is well."""

    path: str
    port: str | int
    """By name, or by number when it is another container's of the pod."""


@dataclass(frozen=True)
class CommandCheck:
    """A command in the container that exits with 0 when all is well, for what speaks no HTTP."""

    command: Sequence[str]


@dataclass(frozen=True)
class PodArgs:
    """One container and what it needs."""

    image: str
    arguments: Sequence[pulumi.Input[str]]
    cpu_millicores: int
    memory_mebibytes: int
    command: Sequence[str] | None = None
    environment: Mapping[str, pulumi.Input[str]] = field(default_factory=dict[str, "pulumi.Input[str]"])
    secrets: Mapping[str, SecretKey] = field(default_factory=dict[str, SecretKey])
    files: Sequence[ConfigFiles | SecretFiles] = ()
    scratch: Sequence[Scratch] = ()
    ports: Mapping[str, int] = field(default_factory=dict[str, int])
    alive: HttpCheck | CommandCheck | None = None
    started: HttpCheck | CommandCheck | None = None
    """Says that it is alive for the first time, where that is another check."""
    ready: HttpCheck | CommandCheck | None = None
    apart: bool = False
    """Whether no two of its pods may be on one node: better one too few than two that end together."""
    start_seconds: int = 60
    """How long the container may take until it is alive."""
    before_stop: HttpCheck | int | None = None
    """What is asked before SIGTERM and waited for, or seconds to wait: until others have noticed that the
    pod goes, and use another."""
    stop_seconds: int = 30
    """How long it may take to stop, what comes before SIGTERM included."""
    identity: CloudIdentity | None = None
    aws_region: str | None = None
    annotations: Mapping[str, pulumi.Input[str]] = field(default_factory=dict[str, "pulumi.Input[str]"])
    sidecars: Mapping[str, PodArgs] = field(default_factory=dict[str, "PodArgs"])
    """Containers that start before it and run as long as it does, by name."""


def pod_template(
    name: str,
    args: PodArgs,
    *,
    restart_policy: str = "Always",
    volume_mounts: Sequence[core.v1.VolumeMountArgs] = (),
) -> core.v1.PodTemplateSpecArgs:
    """The pod template of the workload ``name``.

    ``volume_mounts`` are of volumes that the caller brings, such as a StatefulSet's claims.
    """
    return core.v1.PodTemplateSpecArgs(
        metadata=meta.v1.ObjectMetaArgs(labels=labels(name), annotations=_annotations(args)),
        spec=core.v1.PodSpecArgs(
            service_account_name=name,
            automount_service_account_token=False,
            enable_service_links=False,
            restart_policy=restart_policy,
            termination_grace_period_seconds=args.stop_seconds,
            security_context=core.v1.PodSecurityContextArgs(
                run_as_non_root=True,
                run_as_user=USER_ID,
                run_as_group=USER_ID,
                fs_group=USER_ID,
                seccomp_profile=core.v1.SeccompProfileArgs(type="RuntimeDefault"),
            ),
            affinity=_apart(name) if args.apart else None,
            topology_spread_constraints=[
                core.v1.TopologySpreadConstraintArgs(
                    max_skew=1,
                    topology_key=key,
                    when_unsatisfiable="ScheduleAnyway",
                    label_selector=meta.v1.LabelSelectorArgs(match_labels=selector(name)),
                )
                for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
            ],
            init_containers=[
                _container(sidecar, of_it, (), volumes=f"{sidecar}-", restart_policy="Always")
                for sidecar, of_it in args.sidecars.items()
            ]
            or None,
            containers=[_container(name, args, volume_mounts)],
            volumes=[
                *_volumes(args),
                *(
                    volume
                    for sidecar, of_it in args.sidecars.items()
                    for volume in _volumes(of_it, f"{sidecar}-")
                ),
            ],
        ),
    )


def _apart(name: str) -> core.v1.AffinityArgs:
    return core.v1.AffinityArgs(
        pod_anti_affinity=core.v1.PodAntiAffinityArgs(
            required_during_scheduling_ignored_during_execution=[
                core.v1.PodAffinityTermArgs(
                    topology_key="kubernetes.io/hostname",
                    label_selector=meta.v1.LabelSelectorArgs(match_labels=selector(name)),
                )
            ]
        )
    )


def _annotations(args: PodArgs) -> dict[str, pulumi.Input[str]]:
    found: dict[str, pulumi.Input[str]] = {}
    for each in (*args.sidecars.values(), args):
        found.update(each.annotations)
    return found


def _container(
    name: str,
    args: PodArgs,
    volume_mounts: Sequence[core.v1.VolumeMountArgs],
    *,
    volumes: str = "",
    restart_policy: str | None = None,
) -> core.v1.ContainerArgs:
    """A container; ``volumes`` is what the names of its own volumes begin with."""
    mounts = [
        core.v1.VolumeMountArgs(name=f"{volumes}files-{index}", mount_path=files.directory, read_only=True)
        for index, files in enumerate(args.files)
    ]
    mounts += [
        core.v1.VolumeMountArgs(name=scratch.volume(volumes, index), mount_path=scratch.directory)
        for index, scratch in enumerate(args.scratch)
    ]
    if _google(args):
        mounts.append(
            core.v1.VolumeMountArgs(name="google-token", mount_path=GOOGLE_TOKEN_DIRECTORY, read_only=True)
        )
    return core.v1.ContainerArgs(
        name=name,
        image=args.image,
        image_pull_policy="IfNotPresent",
        restart_policy=restart_policy,
        command=list(args.command) if args.command else None,
        args=list(args.arguments),
        env=_environment(args),
        ports=[
            core.v1.ContainerPortArgs(name=port, container_port=number, protocol="TCP")
            for port, number in args.ports.items()
        ],
        resources=core.v1.ResourceRequirementsArgs(
            requests={"cpu": f"{args.cpu_millicores}m", "memory": f"{args.memory_mebibytes}Mi"},
            # No CPU limit: throttling adds latency and frees nothing that a request doesn't already share.
            limits={"memory": f"{args.memory_mebibytes}Mi"},
        ),
        security_context=core.v1.SecurityContextArgs(
            allow_privilege_escalation=False,
            privileged=False,
            read_only_root_filesystem=True,
            run_as_non_root=True,
            capabilities=core.v1.CapabilitiesArgs(drop=["ALL"]),
        ),
        startup_probe=_probe(args.started or args.alive, period_seconds=1, failures=args.start_seconds),
        liveness_probe=_probe(args.alive, period_seconds=10, failures=3),
        readiness_probe=_probe(args.ready, period_seconds=2, failures=2),
        lifecycle=_lifecycle(args.before_stop),
        volume_mounts=[*mounts, *volume_mounts],
    )


def _google(args: PodArgs) -> str | None:
    return args.identity.google_identity_provider if args.identity else None


def _environment(args: PodArgs) -> list[core.v1.EnvVarArgs]:
    values: dict[str, pulumi.Input[str]] = dict(args.environment)
    if args.identity and args.aws_region:
        values["AWS_DEFAULT_REGION"] = args.aws_region
    if _google(args):
        values["GOOGLE_APPLICATION_CREDENTIALS"] = f"{GOOGLE_CREDENTIALS_DIRECTORY}/{GOOGLE_CREDENTIALS_FILE}"
    fields = {"POD_IP": "status.podIP", "POD_NAME": "metadata.name"}
    return [
        *(
            core.v1.EnvVarArgs(
                name=name,
                value_from=core.v1.EnvVarSourceArgs(
                    field_ref=core.v1.ObjectFieldSelectorArgs(field_path=path)
                ),
            )
            for name, path in fields.items()
        ),
        *(core.v1.EnvVarArgs(name=name, value=value) for name, value in values.items()),
        *(
            core.v1.EnvVarArgs(
                name=name,
                value_from=core.v1.EnvVarSourceArgs(
                    secret_key_ref=core.v1.SecretKeySelectorArgs(name=secret.secret, key=secret.key)
                ),
            )
            for name, secret in args.secrets.items()
        ),
    ]


def _volumes(args: PodArgs, prefix: str = "") -> list[core.v1.VolumeArgs]:
    volumes = [_file_volume(f"{prefix}files-{index}", files) for index, files in enumerate(args.files)]
    volumes += [
        _scratch_volume(scratch.volume(prefix, index), scratch)
        for index, scratch in enumerate(args.scratch)
        # What is shared is the pod's, and made for the container that is not beside another.
        if not (prefix and scratch.shared)
    ]
    provider = _google(args)
    if provider:
        volumes.append(
            core.v1.VolumeArgs(
                name="google-token",
                projected=core.v1.ProjectedVolumeSourceArgs(
                    sources=[
                        core.v1.VolumeProjectionArgs(
                            service_account_token=core.v1.ServiceAccountTokenProjectionArgs(
                                path=GOOGLE_TOKEN_FILE,
                                audience=f"//iam.googleapis.com/{provider}",
                                expiration_seconds=3_600,
                            )
                        ),
                    ]
                ),
            )
        )
    return volumes


def _scratch_volume(name: str, scratch: Scratch) -> core.v1.VolumeArgs:
    size = f"{scratch.size_mebibytes}Mi"
    if scratch.storage_class is None:
        return core.v1.VolumeArgs(name=name, empty_dir=core.v1.EmptyDirVolumeSourceArgs(size_limit=size))
    # https://kubernetes.io/docs/concepts/storage/ephemeral-volumes/#generic-ephemeral-volumes
    claim = core.v1.PersistentVolumeClaimTemplateArgs(
        spec=core.v1.PersistentVolumeClaimSpecArgs(
            access_modes=["ReadWriteOnce"],
            storage_class_name=scratch.storage_class,
            resources=core.v1.VolumeResourceRequirementsArgs(requests={"storage": size}),
        )
    )
    return core.v1.VolumeArgs(
        name=name, ephemeral=core.v1.EphemeralVolumeSourceArgs(volume_claim_template=claim)
    )


def _file_volume(name: str, files: ConfigFiles | SecretFiles) -> core.v1.VolumeArgs:
    if isinstance(files, SecretFiles):
        # Of the pod's group and nobody else's (fs_group).
        source = core.v1.SecretVolumeSourceArgs(secret_name=files.secret, default_mode=0o440)
        return core.v1.VolumeArgs(name=name, secret=source)
    return core.v1.VolumeArgs(name=name, config_map=core.v1.ConfigMapVolumeSourceArgs(name=files.config_map))


def _lifecycle(before_stop: HttpCheck | int | None) -> core.v1.LifecycleArgs | None:
    if before_stop is None:
        return None
    if isinstance(before_stop, int):
        handler = core.v1.LifecycleHandlerArgs(sleep=core.v1.SleepActionArgs(seconds=before_stop))
    else:
        get = core.v1.HTTPGetActionArgs(path=before_stop.path, port=before_stop.port)
        handler = core.v1.LifecycleHandlerArgs(http_get=get)
    return core.v1.LifecycleArgs(pre_stop=handler)


def _probe(
    check: HttpCheck | CommandCheck | None, *, period_seconds: int, failures: int
) -> core.v1.ProbeArgs | None:
    if check is None:
        return None
    asked = isinstance(check, HttpCheck)
    return core.v1.ProbeArgs(
        http_get=core.v1.HTTPGetActionArgs(path=check.path, port=check.port) if asked else None,
        exec_=None if asked else core.v1.ExecActionArgs(command=list(check.command)),
        period_seconds=period_seconds,
        timeout_seconds=2,
        failure_threshold=failures,
    )
