"""The server, put together: engine, worker, every servicer behind the gate, health and
reflection.
"""

import asyncio
import signal
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from google.longrunning import operations_pb2_grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from till.v1 import (
    checkout_pb2_grpc,
    draft_item_pb2_grpc,
    inventory_pb2_grpc,
    order_pb2_grpc,
    store_pb2_grpc,
)

from server.call import Gate
from server.checkout import CheckoutServicer
from server.config import Config
from server.draft_item import DraftItemServicer
from server.draft_item import message as item_message
from server.inventory import InventoryServicer
from server.operation import OperationsServicer
from server.order import OrderServicer
from server.store import StoreServicer
from server.worker import Worker
from storage import draft_item
from storage.engine import Engine

log = structlog.get_logger("till")
SERVICES = (
    "till.v1.OrderService",
    "till.v1.CheckoutService",
    "till.v1.DraftItemService",
    "till.v1.InventoryService",
    "till.v1.StoreService",
    "google.longrunning.Operations",
)
_OPTIONS = [
    ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share it by accident
    ("grpc.max_receive_message_length", 1 << 20),
]


@dataclass
class App:
    """A running server and what it is made of."""

    server: grpc.aio.Server
    engine: Engine
    worker: Worker
    health: health.aio.HealthServicer
    port: int

    async def close(self, config: Config) -> None:
        """Says NOT_SERVING first, lets balancers see it, lets calls end, then commits what
        waits.
        """
        await self.health.enter_graceful_shutdown()
        await asyncio.sleep(config.drain_seconds)
        await self.server.stop(config.shutdown_seconds)
        await self.worker.close()
        await self.engine.close()


async def build(config: Config) -> App:
    """Opens the database and starts serving. Raises RuntimeError or ValueError saying why it
    cannot.
    """
    engine = Engine(config.database, config.queue_max, config.options())
    worker = Worker(engine)
    server = grpc.aio.server(options=_OPTIONS)
    _register(server, engine, worker, config)
    healthy = await _serve_health(server)
    port = server.add_insecure_port(config.grpc_address)
    await server.start()
    return App(server, engine, worker, healthy, port)


async def run(config: Config) -> None:
    """Serves until SIGTERM or SIGINT, then ends in order."""
    app = await build(config)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    log.info("serving", address=config.grpc_address, database=config.shown()["database"])
    await stop.wait()
    await app.close(config)
    log.info("stopped")


def _register(server: grpc.aio.Server, engine: Engine, worker: Worker, config: Config) -> None:
    def result(tenant: int, item: str) -> Message:
        return item_message(draft_item.get(tenant, item))

    gate: Any = Gate(server)  # has the two methods of a server that generated code calls
    order_pb2_grpc.add_OrderServiceServicer_to_server(OrderServicer(engine, config), gate)
    checkout_pb2_grpc.add_CheckoutServiceServicer_to_server(CheckoutServicer(engine), gate)
    draft_item_pb2_grpc.add_DraftItemServiceServicer_to_server(
        DraftItemServicer(engine, worker), gate
    )
    inventory_pb2_grpc.add_InventoryServiceServicer_to_server(InventoryServicer(engine), gate)
    store_pb2_grpc.add_StoreServiceServicer_to_server(StoreServicer(engine), gate)
    operations = OperationsServicer(engine, worker, result)
    operations_pb2_grpc.add_OperationsServicer_to_server(operations, gate)  # type: ignore[no-untyped-call]


async def _serve_health(server: grpc.aio.Server) -> health.aio.HealthServicer:
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for name in ("", *SERVICES):
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    return servicer
