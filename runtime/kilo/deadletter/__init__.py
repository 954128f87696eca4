"""Dead letters: events that a consumer could not handle, for people to look at, replay, edit or discard.

They lie in the consumer's own database, written in the transaction that gave up on them. A replay is done
by the consumer itself, in the order of the aggregate and with the inbox row in the same transaction, so
that it has one effect however often it is asked for and wherever it is interrupted.
"""

from kilo.deadletter.store import DeadLetter, DeadLetters, Filter

__all__ = ["DeadLetter", "DeadLetters", "Filter"]
