"""Real stacks for the tests: supervisor, server and Envoy, as `till run` starts them."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

# Read once, when gRPC loads: its handlers abort a child of these tests now and then.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import grpc
import httpx
import pytest
from callers import OPERATOR, Stubs
from databases import rows
from hypothesis import HealthCheck, settings
from inside import Book, Served, opened, serving
from invariants import assert_invariants
from mariadb import MariaDB, swift
from ports import free_ports

# A slow machine is no failure.
settings.register_profile("till", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("till")
T = TypeVar("T")
Lend = Callable[[], AbstractContextManager[str]]
ROOT = Path(__file__).parent.parent
BACKENDS = ("sqlite", "mysql")
PATIENCE_SECONDS = 60.0
ORDER = {
    "requesterId": 1001,
    "userId": 42,
    "facilityId": 7,
    "shippingAddressId": 301,
    "billingAddressId": 302,
    "shippingMethod": "GROUND",
}
"""The smallest order that `POST /orders` takes."""


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


def till(*command: str, **settings: str) -> str:
    """Returns what the console script prints. Raises RuntimeError with what it complains of."""
    done = subprocess.run(
        [sys.executable, "-m", "server.cli", *command],
        cwd=ROOT,
        env=environment() | settings,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


class Stack:
    """A running stack on ports of its own, with an empty database; tls trusts its certificate."""

    def __init__(
        self,
        folder: Path,
        settings: dict[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        server, rest, self.grpc, admin = (f"127.0.0.1:{port}" for port in free_ports(4))
        self.admin = f"http://{admin}"
        url = f"{'https' if tls else 'http'}://{rest}"
        trust = tls or True
        self.rest = httpx.Client(base_url=url, timeout=PATIENCE_SECONDS, verify=trust)
        self.operator = httpx.Client(
            base_url=url, timeout=PATIENCE_SECONDS, verify=trust, headers=OPERATOR
        )
        self._log = folder / "stack.log"
        self.url = (settings or {}).get("TILL_DATABASE", f"sqlite:///{folder / 'till.db'}")
        self.settings = {
            "TILL_DATABASE": self.url,
            "TILL_GRPC_ADDRESS": server,
            "TILL_REST_ADDRESS": rest,
            "TILL_EDGE_GRPC_ADDRESS": self.grpc,
            "TILL_ADMIN_ADDRESS": admin,
            **(settings or {}),
        }
        self.server = self.settings["TILL_GRPC_ADDRESS"]
        self.environment = environment() | self.settings
        with self._log.open("wb") as log:
            self._supervisor = subprocess.Popen(
                [sys.executable, "-m", "server.cli", "run"],
                cwd=ROOT,
                env=self.environment,
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
        if not self.server.startswith("unix:"):
            host, port = self.server.rsplit(":", 1)
            with socket.socket() as probe:
                assert probe.connect_ex((host, int(port))) == 0

    def till(self, *command: str) -> str:
        """Returns what the console script prints with the settings of this stack."""
        return till(*command, **self.settings)

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
        eventually(lambda: self._assert_gone(server))

    def _assert_gone(self, processes: set[int]) -> None:
        assert not processes & _servers(self._supervisor.pid)

    def stop(self) -> None:
        """Stops the stack as SIGTERM does, and whatever is left of it by force."""
        self.rest.close()
        self.operator.close()
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
        return rows(self.url, query)


@contextmanager
def running(
    folder: Path, settings: dict[str, str] | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[Stack]:
    """Runs a stack whose files lie in this folder; what its database holds at the end must be
    right.
    """
    stack = Stack(folder, settings, tls)
    try:
        stack.wait()
        yield stack
    finally:
        stack.stop()
    assert_invariants(stack.url)


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    """The one MariaDB of a test run; it lends databases with the schema that `till migrate`
    makes.
    """
    with swift(tmp_path_factory.mktemp("mariadb"), *free_ports(1)) as server:
        till("migrate", TILL_DATABASE=server.template())
        yield server


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The kind of database; whatever uses it runs once on each."""
    return str(request.param)


@pytest.fixture(scope="module")
def lend(
    backend: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Lend:
    """Lends empty databases: each call gives the URL of another one, until its block ends."""
    if backend == "sqlite":
        return lambda: nullcontext(f"sqlite:///{tmp_path_factory.mktemp('book') / 'till.db'}")
    server: MariaDB = request.getfixturevalue("mariadb")
    return server.lend


@pytest.fixture
def url(lend: Lend) -> Iterator[str]:
    """The URL of an empty database for one test alone, on each backend."""
    with lend() as url:
        yield url


@pytest.fixture(scope="session")
def sqlite_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack over SQLite that tests share."""
    with running(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture(scope="session")
def mysql_stack(mariadb: MariaDB, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack over MariaDB that tests share."""
    folder = tmp_path_factory.mktemp("stack")
    with mariadb.lend() as url, running(folder, {"TILL_DATABASE": url}) as stack:
        yield stack


@pytest.fixture(scope="module")
def stack(backend: str, request: pytest.FixtureRequest) -> Stack:
    """A stack that tests share, on each backend, with whatever others put into its book: a start
    takes as long as a hundred calls.
    """
    stack: Stack = request.getfixturevalue(f"{backend}_stack")
    return stack


@pytest.fixture
def fresh_stack(url: str, tmp_path: Path) -> Iterator[Stack]:
    """A stack for one test alone, on each backend."""
    with running(tmp_path, {"TILL_DATABASE": url}) as stack:
        yield stack


@pytest.fixture
def stubs(stack: Stack) -> Iterator[Stubs]:
    """The stubs of the module's stack, through Envoy's gRPC port."""
    with grpc.insecure_channel(stack.grpc) as channel:
        yield Stubs.as_operator(channel)


@pytest.fixture
def book(url: str) -> Iterator[Book]:
    """An order book in this process, for one test alone, on each backend."""
    with opened(url) as book:
        yield book


@pytest.fixture
def sqlite_book(tmp_path: Path) -> Iterator[Book]:
    """An order book in a file, for what only SQLite has: its log, its locks, its one writer."""
    with opened(f"sqlite:///{tmp_path / 'till.db'}") as book:
        yield book


@pytest.fixture
def served(url: str) -> Iterator[Served]:
    """A server in this process, without Envoy, for one test alone, on each backend."""
    with serving(url) as served:
        yield served


@pytest.fixture
def inner(served: Served) -> Stubs:
    """The stubs of the server in this process."""
    return Stubs.as_operator(served.channel)


def environment() -> dict[str, str]:
    """Returns this process's environment without settings, able to find the project and Envoy."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TILL_")}
    paths = [str(ROOT), str(ROOT / "generated"), kept.get("PYTHONPATH", "")]
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return kept


def _servers(supervisor: int) -> set[int]:
    """Returns the processes below the supervisor that are not Envoy."""
    table = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, check=True)
    rows = [line.split() for line in table.stdout.decode(errors="replace").splitlines()]
    below: set[int] = {supervisor}
    while found := {int(row[0]) for row in rows if int(row[1]) in below} - below:
        below |= found
    envoys = {int(row[0]) for row in rows if "envoy" in (Path(word).name for word in row[2:5])}
    return below - envoys - {supervisor}
