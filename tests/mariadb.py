"""A MariaDB of the tests' own: its folder, port and socket are thrown away with it."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pymysql

PASSWORD = "p@ss:w/rd"
"""As awkward in a URL as a password may be."""
QUOTED = "p%40ss%3Aw%2Frd"
_FOLDERS = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:/usr/libexec"
_START_SECONDS = 60
TEMPLATE = "template"
MEMORY = Path("/dev/shm")
MEMORY_BYTES = 1 << 30
"""Free memory that a server in memory wants; it takes a fifth of that."""


class MariaDB:
    """A server that tests may stop, kill and start again."""

    def __init__(
        self,
        folder: Path,
        port: int,
        options: Sequence[str] = (),
        first: Sequence[str] = (),
        user: str = "root",
    ) -> None:
        """Makes and starts a server; its options are those of every start, and `first` of this one
        alone. Where root starts it, it runs as the user.
        """
        self._folder, self.port, self._options = folder, port, options
        self._user = [f"--user={user}"] if os.geteuid() == 0 else []
        self._process: subprocess.Popen[bytes] | None = None
        self._spare: list[str] = []
        self._made = 0
        install = _program("mariadb-install-db", "mysql_install_db")
        command = [install, "--no-defaults", f"--datadir={folder / 'data'}", *self._user]
        command += ["--auth-root-authentication-method=normal", "--skip-test-db"]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            raise RuntimeError(f"{install} failed:\n{made.stdout}{made.stderr}")
        self.start(*first)
        self.run(
            f"CREATE USER IF NOT EXISTS till@'%' IDENTIFIED BY '{PASSWORD}'",
            "GRANT ALL ON *.* TO till@'%'",
        )

    def start(self, *options: str) -> None:
        """Starts the server and returns once it answers."""
        command = [_program("mariadbd", "mysqld"), "--no-defaults", *self._user]
        command += [f"--datadir={self._folder / 'data'}", f"--port={self.port}"]
        command += ["--bind-address=127.0.0.1", f"--socket={self._socket}"]
        command += ["--innodb-buffer-pool-size=64M", "--innodb-log-file-size=32M"]
        command += ["--innodb-flush-log-at-trx-commit=1", "--skip-name-resolve"]
        command += [*self._options, *options]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"MariaDB does not start:\n{(self._folder / 'log').read_text()}")
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ends the server, in order or by the signal given."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()

    def connect(self) -> Any:
        """Returns a connection as root."""
        # PyMySQL's unasked attempt at TLS costs 50 ms.
        return pymysql.connect(unix_socket=self._socket, user="root", ssl_disabled=True)

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Runs statements as root and returns the rows of the last one."""
        with closing(self.connect()) as connection:
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement)
            connection.commit()
            return list(cursor.fetchall())

    def database(self, name: str) -> str:
        """Makes an empty database and returns its URL."""
        self.run(f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name}")
        return self.url(name)

    def template(self) -> str:
        """Makes the database that lent ones are copies of, and returns its URL; whoever asks for it
        makes the schema.
        """
        return self.database(TEMPLATE)

    @contextmanager
    def lend(self) -> Iterator[str]:
        """Gives the URL of a database with the template's schema and no rows, to one test at a
        time: emptied and lent again, which takes a tenth of the time of making one.
        """
        name = self._spare.pop() if self._spare else self._copied()
        yield self.url(name)
        self.run(*(f"DELETE FROM {name}.`{table}`" for table in self._tables))
        self._spare.append(name)

    def _copied(self) -> str:
        """Makes a copy of the template, with its checks and indexes, and returns its name."""
        self._made += 1
        name = f"lent_{self._made}"
        copies = [
            f"CREATE TABLE {name}.`{table}` LIKE {TEMPLATE}.`{table}`" for table in self._tables
        ]
        versions = f"{TEMPLATE}.schema_versions"
        self.run(
            f"CREATE DATABASE {name}",
            *copies,
            f"CREATE TABLE {name}.schema_versions LIKE {versions}",
            f"INSERT INTO {name}.schema_versions SELECT * FROM {versions}",
        )
        return name

    @cached_property
    def _tables(self) -> list[str]:
        """Returns the tables of the template, but for the one that tells its version."""
        names = [name for (name,) in self.run(f"SHOW TABLES FROM {TEMPLATE}")]
        return [name for name in names if name != "schema_versions"]

    def url(self, name: str) -> str:
        """Returns the URL of a database."""
        return f"mysql://till:{QUOTED}@127.0.0.1:{self.port}/{name}"

    @property
    def _socket(self) -> str:
        return str(self._folder / "s")

    def _answers(self) -> bool:
        """Says whether the server answers; the socket is asked first, since PyMySQL leaks one that
        cannot be connected.
        """
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(self._socket):
                return False
        try:
            self.run("SELECT 1")
        except pymysql.Error:
            return False
        return True


@contextmanager
def swift(folder: Path, port: int) -> Iterator[MariaDB]:
    """Runs a server for tests that never crash it: in memory where there is room, so that a sync
    costs nothing, and with the settings of a durable one all the same.
    """
    with ExitStack() as left:
        if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_BYTES:
            folder = Path(left.enter_context(TemporaryDirectory(prefix="till-", dir=MEMORY)))
        server = MariaDB(folder, port)
        left.callback(server.stop, signal.SIGKILL)
        yield server


def _program(*names: str) -> str:
    for name in names:
        if found := shutil.which(name, path=_FOLDERS):
            return found
    raise RuntimeError(
        f"the tests need {names[0]}: sudo env RUNLEVEL=1 apt-get install mariadb-server"
    )
