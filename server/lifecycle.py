"""LifecycleService: the moves of orders, and many orders, over gRPC."""

from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from till.v1 import lifecycle_pb2 as pb
from till.v1.lifecycle_pb2_grpc import LifecycleServiceServicer
from till.v1.order_pb2 import Order as OrderMessage

from server import call, message, wire
from storage import lifecycle
from storage.engine import Engine
from storage.lifecycle import Filter
from storage.tables import Order, OrderItem, OrderStatus

Found = list[tuple[Order, list[OrderItem]]]


class LifecycleServicer(LifecycleServiceServicer):
    """Translates between messages and the life of orders."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def ListOrders(
        self, request: pb.ListOrdersRequest, context: Any
    ) -> pb.ListOrdersResponse:
        """Returns a page of orders, the newest first."""
        tenant, size = call.current().tenant, request.page_size or wire.PAGE_SIZE
        before = wire.page_position(request.page_token, int)

        def query() -> Found:
            rows = lifecycle.list_page(tenant, _filter(request), before, size + 1)
            return lifecycle.with_lines(tenant, rows)

        found = await self._engine.scan(query)
        more = wire.page_token(found[size - 1][0].order_id) if len(found) > size else ""
        orders = [message.order(*one) for one in found[:size]]
        return pb.ListOrdersResponse(orders=orders, next_page_token=more)

    async def BatchGetOrders(
        self, request: pb.BatchGetOrdersRequest, context: Any
    ) -> pb.BatchGetOrdersResponse:
        """Returns orders in the order asked for."""
        tenant, order_ids = call.current().tenant, list(request.order_ids)
        found = await self._engine.scan(lambda: lifecycle.batch_get(tenant, order_ids))
        return pb.BatchGetOrdersResponse(orders=[message.order(*one) for one in found])

    async def TransitionOrder(
        self, request: pb.TransitionOrderRequest, context: Any
    ) -> OrderMessage:
        """Moves an order."""
        caller, status = call.current().caller, OrderMessage.Status.Name(request.status)
        return message.order(
            *await self._engine.write(
                lambda: lifecycle.transition(
                    caller.tenant, request.order_id, status, request.etag, caller.client
                )
            )
        )

    async def CancelOrder(self, request: pb.CancelOrderRequest, context: Any) -> OrderMessage:
        """Cancels an order and gives its stock back."""
        caller = call.current().caller
        return message.order(
            *await self._engine.write(
                lambda: lifecycle.cancel(
                    caller.tenant, request.order_id, request.reason, request.etag, caller.client
                )
            )
        )

    async def ListOrderStatuses(
        self, request: pb.ListOrderStatusesRequest, context: Any
    ) -> pb.ListOrderStatusesResponse:
        """Returns every status an order has had."""
        tenant = call.current().tenant
        row, moves = await self._engine.scan(lambda: lifecycle.history(tenant, request.order_id))
        first = pb.OrderStatusChange(
            status=OrderMessage.Status.NEW,
            create_time=wire.timestamp(row.create_ms),
            actor=row.client,
        )
        return pb.ListOrderStatusesResponse(changes=[first, *(_change(move) for move in moves)])


def _filter(request: pb.ListOrdersRequest) -> Filter:
    return Filter(
        store=request.store_id,
        customer=request.customer,
        status=OrderMessage.Status.Name(request.status) if request.status else "",
        since_ms=_time(request, "created_since", request.created_since),
        before_ms=_time(request, "created_before", request.created_before),
    )


def _time(request: Message, name: str, value: Timestamp) -> int | None:
    return wire.epoch_ms(name, value) if request.HasField(name) else None


def _change(row: OrderStatus) -> pb.OrderStatusChange:
    return pb.OrderStatusChange(
        status=OrderMessage.Status.Value(row.status),
        create_time=wire.timestamp(row.create_ms),
        reason=row.reason,
        actor=row.actor,
    )
