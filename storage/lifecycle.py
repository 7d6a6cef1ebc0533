"""The life of an order after it was created: its moves, its cancelling, and reading many."""

from dataclasses import dataclass

from peewee import fn

from storage import event, ids, order, revision
from storage.errors import Race, StatusNotAllowed
from storage.movement import Cause, move
from storage.sql import Prepared, insert, param
from storage.tables import Order, OrderItem, OrderStatus

MOVES = {
    "NEW": {"CONFIRMED", "PICKING", "PACKED", "CANCELLED"},
    "CONFIRMED": {"PICKING", "PACKED", "CANCELLED"},
    "PICKING": {"PACKED", "CANCELLED"},
    "PACKED": {"PICKING", "SHIPPED", "CANCELLED"},
    "SHIPPED": {"DELIVERED"},
    "DELIVERED": set(),
    "CANCELLED": set(),
}
"""Where an order may move from each status. PACKED goes back when a checkout adds items."""
_LAST_CHANGE = Prepared(
    lambda: OrderStatus.select(fn.COALESCE(fn.MAX(OrderStatus.change_id), 0)).where(
        (OrderStatus.tenant == param("tenant")) & (OrderStatus.order_id == param("order_id"))
    )
)


@dataclass(frozen=True)
class Filter:
    """Which orders to list; empty means all. Times are epoch milliseconds, `before` excluded."""

    store: str = ""
    customer: str = ""
    status: str = ""
    since_ms: int | None = None
    before_ms: int | None = None


def transition(
    tenant: int, order_id: int, status: str, etag: str, actor: str
) -> tuple[Order, list[OrderItem]]:
    """Moves an order. Raises NotFound, StatusNotAllowed, EtagMismatch."""
    row, lines = order.get(tenant, order_id)
    revision.check(etag, row.revision)
    set_status(row, status, actor)
    event.record(tenant, "order.status_changed", str(order_id), status=status)
    return row, lines


def cancel(
    tenant: int, order_id: int, reason: str, etag: str, actor: str
) -> tuple[Order, list[OrderItem]]:
    """Cancels an order and gives its stock back, once; a cancelled one is returned as it is.

    Raises NotFound, StatusNotAllowed (shipped), EtagMismatch.
    """
    row, lines = order.get(tenant, order_id)
    if row.status == "CANCELLED":
        return row, lines
    revision.check(etag, row.revision)
    set_status(row, "CANCELLED", actor, reason)
    _give_back(row, lines, Cause(actor, f"orders/{order_id}", reason or "cancelled"))
    event.record(tenant, "order.cancelled", str(order_id), reason=reason)
    return row, lines


def set_status(row: Order, status: str, actor: str, reason: str = "") -> None:
    """Moves an order to a status and keeps the history. Raises StatusNotAllowed.

    Raises Race when somebody else moved it since it was read.
    """
    if status not in MOVES[row.status]:
        raise StatusNotAllowed(f"order {row.order_id} is {row.status} and cannot become {status}")
    now = ids.now_ms()
    seen = (Order.revision == row.revision) & (Order.status == row.status)
    owned = (Order.tenant == row.tenant) & (Order.order_id == row.order_id)
    change = Order.update(status=status, revision=row.revision + 1, update_ms=now)
    if change.where(owned & seen).execute() != 1:
        raise Race(f"order {row.order_id} was moved by another")
    row.status, row.revision, row.update_ms = status, row.revision + 1, now
    # Now that the order is ours, nobody adds to its history; who did may have a clock ahead.
    ((last,),) = _LAST_CHANGE.rows(tenant=row.tenant, order_id=row.order_id)
    insert(
        OrderStatus(
            tenant=row.tenant,
            order_id=row.order_id,
            change_id=ids.after(last),
            status=status,
            actor=actor,
            reason=reason,
            create_ms=now,
        )
    )


def history(tenant: int, order_id: int) -> tuple[Order, list[OrderStatus]]:
    """Returns an order and the statuses it moved to after NEW, the first first. Raises NotFound."""
    row, _ = order.get(tenant, order_id)
    owned = (OrderStatus.tenant == tenant) & (OrderStatus.order_id == order_id)
    return row, list(OrderStatus.select().where(owned).order_by(OrderStatus.change_id))


def list_page(tenant: int, wanted: Filter, before: int | None, size: int) -> list[Order]:
    """Returns up to `size` orders older than the order `before`, the newest first."""
    owned = Order.tenant == tenant
    if wanted.store:
        owned &= Order.store == wanted.store
    if wanted.customer:
        owned &= Order.customer == wanted.customer
    if wanted.status:
        owned &= Order.status == wanted.status
    if wanted.since_ms is not None:
        owned &= Order.create_ms >= wanted.since_ms
    if wanted.before_ms is not None:
        owned &= Order.create_ms < wanted.before_ms
    if before is not None:
        owned &= Order.order_id < before
    # A customer's orders are few and lie together: what cannot be read in order is sorted.
    newest = Order.order_id + 0 if wanted.store and wanted.customer else Order.order_id
    return list(Order.select().where(owned).order_by(newest.desc()).limit(size))


def batch_get(tenant: int, order_ids: list[int]) -> list[tuple[Order, list[OrderItem]]]:
    """Returns orders with their lines, in the order asked for. Raises NotFound for any of them."""
    # One by one: with IN, SQLite takes a tenant for a few rows and reads all of them.
    return with_lines(tenant, [order.get_alone(tenant, order_id) for order_id in order_ids])


def with_lines(tenant: int, rows: list[Order]) -> list[tuple[Order, list[OrderItem]]]:
    """Returns orders with their lines, read in one query."""
    owned = (OrderItem.tenant == tenant) & OrderItem.order_id.in_([row.order_id for row in rows])
    lines: dict[int, list[OrderItem]] = {row.order_id: [] for row in rows}
    for line in OrderItem.select().where(owned).order_by(OrderItem.order_id, OrderItem.position):
        lines[line.order_id].append(line)
    return [(row, lines[row.order_id]) for row in rows]


def _give_back(row: Order, lines: list[OrderItem], cause: Cause) -> None:
    units: dict[int, int] = {}
    for line in lines:
        if line.inventory_id is not None:
            units[line.inventory_id] = units.get(line.inventory_id, 0) + line.quantity
    for inventory_id in sorted(units):
        if not move(row.tenant, inventory_id, cause, ordered=-units[inventory_id]):
            raise AssertionError(f"order {row.order_id} ordered more than its row")
