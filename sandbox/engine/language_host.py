"""``pulumi-language-python``: runs Python programs and policy packs for the engine.

It stands in for the official language host, which is not on the Go module proxy, and is used only
where no official one is on PATH. It behaves as that one does: a program runs in a process of its
own, with the virtual environment's interpreter, in the program's directory and by ``runpy``.
It does not install dependencies, generate code or attach a debugger.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import empty_pb2
from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2

from sandbox.plugin import serve

# The program has said itself what went wrong; the engine then adds nothing to it.
EXIT_EXPLAINED = 32
_ANALYZER = "analyzer"


def interpreter(info: Any) -> str:
    """The Python that runs the program: of ``options.virtualenv`` in Pulumi.yaml, else our own.

    Raises:
        FileNotFoundError: the virtual environment is not there.
    """
    option = dict(info.options).get("virtualenv")
    if not option:
        return sys.executable
    path = Path(info.root_directory, option, "bin", "python")
    if not path.exists():
        msg = f"Pulumi.yaml: runtime.options.virtualenv: {path.parent.parent} is not a virtual environment"
        raise FileNotFoundError(msg)
    return str(path)


class LanguageHost(language_pb2_grpc.LanguageRuntimeServicer):
    """The engine's calls."""

    def __init__(self, engine_address: str) -> None:
        self._engine_address = engine_address
        self._running: set[subprocess.Popen[bytes]] = set()

    def Handshake(self, request: Any, context: Any) -> Any:
        self._engine_address = request.engine_address
        return language_pb2.LanguageHandshakeResponse()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version=importlib.metadata.version("pulumi"))

    def GetRequiredPackages(self, request: Any, context: Any) -> Any:
        # Naming none keeps the engine from downloading any: the providers are on PATH.
        return language_pb2.GetRequiredPackagesResponse()

    def GetRequiredPlugins(self, request: Any, context: Any) -> Any:
        return language_pb2.GetRequiredPluginsResponse()

    def About(self, request: Any, context: Any) -> Any:
        return language_pb2.AboutResponse(executable=sys.executable, version=platform.python_version())

    def GetProgramDependencies(self, request: Any, context: Any) -> Any:
        installed = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
        return language_pb2.GetProgramDependenciesResponse(
            dependencies=[
                language_pb2.DependencyInfo(name=name, version=version)
                for name, version in sorted(installed.items())
            ]
        )

    def InstallDependencies(self, request: Any, context: Any) -> Any:
        yield language_pb2.InstallDependenciesResponse(
            stdout=b"This language host installs nothing: install the project into its virtual environment.\n"
        )

    def Cancel(self, request: Any, context: Any) -> Any:
        self.stop()
        return empty_pb2.Empty()

    def Run(self, request: Any, context: Any) -> Any:
        settings = {
            "monitor": request.monitor_address,
            "engine": self._engine_address,
            "project": request.project,
            "stack": request.stack,
            "organization": request.organization or "organization",
            "root_directory": request.info.root_directory,
            "parallel": request.parallel,
            "dry_run": request.dryRun,
            "config": dict(request.config),
            "secret_keys": list(request.configSecretKeys),
            "pwd": request.pwd or request.info.program_directory,
            "program": request.info.entry_point or ".",
            "arguments": list(request.args),
        }
        try:
            command = [interpreter(request.info), "-u", str(Path(__file__).with_name("program.py"))]
        except FileNotFoundError as error:
            return language_pb2.RunResponse(error=str(error))
        code = self._wait(subprocess.Popen(command, stdin=subprocess.PIPE), json.dumps(settings).encode())
        if code == EXIT_EXPLAINED:
            return language_pb2.RunResponse(bail=True)
        error = f"program exited with non-zero exit code: {code}" if code else ""
        return language_pb2.RunResponse(error=error)

    def _wait(self, process: subprocess.Popen[bytes], settings: bytes) -> int:
        self._running.add(process)
        try:
            process.communicate(settings)
        finally:
            self._running.discard(process)
        return process.returncode

    def RunPlugin(self, request: Any, context: Any) -> Iterator[Any]:
        directory = request.info.program_directory
        command = [interpreter(request.info), "-u"]
        if request.kind == _ANALYZER:
            command += ["-m", "pulumi.policy", *request.args, directory]
        else:
            command += [directory, *request.args]
        process = subprocess.Popen(
            command,
            cwd=directory if request.kind == _ANALYZER else request.pwd or directory,
            env=dict(item.split("=", 1) for item in request.env) if request.env else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )
        self._running.add(process)
        context.add_callback(process.terminate)
        try:
            for name, chunk in _chunks(process):
                yield _written(name, chunk)
            yield language_pb2.RunPluginResponse(exitcode=process.wait())
        finally:
            self._running.discard(process)

    def stop(self) -> None:
        """Interrupt what runs."""
        for process in list(self._running):
            process.send_signal(signal.SIGINT)


def _written(name: str, chunk: bytes) -> Any:
    if name == "stdout":
        return language_pb2.RunPluginResponse(stdout=chunk)
    return language_pb2.RunPluginResponse(stderr=chunk)


def _chunks(process: subprocess.Popen[bytes]) -> Iterator[tuple[str, bytes]]:
    """What a process writes, as it writes it, until both its outputs are closed."""
    written: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()

    def pump(name: str, stream: Any) -> None:
        while chunk := stream.read1(65536):
            written.put((name, chunk))
        written.put((name, b""))

    outputs = {"stdout": process.stdout, "stderr": process.stderr}
    for name, stream in outputs.items():
        threading.Thread(target=pump, args=(name, stream), daemon=True).start()
    left = len(outputs)
    while left:
        name, chunk = written.get()
        if chunk:
            yield name, chunk
        else:
            left -= 1


def main() -> None:
    """Serve until the engine goes away; the port is the first line on standard output."""
    addresses = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    host = LanguageHost(addresses[0] if addresses else "")
    serve(lambda server: language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, server), threads=16)
    host.stop()


if __name__ == "__main__":
    main()
