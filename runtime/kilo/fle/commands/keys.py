"""``kilo fle keys | coverage | shred``: what keys there are, what lies under them, destroying them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from kilo.contract import KeyReference
from kilo.errors import BadInput, CheckFailed
from kilo.fle.audit.log import append
from kilo.fle.audit.notes import load_private_key
from kilo.fle.commands.common import (
    AsJson,
    OutputsFile,
    actor,
    as_dicts,
    cipher,
    database,
    read_key_file,
    show,
    show_rows,
    stage,
)
from kilo.fle.importing import import_digest
from kilo.fle.importing import import_key as import_v1
from kilo.fle.keytable import DATA, INDEX
from kilo.fle.rotation import approval as approvals
from kilo.fle.rotation.coverage import coverage as count_coverage
from kilo.fle.rotation.coverage import mismatches, scopes, tables_with
from kilo.fle.shred import destroy_due, keys_digest
from kilo.fle.shred import shred as shred_tenant
from kilo.fle.wraps import secret_digest

app = typer.Typer(no_args_is_help=True, help="List keys, import a v1 key, wrap again, destroy what is due.")

TenantArgument = Annotated[str, typer.Argument(metavar="TENANT")]
Approvers = Annotated[
    list[str], typer.Option(metavar="NAME=KEYFILE", help="Twice: two people and their keys.")
]
_LIST = """
SELECT k.tenant, k.id, k.purpose, k.version, k.format, k.state, k.messages_reserved, k.message_limit,
       coalesce(string_agg(w.kms_key, ' ' ORDER BY w.kms_key), '') AS kms_keys, k.destroy_after::text
