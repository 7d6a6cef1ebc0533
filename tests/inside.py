"""The house from inside: an engine, or the whole server, in this process over a database of its
own.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import grpc
import structlog
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status
from invariants import assert_invariants

from server import app
from server.config import Config
from server.worker import Worker
from storage.database import Options, close_database, open_database
from storage.engine import Engine
from storage.row import DB
from storage.tables import Row
from storage.unit import DEADLINE

# The server in this process logs as a library does, so that pytest shows its lines with a failure.
structlog.configure(
    [structlog.stdlib.render_to_log_kwargs], logger_factory=structlog.stdlib.LoggerFactory()
)
T = TypeVar("T")
TENANT = 1
PATIENCE_SECONDS = 60.0


class Book:
    """An engine over a database; each call returns once its outcome is known."""

    def __init__(self, url: str, **options: int) -> None:
        self.url = url
        self._runner = asyncio.Runner()
        self.engine = self._runner.run(_open(url, Options(**options)))  # type: ignore[arg-type]

    def write(self, unit: Callable[[], T], seconds: float = math.inf) -> T:
        """Runs a unit of storage code and returns its result once it is on disk; its caller waits
        for so many seconds.
        """

        async def run() -> T:
            DEADLINE.set(time.monotonic() + seconds)
            return await self.engine.write(unit)

        return self._runner.run(run())

    def read(self, query: Callable[[], T]) -> T:
        """Runs a query of storage code."""
        return self._runner.run(self.engine.read(query))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Plays a scenario on the engine's loop."""
        return self._runner.run(coroutine)

    def close(self) -> None:
        """Ends the engine and its loop."""
        self._runner.run(self.engine.close())
        self._runner.close()


async def _open(url: str, options: Options) -> Engine:
    return Engine(url, options=options)


@contextmanager
def opened(url: str, **options: int) -> Iterator[Book]:
    """Opens an order book at a URL; what it holds at the end must be right."""
    with _own_database():
        book = Book(url, **options)
        try:
            yield book
        finally:
            book.close()
    assert_invariants(url, keyed=False)


@contextmanager
def _own_database() -> Iterator[None]:
    """Gives the process its former database back, since storage knows one at a time: that of a
    server which a whole module shares.
    """
    former = DB.obj
    try:
        yield
    finally:
        DB.initialize(former)


@contextmanager
def on_this_thread(url: str) -> Iterator[None]:
    """Opens a database without an engine: what is done on this thread is one unit."""
    with _own_database():
        open_database(url)
        try:
            yield
        finally:
            close_database()


class Served:
    """The whole server, without Envoy, on a thread and a loop of its own."""

    def __init__(self, config: Config) -> None:
        self.url, self.config = config.database, config
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="served")
        self._thread.start()
        self.app = self.run(app.build(config))
        self.address = f"127.0.0.1:{self.app.port}"
        self.channel = grpc.insecure_channel(self.address)

    def run(self, coroutine: Any) -> Any:
        """Runs a coroutine on the server's loop and returns its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE_SECONDS)

    def write(self, unit: Callable[[], T]) -> T:
        """Runs a unit of storage code in the server's engine."""
        result: T = self.run(self.app.engine.write(unit))
        return result

    def new_worker(self) -> Worker:
        """Starts another worker beside the server's own."""

        async def start() -> Worker:
            return Worker(self.app.engine)

        worker: Worker = self.run(start())
        return worker

    def close(self) -> None:
        """Stops the server as SIGTERM does."""
        self.run(self.app.close(self.config))
        self.channel.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def serving(url: str, **settings: Any) -> Iterator[Served]:
    """Serves the order book at a URL; what it holds at the end must be right."""
    config = replace(Config(database=url, grpc_address="127.0.0.1:0"), **settings)
    with _own_database():
        served = Served(config)
        try:
            yield served
        finally:
            served.close()
    assert_invariants(url)


def owned(model: type[Row]) -> Any:
    """Returns the query for every row of a table that is the tenant's."""
    return model.select().where(model.tenant == TENANT)


def refused(call: Callable[[], object]) -> tuple[grpc.StatusCode, Status]:
    """Returns the code and the whole status of a call that must fail."""
    try:
        answer = call()
    except grpc.RpcError as error:
        status = rpc_status.from_call(error)
        return error.code(), status if status is not None else Status()
    raise AssertionError(f"the call was not refused: {answer}")


def at_once(calls: list[Callable[[], T]]) -> list[T]:
    """Makes all of these calls at the same time and returns their results."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [made.result() for made in [pool.submit(call) for call in calls]]
