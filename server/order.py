"""OrderService: the order book over gRPC."""

from collections.abc import Callable
from typing import Any

from google.protobuf.wrappers_pb2 import BoolValue, Int32Value, StringValue
from till.v1 import order_pb2 as pb
from till.v1.order_pb2_grpc import OrderServiceServicer

from server import call, wire
from server.config import Config
from storage import money, order
from storage.engine import Engine
from storage.once import once
from storage.tables import Order, OrderItem


class OrderServicer(OrderServiceServicer):
    """Translates between messages and the order book."""

    def __init__(self, engine: Engine, config: Config) -> None:
        self._engine, self._config = engine, config

    async def CreateOrder(self, request: pb.CreateOrderRequest, context: Any) -> pb.Order:
        """Creates an order, or returns the first answer to its key."""
        asked = call.current()
        claim = asked.claim(request, uuid_needed=True)

        def create() -> bytes:
            new = _new_order(asked.tenant, self._config.default_store, request)
            return _order(*order.create(new, _new_lines(request))).SerializeToString()

        answer, replayed = await self._engine.write(lambda: once(claim, create))
        await _mark(context, replayed)
        return pb.Order.FromString(answer)

    async def GetOrder(self, request: pb.GetOrderRequest, context: Any) -> pb.Order:
        """Returns an order of any door."""
        tenant = call.current().tenant
        found = await self._engine.read(lambda: order.get(tenant, request.order_id))
        return _order(*found)

    async def SubmitStoreOrder(
        self, request: pb.SubmitStoreOrderRequest, context: Any
    ) -> pb.SubmitStoreOrderResponse:
        """Adds a store's own order."""
        asked = call.current()
        claim = asked.claim(request)
        total = money.micros("grand_total", request.grand_total)

        def submit() -> bytes:
            order.submit(asked.tenant, request.store_id, request.order_id, request.user_id, total)
            return b""

        _, replayed = await self._engine.write(lambda: once(claim, submit))
        await _mark(context, replayed)
        text = f"Order {request.order_id} submitted successfully"
        return pb.SubmitStoreOrderResponse(
            status_code=201, body=pb.SimpleOrderMessage(message=text)
        )

    async def ListRecentUserOrders(
        self, request: pb.ListRecentUserOrdersRequest, context: Any
    ) -> pb.ListRecentUserOrdersResponse:
        """Returns a user's last five orders in one store."""
        tenant = call.current().tenant
        recent = await self._engine.read(
            lambda: order.recent(tenant, request.store_id, request.user_id)
        )
        answer = pb.ListRecentUserOrdersResponse(
            status_code=200, body=pb.SimpleOrderMessage(message="Orders retrieved successfully")
        )
        for number, total, at_ms in recent:
            answer.orders.add(  # a third cheaper than messages that are made, then copied in
                user_id=request.user_id,
                grand_total=money.amount(total),
                order_id=number,
                store_id=request.store_id,
                timestamp=f"{request.user_id}#{at_ms}",
            )
        return answer


async def _mark(context: Any, replayed: bool) -> None:
    """Tells the caller that the answer is the first one, given again."""
    if replayed:
        await context.send_initial_metadata((("idempotent-replayed", "true"),))


def _new_order(tenant: int, store: str, request: pb.CreateOrderRequest) -> Order:
    return Order(
        tenant=tenant,
        store=store,
        requester_id=request.requester_id,
        user_id=request.user_id,
        facility_id=request.facility_id,
        shipping_address_id=request.shipping_address_id,
        billing_address_id=request.billing_address_id,
        shipping_method=request.shipping_method,
        use_shipping_account=_value(request, "use_shipping_account"),
        notes=_value(request, "notes"),
        draft=request.checkout_draft_id or None,
    )


def _new_lines(request: pb.CreateOrderRequest) -> list[OrderItem]:
    return [_new_line(index, item) for index, item in enumerate(request.quote_items)]


def _new_line(index: int, item: pb.QuoteItem) -> OrderItem:
    price = money.micros(f"quoteItems[{index}].price", item.price)
    return OrderItem(
        quantity=item.quantity,
        price=price,
        total=item.quantity * price,
        price_option_id=item.price_option_id,
        product_id=item.product_id,
        sku=item.sku or None,
        option_code=item.option_code or None,
        date=item.date or None,
    )


def _value(request: pb.CreateOrderRequest, name: str) -> Any:
    """Returns what a wrapper holds, or None when it is unset."""
    return getattr(request, name).value if request.HasField(name) else None  # type: ignore[arg-type]


def _order(row: Order, lines: list[OrderItem]) -> pb.Order:
    return pb.Order(
        order_id=row.order_id,
        order_number=row.order_number,
        store_id=row.store,
        status=pb.Order.Status.Value(row.status),
        requester_id=_wrapped(Int32Value, row.requester_id),
        user_id=_wrapped(Int32Value, row.user_id),
        facility_id=_wrapped(Int32Value, row.facility_id),
        shipping_address_id=_wrapped(Int32Value, row.shipping_address_id),
        billing_address_id=_wrapped(Int32Value, row.billing_address_id),
        shipping_method=_wrapped(StringValue, row.shipping_method),
        use_shipping_account=_wrapped(BoolValue, row.use_shipping_account),
        notes=_wrapped(StringValue, row.notes),
        checkout_draft_id=_wrapped(StringValue, row.draft),
        customer=_wrapped(StringValue, row.customer),
        line_items=[_line(line) for line in lines],
        grand_total=money.amount(row.grand_total),
        create_time=wire.timestamp(row.create_ms),
        update_time=wire.timestamp(row.update_ms),
        etag=wire.etag(row.revision),
    )


def _line(line: OrderItem) -> pb.LineItem:
    return pb.LineItem(
        order_item_id=line.order_item_id,
        price_option_id=line.price_option_id,
        product_id=line.product_id,
        quantity=line.quantity,
        price=money.amount(line.price),
        option_code=_wrapped(StringValue, line.option_code),
        date=_wrapped(StringValue, line.date),
        sku=_wrapped(StringValue, line.sku),
        line_total=money.amount(line.total),
    )


def _wrapped(kind: Callable[..., Any], value: Any) -> Any:
    """Returns a wrapper message, or None (absent) for a column that is null."""
    return None if value is None else kind(value=value)