FROM fle_keys k LEFT JOIN fle_wraps w ON w.key_id = k.id
WHERE %(tenant)s = '' OR k.tenant = %(tenant)s
GROUP BY k.id ORDER BY k.tenant, k.purpose, k.version
"""


@app.command("list")
def list_keys(
    tenant: Annotated[str, typer.Option(help="Only this tenant's.")] = "", as_json: AsJson = False
) -> None:
    """List data and index keys: state, wraps, and messages against their limit.

    \b
    kilo fle keys list --tenant acme
    kilo fle keys list --json | jq '.[] | select(.state == "retired")'
    """
    with database() as connection:
        rows = as_dicts(connection.execute(_LIST, {"tenant": tenant}))
    show_rows("Keys", rows, as_json=as_json)


@app.command("import")
def import_key(
    tenant: TenantArgument,
    key_file: Annotated[Path, typer.Option(help="The v1 key: a file of 32 raw bytes.")],
    approver: Approvers,
    outputs: OutputsFile = None,
) -> None:
    """Bring in a tenant's v1 key, wrapped by its KMS key; values in v1 are then readable and rotatable.

    Two people sign it: whoever has had the file reads and forges what lies under the key.

    \b
    kilo fle keys import acme --key-file key.bin --approver bo=bo.pem --approver cy=cy.pem
    """
    found, secret = stage(outputs), bytearray(read_key_file(key_file))
    digest = import_digest(tenant, secret_digest(secret).hex())
    signed = [_approval(found, each, "import", digest) for each in approver]
    key_id, state = import_v1(cipher(found, "").keyring, found, tenant, secret, signed)
    typer.echo(f"{tenant}: v1 key imported as key {key_id} ({state})")


@app.command()
def rewrap(
    tenants: Annotated[list[str], typer.Argument(metavar="TENANT...")],
    from_kms_key: Annotated[
        list[str] | None,
        typer.Option(
            help="A KMS key that was the tenant's before, which the outputs no longer name; repeat it."
        ),
    ] = None,
    outputs: OutputsFile = None,
) -> None:
    """Wrap every key of each TENANT again, under the KMS keys of the stage's outputs as they are now.

    For a KEK rotation, a new KMS key, or a second one. Encrypted values do not change.

    \b
    kilo fle keys rewrap acme umbrella
    kilo fle keys rewrap acme --from-kms-key arn:aws:kms:eu-central-1:111122223333:key/…
    """
    stage_outputs = stage(outputs)
    found = cipher(stage_outputs, "").keyring
    for tenant in tenants:
        given = stage_outputs.tenants.get(tenant)
        provider = given.encryption_key.provider if given else "aws"
        before = [KeyReference(provider=provider, key=each, alias=each) for each in from_kms_key or ()]
        changed = found.rewrap(tenant, before)
        with database() as connection:
            details = {"keys": changed, "from": list(from_kms_key or ())}
            append(connection, actor(), "rewrap", f"tenant/{tenant}", details)
        typer.echo(f"{tenant}: {len(changed)} keys wrapped again")


@app.command()
def make(outputs: OutputsFile = None, as_json: AsJson = False) -> None:
    """Make the data and index keys that tenants with encrypted fields don't have yet.

    `pulumi up` runs it as a Job. It may be run at any time, and twice.

    \b
    kilo fle keys make
    """
    found = stage(outputs)
    keyring = cipher(found, "").keyring
    made = [
        {"tenant": tenant, "purpose": purpose, "key": keyring.create(tenant, purpose, "active")}
        for tenant, each in found.tenants.items()
        if each.encrypted_fields and not (rows := keyring.table.read(tenant)).shredded
        for purpose in (DATA, INDEX)
        if rows.active(purpose) is None
    ]
    show_rows("Made", made, as_json=as_json)


@app.command()
def adopt(tenant: TenantArgument, outputs: OutputsFile = None) -> None:
    """Bind the keys of TENANT that were made by a version before 0207_fle_key_digests as keys are bound now.

    Run it once for each tenant, when all processes have the new version: older ones can't read the new wraps.

    \b
    kilo fle keys adopt acme
    """
    changed = cipher(stage(outputs), "").keyring.adopt(tenant)
    typer.echo(f"{tenant}: {len(changed)} keys adopted")


@app.command("destroy-due")
def destroy(as_json: AsJson = False) -> None:
    """Destroy the keys that were retired and whose waiting period is over.

    \b
    kilo fle keys destroy-due --json
    """
    with database() as connection:
        ids = destroy_due(connection, actor())
    show({"destroyed": ids}, as_json=as_json)


def coverage(outputs: OutputsFile = None, as_json: AsJson = False) -> None:
    """Count values by tenant and field: plain, v1, and v2 by key; and say where the configuration differs.

    A field that left the configuration without a release stays encrypted, and one that came in without an
    adoption has values that readers refuse: each is an error that names the command which mends it.

    \b
    kilo fle coverage
    kilo fle coverage --json | jq '.[] | select(.under == "plain")'
    """
    found = stage(outputs)
    with database() as connection:
        lying = scopes(connection)
        rows = count_coverage(
            connection, tables_with(found.field_encryption.tables, lying), list(found.tenants)
        )
    show_rows("Coverage", [asdict(row) for row in rows], as_json=as_json)
    if wrong := mismatches(found, lying, rows):
        raise CheckFailed("\n".join(wrong))


def shred(
    tenant: TenantArgument,
    confirm: Annotated[str, typer.Option(help="TENANT again: none of its values can be read afterwards.")],
    approver: Approvers,
    outputs: OutputsFile = None,
) -> None:
    """Destroy every data and index key of TENANT for good, with evidence in the audit log.

    \b
    kilo fle shred acme --confirm acme --approver bo=bo.pem --approver cy=cy.pem
    """
    if confirm != tenant:
        msg = f"--confirm: give the tenant's name, {tenant}"
        raise BadInput(msg)
    found = stage(outputs)
    with database() as connection:
        digest = keys_digest(connection, tenant)
        signed = [_approval(found, each, "shred", digest) for each in approver]
        ids = shred_tenant(connection, found, tenant, signed)
    typer.echo(f"{tenant}: {len(ids)} keys destroyed; now let an administrator delete its KMS key")


def _approval(outputs: approvals.StackOutputs, text: str, action: str, digest: str) -> approvals.Approval:
    name, separator, path = text.partition("=")
    if not separator:
        msg = f"--approver: {text!r} is not NAME=KEYFILE"
        raise BadInput(msg)
    return approvals.sign(outputs, action, digest, name, load_private_key(Path(path)))
