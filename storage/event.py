"""Events: one row for every committed change, in the order of commit, without gaps within a
tenant.

A unit collects its events; the engine writes them last, with the commit. The tenant's tip is
therefore the last lock that a transaction takes: whoever holds it waits for nobody, so the numbers
follow the commits, and a unit that fails gives its numbers back.
"""

import json
import threading
from typing import NamedTuple

from storage import ids
from storage.sql import Prepared, param, upsert
from storage.tables import Event, EventTip


class _Waiting(NamedTuple):
    kind: str
    subject: str
    data: str


_unit = threading.local()
_ADVANCE = Prepared(
    lambda: upsert(
        EventTip.insert(tenant=param("tenant"), seq=param("count")),
        EventTip.tenant,
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
    waiting: dict[int, list[_Waiting]] = _unit.waiting
    text = json.dumps(data, separators=(",", ":"))
    waiting.setdefault(tenant, []).append(_Waiting(kind, subject, text))


def begin() -> None:
    """Forgets what an earlier attempt on this thread collected; the engine calls it first."""
    _unit.waiting = {}


def closing() -> list[tuple[str, list[object]]]:
    """Returns the statements that write what the unit collected; the engine runs them last."""
    statements = []
    for tenant, waiting in sorted(_unit.waiting.items()):
        statements.append(_ADVANCE.filled(tenant=tenant, count=len(waiting)))
        for later, event in zip(reversed(range(len(waiting))), waiting, strict=True):
            values = {**event._asdict(), "tenant": tenant, "later": later, "now": ids.now_ms()}
            statements.append(_WRITE.filled(**values))
    return statements
