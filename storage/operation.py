"""Operations: what becomes of a request that was answered with a 202. Its end, SUCCEEDED or FAILED,
is written in the very transaction that does the work: the one that accepts it, or the worker's
where it had to wait. A crash leaves PENDING or the end, so nobody ever sees one RUNNING."""

from typing import NamedTuple

from storage import ids
from storage.errors import NotFound, Race
from storage.sql import Prepared, across_tenants, insert_values, param, rows_with
from storage.tables import Operation, Promise

_END = Prepared(
    lambda: Operation.update(
        state=param("state"), reason=param("reason"), error=param("error"), update_ms=param("now")
    ).where(
        (Operation.tenant == param("tenant"))
        & (Operation.operation == param("operation"))
        & (Operation.state == "PENDING")
    )
)
_KEPT = Prepared(
    lambda: Promise.delete().where(
        (Promise.tenant == param("tenant")) & (Promise.operation == param("operation"))
    )
)
_FIND = rows_with(Operation, "operation")
_PROMISE = rows_with(Promise, "operation")
_PENDING = Prepared(
    lambda: across_tenants(
        Promise.select(Promise.tenant, Promise.operation)
        .order_by(Promise.tenant, Promise.operation)
        .limit(param("limit"))
    )
)
_PENDING_OF_DRAFT = Prepared(
    lambda: (
        Promise.select(Promise.operation)
        .where((Promise.tenant == param("tenant")) & (Promise.draft == param("draft")))
        .order_by(Promise.operation)
    )
)


class Refused(NamedTuple):
    """Why work could not be done: the name of a gRPC code, and a sentence for the caller."""

    reason: str
    error: str


def record(tenant: int, name: str, draft: str, item: str, refused: Refused | None) -> None:
    """Writes an operation that has come to its end already."""
    _insert(tenant, name, draft, item, "FAILED" if refused else "SUCCEEDED", refused)


def promise(tenant: int, name: str, draft: str, item: str, request: str) -> None:
    """Writes a PENDING operation, and the request that the worker will find."""
    _insert(tenant, name, draft, item, "PENDING", None)
    insert_values(Promise, tenant=tenant, operation=name, draft=draft, request=request)


def request_of(tenant: int, name: str) -> str | None:
    """Returns the request of an operation that is PENDING; None when it has ended, or is not
    there.
    """
    found = _PROMISE.one(Promise, tenant=tenant, operation=name)
    return None if found is None else str(found.request)


def end(tenant: int, name: str, refused: Refused | None) -> None:
    """Ends a PENDING operation, well unless it was refused. Raises Race when it has ended."""
    kept = _KEPT.run(tenant=tenant, operation=name)
    ended = _END.run(
        tenant=tenant,
        operation=name,
        state="FAILED" if refused else "SUCCEEDED",
        reason=refused and refused.reason,
        error=refused and refused.error,
        now=ids.now_ms(),
    )
    if (kept, ended) != (1, 1):
        raise Race(f"operation {name} was ended by another")


def give_up(tenant: int, name: str) -> None:
    """Ends an operation that cannot be applied, unless it has come to its end."""
    if request_of(tenant, name) is not None:
        end(tenant, name, Refused("INTERNAL", "the operation could not be applied"))


def pending(limit: int) -> list[tuple[int, str]]:
    """Returns the tenants and names of operations that wait, the oldest of a tenant first."""
    return [(tenant, name) for tenant, name in _PENDING.rows(limit=limit)]


def pending_of_draft(tenant: int, draft: str) -> list[str]:
    """Returns the names of a draft's operations that wait, the oldest first."""
    return [name for (name,) in _PENDING_OF_DRAFT.rows(tenant=tenant, draft=draft)]


def get(tenant: int, name: str) -> Operation:
    """Returns an operation. Raises NotFound."""
    found = _FIND.one(Operation, tenant=tenant, operation=name)
    if found is None:
        raise NotFound(f"there is no operation operations/{name}")
    return found


def list_page(tenant: int, after: str, size: int) -> list[Operation]:
    """Returns up to `size` operations whose name follows `after`, the oldest first."""
    owned = (Operation.tenant == tenant) & (Operation.operation > after)
    return list(Operation.select().where(owned).order_by(Operation.operation).limit(size))


def _insert(
    tenant: int, name: str, draft: str, item: str, state: str, refused: Refused | None
) -> None:
    now = ids.now_ms()
    insert_values(
        Operation,
        tenant=tenant,
        operation=name,
        state=state,
        draft=draft,
        item=item,
        reason=refused and refused.reason,
        error=refused and refused.error,
        create_ms=now,
        update_ms=now,
    )
