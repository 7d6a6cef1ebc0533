"""Events: one row for every committed change, in the order of commit, without gaps within a
tenant.

A unit collects its events; the engine writes them last, right before the commit. The tenant's
tip is therefore the last lock that a transaction takes: whoever holds it waits for nobody, so the
numbers follow the commits, and a unit that fails gives its numbers back.
"""

import json
import threading
from typing import NamedTuple

from storage import ids
from storage.sql import Prepared, insert, param
from storage.tables import Event, EventTip


class _Waiting(NamedTuple):
    kind: str
    subject: str
    data: str


_unit = threading.local()
_ADVANCE = Prepared(
    lambda: EventTip.update(seq=EventTip.seq + param("count")).where(
        EventTip.tenant == param("tenant")
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
    waiting: dict[int, list[_Waiting]] = _unit.waiting
    text = json.dumps(data, separators=(",", ":"))
    waiting.setdefault(tenant, []).append(_Waiting(kind, subject, text))


def begin() -> None:
    """Forgets what an earlier attempt on this thread collected; the engine calls it first."""
    _unit.waiting = {}


def flush() -> None:
    """Writes what the unit collected; the engine calls it last."""
    for tenant, waiting in sorted(_unit.waiting.items()):
        if not _ADVANCE.run(tenant=tenant, count=len(waiting)):
            insert(EventTip(tenant=tenant, seq=len(waiting)))
        for later, event in zip(reversed(range(len(waiting))), waiting, strict=True):
            _WRITE.run(tenant=tenant, later=later, now=ids.now_ms(), **event._asdict())
