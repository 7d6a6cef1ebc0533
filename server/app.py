"""The server, put together: engine, worker, every servicer behind the gate, health and
reflection.
"""

import asyncio
import gc
import signal
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from google.longrunning import operations_pb2_grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from till.v1 import (
    checkout_pb2_grpc,
    draft_item_pb2_grpc,
    draft_pb2_grpc,
    inventory_pb2_grpc,
    lifecycle_pb2_grpc,
    order_pb2_grpc,
    stock_pb2_grpc,
    store_pb2_grpc,
    tenant_pb2_grpc,
)

from server import development
from server.accept import Acceptors, new_server
from server.access import Access
from server.call import Gate
from server.checkout import CheckoutServicer
from server.config import ROOT, Config
from server.draft import DraftServicer
from server.draft_item import DraftItemServicer
from server.inventory import InventoryServicer
from server.item import item_message
from server.lifecycle import LifecycleServicer
from server.limit import Limits
from server.operation import OperationsServicer
from server.order import OrderServicer
from server.stock import StockServicer
from server.store import StoreServicer
from server.tenant import TenantServicer
from server.token import Keys, Verifier
from server.turns import Turns, writes
from server.worker import Worker
from storage import draft_item, tenant
from storage.engine import Engine

log = structlog.get_logger("till")
SERVICES = (
    "till.v1.OrderService",
    "till.v1.CheckoutService",
    "till.v1.DraftItemService",
    "till.v1.DraftService",
    "till.v1.InventoryService",
    "till.v1.StoreService",
    "till.v1.LifecycleService",
    "till.v1.StockService",
    "till.v1.TenantService",
    "google.longrunning.Operations",
)
GARBAGE_AFTER = 10_000
"""New objects, less those that went, before garbage is looked for: the calls in flight alone have
more than Python's 700.
"""
_OPTIONS = [
    ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share it by accident
    ("grpc.max_receive_message_length", 1 << 20),
]


@dataclass
class App:
    """A running server and what it is made of."""

    server: grpc.aio.Server
    acceptors: Acceptors
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
    await engine.write(lambda: _prepare(config))
    worker = Worker(engine)
    server = new_server(_OPTIONS)
    methods = _register(server, engine, worker, config)
    healthy = await _serve_health(server)
    port = _listen(server, config)
    await server.start()
    acceptors = Acceptors(server, methods, writes(methods), Turns(lambda: engine.writing))
    return App(server, acceptors, engine, worker, healthy, port)


async def run(config: Config) -> None:
    """Serves until SIGTERM or SIGINT, then ends in order."""
    app = await build(config)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    gc.freeze()  # what is here stays: looking for garbage in it stops every call for 40 ms
    gc.set_threshold(GARBAGE_AFTER)
    log.info("serving", address=config.grpc_address, database=config.shown()["database"])
    await stop.wait()
    await app.close(config)
    log.info("stopped")


def _prepare(config: Config) -> None:
    """Sees to the first tenant, and to the development client: there, or revoked."""
    tenant.ensure_first("demo", "1001")
    if config.development:
        development.ensure_client(config)
    else:
        development.forbid_client()


def _listen(server: grpc.aio.Server, config: Config) -> int:
    if not config.server_tls:
        return server.add_insecure_port(config.grpc_address)
    folder = ROOT / config.server_tls
    pair = ((folder / "server.key").read_bytes(), (folder / "server.crt").read_bytes())
    authority = (folder / "ca.crt").read_bytes()
    credentials = grpc.ssl_server_credentials([pair], authority, require_client_auth=True)
    return server.add_secure_port(config.grpc_address, credentials)


def _register(
    server: grpc.aio.Server, engine: Engine, worker: Worker, config: Config
) -> dict[str, Any]:
    """Registers every servicer and returns the methods that may be accepted side by side."""

    def result(owner: int, item: str) -> Message:
        return item_message(draft_item.get(owner, item))

    access = Access(engine, config, Verifier(Keys(development.keys_source(config)), config.issuer))
    limits = Limits(config.rate_per_second, config.rate_burst, config.calls_max)
    gate: Any = Gate(
        server, access, limits
    )  # has the two methods of a server that generated code calls
    order_pb2_grpc.add_OrderServiceServicer_to_server(OrderServicer(engine), gate)
    checkout_pb2_grpc.add_CheckoutServiceServicer_to_server(CheckoutServicer(engine), gate)
    draft_item_pb2_grpc.add_DraftItemServiceServicer_to_server(
        DraftItemServicer(engine, worker), gate
    )
    draft_pb2_grpc.add_DraftServiceServicer_to_server(DraftServicer(engine), gate)
    inventory_pb2_grpc.add_InventoryServiceServicer_to_server(InventoryServicer(engine), gate)
    store_pb2_grpc.add_StoreServiceServicer_to_server(StoreServicer(engine), gate)
    lifecycle_pb2_grpc.add_LifecycleServiceServicer_to_server(LifecycleServicer(engine), gate)
    stock_pb2_grpc.add_StockServiceServicer_to_server(StockServicer(engine), gate)
    tenant_pb2_grpc.add_TenantServiceServicer_to_server(TenantServicer(engine), gate)
    operations = OperationsServicer(engine, worker, result)
    names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
    described = reflection.aio.ReflectionServicer(names)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(described, gate)  # type: ignore[no-untyped-call]
    operations_pb2_grpc.add_OperationsServicer_to_server(operations, gate)  # type: ignore[no-untyped-call]
    methods: dict[str, Any] = gate.methods
    return methods


async def _serve_health(server: grpc.aio.Server) -> health.aio.HealthServicer:
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for name in ("", *SERVICES):
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    return servicer
