"""Events: one row for every committed change, in the order of commit, without gaps within a
tenant.
"""

import json

from peewee import fn

from storage import ids
from storage.sql import Prepared, insert, param
from storage.tables import Event

_LAST = Prepared(lambda: Event.select(fn.MAX(Event.seq)).where(Event.tenant == param("tenant")))


def record(tenant: int, kind: str, subject: str, **data: object) -> None:
    """Writes the event of a change, inside the change's own transaction."""
    row = _LAST.row(tenant=tenant)
    last = (row[0] if row else None) or 0
    insert(
        Event(
            tenant=tenant,
            seq=last + 1,
            kind=kind,
            subject=subject,
            data=json.dumps(data, separators=(",", ":")),
            create_ms=ids.now_ms(),
        )
    )
