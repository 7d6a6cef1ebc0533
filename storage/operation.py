"""Operations: work promised with a 202. PENDING on disk before the answer, then SUCCEEDED or FAILED
in the very transaction that applies it: a crash leaves PENDING or the end, nothing between, so
nobody ever sees one RUNNING."""

from storage import ids
from storage.errors import NotFound, Race
from storage.sql import Prepared, across_tenants, insert_values, param
from storage.tables import Operation

_END = Prepared(
    lambda: Operation.update(
        state=param("state"), reason=param("reason"), error=param("error"), update_ms=param("now")
    ).where(
        (Operation.tenant == param("tenant"))
        & (Operation.operation == param("operation"))
        & (Operation.state == "PENDING")
    )
)
_FIND = Prepared(
    lambda: Operation.select().where(
        (Operation.tenant == param("tenant")) & (Operation.operation == param("operation"))
    )
)
_PENDING = Prepared(
    lambda: across_tenants(
        Operation.select(Operation.tenant, Operation.operation)
        .where(Operation.state == "PENDING")
        .order_by(Operation.tenant, Operation.operation)
        .limit(param("limit"))
    )
)
_PENDING_OF_DRAFT = Prepared(
    lambda: (
        Operation.select(Operation.operation)
        .where(
            (Operation.tenant == param("tenant"))
            & (Operation.draft == param("draft"))
            & (Operation.state == "PENDING")
        )
        .order_by(Operation.operation)
    )
)


def accept(tenant: int, draft: str, item: str, request: str, name: str = "") -> str:
    """Writes a PENDING operation and returns its name, a new one unless it is given."""
    now, name = ids.now_ms(), name or ids.new_token()
    insert_values(
        Operation,
        tenant=tenant,
        operation=name,
        state="PENDING",
        draft=draft,
        item=item,
        request=request,
        create_ms=now,
        update_ms=now,
    )
    return name


def waiting(tenant: int, name: str) -> Operation | None:
    """Returns an operation that is PENDING; None when it has ended, or is not there."""
    found = _FIND.one(Operation, tenant=tenant, operation=name)
    return found if found is not None and found.state == "PENDING" else None


def succeed(tenant: int, name: str) -> None:
    """Ends a PENDING operation well. Raises Race when somebody was faster."""
    _end(tenant, name, "SUCCEEDED")


def fail(tenant: int, name: str, reason: str, error: str) -> None:
    """Ends a PENDING operation with the reason (a gRPC code's name) and a sentence for the caller.
    Raises Race when somebody was faster.
    """
    _end(tenant, name, "FAILED", reason, error)


def give_up(tenant: int, name: str) -> None:
    """Ends an operation that cannot be applied, unless it has come to its end."""
    if waiting(tenant, name) is not None:
        fail(tenant, name, "INTERNAL", "the operation could not be applied")


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


def _end(
    tenant: int, name: str, state: str, reason: str | None = None, error: str | None = None
) -> None:
    ended = _END.run(
        tenant=tenant, operation=name, state=state, reason=reason, error=error, now=ids.now_ms()
    )
    if ended != 1:
        raise Race(f"operation {name} was ended by another")
