"""The one order book. Every door adds to it here, and an order has exactly one winner per store
and number.
"""

from storage import draft_item, event, ids, inventory, store
from storage.errors import InvalidField, NoOrders, NotFound, OrderExists, Race
from storage.money import LIMIT
from storage.sql import Prepared, insert, param
from storage.tables import Inventory, Order, OrderItem

RECENT = 5
"""How many orders the latest-orders read returns at most."""

_BY_ID = Prepared(
    lambda: Order.select().where(
        (Order.tenant == param("tenant")) & (Order.order_id == param("order_id"))
    )
)
_BY_NUMBER = Prepared(
    lambda: Order.select().where(
        (Order.tenant == param("tenant"))
        & (Order.store == param("store"))
        & (Order.order_number == param("order_number"))
    )
)
_LAST_MS = Prepared(
    lambda: (
        Order.select(Order.customer_ms)
        .where(
            (Order.tenant == param("tenant"))
            & (Order.store == param("store"))
            & (Order.customer == param("customer"))
        )
        .order_by(Order.customer_ms.desc())
        .limit(1)
    )
)
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
_ITEMS = Prepared(
    lambda: (
        OrderItem.select()
        .where((OrderItem.tenant == param("tenant")) & (OrderItem.order_id == param("order_id")))
        .order_by(OrderItem.position)
    )
)
_MOVE = Prepared(
    lambda: Order.update(
        status=param("status"), revision=Order.revision + 1, update_ms=param("now")
    ).where(
        (Order.tenant == param("tenant"))
        & (Order.order_id == param("order_id"))
        & (Order.revision == param("was"))
    )
)


def create(order: Order, lines: list[OrderItem]) -> tuple[Order, list[OrderItem]]:
    """Adds an order with its lines, a draft's included, and takes the stock of its tracked lines.

    Needs tenant, store and user_id; gives the order its id and, as its number, the id in decimal.
    Raises DraftNotOrderable, OutOfStock, and InvalidField for a total that is negative or absurd.
    """
    order.order_id = ids.new_id()
    order.order_number = str(order.order_id)
    order.customer = str(order.user_id)
    if order.draft:
        lines = [*lines, *draft_item.take_for_order(order.tenant, order.draft, order.order_id)]
    order.grand_total = _total(lines)
    _take_stock(order, lines)
    add(order)
    for position, line in enumerate(lines, 1):
        line.order_item_id = str(position)
        add_item(order, line, position)
    return order, lines


def submit(tenant: int, store_code: str, number: str, customer: str, grand_total: int) -> Order:
    """Adds an order under the store's own number. Raises OrderExists when the number is taken."""
    if find(tenant, store_code, number) is not None:
        raise OrderExists("The conditional request failed")
    order = Order(
        tenant=tenant,
        order_id=ids.new_id(),
        store=store_code,
        order_number=number,
        customer=customer,
        grand_total=grand_total,
    )
    add(order)
    return order


def add(order: Order) -> None:
    """Writes a new order with its times, its store if that is new, and its event."""
    store.ensure(order.tenant, order.store)
    order.create_ms = order.update_ms = order.customer_ms = ids.now_ms()
    if order.customer is not None:
        last = _LAST_MS.row(tenant=order.tenant, store=order.store, customer=order.customer)
        order.customer_ms = max(order.create_ms, last[0] + 1 if last else 0)
    insert(order)
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
    order = _BY_ID.one(Order, tenant=tenant, order_id=order_id)
    if order is None:
        raise NotFound(f"there is no order {order_id}")
    return order, items(tenant, order_id)


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


def move(order: Order, status: str) -> None:
    """Gives an order a status, the same or another, and its next revision.

    Raises Race when the order moved since it was read: what follows from its lines is not true
    any more.
    """
    now = ids.now_ms()
    moved = _MOVE.run(
        tenant=order.tenant, order_id=order.order_id, was=order.revision, status=status, now=now
    )
    if moved != 1:
        raise Race(f"order {order.order_id} was moved by another")
    order.status, order.revision, order.update_ms = status, order.revision + 1, now


def _total(lines: list[OrderItem]) -> int:
    total = sum(line.total for line in lines)
    if not 0 <= total <= LIMIT:
        raise InvalidField("grandTotal", "of the lines is negative or too large")
    return total


def _take_stock(order: Order, lines: list[OrderItem]) -> None:
    wanted = []
    for index, line in enumerate(lines):
        if line.date is None:
            continue
        inventory.real_day(f"quoteItems[{index}].date", line.date)
        row = _stock_row(order.tenant, line)
        if row is not None:
            line.option_code = row.option_code
            wanted.append(inventory.Wanted(f"quoteItems[{index}]", row, line.quantity))
    if wanted:
        inventory.take(order.tenant, wanted, f"orders/{order.order_id}")


def _stock_row(tenant: int, line: OrderItem) -> Inventory | None:
    option = line.option_code or inventory.option_of(
        tenant, line.sku, line.price_option_id, line.product_id
    )
    return inventory.find(tenant, option, line.date) if option and line.date else None
