"""Looks at KMS keys' states, at what lies encrypted and how far rotations are, for alerts and dashboards.

It counts in the database and asks KMS for states; it needs no data key. Left out: counting what another
database holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Literal

import psycopg
from prometheus_client import REGISTRY, Gauge
from psycopg.rows import TupleRow

from kilo.contract import EncryptedTable, StackOutputs
from kilo.errors import KiloError
from kilo.fle.errors import FieldError
from kilo.fle.kms import KEY_STATES, KeyState, KmsClients
from kilo.fle.rotation.coverage import Covered, coverage, mismatches, scopes, tables_with
from kilo.observe.metrics import (
    FLE_AUDIT_UNSIGNED_AGE,
    FLE_COVERAGE,
    FLE_DESTRUCTION_OVERDUE,
    FLE_KMS_KEY_STATE,
    FLE_ROTATION_LAST_SUCCESS,
    FLE_ROTATION_ROWS_REMAINING,
    FLE_SCOPE_MISMATCHES,
)

_log = logging.getLogger(__name__)
COUNT_SECONDS = 600.0
STATE_SECONDS = 60.0

_coverage: Gauge = FLE_COVERAGE.create(REGISTRY)
_remaining: Gauge = FLE_ROTATION_ROWS_REMAINING.create(REGISTRY)
_key_state: Gauge = FLE_KMS_KEY_STATE.create(REGISTRY)
_last_success: Gauge = FLE_ROTATION_LAST_SUCCESS.create(REGISTRY)

_mismatches: Gauge = FLE_SCOPE_MISMATCHES.create(REGISTRY)
_unsigned: Gauge = FLE_AUDIT_UNSIGNED_AGE.create(REGISTRY)
_overdue: Gauge = FLE_DESTRUCTION_OVERDUE.create(REGISTRY)

_ACTIVE = "SELECT tenant, id FROM fle_keys WHERE purpose = 'field-data' AND state = 'active'"
_FINISHED = """
SELECT tenant, extract(epoch FROM max(finished_at))::float FROM fle_rotations
WHERE state = 'finalized' GROUP BY tenant
"""

_WAITING = """
SELECT coalesce((SELECT extract(epoch FROM now() - min(since)) FROM fle_audit_unsigned), 0)::float,
       coalesce((SELECT extract(epoch FROM now() - min(destroy_after)) FROM fle_keys
                 WHERE state = 'retired' AND destroy_after <= now()), 0)::float
"""


class EncryptionUpkeep:
    """Runs beside a service whose identity may describe the tenants' KMS keys and read the encrypted tables.

    Args:
        outputs: the stage.
        database_url: as a role that may read the encrypted tables and the key table.
        kms: by default under the process's own credentials.
    """

    def __init__(self, outputs: StackOutputs, database_url: str, kms: KmsClients | None = None) -> None:
        self._outputs, self._url, self._kms = outputs, database_url, kms or KmsClients()

    async def run(self, stopping: asyncio.Event) -> None:
        """Look until ``stopping`` is set."""
        await asyncio.gather(
            _every(COUNT_SECONDS, self.count, stopping), _every(STATE_SECONDS, self.look_at_keys, stopping)
        )

    def look_at_keys(self) -> None:
        """Ask for the state of each tenant's KMS keys and of their replicas; the worst of them counts."""
        for tenant, each in self._outputs.tenants.items():
            second = self._outputs.field_encryption.second_keys.get(tenant)
            states = {
                state
                for reference in (each.encryption_key, second)
                if reference is not None
                for key in (reference.key, *reference.replicas)
                if (state := self._state(tenant, reference.provider, key))
            }
            if not states:
                continue
            worst = max(states, key=KEY_STATES.index)
            for state in KEY_STATES:
                _key_state.labels(tenant, state).set(state == worst)

    def _state(self, tenant: str, provider: Literal["aws", "gcp"], key: str) -> KeyState | None:
        try:
            return self._kms.of(provider).state(key)
        except FieldError as error:
            _log.warning("encryption upkeep: KMS key %s of %s: %s", key, tenant, error)
            return None

    def count(self) -> None:
        """Count once. What can't be counted is said in the log, and its gauges stay as they were."""
        try:
            with psycopg.connect(
                self._url, autocommit=True, connect_timeout=5, application_name="kilo-encryption-upkeep"
            ) as connection:
                # Somebody else's lock must hold up neither the next count nor the end of the process.
                connection.execute("SET lock_timeout = '5s'")
                self._count(connection)
        except psycopg.Error as error:
            _log.warning("encryption upkeep: %s", str(error).partition("\n")[0])

    def _count(self, connection: psycopg.Connection[TupleRow]) -> None:
        tenants = list(self._outputs.tenants)
        counted: list[Covered] = []
        lying = scopes(connection)
        for table in tables_with(self._outputs.field_encryption.tables, lying):
            try:
                counted += coverage(connection, [table], tenants)
            except (psycopg.errors.InsufficientPrivilege, KiloError) as error:
                _log.warning("encryption upkeep: table %s is not counted: %s", table.table, error)
        wrong = mismatches(self._outputs, lying, counted)
        for each in wrong:
            _log.warning("encryption upkeep: %s", each)
        _mismatches.set(len(wrong))
        active = dict(connection.execute(_ACTIVE).fetchall())
        for tenant, each in self._outputs.tenants.items():
            own = [one for one in counted if one.tenant == tenant]
            for field in each.encrypted_fields:
                if _is_counted(self._outputs.field_encryption.tables, field):
                    _coverage.labels(tenant, field).set(_share([one for one in own if one.field == field]))
            if each.encrypted_fields:
                newest = str(active.get(tenant, ""))
                left = sum(one.values for one in own if one.under not in {newest, "plain"})
                _remaining.labels(tenant).set(left)
        for unsigned, overdue in connection.execute(_WAITING):
            _unsigned.set(unsigned)
            _overdue.set(overdue)
        for tenant, finished in connection.execute(_FINISHED):
            _last_success.labels(tenant).set(finished)


async def _every(seconds: float, look: Callable[[], None], stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        await asyncio.to_thread(look)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), seconds)


def _is_counted(tables: Sequence[EncryptedTable], field: str) -> bool:
    """Whether any table holds the field; a share of nothing would look like all of it."""
    return any(
        field in each.columns or any(field in fields for fields in each.documents.values()) for each in tables
    )


def _share(counted: Sequence[Covered]) -> float:
    total = sum(one.values for one in counted)
    plain = sum(one.values for one in counted if one.under == "plain")
    return 1 - plain / total if total else 1.0
