"""The systems under load: how each is started, on which store, and how the load reaches it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import mariadb, plan, processes, stores

ROOT = processes.ROOT
HERE = Path(__file__).parent
GO_BIN = ROOT / "build" / "bench" / "go" / "bin"
TILL_PYTHON = ROOT / ".venv" / "bin" / "python"
BENCH_BIN = Path(sys.executable).parent
# gunicorn's docs: two workers per core and one; each server here has one core.
GUNICORN = ["-m", "gunicorn", "--workers", "3", "--chdir", str(HERE / "peers"), "--bind"]
UVICORN = ["-m", "uvicorn", "--loop", "uvloop", "--no-access-log", "--app-dir", str(HERE / "peers")]


@dataclass
class System:
    """A system that serves, and the processes that it consists of."""

    name: str
    protocol: str
    address: str
    process: "subprocess.Popen[bytes]"
    database: Path | None
    users: int
    stored: int
    begun_bytes: int
    behind: tuple[int, ...] = ()
    """The processes of a database server."""
    warm: bool = False

    @property
    def servers(self) -> list[int]:
        """Returns the server's processes."""
        own = [
            pid
            for pid in processes.family(self.process.pid)
            if not processes.is_program(pid, "envoy")
        ]
        return [*own, *self.behind]

    @property
    def envoys(self) -> list[int]:
        """Returns Envoy's processes, none where there is no Envoy on the way."""
        if self.name not in (plan.TILL_EDGE, plan.TILL_REST):
            return []
        return [
            pid for pid in processes.family(self.process.pid) if processes.is_program(pid, "envoy")
        ]


