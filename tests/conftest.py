"""Real stacks for the tests: supervisor, server and Envoy, as `till run` starts them."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import grpc
import httpx
import pymysql
import pytest
from google.longrunning import operations_pb2_grpc
from mariadb import MariaDB
from till.v1 import (
    checkout_pb2_grpc,
    draft_item_pb2_grpc,
    inventory_pb2_grpc,
    order_pb2_grpc,
    store_pb2_grpc,
)

T = TypeVar("T")
ROOT = Path(__file__).parent.parent
BACKENDS = ("sqlite", "mysql")
PATIENCE_SECONDS = 60.0
CALLER = {"authorization": "Bearer x.y.z", "x-api-key": "k"}
"""What a caller of the orders document sends."""
CHANNEL = {"Authorization": "Token api_key_secret", "Channel": "Code code_secret"}
"""What a caller of the inventory document sends."""
ORDER = {
    "requesterId": 1001,
    "userId": 42,
    "facilityId": 7,
    "shippingAddressId": 301,
    "billingAddressId": 302,
    "shippingMethod": "GROUND",
}
"""The smallest order that `POST /orders` takes."""


def keyed(key: str | None = None) -> dict[str, str]:
    """Returns the headers of a create, under this idempotency key or a new one."""
    return {**CALLER, "idempotency-key": key or str(uuid4())}


def eventually(check: Callable[[], T]) -> T:
    """Returns what `check` returns once it no longer fails, or raises its last failure."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return check()
        except (AssertionError, httpx.TransportError, grpc.RpcError):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


