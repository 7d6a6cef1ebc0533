"""Limit: what Python's gRPC carries when nothing is done: the same messages, answers ready made.

echo.py HOST:PORT
"""

import asyncio
import os
import sys
from typing import Any

import grpc
import uvloop
from till.v1 import order_pb2 as pb
from till.v1 import order_pb2_grpc

SUBMITTED = pb.SubmitStoreOrderResponse(
    status_code=201,
    body=pb.SimpleOrderMessage(message="Order r-12-3456 submitted successfully"),
)
RECENT = pb.ListRecentUserOrdersResponse(
    status_code=200,
    orders=[
        pb.UserOrder(
            user_id="user1234",
            grand_total=123.45,
            order_id=f"r-12-345{n}",
            store_id="store1",
            timestamp="user1234#1790000000000",
        )
        for n in range(5)
    ],
    body=pb.SimpleOrderMessage(message="Orders retrieved successfully"),
)


class Echo(order_pb2_grpc.OrderServiceServicer):
    """Answers without doing anything."""

    async def SubmitStoreOrder(self, request: Any, context: Any) -> pb.SubmitStoreOrderResponse:
        return SUBMITTED

    async def ListRecentUserOrders(
        self, request: Any, context: Any
    ) -> pb.ListRecentUserOrdersResponse:
        return RECENT


async def main(address: str) -> None:
    server = grpc.aio.server()
    order_pb2_grpc.add_OrderServiceServicer_to_server(Echo(), server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # as Till does: see its cli.py
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1]))
