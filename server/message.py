"""Rows as messages, where more than one servicer returns them."""

from collections.abc import Callable
from typing import Any

from google.protobuf.wrappers_pb2 import BoolValue, Int32Value, StringValue
from till.v1 import inventory_pb2 as stock
from till.v1 import order_pb2 as pb

from server import wire
from storage import money
from storage.inventory import remain
from storage.tables import Inventory, Order, OrderItem


def order(row: Order, lines: list[OrderItem]) -> pb.Order:
    """Returns an order as its message."""
    return pb.Order(
        order_id=row.order_id,
        order_number=row.order_number,
        store_id=row.store,
        status=pb.Order.Status.Value(row.status),
        requester_id=wrapped(Int32Value, row.requester_id),
        user_id=wrapped(Int32Value, row.user_id),
        facility_id=wrapped(Int32Value, row.facility_id),
        shipping_address_id=wrapped(Int32Value, row.shipping_address_id),
        billing_address_id=wrapped(Int32Value, row.billing_address_id),
        shipping_method=wrapped(StringValue, row.shipping_method),
        use_shipping_account=wrapped(BoolValue, row.use_shipping_account),
        notes=wrapped(StringValue, row.notes),
        checkout_draft_id=wrapped(StringValue, row.draft),
        customer=wrapped(StringValue, row.customer or None),
        line_items=[line_item(line) for line in lines],
        grand_total=money.amount(row.grand_total),
        create_time=wire.timestamp(row.create_ms),
        update_time=wire.timestamp(row.update_ms),
        etag=wire.etag(row.revision),
    )


def line_item(line: OrderItem) -> pb.LineItem:
    """Returns a line of an order as its message."""
    return pb.LineItem(
        order_item_id=line.order_item_id,
        price_option_id=line.price_option_id,
        product_id=line.product_id,
        quantity=line.quantity,
        price=money.amount(line.price),
        option_code=wrapped(StringValue, line.option_code),
        date=wrapped(StringValue, line.date),
        sku=wrapped(StringValue, line.sku),
        line_total=money.amount(line.total),
    )


def wrapped(kind: Callable[..., Any], value: Any) -> Any:
    """Returns a wrapper message, or None (absent) for a column that is null."""
    return None if value is None else kind(value=value)


def inventory(row: Inventory) -> stock.Inventory:
    """Returns a stock row as its message."""
    return stock.Inventory(
        inventory_id=row.inventory_id,
        inventory_code=row.inventory_code,
        option_code=row.option_code,
        date=row.date,
        max_quantity=row.max_quantity,
        remain_quantity=remain(row),
        ordered_quantity=row.ordered,
        held_quantity=row.held,
        etag=wire.etag(row.revision),
    )
