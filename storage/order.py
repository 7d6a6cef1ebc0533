"""The one order book. Every door adds to it here, and an order has exactly one winner per store
and number.
"""

from peewee import IntegrityError, fn

from storage import draft_item, event, hold, ids, inventory, store, tenant
from storage.errors import InvalidField, NoOrders, NoStockRow, NotFound, OrderExists, Race
from storage.money import LIMIT
from storage.movement import Cause, Wanted, take
from storage.sql import Prepared, insert, insertion, param, rows_with
from storage.tables import Inventory, Order, OrderItem

RECENT = 5
"""How many orders the latest-orders read returns at most."""
LINES_MAX = 32_767
"""How many lines an order has at most: their positions are 16 bits on a server."""

_BY_ID = rows_with(Order, "order_id")
_BY_NUMBER = rows_with(Order, "store", "order_number")
_RECENT = Prepared(
    lambda: (
        Order.select(Order.order_number, Order.grand_total, Order.customer_ms)
        .where(
            (Order.tenant == param("tenant"))
            & (Order.store == param("store"))
            & (Order.customer == param("customer"))
        )
        .order_by(Order.customer_ms.desc())
        .limit(RECENT)
    )
)
_LATER = (
    Order.select(Order.customer_ms + 1)
    .where(
        (Order.tenant == param("tenant"))
        & (Order.store == param("store"))
        & (Order.customer == param("customer"))
        & (Order.customer_ms >= param("create_ms"))
    )
    .order_by(Order.customer_ms.desc())
    .limit(1)
)
_BLANK: dict[str, object] = dict.fromkeys(Order._meta.fields)
_ADD = Prepared(
    lambda: insertion(
        Order,
        {field: param(field.name) for field in Order._meta.sorted_fields}
        # A customer's orders have times of their own, though two come within a millisecond.
        | {Order.customer_ms: fn.COALESCE(_LATER, param("create_ms"))},
    )
)
_ITEMS = Prepared(
    lambda: (
        OrderItem.select()
        .where((OrderItem.tenant == param("tenant")) & (OrderItem.order_id == param("order_id")))
        .order_by(OrderItem.position)
    )
)
_MEET = Prepared(
    lambda: Order.update(item_changes=Order.item_changes + 1).where(
        (Order.tenant == param("tenant"))
        & (Order.order_id == param("order_id"))
        & (Order.item_changes == param("was"))
        & (Order.status == param("status"))
    )
)


def create(
    order: Order, lines: list[OrderItem], hold_id: str = ""
) -> tuple[Order, list[OrderItem]]:
    """Adds an order with its lines, a draft's included, and takes the stock of its tracked lines.

    Needs tenant, store and user_id; gives the order its id and, as its number, the id in decimal.
    A hold gives its units to the order first. Raises DraftNotOrderable, OutOfStock, NoStockRow,
    NotFound and HoldNotActive (the hold), InvalidField (a total that is negative or absurd, a line
    that is, or too many lines).
    """
    order.order_id = ids.new_id()
    order.order_number = str(order.order_id)
    order.customer = str(order.user_id)
    if order.draft:
        lines = [*lines, *draft_item.take_for_order(order.tenant, order.draft, order.order_id)]
    if len(lines) > LINES_MAX:
        raise InvalidField("quoteItems", f"and the draft's items are more than {LINES_MAX} lines")
    order.grand_total = _total(lines)
    _take_stock(order, lines, hold_id)
    add(order)
    for position, line in enumerate(lines, 1):
        line.order_item_id = str(position)
        add_item(order, line, position)
    return order, lines


def submit(tenant: int, store_code: str, number: str, customer: str, grand_total: int) -> Order:
    """Adds an order under the store's own number. Raises OrderExists when the number is taken."""
    order = Order(
        tenant=tenant,
        order_id=ids.new_id(),
        store=store_code,
        order_number=number,
        customer=customer,
        grand_total=grand_total,
    )
    try:
        add(order)
    except IntegrityError:
        if find(tenant, store_code, number) is None:
            raise  # the id was taken, or the store: another try will do
        raise OrderExists("The conditional request failed") from None
    return order