class Stack:
    """A running stack on ports of its own, over the database of a URL, else a file of its own."""

    def __init__(self, folder: Path, url: str = "") -> None:
        self.server, rest, self.grpc, admin = (f"127.0.0.1:{port}" for port in free_ports(4))
        self.admin = f"http://{admin}"
        self.database = folder / "till.db"
        self.url = url or f"sqlite:///{self.database}"
        self.rest = httpx.Client(base_url=f"http://{rest}", timeout=PATIENCE_SECONDS)
        self._log = folder / "stack.log"
        settings = {
            "TILL_DATABASE": self.url,
            "TILL_GRPC_ADDRESS": self.server,
            "TILL_REST_ADDRESS": rest,
            "TILL_EDGE_GRPC_ADDRESS": self.grpc,
            "TILL_ADMIN_ADDRESS": admin,
        }
        with self._log.open("wb") as log:
            self._supervisor = subprocess.Popen(
                [sys.executable, "-m", "server.cli", "run"],
                cwd=ROOT,
                env=_environment() | settings,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Returns once Envoy and the server behind it are healthy."""
        try:
            eventually(self._assert_healthy)
        except (AssertionError, httpx.TransportError) as error:
            raise RuntimeError(f"the stack does not serve:\n{self.log_text()}") from error

    def _assert_healthy(self) -> None:
        if (code := self._supervisor.poll()) is not None:
            raise RuntimeError(f"the stack ended with {code}:\n{self.log_text()}")
        assert "Till is ready" in self.log_text()
        assert self.rest.get("/healthz").status_code == 200
        host, port = self.server.rsplit(":", 1)
        with socket.socket() as probe:
            assert probe.connect_ex((host, int(port))) == 0

    def log_text(self) -> str:
        """Returns what the stack has printed."""
        return self._log.read_text(errors="replace")

    def kill_server(self) -> None:
        """Kills the server at once, as a crash would; Envoy and the supervisor live on."""
        server = _servers(self._supervisor.pid)
        assert server, "the supervisor has no server to kill"
        for pid in server:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """Stops the stack as SIGTERM does, and whatever is left of it by force."""
        self.rest.close()
        self._supervisor.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._supervisor.wait(PATIENCE_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self._supervisor.pid, signal.SIGKILL)
        self._supervisor.wait()

    def count(self, table: str) -> int:
        """Returns how many rows a table of the database holds."""
        return int(self.rows(f"SELECT count(*) FROM {table}")[0][0])

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Returns the rows of a query, asked of the database itself."""
        with closing(connect(self.url)) as connection:
            cursor = connection.cursor()
            cursor.execute(query)
            return list(cursor.fetchall())


@dataclass(frozen=True)
class Stubs:
    """Every service, called through Envoy's gRPC port."""

    order: Any  # the same stub is awaited on an aio channel and not on a plain one
    checkout: Any
    draft: Any
    inventory: Any
    store: Any
    operations: Any

    @classmethod
    def of(cls, channel: grpc.Channel | grpc.aio.Channel) -> "Stubs":
        """Returns the stubs of a channel; those of an aio channel are awaited."""
        return cls(
            order_pb2_grpc.OrderServiceStub(channel),
            checkout_pb2_grpc.CheckoutServiceStub(channel),
            draft_item_pb2_grpc.DraftItemServiceStub(channel),
            inventory_pb2_grpc.InventoryServiceStub(channel),
            store_pb2_grpc.StoreServiceStub(channel),
            operations_pb2_grpc.OperationsStub(channel),
        )


@contextmanager
def running(folder: Path, url: str = "") -> Iterator[Stack]:
    """Runs a stack whose files lie in this folder."""
    stack = Stack(folder, url)
    try:
        stack.wait()
        yield stack
    finally:
        stack.stop()


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    """The one MariaDB of a test run; every stack has a database of its own on it."""
    server = MariaDB(tmp_path_factory.mktemp("mariadb"), *free_ports(1))
    try:
        yield server
    finally:
        server.stop(signal.SIGKILL)


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The kind of database; whatever uses it runs once on each."""
    return str(request.param)


@pytest.fixture(scope="module")
def new_url(backend: str, request: pytest.FixtureRequest) -> Callable[[Path], str]:
    """Gives the URL of another empty database; a file lies in the folder it is given."""
    if backend == "sqlite":
        return lambda folder: f"sqlite:///{folder / 'till.db'}"
    server: MariaDB = request.getfixturevalue("mariadb")
    return lambda folder: server.database(f"till_{uuid4().hex}")


@pytest.fixture(scope="module")
def stack(
    new_url: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A stack that the tests of one module share, on each backend."""
    folder = tmp_path_factory.mktemp("stack")
    with running(folder, new_url(folder)) as stack:
        yield stack


@pytest.fixture
def fresh_stack(new_url: Callable[[Path], str], tmp_path: Path) -> Iterator[Stack]:
    """A stack for one test alone, on each backend."""
    with running(tmp_path, new_url(tmp_path)) as stack:
        yield stack


@pytest.fixture
def stubs(stack: Stack) -> Iterator[Stubs]:
    """The stubs of the module's stack."""
    with grpc.insecure_channel(stack.grpc) as channel:
        yield Stubs.of(channel)


def _environment() -> dict[str, str]:
    """Returns this process's environment without settings, able to find the project and Envoy."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TILL_")}
    paths = [str(ROOT), str(ROOT / "generated"), kept.get("PYTHONPATH", "")]
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return kept


def connect(url: str) -> Any:
    """Returns a connection of the database's own driver, which no code of ours has set up."""
    if url.startswith("sqlite:"):
        return sqlite3.connect(f"file:{url.removeprefix('sqlite:///')}?mode=ro", uri=True)
    parts = urlsplit(url)
    return pymysql.connect(
        host=parts.hostname or "",
        port=parts.port or 0,
        user=parts.username,
        password=unquote(parts.password or ""),
        database=parts.path[1:],
    )


def free_ports(count: int) -> list[int]:
    """Returns ports that nobody listened on a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


def _servers(supervisor: int) -> set[int]:
    """Returns the processes below the supervisor that are not Envoy."""
    table = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, check=True)
    rows = [line.split() for line in table.stdout.decode(errors="replace").splitlines()]
    below: set[int] = {supervisor}
    while found := {int(row[0]) for row in rows if int(row[1]) in below} - below:
        below |= found
    envoys = {int(row[0]) for row in rows if "envoy" in (Path(word).name for word in row[2:5])}
    return below - envoys - {supervisor}
