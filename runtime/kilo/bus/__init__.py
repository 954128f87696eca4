"""The message bus behind one small port.

:class:`Bus` is what the outbox's worker, the reconciler and consumers use: publish messages and know what
became of each, and read a stream from a position. ``connect`` chooses the adapter by the URL. Left out:
server-side consumer state (a consumer keeps its position in its own database, in the transaction of its
effects), request and reply, and everything else that only one bus has.
"""

from kilo.bus.connect import connect
from kilo.bus.history import same_history
from kilo.bus.port import MOST_BYTES, Bus, BusError, Message, Receipt, Received, encode_headers, event_headers

__all__ = [
    "MOST_BYTES",
    "Bus",
    "BusError",
    "Message",
    "Receipt",
    "Received",
    "connect",
    "encode_headers",
    "event_headers",
    "same_history",
]