class Systems:
    """Starts systems in a folder and ends all of them."""

    def __init__(self, folder: Path, maria: "mariadb.MariaDB | None") -> None:
        self._folder, self._maria = folder, maria
        self._ends = ExitStack()
        self.absent: dict[str, str] = {}

    def close(self) -> None:
        """Ends every system that was started."""
        self._ends.close()

    def all(
        self, sizes: tuple[int, ...], side_by_side: bool, say: Callable[[str], None]
    ) -> dict[str, System]:
        """Starts everything that this machine can run, by the name of the system; a grown store's
        name has its size behind it.
        """
        starters: list[Callable[[], Iterator[System]]] = []
        if side_by_side:
            starters += [self._till, self._python_peers, self._go_peers, self._echo]
        if side_by_side and self._maria is not None:
            starters.append(self._on_mariadb)
        found: dict[str, System] = {}
        for starter in starters:
            for system in starter():
                say(f"  started {system.name}")
                found[system.name] = system
        for size in sizes:
            grown = self._grown(size)
            say(f"  started {grown.name}")
            found[grown.name] = grown
        return found

    def _till(self) -> Iterator[System]:
        database = stores.copy(stores.till(plan.STORED), self._folder / "till.db")
        settings = _addresses()
        log = self._folder / "till.log"
        process = self._start([*_till_command(), "run"], log, _settings(database, settings))
        for name in ("GRPC", "REST", "EDGE_GRPC"):
            processes.wait_for(settings[name], process, log)
        _wait_for_text(log, "Till is ready", process)
        for pid in processes.family(process.pid):
            if processes.is_program(pid, "envoy"):
                processes.pin(pid, processes.OTHER_CORES)
        ways = ((plan.TILL, "GRPC"), (plan.TILL_EDGE, "EDGE_GRPC"), (plan.TILL_REST, "REST"))
        for name, way in ways:
            protocol = "rest" if way == "REST" else "grpc"
            yield self._system(name, protocol, settings[way], process, database, plan.STORED)

    def _grown(self, size: int) -> System:
        database = stores.copy(stores.till(size), self._folder / f"till-{size}.db")
        settings = _addresses()
        log = self._folder / f"till-{size}.log"
        process = self._start([*_till_command(), "serve"], log, _settings(database, settings))
        processes.wait_for(settings["GRPC"], process, log)
        name = f"{plan.GROWN} {size}"
        return self._system(name, "grpc", settings["GRPC"], process, database, size)

    def _python_peers(self) -> Iterator[System]:
        for name, module, server in (
            (plan.FASTAPI, "fastapi_sqlalchemy:app", "uvicorn"),
            (plan.FASTAPI_PEEWEE, "fastapi_peewee:app", "uvicorn"),
            (plan.FLASK, "flask_sqlite:app", "gunicorn"),
            (plan.DJANGO, "django_rest:application", "gunicorn"),
        ):
            stem = module.partition(":")[0]
            database = stores.copy(stores.peer(plan.STORED), self._folder / f"{stem}.db")
            given = {"BENCH_DATABASE": str(database), "BENCH_URL": f"sqlite:///{database}"}
            yield self._python_peer(name, module, server, given, database)

    def _python_peer(
        self, name: str, module: str, server: str, given: dict[str, str], database: Path | None
    ) -> System:
        address = processes.free_address()
        host, port = address.split(":")
        log = self._folder / f"{name}.log"
        python = str(BENCH_BIN / "python")
        command = (
            [python, *UVICORN, "--host", host, "--port", port, module]
            if server == "uvicorn"
            else [python, *GUNICORN, address, module]
        )
        process = self._start(command, log, given)
        processes.wait_for(address, process, log)
        return self._system(name, "rest", address, process, database, plan.STORED)

    def _go_peers(self) -> Iterator[System]:
        for name, options in ((plan.GO, []), (plan.GO_GROUP, ["-group"])):
            stem = "go-group" if options else "go"
            database = stores.copy(stores.peer(plan.STORED), self._folder / f"{stem}.db")
            address, log = processes.free_address(), self._folder / f"{stem}.log"
            command = [str(GO_BIN / "peer"), "-listen", address, "-database", str(database)]
            process = self._start([*command, *options], log, {"GOMAXPROCS": "1"})
            processes.wait_for(address, process, log)
            yield self._system(name, "grpc", address, process, database, plan.STORED)

    def _echo(self) -> Iterator[System]:
        address, log = processes.free_address(), self._folder / "echo.log"
        command = [str(TILL_PYTHON), str(HERE / "peers" / "echo.py"), address]
        process = self._start(command, log, {})
        processes.wait_for(address, process, log)
        yield self._system(plan.ECHO, "grpc", address, process, None, plan.STORED)

    def _on_mariadb(self) -> Iterator[System]:
        assert self._maria is not None
        url = self._maria.sqlalchemy_url("peer")
        peer = self._python_peer(
            plan.FASTAPI_MARIADB, "fastapi_sqlalchemy:app", "uvicorn", {"BENCH_URL": url}, None
        )
        self._maria.fill_peer(url, plan.STORED)
        peer.behind = self._maria.processes
        yield peer
        try:
            yield self._till_on_mariadb(self._maria)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            self.absent[plan.TILL_MARIADB] = f"Till does not start on MariaDB: {reason}"
            self.absent[plan.RAW_INNODB] = "it writes into the tables that Till makes"

    def _till_on_mariadb(self, maria: "mariadb.MariaDB") -> System:
        settings, log = _addresses(), self._folder / "till-mariadb.log"
        given = _settings(None, settings) | {"TILL_DATABASE": maria.till_url("till")}
        process = self._start([*_till_command(), "serve"], log, given)
        processes.wait_for(settings["GRPC"], process, log)
        maria.fill_till(plan.STORED)
        found = self._system(
            plan.TILL_MARIADB, "grpc", settings["GRPC"], process, None, plan.STORED
        )
        found.behind = maria.processes
        return found

    def _start(
        self, command: list[str], log: Path, given: dict[str, str]
    ) -> "subprocess.Popen[bytes]":
        process = processes.start(command, log, given)
        self._ends.callback(processes.stop, process)
        return process

    def _system(
        self,
        name: str,
        protocol: str,
        address: str,
        process: "subprocess.Popen[bytes]",
        database: Path | None,
        stored: int,
    ) -> System:
        begun = database.stat().st_size if database else 0
        users = stores.users(stored)
        return System(name, protocol, address, process, database, users, stored, begun)


@contextmanager
def running(folder: Path, maria: "mariadb.MariaDB | None") -> Iterator[Systems]:
    """Yields a starter whose systems all end with the block."""
    systems = Systems(folder, maria)
    try:
        yield systems
    finally:
        systems.close()


def _till_command() -> list[str]:
    return [str(TILL_PYTHON), "-m", "server.cli"]


def _addresses() -> dict[str, str]:
    return {name: processes.free_address() for name in ("GRPC", "REST", "EDGE_GRPC", "ADMIN")}


def _settings(database: Path | None, addresses: dict[str, str]) -> dict[str, str]:
    paths = os.pathsep.join((str(ROOT), str(ROOT / "generated")))
    return {
        "PYTHONPATH": paths,
        "TILL_DATABASE": f"sqlite:///{database}",
        **{f"TILL_{name}_ADDRESS": address for name, address in addresses.items()},
    }


def _wait_for_text(log: Path, text: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + processes.PATIENCE
    while text not in log.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{log.stem} does not serve:\n{log.read_text(errors='replace')}")
        time.sleep(0.05)
