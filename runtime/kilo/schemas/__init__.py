"""The schemas of events: a folder ``events/`` of a repository, one JSON Schema (2020-12) a kind.

A file ``events/KIND.json`` describes the payload of the events of one kind. What was released is recorded in
``events/recorded.lock``; ``kilo events check`` refuses a change that would break a consumer, or a new version
of one that reads what lies in the stream. With ``KILO_EVENT_SCHEMAS`` naming the folder, whoever writes an
event and whoever handles it are held to it: in tests always, at run time by choice.
"""

from kilo.schemas.folder import EventSchema, EventSchemas, load_folder

__all__ = ["EventSchema", "EventSchemas", "load_folder"]
