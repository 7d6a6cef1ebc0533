"""Operations: work promised with a 202. PENDING on disk before the answer, then RUNNING inside the
very transaction that applies it, then SUCCEEDED or FAILED: a crash leaves PENDING or the end,
nothing between."""

from storage import ids
from storage.errors import NotFound
from storage.sql import Prepared, across_tenants, insert, param
from storage.tables import Operation

_MOVE = Prepared(
    lambda: Operation.update(
        state=param("to"), reason=param("reason"), error=param("error"), update_ms=param("now")
    ).where(
        (Operation.tenant == param("tenant"))
        & (Operation.operation == param("operation"))
        & (Operation.state == param("was"))
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


def accept(tenant: int, draft: str, item: str, request: str) -> str:
    """Writes a PENDING operation and returns its name."""
    now = ids.now_ms()
    name = ids.new_token()
    insert(
        Operation(
            tenant=tenant,
            operation=name,
            state="PENDING",
            draft=draft,
            item=item,
            request=request,
            create_ms=now,
            update_ms=now,
        )
    )
    return name


def start(tenant: int, name: str) -> Operation | None:
    """Moves a PENDING operation to RUNNING and returns it; None when somebody was faster."""
    if not _move(tenant, name, "PENDING", "RUNNING"):
        return None
    return _FIND.one(Operation, tenant=tenant, operation=name)


def succeed(tenant: int, name: str) -> None:
    """Ends a RUNNING operation well."""
    _move(tenant, name, "RUNNING", "SUCCEEDED")


def fail(tenant: int, name: str, reason: str, error: str) -> None:
    """Ends a RUNNING operation with the reason (a gRPC code's name) and a sentence for the
    caller.
    """
    _move(tenant, name, "RUNNING", "FAILED", reason, error)


def give_up(tenant: int, name: str) -> None:
    """Ends an operation that cannot be applied, unless it has come to its end."""
    if _move(tenant, name, "PENDING", "RUNNING"):
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


def _move(
    tenant: int, name: str, was: str, to: str, reason: str | None = None, error: str | None = None
) -> bool:
    moved = _MOVE.run(
        tenant=tenant, operation=name, was=was, to=to, reason=reason, error=error, now=ids.now_ms()
    )
    return moved == 1
