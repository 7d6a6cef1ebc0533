"""The house from inside: an engine, or the whole server, in this process over a file of its own."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import grpc
import structlog
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status
from invariants import assert_invariants

from server import app
from server.config import Config
from storage.engine import Engine
from storage.tables import Row

# The server in this process logs as a library does, so that pytest shows its lines with a failure.
structlog.configure(
    [structlog.stdlib.render_to_log_kwargs], logger_factory=structlog.stdlib.LoggerFactory()
)
T = TypeVar("T")
TENANT = 1
PATIENCE_SECONDS = 60.0


class Book:
    """An engine over a fresh file; each call returns once its outcome is known."""

    def __init__(self, path: Path, url: str = "") -> None:
        self.path = path
        self._runner = asyncio.Runner()
        self.engine = self._runner.run(_open(url or f"sqlite:///{path}"))

    def write(self, unit: Callable[[], T]) -> T:
        """Runs a unit of storage code and returns its result once it is on disk."""
        return self._runner.run(self.engine.write(unit))

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


async def _open(url: str) -> Engine:
    return Engine(url)


@contextmanager
def opened(path: Path, url: str = "") -> Iterator[Book]:
    """Opens an order book in a file, or at a URL; what a file holds at the end must be right."""
    book = Book(path, url)
    try:
        yield book
    finally:
        book.close()
    if not url:
        assert_invariants(path, keyed=False)


class Served:
    """The whole server, without Envoy, on a thread and a loop of its own."""

    def __init__(self, path: Path, config: Config) -> None:
        self.path, self.config = path, config
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

    def close(self) -> None:
        """Stops the server as SIGTERM does."""
        self.run(self.app.close(self.config))
        self.channel.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def serving(path: Path, **settings: Any) -> Iterator[Served]:
    """Serves an order book at a path; what it holds at the end must be right."""
    config = replace(Config(database=f"sqlite:///{path}", grpc_address="127.0.0.1:0"), **settings)
    served = Served(path, config)
    try:
        yield served
    finally:
        served.close()
    assert_invariants(path)


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
