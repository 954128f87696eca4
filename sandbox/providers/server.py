"""Serves a :class:`~sandbox.providers.base.Provider` to the Pulumi engine over its gRPC protocol.

It stands on the SDK's generated service rather than on ``pulumi.provider.experimental``: that one
hands neither the old inputs to a diff nor an attachment or a failed initialisation to the engine.
"""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from sandbox import plugin
from sandbox.providers import schema
from sandbox.providers.base import Provider
from sandbox.providers.diff import changes
from sandbox.providers.values import decode, encode

_THREADS = 64
KINDS = {
    ("add", False): provider_pb2.PropertyDiff.ADD,
    ("add", True): provider_pb2.PropertyDiff.ADD_REPLACE,
    ("delete", False): provider_pb2.PropertyDiff.DELETE,
    ("delete", True): provider_pb2.PropertyDiff.DELETE_REPLACE,
    ("update", False): provider_pb2.PropertyDiff.UPDATE,
    ("update", True): provider_pb2.PropertyDiff.UPDATE_REPLACE,
}


def type_of(urn: str) -> str:
    """The resource type in a URN, as in ``aws:kms/key:Key``."""
    return urn.split("::", 3)[2].rpartition("$")[2]


def name_of(urn: str) -> str:
    """The resource's name in a URN."""
    return urn.split("::", 3)[3]


class ProviderServicer(provider_pb2_grpc.ResourceProviderServicer):
    """The engine's calls, each answered by the provider."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def Handshake(self, request: Any, context: Any) -> Any:
        return provider_pb2.ProviderHandshakeResponse()

    def Attach(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()

    def Cancel(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version=self._provider.version)

    def CheckConfig(self, request: Any, context: Any) -> Any:
        found = schema.unknown_settings(self._provider.package, decode(request.news))
        return provider_pb2.CheckResponse(inputs=request.news, failures=_failures(found))

    def DiffConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    def Configure(self, request: Any, context: Any) -> Any:
        with one_line(context, f"provider {self._provider.package}"):
            self._provider.configure(decode(request.args))
        return provider_pb2.ConfigureResponse(supportsPreview=True)

    def Invoke(self, request: Any, context: Any) -> Any:
        function = self._provider.functions.get(request.tok)
        if function is None:
            context.abort(
                grpc.StatusCode.UNIMPLEMENTED,
                f"{request.tok}: the sandbox's {self._provider.package} provider lacks this function; "
                f"add it in sandbox/providers/{self._provider.package}/",
            )
            raise AssertionError
        with one_line(context, request.tok):
            response = provider_pb2.InvokeResponse()
            # A keyword of Python, so the field can't be named in a call.
            getattr(response, "return").CopyFrom(encode(function(decode(request.args))))
            return response

    def Check(self, request: Any, context: Any) -> Any:
        with one_line(context, request.urn):
            inputs, failures = self._provider.check(
                type_of(request.urn),
                name_of(request.urn),
                decode(request.olds),
                decode(request.news),
                request.randomSeed,
            )
        return provider_pb2.CheckResponse(
            inputs=encode(inputs),
            failures=_failures(failures),
        )

    def Diff(self, request: Any, context: Any) -> Any:
        with one_line(context, request.urn):
            resource_type = self._provider.find_type(type_of(request.urn))
        old, new = decode(request.old_inputs), decode(request.news)
        found = changes(
            old,
            new,
            immutable=resource_type.immutable,
            documents=resource_type.documents,
        )
        top = [change.path.split(".", 1)[0].split("[", 1)[0] for change in found]
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME if found else provider_pb2.DiffResponse.DIFF_NONE,
            diffs=sorted(set(top)),
            replaces=sorted({name for name, change in zip(top, found, strict=True) if change.replaces}),
            deleteBeforeReplace=resource_type.delete_before_replace or resource_type.keeps_name(old, new),
            detailedDiff={
                change.path: provider_pb2.PropertyDiff(
                    kind=KINDS[change.kind, change.replaces], inputDiff=True
                )
                for change in found
            },
            hasDetailedDiff=True,
        )

    def Create(self, request: Any, context: Any) -> Any:
        with one_line(context, request.urn):
            resource_id, outputs = self._provider.create(
                type_of(request.urn), decode(request.properties), preview=request.preview
            )
        return provider_pb2.CreateResponse(id=resource_id, properties=encode(outputs))

    def Read(self, request: Any, context: Any) -> Any:
        with one_line(context, request.urn):
            found = self._provider.read(
                type_of(request.urn), request.id, decode(request.properties), decode(request.inputs)
            )
        if found is None:
            return provider_pb2.ReadResponse()
        outputs, inputs = found
        return provider_pb2.ReadResponse(id=request.id, properties=encode(outputs), inputs=encode(inputs))

    def Update(self, request: Any, context: Any) -> Any:
        with one_line(context, request.urn):
            outputs = self._provider.update(
                type_of(request.urn),
                request.id,
                decode(request.olds),
                decode(request.news),
                preview=request.preview,
            )
        return provider_pb2.UpdateResponse(properties=encode(outputs))

    def Delete(self, request: Any, context: Any) -> Any:
        with one_line(context, request.urn):
            self._provider.delete(type_of(request.urn), request.id, decode(request.properties))
        return empty_pb2.Empty()


def _failures(found: Iterable[schema.Failure]) -> list[Any]:
    return [provider_pb2.CheckFailure(property=one.path, reason=one.reason) for one in found]


class one_line:
    """Turns whatever a server's client raises into one line for a person, without a traceback."""

    def __init__(self, context: Any, place: str) -> None:
        self._context = context
        self._place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None or not isinstance(error, Exception):
            return
        if os.environ.get("KILO_DEBUG"):
            traceback.print_exc()
        text = " ".join(str(error).split()) or type(error).__name__
        self._context.abort(grpc.StatusCode.UNKNOWN, f"{self._place.split('::')[-1]}: {text}")


def serve(provider: Provider) -> None:
    """Serve a provider of resource types; see :func:`run`."""
    run(ProviderServicer(provider))


def run(servicer: ProviderServicer) -> None:
    """Serve until the engine goes away."""
    # The SDK's modules are hundreds of thousands of objects that stay, and are not to be looked through.
    gc.set_threshold(200_000, 20, 20)
    plugin.serve(
        lambda server: provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server),
        threads=_THREADS,
    )
