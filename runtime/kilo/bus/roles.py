"""Who may do what on the NATS bus; pure.

Each process has a user of its own, with the subjects that its work needs and no others. All users are of one
account, the server's default: there the streams lie already, and an account a role would need every subject
exported and imported. Answers come to an inbox under the user's own name, which no other may listen to.

One thing these rules can't hold: the server does not look at the subject to which an answer is asked for. Who
may ask the JetStream API anything can have its answer, or an event again that is there already, sent to an
event's subject.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from kilo.contract import BusOutputs

BusRole = Literal["worker", "cdc", "consumer", "reconciler", "operator"]
"""``worker`` and ``cdc`` publish, ``consumer`` reads, ``reconciler`` does both, ``operator`` declares."""
BUS_ROLES: tuple[BusRole, ...] = get_args(BusRole)
KAFKA_GROUP = "kilo-reader"
"""Of all who read a Kafka, so that who manages its users knows which to let them see."""


def bus_secret(role: BusRole) -> str:
    """The name of the Secret of ``role``, unless the stage's file names another."""
    return f"bus-{role}"


def bus_secrets() -> dict[BusRole, str]:
    """The name of each role's Secret."""
    return {role: bus_secret(role) for role in BUS_ROLES}


@dataclass(frozen=True, slots=True)
class BusUser:
    """A user of the bus. While passwords are replaced a role has two, which both get in."""

    name: str
    role: BusRole
    password_hash: str = field(repr=False)
    """By bcrypt: ``$2a$...``."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects that a user may publish to and subscribe to; all others are refused."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def inbox_prefix(user: str) -> str:
    """The first token of the subjects on which ``user`` waits for answers."""
    return f"_INBOX_{user}"


def permissions_of(user: BusUser, bus: BusOutputs) -> Permissions:
    """What ``user`` may do on ``bus``."""
    events, reading = f"{bus.subject_prefix}.>", _reading(bus.stream)
    publish: dict[BusRole, tuple[str, ...]] = {
        "worker": (events,),
        "cdc": (events, "heartbeat.>"),
        "consumer": reading,
        "reconciler": (events, *reading),
        "operator": tuple(
            f"$JS.API.STREAM.{verb}.{stream}"
            for stream in (bus.stream, bus.heartbeat_stream)
            for verb in ("INFO", "CREATE", "UPDATE")
        ),
    }
    # Debezium's client has the inbox that clients have by default; so only it may listen there.
    inbox = "_INBOX" if user.role == "cdc" else inbox_prefix(user.name)
    return Permissions(publish[user.role], (f"{inbox}.>",))


def _reading(stream: str) -> tuple[str, ...]:
    """What :meth:`kilo.bus.Bus.read` asks for: a consumer that the server names and forgets by itself."""
    return (
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.API.CONSUMER.CREATE.{stream}",
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.*",
        f"$JS.API.CONSUMER.DELETE.{stream}.*",
    )
