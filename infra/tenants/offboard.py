"""The guarded way out of a stage: every step is checked before the next one is offered.

What only a person may do, because it destroys or because another hand must do it, is not done here: the
walk says the command. A walk keeps no state of its own; where it stands is read from the stage's file, the
database and the export each time, so that it can be left and taken up again anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.tenants.records import check_export, export, manifest_of, still_open
from infra.tenants.stage_file import StageFile
from kilo.errors import BadInput, CheckFailed
from kilo.tenancy import TenantEntry


@dataclass(frozen=True)
class Step:
    """One step of the walk.

    Attributes:
        done: whether it holds; None when it can't be told before the steps ahead of it hold.
        detail: what was found, or what the step does.
        act: does it; None where a person has to.
        commands: what a person has to run.
    """

    name: str
    done: bool | None
    detail: str
    act: Callable[[], None] | None = None
    commands: tuple[str, ...] = ()


def walk(file: StageFile, tenant: str, folder: Path, url: Callable[[], str]) -> list[Step]:
    """Every step with its state. After the first that does not hold, nothing is looked at.

    Args:
        file: the stage's.
        tenant: who leaves.
        folder: where the export is or will be.
        url: gives the database's URL when it is needed.

    Raises:
        BadInput: there is no such tenant, nor was there one that this walk has begun with.
        Unreachable: the database can't be asked.
    """
    if tenant not in file.settings.tenant_ids and not manifest_of(folder, tenant).exists():
        msg = (
            f"{file.path.name}: there is no tenant '{tenant}', and {folder} has no export of one that was; "
            f"tenants: {', '.join(file.settings.tenant_ids)}"
        )
        raise BadInput(msg)
    steps: list[Step] = []
    for step in _steps(file, tenant, folder, url):
        blocked = any(not earlier.done for earlier in steps)
        steps.append(Step(step.name, None, step.detail) if blocked else step)
        if blocked or not step.done:
            steps += [Step(name, None, "waits for the steps before it") for name in NAMES[len(steps) :]]
            break
    return steps


NAMES = ("flag off", "drained", "exported", "entry removed", "keys scheduled")


def _steps(file: StageFile, tenant: str, folder: Path, url: Callable[[], str]) -> Iterator[Step]:
    stage = file.settings.stage
    entry = next((entry for entry in file.settings.tenants if entry.id == tenant), None)
    refused = entry is None or not entry.accepting
    yield Step(
        "flag off",
        refused,
        _flag_said(entry, file.path.name),
        lambda: file.refuse(tenant),
    )
    left = still_open(url(), tenant)
    said = ", ".join(f"{count} {what}" for what, count in left.items())
    yield Step(
        "drained",
        not left,
        f"still open: {said}" if left else "nothing is under way",
        commands=(f"pulumi up -s {stage}", f"kilo dlq list --tenant {tenant}"),
    )
    yield _exported(tenant, folder, url())
    yield Step(
        "entry removed",
        entry is None,
        f"take the entry out of {file.path.name}" if entry else "the tenant has no entry",
        lambda: file.remove(tenant),
    )
    window = file.settings.key_deletion_window_days
    alias = f"alias/kilo/{stage}/tenant/{tenant}"
    # Destroying keys takes the hands of administrators, and two of them: no command here has the rights.
    yield Step(
        "keys scheduled",
        None,
        f"administrators destroy the data keys, then the KMS key after {window} days of waiting;"
        " a key that is shared with other tenants stays",
        commands=(
            f"kilo fle shred {tenant} --confirm {tenant} --approver NAME=KEYFILE --approver NAME=KEYFILE",
            f"KEY=$(aws kms describe-key --key-id {alias} --query KeyMetadata.KeyId --output text)",
            f"pulumi state unprotect -s {stage} 'urn:pulumi:{stage}::kilo::kilo:security:TenantKeys"
            f"$aws:kms/key:Key::tenant-keys-{tenant}'",
            f"pulumi state unprotect -s {stage} 'urn:pulumi:{stage}::kilo::kilo:security:TenantKeys"
            f"$aws:kms/alias:Alias::tenant-keys-{tenant}'",
            f"pulumi up -s {stage}",
            f'aws kms schedule-key-deletion --key-id "$KEY" --pending-window-in-days {window}',
        ),
    )


def _flag_said(entry: TenantEntry | None, name: str) -> str:
    if entry is None:
        return "the tenant has no entry"
    return f"set accepting: false in {name}" if entry.accepting else "the entry has accepting: false"


def _exported(tenant: str, folder: Path, url: str) -> Step:
    try:
        found = check_export(url, tenant, folder)
    except BadInput:
        what = f"write the tenant's rows to {folder}"
        return Step("exported", False, what, lambda: _export(url, tenant, folder))
    except CheckFailed as failed:
        return Step("exported", False, str(failed))
    rows = ", ".join(f"{count} {table}" for table, count in found.rows.items())
    return Step("exported", True, f"{folder}: {rows}")


def _export(url: str, tenant: str, folder: Path) -> None:
    export(url, tenant, folder)
