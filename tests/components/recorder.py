"""Records what a program registers with the engine: inputs *and* options, without an engine.

Pulumi's own mocks show a resource's inputs alone. This monitor sees the request as the engine gets
it, so tests can assert that a key is protected, who a resource's parent is, what a name replaces.
Each recording has a runtime of its own: nothing of one test reaches another.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pulumi.runtime import rpc
from pulumi.runtime.mocks import MockCallArgs, MockEngine, MockMonitor, MockResourceArgs, Mocks, MockSettings
from pulumi.runtime.settings import configure
from pulumi.runtime.stack import run_in_stack

SECRETS = ("generated-password",)


@dataclass(frozen=True)
class Recorded:
    """One registration."""

    type: str
    name: str
    urn: str
    parent: str
    custom: bool
    inputs: dict[str, Any]
    secret_inputs: frozenset[str]
    protect: bool
    retain_on_delete: bool
    delete_before_replace: bool
    aliases: tuple[str, ...]
    provider: str
    dependencies: frozenset[str]


@dataclass
class Recording:
    """All that a program registered, and what it exported."""

    resources: list[Recorded] = field(default_factory=list[Recorded])
    outputs: dict[str, Any] = field(default_factory=dict[str, Any])
    outputs_hold_secrets: bool = False

    def of(self, type_: str) -> list[Recorded]:
        """Every resource of a type."""
        return [resource for resource in self.resources if resource.type == type_]

    def one(self, type_: str, name: str | None = None) -> Recorded:
        """The only resource of a type, or the one of that name."""
        found = [resource for resource in self.of(type_) if name in (None, resource.name)]
        names = [resource.name for resource in self.of(type_)]
        assert len(found) == 1, f"{len(found)} resources {type_} {name or ''}; there are {names}"
        return found[0]

    def by_urn(self, urn: str) -> Recorded:
        """The resource of that URN."""
        return next(resource for resource in self.resources if resource.urn == urn)


def multi_region_key_arn(name: str) -> str:
    """The ARN that a multi-region key of that name gets."""
    return f"arn:aws:kms:eu-central-1:123456789012:key/mrk-{name.encode().hex()}"


class _Answers(Mocks):
    """What the clouds would say: the least that the program asks of them."""

    def __init__(self, more: Mapping[str, Mapping[str, Any]]) -> None:
        self._more = more

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        answers: dict[str, Any] = {**args.inputs, **self._more.get(args.typ, {})}
        name = args.inputs.get("name") or args.inputs.get("bucket") or args.name
        service = args.typ.partition("/")[0].replace("aws:", "")
        if args.typ.startswith("aws:"):
            answers["arn"] = f"arn:aws:{service}:::{name}"
        match args.typ:
            case "aws:kms/key:Key":
                answers["keyId"] = f"{args.name}-key-id"
                if args.inputs.get("multiRegion"):
                    answers["arn"] = multi_region_key_arn(args.name)
            case "aws:kms/replicaKey:ReplicaKey":
                whose = args.inputs["primaryKeyArn"].partition(":123456789012:")[2]
                answers["arn"] = f"arn:aws:kms:{args.inputs['region']}:123456789012:{whose}"
            case "aws:ecr/repository:Repository":
                answers["repositoryUrl"] = f"123456789012.dkr.ecr.eu-central-1.amazonaws.com/{name}"
            case "aws:s3/bucket:Bucket":
                answers["region"] = "eu-central-1"
            case "aws:sqs/queue:Queue":
                answers["url"] = f"https://sqs.eu-central-1.amazonaws.com/123456789012/{name}"
            case "gcp:artifactregistry/repository:Repository":
                place, project = args.inputs["location"], args.inputs["project"]
                answers["name"] = args.inputs["repositoryId"]
                answers["registryUri"] = f"{place}-docker.pkg.dev/{project}/{args.inputs['repositoryId']}"
            case "random:index/randomPassword:RandomPassword":
                answers["result"] = f"generated-password-{args.name}"
                answers["bcryptHash"] = f"$2a$10$generated-password-{args.name}"
            case _:
                pass
        return f"{args.name}-id", answers

    def call(self, args: MockCallArgs) -> Any:
        msg = f"the program calls {args.token}, which nothing here answers"
        raise AssertionError(msg)


class _Monitor(MockMonitor):
    def __init__(self, recording: Recording, stack: str, answers: _Answers) -> None:
        super().__init__(answers)
        self._recording = recording
        self._stack = stack

    def make_urn(self, parent: str, type_: str, name: str) -> str:
        above = parent.split("::")[2].removeprefix("pulumi:pulumi:Stack$") if parent else ""
        inside = above and above != "pulumi:pulumi:Stack"
        return (
            f"urn:pulumi:{self._stack}::kilo::{above}${type_}::{name}"
            if inside
            else (f"urn:pulumi:{self._stack}::kilo::{type_}::{name}")
        )

    def RegisterResource(self, request: Any) -> Any:
        response = super().RegisterResource(request)
        if request.type != "pulumi:pulumi:Stack":
            plain = rpc.deserialize_properties(request.object, keep_unknowns=True)
            self._recording.resources.append(
                Recorded(
                    type=request.type,
                    name=request.name,
                    urn=response.urn,
                    parent=request.parent,
                    custom=request.custom,
                    inputs=_plain(plain),
                    secret_inputs=frozenset(key for key, value in plain.items() if _holds_secret(value)),
                    protect=request.protect,
                    retain_on_delete=request.retainOnDelete,
                    delete_before_replace=request.deleteBeforeReplace,
                    aliases=tuple(alias.spec.name or alias.urn for alias in request.aliases),
                    provider=request.provider,
                    dependencies=frozenset(request.dependencies),
                )
            )
        return response

    def RegisterResourceOutputs(self, request: Any) -> Any:
        if request.urn.split("::")[2] == "pulumi:pulumi:Stack":
            found = rpc.deserialize_properties(request.outputs, keep_unknowns=True)
            self._recording.outputs = _plain(found)
            self._recording.outputs_hold_secrets = _holds_secret(found)
        return super().RegisterResourceOutputs(request)


def record(
    program: Callable[[], object],
    *,
    stack: str = "dev",
    preview: bool = False,
    answers: Mapping[str, Mapping[str, Any]] | None = None,
) -> Recording:
    """Run ``program`` as the engine would, and return all that it registered.

    ``answers`` are output properties by the type of a resource, or a function's token, besides those that
    the clouds here know.

    Raises whatever the program raises.
    """
    recording = Recording()

    def run() -> None:
        monitor = _Monitor(recording, stack, _Answers(answers or {}))
        configure(
            MockSettings(
                monitor=monitor,
                engine=MockEngine(None),
                project="kilo",
                stack=stack,
                dry_run=preview,
                organization="organization",
            )
        )

        async def main() -> None:
            program()

        asyncio.run(run_in_stack(main))

    contextvars.copy_context().run(run)
    return recording


def _holds_secret(value: Any) -> bool:
    if rpc.is_rpc_secret(value):
        return True
    if isinstance(value, Mapping):
        return any(_holds_secret(inner) for inner in value.values())
    return isinstance(value, list) and any(_holds_secret(inner) for inner in value)


def _plain(value: Any) -> Any:
    if rpc.is_rpc_secret(value):
        return _plain(rpc.unwrap_rpc_secret(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value
