"""Events: one row for every committed change, in the order of commit, without gaps within a
tenant.

A unit collects its events; the engine writes them last, with the commit. The tenant's tip is
therefore the last lock that a transaction takes: whoever holds it waits for nobody, so the numbers
follow the commits, and a unit that fails gives its numbers back.
"""

import threading
from typing import NamedTuple

import orjson

from storage import ids
from storage.sql import Prepared, param, upsert
from storage.tables import Event, EventTip


class Waiting(NamedTuple):
    """An event that has no number yet."""

    tenant: int
    kind: str
    subject: str
    data: str
    now: int


_unit = threading.local()
_ADVANCE = Prepared(
    lambda: upsert(
        EventTip.insert(tenant=param("tenant"), seq=param("count")),
        [EventTip.tenant],
        {EventTip.seq: EventTip.seq + param("count")},
    )
)
_WRITE = Prepared(
    lambda: Event.insert_from(
        EventTip.select(
            EventTip.tenant,
            EventTip.seq - param("later"),
            param("kind"),
            param("subject"),
            param("data"),
            param("now"),
        ).where(EventTip.tenant == param("tenant")),
        [Event.tenant, Event.seq, Event.kind, Event.subject, Event.data, Event.create_ms],
    )
)


def record(tenant: int, kind: str, subject: str, **data: object) -> None:
    """Says that a unit changed something; the row is part of the unit's own transaction."""
    text = orjson.dumps(data).decode()
    _unit.waiting.append(Waiting(tenant, kind, subject, text, ids.now_ms()))


def begin() -> None:
    """Forgets what an earlier attempt on this thread collected; the engine calls it first."""
    _unit.waiting = []


def collected() -> list[Waiting]:
    """Returns what the unit on this thread has recorded."""
    waiting: list[Waiting] = _unit.waiting
    return waiting


def closing(events: list[Waiting]) -> list[tuple[str, list[list[object]]]]:
    """Returns the statements that number and write the events of a transaction, each with its rows
    of parameters; the engine runs them last.
    """
    advances, writes = [], []
    for tenant in sorted({event.tenant for event in events}):
        own = [event for event in events if event.tenant == tenant]
        advances.append(_ADVANCE.values(tenant=tenant, count=len(own)))
        writes += [
            _WRITE.values(later=len(own) - place, **event._asdict())
            for place, event in enumerate(own, 1)
        ]
    return [(_ADVANCE.text, advances), (_WRITE.text, writes)] if events else []
