"""``kilo fle``: values, keys, rotation and audit of field-level encryption."""

from __future__ import annotations

import typer

from kilo.fle.commands import audit, keys, rotate, values

app = typer.Typer(no_args_is_help=True, help="Field-level encryption: values, keys, rotation, audit.")
app.command()(values.encrypt)
app.command()(values.decrypt)
app.command()(values.token)
app.command()(values.inspect)
app.command()(keys.coverage)
app.command()(keys.shred)
app.add_typer(keys.app, name="keys")
app.add_typer(rotate.app, name="rotate")
app.add_typer(audit.app, name="audit")
