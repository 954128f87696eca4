"""``kilo db``: the schema."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import psycopg
import typer

from kilo.cdc.publication import apply_capture
from kilo.contract import load_outputs
from kilo.database.administrator import administrator_url
from kilo.database.migrator import migrate as run_migrations
from kilo.database.migrator import use_schema
from kilo.database.partitions import declare_usage_windows, declare_windows
from kilo.database.roles import ROLES
from kilo.environment import DATABASE_VARIABLE, URL_SECRET_VARIABLE, database_url
from kilo.errors import BadInput, Unreachable
from kilo.logins import Generation, login_of, password_variable

app = typer.Typer(no_args_is_help=True, help="The database's schema and roles.")


@app.callback()
def _group() -> None:
    """The database's schema and roles."""


@app.command()
def migrate(
    usage_hours_keep_days: Annotated[
        int | None, typer.Option(min=2, help="How long usage is kept by hour; as it is without it.")
    ] = None,
    usage_days_keep_days: Annotated[
        int | None, typer.Option(min=2, help="How long usage is kept by day; as it is without it.")
    ] = None,
    generation: Annotated[
        int | None,
        typer.Option(min=1, help="Of the roles' logins; others end. Without it those that there are stay."),
    ] = None,
    former_accepted: Annotated[
        bool, typer.Option("--former-accepted", help="Keep the logins of the generation before it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Bring the schema, the roles, the publication and the slot to what this version and stage declare.

    Reads an administrator's URL from DATABASE_URL, or else from the secret of AWS Secrets Manager that
    DATABASE_URL_SECRET names; passwords from KILO_INGEST_PASSWORD and the like (of the second generation
    KILO_INGEST_2_PASSWORD), and the stage's outputs from KILO_OUTPUTS. Safe to run again, and twice at once.

    Example:  DATABASE_URL=postgresql://admin:…@db/kilo kilo db migrate
    """
    outputs = load_outputs()
    secret_id = "" if os.environ.get(DATABASE_VARIABLE) else os.environ.get(URL_SECRET_VARIABLE, "")
    url = administrator_url(secret_id, outputs.database) if secret_id else database_url()
    logins = _generation(generation, former_accepted=former_accepted)
    passwords = {
        login: os.environ.get(password_variable(login), "")
        for role in ROLES
        for login in (login_of(role, each) for each in (logins or Generation()).accepted)
    }
    schema = outputs.database.schema_name
    report = run_migrations(url, passwords, schema=schema, generation=logins)
    with psycopg.connect(url, autocommit=True) as connection:
        use_schema(connection, schema)
        declare_windows(connection, outputs.outbox)
        declare_usage_windows(connection, usage_hours_keep_days, usage_days_keep_days)
        capture = apply_capture(connection, outputs.outbox)
    without = [login for login, password in passwords.items() if not password]
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "applied": report.applied,
                    "already_there": report.already_there,
                    "roles_given_a_password": [login for login in passwords if login not in without],
                    "logins_ended": report.logins_ended,
                    "cdc_added": capture.added,
                    "cdc_removed": capture.removed,
                    "slot_created": capture.slot_created,
                }
            )
        )
        return
    typer.echo(f"migrations: {len(report.applied)} applied, {report.already_there} were there")
    if without:
        typer.echo(f"no password given, so unchanged: {', '.join(without)}")
    if report.logins_ended:
        typer.echo(f"logins that are over: {', '.join(report.logins_ended)}")
    if capture.added or capture.removed or capture.slot_created:
        typer.echo(
            f"change capture: added {', '.join(capture.added) or 'none'},"
            f" removed {', '.join(capture.removed) or 'none'}"
        )


def _generation(number: int | None, *, former_accepted: bool) -> Generation | None:
    if former_accepted and (number is None or number == 1):
        msg = "--former-accepted: there is no generation before; it goes with --generation 2 or higher"
        raise BadInput(msg)
    return None if number is None else Generation(number, former_accepted)


@app.command()
def serve(
    data: Annotated[Path, typer.Option(help="The directory in which the data lies.")],
    database_port: Annotated[int, typer.Option(min=1, max=65535, help="Port for PostgreSQL.")] = 5432,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port for health.")] = 10087,
) -> None:
    """Serve a PostgreSQL of one's own until stopped: the database of a preview, which goes with its volume.

    Makes the database `service`, the role `service_owner` for its migrations and `service` for the service.
    Reads the passwords from KILO_ADMIN_PASSWORD, KILO_OWNER_PASSWORD and KILO_SERVICE_PASSWORD.

    Example:  kilo db serve --data /data
    """
    # Imported late: migrations need no server.
    from kilo.database.own_server import serve as run_server  # noqa: PLC0415

    run_server(data, database_port, port)


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="SQL, executed as one transaction.")],
) -> None:
    """Run a file of SQL, whole or not at all, as the role of DATABASE_URL.

    Example:  kilo db run seed.sql
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{file}: can't be read as text ({error})"
        raise BadInput(msg) from error
    try:
        with psycopg.connect(database_url(), connect_timeout=10) as connection:
            connection.execute(text)  # type: ignore[arg-type]
    except psycopg.OperationalError as error:
        msg = f"the database does not answer: {str(error).splitlines()[0]}"
        raise Unreachable(msg) from error
    except psycopg.Error as error:
        line = text.count("\n", 0, int(error.diag.statement_position or 1) - 1) + 1
        msg = f"{file}:{line}: {error.diag.message_primary or type(error).__name__}; nothing of it was done"
        raise BadInput(msg) from error
    typer.echo(f"{file.name}: done")
