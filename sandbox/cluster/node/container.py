"""One container: its process, its restarts, its probes, its state.

The process is told to stop as a container's is: the preStop hook, SIGTERM to the process alone, SIGKILL to
its whole group when the grace period is over. Restarts back off as with the kubelet's
``ReduceDefaultCrashLoopBackOffDecay``: at once, then 1 s, doubled up to a minute, anew after ten minutes
of running.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kilo.testing.servers.process import command, signal_group, tail
from sandbox.cluster.node import probes
from sandbox.cluster.node.environment import command_line, environment
from sandbox.cluster.node.images import Image, ImageError, Images
from sandbox.cluster.node.logs import LogReader
from sandbox.cluster.node.lookup import Lookup, MissingReference
from sandbox.cluster.node.volumes import FileSystem, VolumeError
from sandbox.cluster.objects import Object, timestamp
from sandbox.servers.leftovers import inherited

_FIRST_DELAY, _LAST_DELAY = 1.0, 60.0
_CALM_SECONDS = 600
_REFERENCE_DELAY = 1.0
_CANNOT_RUN = 128
_MESSAGE_LINES = 10


@dataclass
class ContainerContext:
    """What a container needs to know of the node and its pod."""

    pod: Object
    address: str
    images: Images
    lookup: Lookup
    logs: LogReader
    injected: Mapping[str, str]
    changed: Callable[[], None]
    grace_seconds: float = 30
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when something that a pod refers to may have come to be."""


