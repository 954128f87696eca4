"""Where ramps stand, in the stage's database, so that no process is needed to remember it.

One process at a time conducts the ramps of a stage: it holds the lease ``ramps/STAGE``, which fences each of
its writes. Whoever asks for a pause or a revert writes that without the lease, and the conductor heeds it.
Each step is recorded in the transaction that makes it; :mod:`.audit` copies it into the audit log afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from kilo.database.lease import Lease, LeaseLost
from kilo.errors import BadInput
from kilo.tenancy import RampWeight
from kilo.traffic.ramps.gate import GateSettings
from kilo.traffic.ramps.ramp import Ramp, State, parse_weight


@dataclass(frozen=True, slots=True)
class Step:
    """What is recorded of one act.

    Attributes:
        who: the person or the process.
        act: ``started``, ``step``, ``revert``, ``paused``, ``resumed``, ``done`` or ``overridden``.
        figures: the gate's, where it decided.
        seconds: from the decision until every gateway had it.
        program: the version of the program that did it.
    """

    who: str
    act: str
    weight_from: RampWeight
    weight_to: RampWeight
    reason: str
    program: str
    figures: Mapping[str, object] | None = None
    seconds: float | None = None


class RampStore:
    """The ramps of one stage.

    Args:
        connection: in autocommit mode.
        stage: the stage's name.
        lease: whose holder alone may write what a conductor writes; None for those who only look and ask.
    """

    def __init__(self, connection: AsyncConnection[Any], stage: str, lease: Lease | None = None) -> None:
        self._connection = connection
        self._stage = stage
        self.lease = lease

    async def active(self) -> list[Ramp]:
        """Every ramp that has not ended, the oldest first."""
        return await self._ramps(sql.SQL("stage = %s AND ended_at IS NULL ORDER BY id"), self._stage)

    async def get(self, number: int) -> Ramp:
        """One ramp, ended or not."""
        (ramp,) = await self._ramps(sql.SQL("stage = %s AND id = %s"), self._stage, number)
        return ramp

    async def find(self, tenant: str, feature: str) -> Ramp:
        """The ramp of a tenant and feature that has not ended.

        Raises:
            BadInput: there is none.
        """
        found = [ramp for ramp in await self.active() if ramp.key == (tenant, feature)]
        if not found:
            msg = f"{tenant} {feature}: no ramp is under way in {self._stage}; `kilo traffic show` lists them"
            raise BadInput(msg)
        return found[0]

    async def start(
        self,
        *,
        tenant: str,
        feature: str,
        steps: Sequence[RampWeight],
        gate: GateSettings,
        before: RampWeight,
        who: str,
        program: str,
        weight: RampWeight | None = None,
    ) -> Ramp:
        """Begin a ramp; nothing is changed by that.

        Args:
            tenant: whose.
            feature: of what.
            steps: the weights to come to.
            gate: what each step is measured by.
            before: what a revert goes back to.
            who: begins it.
            program: the version of the program.
            weight: what there is now, where that is not what a revert goes back to.

        Raises:
            BadInput: one of this tenant and feature is under way.
        """
        now = before if weight is None else weight
        try:
            async with self._connection.transaction():
                cursor = await self._connection.execute(
                    "INSERT INTO ramps (stage, tenant, feature, steps, hold_seconds, minimum_requests,"
                    " weight_before, weight, started_by) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
                    " RETURNING id",
                    (
                        self._stage,
                        tenant,
                        feature,
                        [str(step) for step in steps],
                        gate.hold_seconds,
                        gate.minimum_requests,
                        str(before),
                        str(now),
                        who,
                    ),
                )
                row: Any = await cursor.fetchone()
                said = f"to {', '.join(map(str, steps))}, {gate.hold_seconds:g} s each"
                await self._record(row[0], Step(who, "started", now, now, said, program))
        except psycopg.errors.UniqueViolation as error:
            under_way = await self.find(tenant, feature)
            since = f"{under_way.started_at:%Y-%m-%d %H:%M}"
            msg = (
                f"{tenant} {feature}: {under_way.started_by} began a ramp at {since}, which stands at "
                f"{under_way.weight}; let it end, or `kilo traffic revert {tenant} {feature}`"
            )
            raise BadInput(msg) from error
        return await self.get(row[0])

    async def request(self, ramp: Ramp, state: State, reason: str, who: str, program: str) -> None:
        """Ask the conductor to pause, resume or revert; heeded before its next step.

        Raises:
            BadInput: the ramp has ended meanwhile.
        """
        acts = {State.PAUSED: "paused", State.RUNNING: "resumed", State.REVERTING: "reverting"}
        async with self._connection.transaction():
            cursor = await self._connection.execute(
                # A pause doesn't stop a revert.
                "UPDATE ramps SET state = %s, reason = %s WHERE id = %s AND ended_at IS NULL"
                " AND (state <> 'reverting' OR %s = 'reverting')",
                (state.value, reason, ramp.id, state.value),
            )
            if not cursor.rowcount:
                now = await self.get(ramp.id)
                msg = f"{ramp.tenant} {ramp.feature}: the ramp is {now.state} ({now.reason})"
                raise BadInput(msg)
            await self._record(ramp.id, Step(who, acts[state], ramp.weight, ramp.weight, reason, program))

    async def update(self, ramp: Ramp, step: Step | None = None, **changes: Any) -> Ramp:
        """Write where a ramp stands, and a step beside it, while the lease is this process's.

        A request that came in since ``ramp`` was read is not overwritten, unless the ramp ends.

        Raises:
            LeaseLost: another process conducts now.
        """
        values = {name: _plain(value) for name, value in changes.items()}
        state = changes.get("state")
        if isinstance(state, State) and state.ended:
            values["ended_at"] = "now"
        async with self._connection.transaction():
            if self.lease is None:
                raise LeaseLost
            await self.lease.fence(self._connection)
            names = sql.SQL(", ").join(
                sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in values
            )
            statement = sql.SQL("UPDATE ramps SET {} WHERE id = {} AND ended_at IS NULL")
            await self._connection.execute(
                statement.format(names, sql.Placeholder("id")), {**values, "id": ramp.id}
            )
            if step:
                await self._record(ramp.id, step)
        return await self.get(ramp.id)

    async def history(self, tenant: str | None, feature: str | None, limit: int) -> list[dict[str, Any]]:
        """Recorded steps, the newest first, of all tenants and features or of one."""
        cursor = self._connection.cursor(row_factory=dict_row)
        await cursor.execute(
            "SELECT s.at, r.tenant, r.feature, s.act, s.weight_from, s.weight_to, s.who, s.reason, s.figures,"
            " s.seconds, s.program FROM ramp_steps s JOIN ramps r ON r.id = s.ramp WHERE r.stage = %s"
            " AND (%s::text IS NULL OR r.tenant = %s) AND (%s::text IS NULL OR r.feature = %s)"
            " ORDER BY s.id DESC LIMIT %s",
            (self._stage, tenant, tenant, feature, feature, limit),
        )
        return await cursor.fetchall()

    async def _record(self, number: int, step: Step) -> None:
        await self._connection.execute(
            "INSERT INTO ramp_steps"
            " (ramp, who, act, weight_from, weight_to, reason, figures, seconds, program)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                number,
                step.who,
                step.act,
                str(step.weight_from),
                str(step.weight_to),
                step.reason,
                None if step.figures is None else Jsonb(dict(step.figures)),
                step.seconds,
                step.program,
            ),
        )

    async def _ramps(self, condition: sql.SQL, *values: object) -> list[Ramp]:
        cursor = self._connection.cursor(row_factory=dict_row)
        await cursor.execute(sql.SQL("SELECT * FROM ramps WHERE {}").format(condition), values)
        return [_ramp(row) for row in await cursor.fetchall()]


def _plain(value: Any) -> Any:
    if isinstance(value, State):
        return value.value
    if isinstance(value, dict):
        return Jsonb(value)
    return str(value) if isinstance(value, int) else value


def _ramp(row: Mapping[str, Any]) -> Ramp:
    return Ramp(
        id=row["id"],
        tenant=row["tenant"],
        feature=row["feature"],
        steps=tuple(parse_weight(step) for step in row["steps"]),
        gate=GateSettings(row["hold_seconds"], row["minimum_requests"]),
        state=State(row["state"]),
        weight_before=parse_weight(row["weight_before"]),
        weight=parse_weight(row["weight"]),
        pending=None if row["pending"] is None else parse_weight(row["pending"]),
        pending_since=row["pending_since"],
        in_force_since=row["in_force_since"],
        reason=row["reason"],
        figures=row["figures"],
        started_by=row["started_by"],
        started_at=row["started_at"],
    )
