"""``kilo bus``: the streams."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated
from urllib.parse import urlsplit

import typer
from nats.errors import Error as NatsError
from nats.js.errors import APIError

from kilo.bus.nats import NatsBus
from kilo.bus.port import DECLARE_AGAIN, BusError
from kilo.bus.streams import StreamPolicy, apply_streams, declare_streams
from kilo.contract import BusOutputs, load_outputs
from kilo.errors import BadInput

app = typer.Typer(no_args_is_help=True, help="The bus's streams.")


@app.callback()
def _group() -> None:
    """The bus's streams."""


@app.command()
def apply(
    replicas: Annotated[int | None, typer.Option(min=1, max=5, help="Copies of each stream; odd.")] = None,
    retention_days: Annotated[int | None, typer.Option(min=1, help="Days that events are kept.")] = None,
    max_gibibytes: Annotated[
        int | None, typer.Option(min=1, help="Most that the events may take; beyond it new ones wait.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Declare the streams of the stage, on NATS or Kafka as its bus URL says; safe to run again.

    The stage's Job bus-streams runs it with the values of the stage's file, as the bus's user operator.
    It changes streams that are there too, and keeping less deletes events: so each value has to be given.
    A Kafka takes no --max-gibibytes.

    Reads the stage's outputs from KILO_OUTPUTS.

    Example:  kilo bus apply --replicas 3 --retention-days 14 --max-gibibytes 75
    """
    bus = load_outputs().bus
    done = apply_declared(bus, _policy(bus, replicas, retention_days, max_gibibytes))
    if as_json:
        typer.echo(json.dumps(dict(done)))
        return
    for stream, what in done:
        typer.echo(f"{stream}: {what}")


def _policy(
    bus: BusOutputs, replicas: int | None, retention_days: int | None, max_gibibytes: int | None
) -> StreamPolicy:
    kafka = urlsplit(bus.url).scheme == "kafka"
    if kafka and max_gibibytes is not None:
        msg = "--max-gibibytes: a Kafka would drop its oldest events beyond it; leave it out"
        raise BadInput(msg)
    given = {"--replicas": replicas, "--retention-days": retention_days}
    if not kafka:
        given["--max-gibibytes"] = max_gibibytes
    missing = [option for option, value in given.items() if value is None]
    if replicas is None or retention_days is None or missing:
        msg = (
            f"{', '.join(missing)}: not given, and another value than the stage's may delete its events;"
            f" with the values of the stage's file {DECLARE_AGAIN} runs it"
        )
        raise BadInput(msg)
    return StreamPolicy(replicas, retention_days, max_gibibytes)


def apply_declared(bus: BusOutputs, policy: StreamPolicy) -> list[tuple[str, str]]:
    """Declare the streams on the bus that the URL names; each with what was done to it.

    Raises:
        Unreachable: the bus does not answer.
        BadInput: it refuses what is declared.
    """
    if urlsplit(bus.url).scheme == "kafka":
        # Only the adapter that is used is imported: Kafka's needs an extra.
        from kilo.bus.kafka_topics import apply_topics, declare_topics  # noqa: PLC0415

        return apply_topics(bus.url, declare_topics(bus, policy))
    return asyncio.run(_apply_to_nats(bus, policy))


async def _apply_to_nats(outputs: BusOutputs, policy: StreamPolicy) -> list[tuple[str, str]]:
    bus = await NatsBus.connect(outputs.url, "kilo-bus-apply")
    try:
        return await apply_streams(bus.client.jetstream(), declare_streams(outputs, policy))
    except APIError as error:
        msg = f"the bus refuses a stream: {error.description} ({error.err_code})"
        raise BadInput(msg) from error
    except (TimeoutError, NatsError) as error:
        msg = f"the bus refuses a stream: {bus.refusal or error or 'no answer'}"
        raise BusError(msg) from error
    finally:
        await bus.close()