class Container:
    """Runs one container until its restart policy is content.

    Args:
        spec: the container's specification.
        files: its mounts.
        context: its pod and the node.
        restarts: how often it was restarted before, in an earlier life of the node.
        last_state: how its last run ended.
        policy: when it is restarted.
    """

    def __init__(
        self,
        spec: Object,
        files: FileSystem,
        context: ContainerContext,
        *,
        policy: str,
        restarts: int = 0,
        last_state: Object | None = None,
    ) -> None:
        self.spec = spec
        self.name: str = spec["name"]
        self.files = files
        self.restarts = restarts
        self.ready = False
        self.has_started = asyncio.Event()
        self.state: Object = {"waiting": {"reason": "PodInitializing"}}
        self._policy = policy
        self._last_state = last_state or {}
        self._context = context
        self._process: asyncio.subprocess.Process | None = None
        self._environment: dict[str, str] = {}
        self._stopping = False
        self._crashes = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Run until it is content; the last exit code."""
        while True:
            began = time.monotonic()
            code = await self._run_once()
            if self._stopping or self._is_content(code):
                return code
            if time.monotonic() - began > _CALM_SECONDS:
                self._crashes = 0
            await self._back_off(code)
            if self._stopping:
                return code
            self.restarts += 1

    def _is_content(self, code: int) -> bool:
        return self._policy == "Never" or (self._policy == "OnFailure" and code == 0)

    async def _back_off(self, code: int) -> None:
        self._last_state = self.state
        if self._crashes:
            delay = min(_FIRST_DELAY * 2 ** (self._crashes - 1), _LAST_DELAY)
            message = f"back-off {delay:.0f}s restarting failed container={self.name}, last exit code {code}"
            self._wait("CrashLoopBackOff", message)
            await self._pause(delay)
        self._crashes += 1

    async def _run_once(self) -> int:
        try:
            process = await self._start()
        except (ImageError, OSError, VolumeError) as error:
            self._set(
                {"terminated": self._terminated(_CANNOT_RUN, str(error), timestamp(), "ContainerCannotRun")}
            )
            return _CANNOT_RUN
        if self._stopping:
            signal_group(process.pid, signal.SIGKILL)
        began = timestamp()
        self._set({"running": {"startedAt": began}})
        self._begin_probes()
        try:
            code = await process.wait()
        finally:
            self._end_probes()
            # A container ends with its first process; nothing of it may stay.
            signal_group(process.pid, signal.SIGKILL)
        code = code if code >= 0 else 128 - code
        self.ready = False
        self.has_started.clear()
        message = "" if code == 0 else tail(self._log_path(), _MESSAGE_LINES)
        self._set(
            {"terminated": self._terminated(code, message, began, "Completed" if code == 0 else "Error")}
        )
        return code

    async def _start(self) -> asyncio.subprocess.Process:
        variables = await self._refer()
        image = await self._pull()
        self._environment = self._whole_environment(variables, image)
        argv = command_line(self.spec, image.entrypoint, image.arguments, variables)
        argv = [self.files.text.replace(word) for word in argv]
        with self._log_path().open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command([image.find(argv[0]), *argv[1:]]),
                cwd=self._working_directory(image),
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self._process

    async def _refer(self) -> dict[str, str]:
        """Mounts and variables, as soon as all that they refer to is there."""
        context = self._context
        while True:
            try:
                self.files.prepare()
                return environment(context.pod, self.spec, context.address, context.lookup)
            except MissingReference as error:
                self._wait("CreateContainerConfigError", str(error))
                await self._pause(_REFERENCE_DELAY)
                if self._stopping:
                    raise VolumeError(str(error)) from error

    async def _pull(self) -> Image:
        """The image, waited for in vain if nothing stands for it."""
        delay = _FIRST_DELAY
        while True:
            try:
                # The first use of a program may build or download it.
                return await asyncio.to_thread(self._context.images.find, self.spec["image"])
            except ImageError as error:
                self._wait("ErrImagePull" if delay == _FIRST_DELAY else "ImagePullBackOff", str(error))
                await self._pause(delay)
                delay = min(delay * 2, _LAST_DELAY)
                if self._stopping:
                    raise

    def _whole_environment(self, variables: dict[str, str], image: Image) -> dict[str, str]:
        scratch = self.files.local("/tmp")  # noqa: S108  the container's, not the machine's
        scratch.mkdir(parents=True, exist_ok=True)
        base = {
            "PATH": image.search_path,
            "HOME": str(self.files.root),
            "TMPDIR": str(scratch),
            "HOSTNAME": self._context.pod["metadata"]["name"],
            "LANG": "C.UTF-8",
            **image.environment,
            **self._context.injected,
            **inherited(),
        }
        replaced = {name: self.files.text.replace(value) for name, value in variables.items()}
        return base | replaced

    def _working_directory(self, image: Image) -> Path:
        directory = self.files.local(self.spec.get("workingDir") or image.working_directory)
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def _log_path(self) -> Path:
        return self._context.logs.path(self._context.pod, self.name, self.restarts)

    async def _pause(self, seconds: float) -> None:
        """Sleep, cut short when something happens that the container may have waited for."""
        if self._stopping:
            return
        self._context.wake.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._context.wake.wait(), seconds)

    async def stop(self, grace_seconds: float, *, hook: bool = True) -> None:
        """Stop for good: preStop hook, SIGTERM, and SIGKILL when the grace period is over.

        Args:
            grace_seconds: for all of it.
            hook: whether the preStop hook runs; nobody is left to notice when the whole node stops.
        """
        self._stopping = True
        self._context.wake.set()
        await self._terminate(grace_seconds, hook=hook)

    async def _terminate(self, grace_seconds: float, *, hook: bool = True) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        deadline = time.monotonic() + grace_seconds
        if hook:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._pre_stop(grace_seconds), grace_seconds)
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), max(deadline - time.monotonic(), 0.1))
        except TimeoutError:
            signal_group(process.pid, signal.SIGKILL)
            await process.wait()

    async def _pre_stop(self, grace_seconds: float) -> None:
        hook = (self.spec.get("lifecycle") or {}).get("preStop") or {}
        if sleep := hook.get("sleep"):
            await asyncio.sleep(sleep["seconds"])
        elif execute := hook.get("exec"):
            await self.execute(execute.get("command") or [])
        elif hook:
            # Unlike a probe, a hook may take as long as the grace period.
            asked = {**hook, "timeoutSeconds": grace_seconds}
            await probes.check_of(asked, self._context.address, self.spec, self.execute)()

    async def execute(self, argv: list[str]) -> tuple[bool, str]:
        """Run a command in the container's environment: whether it exited with 0, and its output."""
        image = self._context.images.find(self.spec["image"])
        words = [self.files.text.replace(word) for word in argv]
        process = await asyncio.create_subprocess_exec(
            *command([image.find(words[0]), *words[1:]]),
            cwd=self._working_directory(image),
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output, _ = await process.communicate()
        except asyncio.CancelledError:
            signal_group(process.pid, signal.SIGKILL)
            raise
        return process.returncode == 0, output.decode(errors="replace").strip()

    def _begin_probes(self) -> None:
        if startup := self.spec.get("startupProbe"):
            self._watch(startup, self._startup_changed, holds=False)
        else:
            self._begin_later_probes()

    def _begin_later_probes(self) -> None:
        self.has_started.set()
        if liveness := self.spec.get("livenessProbe"):
            self._watch(liveness, self._liveness_changed, holds=True)
        if readiness := self.spec.get("readinessProbe"):
            self._watch(readiness, self._readiness_changed, holds=False)
        else:
            self.ready = True
        self._context.changed()

    def _watch(self, probe: Object, changed: Callable[[bool, str], None], *, holds: bool) -> None:
        check = probes.check_of(probe, self._context.address, self.spec, self.execute)
        if probe is self.spec.get("startupProbe"):
            task = asyncio.create_task(self._await_startup(probe, check, changed))
        else:
            task = asyncio.create_task(probes.watch(probe, check, changed, holds=holds))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _await_startup(
        self, probe: Object, check: probes.Check, changed: Callable[[bool, str], None]
    ) -> None:
        await asyncio.sleep(probe.get("initialDelaySeconds") or 0)
        said = ""
        for _ in range(probe.get("failureThreshold") or 3):
            outcome, said = await check()
            if outcome:
                return changed(True, said)
            await asyncio.sleep(probe.get("periodSeconds") or 10)
        return changed(False, said)

    def _startup_changed(self, outcome: bool, said: str) -> None:
        if outcome:
            self._begin_later_probes()
        else:
            self._restart(f"startup probe failed: {said}")

    def _liveness_changed(self, outcome: bool, said: str) -> None:
        if not outcome:
            self._restart(f"liveness probe failed: {said}")

    def _readiness_changed(self, outcome: bool, said: str) -> None:
        del said
        self.ready = outcome
        self._context.changed()

    def _restart(self, why: str) -> None:
        with self._log_path().open("a", encoding="utf-8") as log:
            log.write(f"--- {why}; the container will be restarted ---\n")
        task = asyncio.create_task(self._terminate(self._context.grace_seconds))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _end_probes(self) -> None:
        current = asyncio.current_task()
        for task in list(self._tasks):
            if task is not current:
                task.cancel()

    def _wait(self, reason: str, message: str) -> None:
        self._set({"waiting": {"reason": reason, "message": message}})

    def _set(self, state: Object) -> None:
        self.state = state
        self._context.changed()

    def _terminated(self, code: int, message: str, began: str, reason: str) -> Object:
        ended = {"exitCode": code, "reason": reason, "startedAt": began, "finishedAt": timestamp()}
        return {**ended, "message": message} if message else ended

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process else None

    def status(self) -> Object:
        """The container's ``ContainerStatus``."""
        image = self.spec["image"]
        status = {
            "name": self.name,
            "image": image,
            "imageID": f"local://{image}",
            "ready": self.ready,
            "started": self.has_started.is_set(),
            "restartCount": self.restarts,
            "state": self.state,
            "lastState": self._last_state,
        }
        return status if self.pid is None else {**status, "containerID": f"process://{self.pid}"}