def add(order: Order) -> None:
    """Writes a new order with its times, its store if that is new, and its event."""
    store.ensure(order.tenant, order.store)
    order.create_ms = order.update_ms = ids.now_ms()
    _ADD.run(**_BLANK | order.__data__)
    event.record(
        order.tenant,
        "order.created",
        str(order.order_id),
        store=order.store,
        number=order.order_number,
    )


def add_item(order: Order, item: OrderItem, position: int) -> None:
    """Writes a new line of an order."""
    item.tenant, item.order_id, item.position = order.tenant, order.order_id, position
    insert(item)


def find(tenant: int, store_code: str, number: str) -> Order | None:
    """Returns the order of a store and number, if there is one."""
    return _BY_NUMBER.one(Order, tenant=tenant, store=store_code, order_number=number)


def get(tenant: int, order_id: int) -> tuple[Order, list[OrderItem]]:
    """Returns an order and its lines. Raises NotFound."""
    return get_alone(tenant, order_id), items(tenant, order_id)


def get_alone(tenant: int, order_id: int) -> Order:
    """Returns an order without its lines. Raises NotFound."""
    order = _BY_ID.one(Order, tenant=tenant, order_id=order_id)
    if order is None:
        raise NotFound(f"there is no order {order_id}")
    return order


def items(tenant: int, order_id: int) -> list[OrderItem]:
    """Returns the lines of an order, in their order."""
    return _ITEMS.all(OrderItem, tenant=tenant, order_id=order_id)


def recent(tenant: int, store_code: str, customer: str) -> list[tuple[str, int, int]]:
    """Returns (number, grand total in micros, time in ms) of a customer's last orders in a store,
    newest first.

    Raises NoOrders when there are none.
    """
    rows = _RECENT.rows(tenant=tenant, store=store_code, customer=customer)
    if not rows:
        raise NoOrders(f"User {customer} has no orders yet !")
    return [(number, total, at) for number, total, at in rows]


def meet(order: Order) -> None:
    """Makes changes of an order's lines wait for each other.

    Raises Race when its lines changed since it was read: what follows from them is not true any
    more.
    """
    same = {"tenant": order.tenant, "order_id": order.order_id}
    if _MEET.run(was=order.item_changes, status=order.status, **same) != 1:
        raise Race(f"order {order.order_id} was changed by another")
    order.item_changes += 1


def _total(lines: list[OrderItem]) -> int:
    total = sum(line.total for line in lines)
    if not 0 <= total <= LIMIT:
        raise InvalidField("grandTotal", "of the lines is negative or too large")
    for index, line in enumerate(lines):
        if abs(line.total) > LIMIT:  # another line made up for it
            raise InvalidField(f"quoteItems[{index}].price", "times the quantity is too large")
    return total


def _take_stock(order: Order, lines: list[OrderItem], hold_id: str) -> None:
    wanted = []
    for index, line in enumerate(lines):
        row = _stock_row(order.tenant, index, line)
        if row is not None:
            line.option_code, line.date = row.option_code, row.date
            line.inventory_id = row.inventory_id
            wanted.append(Wanted(f"quoteItems[{index}]", row.inventory_id, line.quantity))
    if lines:
        _refuse_unmatched(order.tenant, lines)
    if hold_id:
        hold.use(order.tenant, hold_id, order.client)
    if wanted:
        hold.free_overdue(order.tenant, {want.inventory_id for want in wanted})
        take(order.tenant, wanted, Cause(order.client, f"orders/{order.order_id}"))


def _refuse_unmatched(tenant_id: int, lines: list[OrderItem]) -> None:
    unmatched = [f"quoteItems[{i}]" for i, line in enumerate(lines) if line.inventory_id is None]
    if unmatched and tenant.stock_policy(tenant_id) == "REQUIRE_MATCH":
        raise NoStockRow(f"no stock row matches {', '.join(unmatched[:10])}")


def _stock_row(tenant_id: int, index: int, line: OrderItem) -> Inventory | None:
    """Returns the stock row a line names; without a day, the only row of its option."""
    if line.date is not None:
        inventory.real_day(f"quoteItems[{index}].date", line.date)
    option = line.option_code or inventory.option_of(
        tenant_id, line.sku, line.price_option_id, line.product_id
    )
    if not option:
        return None
    if line.date is None:
        return inventory.only_row(tenant_id, option.lower())
    return inventory.find(tenant_id, option, line.date)
