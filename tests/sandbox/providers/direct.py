"""A provider over its own gRPC protocol, asked what the engine asks, without the engine.

The engine costs seconds a command; what a provider answers is the same either way. That the engine does with
the answers what is expected is shown in ``tests/engine``.
"""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from sandbox.providers.base import Provider
from sandbox.providers.server import KINDS, ProviderServicer
from sandbox.providers.values import Properties, decode, encode

_WORDS = {wire: f"{verb}-replace" if replaces else verb for (verb, replaces), wire in KINDS.items()}


class Refused(Exception):
    """What Check said, one line a path."""


@dataclass
class Direct:
    """One resource named "one" on a provider that is being served."""

    stub: Any
    token: str

    @property
    def urn(self) -> str:
        return f"urn:pulumi:dev::trial::{self.token}::one"

    def check(self, inputs: Properties, olds: Properties | None = None) -> Properties:
        """The checked inputs, with defaults and a generated name."""
        request = provider_pb2.CheckRequest(
            urn=self.urn, olds=encode(olds or {}), news=encode(inputs), randomSeed=b"seed"
        )
        answer = self.stub.Check(request)
        if answer.failures:
            raise Refused("\n".join(f"{failure.property}: {failure.reason}" for failure in answer.failures))
        return decode(answer.inputs)

    def create(self, inputs: Properties, *, preview: bool = False) -> tuple[str, Properties]:
        """The id and the outputs."""
        request = provider_pb2.CreateRequest(urn=self.urn, properties=encode(inputs), preview=preview)
        answer = self.stub.Create(request)
        return answer.id, decode(answer.properties)

    def diff(self, old: Properties, new: Properties) -> dict[str, str]:
        """The kind of change by path, as in a detailed diff."""
        request = provider_pb2.DiffRequest(
            id="one", urn=self.urn, olds=encode(old), old_inputs=encode(old), news=encode(new)
        )
        answer = self.stub.Diff(request)
        changed = answer.changes == provider_pb2.DiffResponse.DIFF_SOME
        assert changed == bool(answer.detailedDiff)
        return {path: _WORDS[change.kind] for path, change in answer.detailedDiff.items()}

    def update(
        self, resource_id: str, old: Properties, new: Properties, *, preview: bool = False
    ) -> Properties:
        """The outputs after the change."""
        request = provider_pb2.UpdateRequest(
            id=resource_id, urn=self.urn, olds=encode(old), news=encode(new), preview=preview
        )
        return decode(self.stub.Update(request).properties)

    def read(
        self, resource_id: str, outputs: Properties, inputs: Properties
    ) -> tuple[Properties, Properties] | None:
        """Live outputs and inputs, None of what is gone."""
        request = provider_pb2.ReadRequest(
            id=resource_id, urn=self.urn, properties=encode(outputs), inputs=encode(inputs)
        )
        answer = self.stub.Read(request)
        return (decode(answer.properties), decode(answer.inputs)) if answer.id else None

    def delete(self, resource_id: str, outputs: Properties) -> None:
        self.stub.Delete(provider_pb2.DeleteRequest(id=resource_id, urn=self.urn, properties=encode(outputs)))

    def other(self, token: str) -> Direct:
        """A resource of another type on the same provider."""
        return Direct(self.stub, token)


@contextmanager
def served(provider: Provider, token: str, config: Properties) -> Generator[Direct]:
    """``provider`` on a port of its own, configured."""
    server = grpc.server(ThreadPoolExecutor(4))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(ProviderServicer(provider), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = provider_pb2_grpc.ResourceProviderStub(channel)
            stub.Configure(provider_pb2.ConfigureRequest(args=encode(config), acceptSecrets=False))
            yield Direct(stub, token)
    finally:
        server.stop(grace=None)
