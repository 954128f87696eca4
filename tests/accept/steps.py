"""The steps of the acceptance: what is done to the stage, and what must come of it."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from sandbox.cluster.client import connect
from sandbox.servers.leftovers import processes_of
from tests.accept.commands import SETTLED, Refused, run
from tests.accept.lost_region import FIELD, TENANT, recover
from tests.e2e.conftest import PATIENCE, Stage
from tests.preview.conftest import Platform

Say = Callable[[str], None]
_EVENTS = 15
"""A tenant, and a round of the load."""


@dataclass
class Load:
    """Rounds of events through the whole path until it is stopped; what became of them is counted."""

    stage: Stage
    sent: int = 0
    lost: int = 0
    duplicates: int = 0
    problems: list[str] = field(default_factory=list[str])
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Load:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join(PATIENCE)

    def _run(self) -> None:
        while not self._stop.is_set():
            round_ = ("tour", "--events-only", "--json", "--count", str(_EVENTS))
            done = self.stage.kilo(*round_, seconds=None)
            try:
                total = json.loads(done.stdout)["total"]
                sent, lost, duplicates = (total[name] for name in ("sent", "lost", "duplicate_deliveries"))
            except (ValueError, KeyError):
                self.problems.append(done.stderr.strip()[-300:])
                continue
            self.sent, self.lost = self.sent + sent, self.lost + lost
            self.duplicates += duplicates


@dataclass
class Acceptance:
    """Runs on one stage."""

    stage: Platform
    keys: dict[str, str]
    factor: float
    pack: Path | None = None

    def run(self, say: Say) -> bool:
        """Everything; whether it was accepted. The goals' table is printed at the end."""
        say("bringing the stage up, with the tour: events, a surge, an image, a backup and its drill")
        self._kilo("up")
        with Load(self.stage) as load:
            say("events flow; a feature is ramped for two tenants, and its next version fails for one")
            self._kilo("traffic", "tour", "-s", "dev")
            say("the outbox worker is killed")
            self._kill("outbox worker")
            time.sleep(5)
            say("the bus is restarted")
            self._kill("nats-server")
            self._running("nats-server")
            say("worker and connector are paused, as the roll-back of dev has it, and go on")
            self._pause("outbox worker", "debezium-server")
            say("the second registry is away while an image is pushed, and a tenant surges")
            self._registry_away()
            say("a rotation of umbrella's data key is rolled back, as the roll-back of stage has it")
            self._rekey_back()
            say("acme's data key is rotated by the runbook")
            self._rotate()
            say("a service is made from the template and previewed")
            say(self._preview())
            say("the primary region is lost, and the database restored without it")
            back = recover(self.stage)
            say(f"{back.rows} rows are back after {back.seconds:.0f} s, {TENANT}'s {FIELD} is readable")
        say(f"{load.sent} events under faults: {load.lost} lost, {load.duplicates} duplicates")
        say(f"the soak: 24 h times {self.factor:g}")
        gate, refused = self._gate(say)
        self._build(gate, say)
        goals = self.stage.kilo("goals", "-s", "dev", "--window", "1h")
        print(goals.stdout)
        for problem in load.problems:
            say(f"a round of events failed: {problem}")
        rows = json.loads(self.stage.kilo("goals", "-s", "dev", "--window", "1h", "--json").stdout)
        missed = [row["goal"] for row in rows if row["verdict"] == "missed"]
        known = [row["goal"] for row in rows if row["verdict"] == "unknown"]
        say(f"missed: {', '.join(missed) or 'none'}; not known: {', '.join(known) or 'none'}")
        return not (missed or known or load.lost or load.problems or refused)

    def _kilo(self, *arguments: str, ok: Sequence[int] = (0,)) -> str:
        return run(self.stage, *arguments, ok=ok)

    def _processes(self, what: str) -> list[psutil.Process]:
        found: list[psutil.Process] = []
        for process in processes_of(str(self.stage.home)):
            with suppress(psutil.Error):
                if what in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def _kill(self, what: str) -> None:
        for process in self._processes(what):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _running(self, what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self._processes(what):
            if time.monotonic() > deadline:
                msg = f"{what} was not started again"
                raise Refused(msg)
            time.sleep(0.2)

    def _pause(self, *what: str) -> None:
        """Frozen for longer than their leases last: what comes in waits in outbox and log."""
        frozen = [process for name in what for process in self._processes(name)]
        for process in frozen:
            process.send_signal(signal.SIGSTOP)
        time.sleep(15)
        for process in frozen:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)

    def _registry_away(self) -> None:
        """Frozen rather than killed: it answers nobody, and is whole again when it goes on."""
        frozen = self._processes("registry-secondary")
        for process in frozen:
            process.send_signal(signal.SIGSTOP)
        back = threading.Timer(20, lambda: [process.send_signal(signal.SIGCONT) for process in frozen])
        back.start()
        try:
            # The tour pushes an image and waits until it is mirrored whole; it surges one tenant too.
            self._kilo("tour", "--count", "5", "--json")
        finally:
            back.cancel()
            for process in frozen:
                process.send_signal(signal.SIGCONT)

    def _signed(self, who: str) -> tuple[str, ...]:
        return ("--as", who, "--signing-key", str(self.stage.directory / "keys" / f"{who}.pem"))

    def _planned(self, tenant: str) -> str:
        """The hash of a plan that is approved and runs."""
        waits = ("--settle-seconds", "5", "--in-flight-days", "0")
        plan = self._settled("plan", "--tenant", tenant, *self._signed("ana"), *waits)
        for who in ("bo", "cy"):
            self._settled("approve", plan, *self._signed(who))
        self._settled("run", plan)
        return plan

    def _forgotten(self) -> None:
        """What a rotation waits for in earnest: nobody has the other key in memory any more."""
        for workload in ("ingest", "consumer"):
            self._replace(workload)
        time.sleep(6)

    def _replace(self, workload: str) -> None:
        """Take a workload's pods away in order, so that no request fails: that would count against a ramp."""
        pods = f"/api/v1/namespaces/{self.stage.outputs['namespace']}/pods"
        of = {"labelSelector": f"app.kubernetes.io/name={workload}"}
        with connect(self.stage.endpoints.cluster) as client:

            def names() -> set[str]:
                found = client.get(pods, params=of).raise_for_status().json()["items"]
                return {pod["metadata"]["name"] for pod in found}

            former = names()
            for name in former:
                client.delete(f"{pods}/{name}").raise_for_status()
            deadline = time.monotonic() + PATIENCE
            while former & names():
                if time.monotonic() > deadline:
                    msg = f"{workload}'s pods did not go"
                    raise Refused(msg)
                time.sleep(0.2)

    def _rekey_back(self) -> None:
        plan = self._planned("umbrella")
        for _ in range(10):
            # It says so while writers may use the new key for a while yet, and is given again.
            with suppress(Refused):
                self._settled("rollback", plan, *self._signed("ana"))
                return
            self._forgotten()
        msg = f"plan {plan[:12]} could not be rolled back"
        raise Refused(msg)

    def _rotate(self) -> None:
        plan = self._planned("acme")
        self._forgotten()
        for _ in range(10):
            self._settled("run", plan)
            self._settled("verify", plan)
            with suppress(Refused):
                self._settled("finalize", plan, *self._signed("ana"))
                return
            time.sleep(3)
        msg = f"plan {plan[:12]} could not be finalized"
        raise Refused(msg)

    def _settled(self, *arguments: str) -> str:
        """A step of the rotation; of ``plan``, its hash."""
        as_json = ("--json",) if arguments[0] == "plan" else ()
        said = run(self.stage, "fle", "rotate", *arguments, *as_json, program=SETTLED)
        return str(json.loads(said)["plan"]) if as_json else ""

    def _preview(self) -> str:
        """From the template to green checks, and gone again."""
        began = time.monotonic()
        service = self.stage.service("orders")
        made = time.monotonic() - began
        report = self.stage.up(service, 1)
        if not report["green"]:
            msg = f"the preview's checks: {json.dumps(report['checks'])}"
            raise Refused(msg)
        self.stage.down(service, 1)
        states = ", ".join(f"{check['check']} {check['state']}" for check in report["checks"])
        return f"made in {made:.1f} s, previewed in {report['seconds']} s: {states}"

    def _gate(self, say: Say) -> tuple[Path, set[str]]:
        """Ask the gate until the soak is over: its document, and the checks that still failed."""
        path = self.stage.directory / "gate.json"
        self._kilo("promote", "status", "--from", "dev")
        # A page that a fault set off begins the soak anew, and ends minutes after its cause.
        deadline = time.monotonic() + max(480, 3 * 86_400 * self.factor)
        while True:
            self._kilo("tour", "--events-only", "--count", "5")
            said = self._kilo("promote", "check", "--from", "dev", "--to", "stage", "--json", ok=(0, 1))
            path.write_text(said, encoding="utf-8")
            document: dict[str, Any] = json.loads(said)
            failed = [check["check"] for check in document["checks"] if check["verdict"] == "failed"]
            # Uncommitted changes of the checkout don't go away by waiting.
            if not set(failed) - {"program"} or time.monotonic() > deadline:
                said = ", ".join(failed) or "every check"
                say(f"the gate from dev to stage: {document['verdict']} ({said})")
                return path, set(failed) - {"program"}
            time.sleep(3)

    def _build(self, gate: Path, say: Say) -> None:
        folder, audit = self.stage.directory, self.stage.directory / "keys" / "audit.pem"
        self.pack = folder / f"kilo-evidence-dev-{time.strftime('%Y%m%dt%H%M%Sz', time.gmtime())}.zip"
        factor = ("--soak-factor", str(self.factor), "--gate", str(gate), "--signing-key", str(audit))
        built = self._kilo("evidence", "build", "-s", "dev", "--since", "1h", "-o", str(self.pack), *factor)
        say(built.strip().replace("\n", "; "))
        people = [part for who in ("ana", "bo", "cy") for part in ("--principal", f"{who}={self.keys[who]}")]
        keys = ("-s", "dev", "--public-key", self.keys["audit"], *people)
        say(self._kilo("evidence", "verify", str(self.pack), *keys).strip().replace("\n", "; "))
        altered = folder / "altered.zip"
        data = self.pack.read_bytes()
        altered.write_bytes(data.replace(b"Acceptance evidence", b"Acceptance Evidence", 1))
        said = self.stage.kilo("evidence", "verify", str(altered), *keys)
        altered.unlink()
        if said.returncode == 0:
            msg = "a pack with a changed byte was taken for whole"
            raise Refused(msg)
        say(f"with a byte changed: {(said.stderr or said.stdout).strip().splitlines()[-1]}")
