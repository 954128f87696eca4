"""Tries a preview that is up: says of each promise whether it holds and when, or why nobody looked.

What could not be tried is never green. The engine has waited for every workload already; here a client asks
through the gateway, and an event is followed from the outbox to the consumer's inbox.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx
import psycopg

from components.pods.labels import service_host
from infra.previews.engine import Found
from infra.previews.request import Smoke, SmokeRequest, Target
from infra.previews.settings import TENANT, PreviewSettings
from infra.previews.signature import Origin, Unsigned, signed_by
from kilo.errors import KiloError
from kilo.observe.tracing import new_trace, parse_traceparent
from kilo.outbox import Event, enqueue

State = Literal["green", "red", "not signed", "not checked"]
PATIENCE_SECONDS = 30.0
_PAUSE_SECONDS = 0.1
_SLOWLY_SECONDS = 0.5
_MOST_SHOWN = 160


class Red(Exception):
    """The promise does not hold; why."""


class NotChecked(Exception):
    """Nobody can say; why."""


class NotSigned(Exception):
    """There is no signature, and none is asked for; why."""


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    name: str
    state: State
    seconds: float | None
    detail: str

    def as_json(self) -> dict[str, Any]:
        """The line as JSON."""
        seconds = None if self.seconds is None else round(self.seconds, 2)
        return {"check": self.name, "state": self.state, "seconds": seconds, "detail": self.detail}


def unreached(reason: str) -> list[Check]:
    """What is said of everything that comes after a rollout that failed."""
    return [Check(name, "not checked", None, reason) for name in _NAMES[1:]]


class Checks:
    """The checks of one preview.

    Args:
        target: the stage, whose addresses are reached from here or not.
        settings: the preview.
        found: what its stack says.
        smoke: how the service shows that it works.
        origin: where its image comes from.
    """

    def __init__(
        self, target: Target, settings: PreviewSettings, found: Found, smoke: Smoke | None, origin: Origin
    ) -> None:
        self._target, self._settings, self._found, self._smoke = target, settings, found, smoke
        self._origin = origin
        self._client = httpx.Client(timeout=10, trust_env=False)
        self._since: Any = None
        self._trace_context = new_trace()

    def run(self) -> Iterator[Check]:
        """Each check in turn, but for the rollout's."""
        with self._client:
            works: Mapping[str, Callable[[], str]] = {
                "probes": self._probes,
                "smoke test": self._smoke_test,
                "event": self._event,
                "objective": self._objective,
                "policy": lambda: "every object was held to infra/policy before it was made",
                "trace": self._trace,
                "signature": self._signature,
            }
            for name in _NAMES[1:]:
                yield _tried(name, works[name])

    def _probes(self) -> str:
        if self._settings.kind == "job":
            msg = "a job has none: it ran once, to its end"
            raise NotChecked(msg)
        host = service_host(self._settings.service, self._settings.namespace)
        if self._settings.kind == "consumer":
            # The chart gives a consumer no Service; the engine waited until its pod was ready.
            return "the pod is ready, by the engine's account"
        base = self._reach(f"http://{host}:{self._settings.port}")
        for path in ("/livez", "/readyz"):
            self._until(lambda path=path: self._answers("GET", f"{base}{path}", 200))
        return "/livez and /readyz answer 200"

    def _smoke_test(self) -> str:
        if self._settings.kind != "http":
            msg = f"a {self._settings.kind} answers no requests"
            raise NotChecked(msg)
        if self._smoke is None or not self._smoke.requests:
            msg = "deploy/smoke.yaml names no requests"
            raise NotChecked(msg)
        base = self._reach(self._found.address)
        self._since = self._database_time()
        for request in self._smoke.requests:
            self._ask(base, request)
        return f"{len(self._smoke.requests)} requests answered as deploy/smoke.yaml says"

    def _ask(self, base: str, request: SmokeRequest) -> None:
        headers = {self._settings.tenant_header: TENANT, "traceparent": str(self._trace_context)}
        self._until(
            lambda: self._answers(
                request.method, f"{base}{request.path}", request.status, headers, request.body
            )
        )

    def _answers(
        self,
        method: str,
        url: str,
        status: int,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> str | None:
        """Nothing where it answers so; else what came instead."""
        place = f"{method} {httpx.URL(url).path}"
        try:
            given = {} if body is None else {"json": body}
            answer = self._client.request(method, url, headers=dict(headers or {}), **given)
        except httpx.HTTPError as error:
            return f"{place}: {type(error).__name__}"
        return None if answer.status_code == status else f"{place}: {answer.status_code}, not {status}"

    def _event(self) -> str:
        if self._settings.kind == "consumer":
            return self._consumed_by(self._settings.service, self._put_event())
        if not self._settings.announces or self._settings.kind == "job":
            msg = (
                "the service writes no events"
                if not self._settings.announces
                else "a job writes them when it runs"
            )
            raise NotChecked(msg)
        if self._since is None:
            msg = "no smoke test wrote one"
            raise NotChecked(msg)
        with self._database() as connection:
            row = connection.execute(_WRITTEN, (TENANT, self._since)).fetchone()
        if row is None:
            msg = "the smoke test's requests wrote no event into the outbox"
            raise Red(msg)
        return self._consumed_by("projection", str(row[0]))

    def _put_event(self) -> str:
        if self._smoke is None or self._smoke.event is None:
            msg = "deploy/smoke.yaml names no event"
            raise NotChecked(msg)
        event = self._smoke.event
        with self._database() as connection:
            given = Event(TENANT, event.aggregate, f"smoke-{time.time_ns()}", event.kind, event.payload)
            return enqueue(connection, given).fingerprint

    def _consumed_by(self, consumer: str, fingerprint: str) -> str:
        """Wait until the event is in the consumer's inbox, which is written with its effect."""
        with self._database() as connection:
            connection.autocommit = True

            def handled() -> str | None:
                inbox = "SELECT FROM inbox WHERE tenant = %s AND fingerprint = %s AND consumer = %s"
                if connection.execute(inbox, (TENANT, fingerprint, consumer)).fetchone() is not None:
                    dead = (
                        "SELECT error FROM dead_letters"
                        " WHERE tenant = %s AND fingerprint = %s AND consumer = %s"
                    )
                    letter = connection.execute(dead, (TENANT, fingerprint, consumer)).fetchone()
                    return f"{consumer} could not handle it" if letter else None
                return f"it did not come to {consumer}"

            self._until(handled)
        return f"from the outbox by the bus to {consumer}"

    def _objective(self) -> str:
        if self._settings.kind != "http":
            msg = f"the chart has none for a {self._settings.kind}"
            raise NotChecked(msg)
        rules = [each for each in self._settings.objects if each["kind"] == "PrometheusRule"]
        if not rules:
            msg = "deploy/values.yaml switches monitoring off, and the objective with it"
            raise Red(msg)
        try:
            url = f"{self._reach(self._settings.prometheus_url)}/api/v1/rules?type=alert"
            self._client.get(url).raise_for_status()
        except (httpx.HTTPError, KiloError) as error:
            msg = f"Prometheus is not reached from here ({type(error).__name__})"
            raise NotChecked(msg) from error

        def loaded() -> str | None:
            groups = self._client.get(url).json()["data"]["groups"]
            labels = [rule.get("labels", {}) for group in groups for rule in group["rules"]]
            wanted = {"service": self._settings.service, "namespace": self._settings.namespace}
            ours = any(all(each.get(key) == value for key, value in wanted.items()) for each in labels)
            return None if ours else "Prometheus has not loaded its rules"

        self._until(loaded, _SLOWLY_SECONDS)
        return "Prometheus has its burn-rate alerts"

    def _trace(self) -> str:
        """Whether an event belongs to the trace of the request that caused it."""
        if self._settings.kind != "http":
            msg = f"a {self._settings.kind} answers no requests"
            raise NotChecked(msg)
        if not self._settings.announces:
            msg = "the service writes no events that a request could be followed to"
            raise NotChecked(msg)
        if self._since is None:
            msg = "no smoke test began one"
            raise NotChecked(msg)
        with self._database() as connection:
            rows = connection.execute(_TRACES, (TENANT, self._since)).fetchall()
        if not rows:
            msg = "the smoke test's requests wrote no event into the outbox"
            raise Red(msg)
        traces = {found.trace_id for (header,) in rows if (found := parse_traceparent(header))}
        if self._trace_context.trace_id not in traces:
            msg = "no event carries on the trace of the request that caused it"
            raise Red(msg)
        return f"from the request to its event: {self._trace_context.trace_id}"

    def _signature(self) -> str:
        if self._origin.built_here:
            what = "from the sources" if self._target.is_here else "and pushed by this command"
            msg = f"built on this machine {what}"
            raise NotSigned(msg)
        try:
            identity = signed_by(self._settings.image, self._origin.signers, self._target)
        except Unsigned as error:
            raise Red(str(error)) from error
        except KiloError as error:
            # An image that was to be signed is not fine because nobody could look.
            raise Red(str(error).splitlines()[0]) from error
        if identity is None:
            msg = "nobody is named who signs: --certificate-identity, --signed-by, or kilo:registry.signers"
            raise NotChecked(msg)
        return f"by {identity}"

    def _reach(self, text: str) -> str:
        return self._target.reachable(text)

    def _database(self) -> psycopg.Connection[Any]:
        if not self._found.database_url:
            msg = "the preview has no database"
            raise NotChecked(msg)
        try:
            return psycopg.connect(self._reach(self._found.database_url), connect_timeout=5)
        except psycopg.OperationalError as error:
            if self._target.is_here:
                msg = "its database does not answer"
                raise Red(msg) from error
            msg = "its database is reached from within the cluster alone"
            raise NotChecked(msg) from error

    def _database_time(self) -> Any:
        if not self._found.database_url:
            return None
        try:
            with self._database() as connection:
                row = connection.execute("SELECT clock_timestamp()").fetchone()
                return row[0] if row else None
        except NotChecked:
            return None

    @staticmethod
    def _until(problem: Callable[[], str | None], pause_seconds: float = _PAUSE_SECONDS) -> None:
        """Try again until there is no problem."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (found := problem()) is not None:
            if time.monotonic() > deadline:
                raise Red(found)
            time.sleep(pause_seconds)


_WRITTEN = "SELECT fingerprint FROM outbox WHERE tenant = %s AND created_at >= %s ORDER BY id DESC LIMIT 1"
_TRACES = "SELECT traceparent FROM outbox WHERE tenant = %s AND created_at >= %s"
_NAMES = ("rollout", "probes", "smoke test", "event", "objective", "policy", "trace", "signature")


def _tried(name: str, work: Callable[[], str]) -> Check:
    started = time.monotonic()
    try:
        state, detail = "green", work()
    except NotChecked as error:
        return Check(name, "not checked", None, str(error))
    except NotSigned as error:
        return Check(name, "not signed", None, str(error))
    except Red as error:
        state, detail = "red", str(error)
    except (psycopg.Error, KiloError, httpx.HTTPError, KeyError, ValueError) as error:
        # A defect of the service or of the preview, not of the check: what it is, without what a server said.
        state, detail = "red", type(error).__name__
    return Check(name, state, time.monotonic() - started, detail[:_MOST_SHOWN])
