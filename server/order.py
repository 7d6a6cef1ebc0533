"""OrderService: the order book over gRPC."""

from typing import Any

from till.v1 import order_pb2 as pb
from till.v1.order_pb2_grpc import OrderServiceServicer

from server import call, message
from server.access import Caller
from storage import money, order
from storage.engine import Engine
from storage.once import once
from storage.tables import Order, OrderItem


class OrderServicer(OrderServiceServicer):
    """Translates between messages and the order book."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def CreateOrder(self, request: pb.CreateOrderRequest, context: Any) -> pb.Order:
        """Creates an order, or returns the first answer to its key."""
        asked = call.current()
        claim = asked.claim(request, uuid_needed=True)

        def create() -> bytes:
            new = _new_order(asked.caller, request)
            made = order.create(new, _new_lines(request), request.hold_id)
            return message.order(*made).SerializeToString()

        answer, replayed = await self._engine.write(lambda: once(claim, create))
        await call.mark(context, replayed)
        return pb.Order.FromString(answer)

    async def GetOrder(self, request: pb.GetOrderRequest, context: Any) -> pb.Order:
        """Returns an order of any door."""
        tenant = call.current().tenant
        found = await self._engine.read(lambda: order.get(tenant, request.order_id))
        return message.order(*found)

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
        await call.mark(context, replayed)
        text = f"Order {request.order_id} submitted successfully"
        return pb.SubmitStoreOrderResponse(
            status_code=201, body=pb.SimpleOrderMessage(message=text)
        )

    async def ListRecentUserOrders(
        self, request: pb.ListRecentUserOrdersRequest, context: Any
    ) -> pb.ListRecentUserOrdersResponse:
        """Returns a user's last five orders in one store."""
        tenant = call.current().tenant
        recent = await self._engine.glance(
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


def _new_order(caller: Caller, request: pb.CreateOrderRequest) -> Order:
    return Order(
        tenant=caller.tenant,
        store=caller.store,
        client=caller.client,
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
    """Returns a field that may be absent, or None when it is."""
    return getattr(request, name) if request.HasField(name) else None  # type: ignore[arg-type]
