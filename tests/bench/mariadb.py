"""A throw-away MariaDB for the bench, where the server is installed."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from bench import processes, stores

TILL = "till"
FLAGS = (
    "--no-defaults",
    "--skip-name-resolve",
    "--skip-networking=0",
    "--character-set-server=utf8mb4",
    "--collation-server=utf8mb4_bin",
    "--innodb-flush-log-at-trx-commit=1",  # durable, like SQLite's synchronous=FULL
    "--innodb-buffer-pool-size=512M",
    "--max-connections=200",
)


class MariaDB:
    """A server of our own with an empty database for each who asks."""

    def __init__(self, address: str, socket: Path, pid: int) -> None:
        self.host, port = address.split(":")
        self.port, self.pid, self._socket = int(port), pid, socket
        self.raw: str | None = None
        """Where raw inserts go, once Till has made its tables."""

    def sqlalchemy_url(self, name: str) -> str:
        """Returns SQLAlchemy's URL of a new database."""
        self._create(name)
        return f"mysql+pymysql://bench:bench@{self.host}:{self.port}/{name}?charset=utf8mb4"

    def till_url(self) -> str:
        """Returns TILL_DATABASE of a new database."""
        self._create(TILL)
        return f"mysql://bench:bench@{self.host}:{self.port}/{TILL}"

    def connect(self, name: str) -> Any:
        """Returns a connection to a database."""
        import pymysql

        return pymysql.connect(
            host=self.host, port=self.port, user="bench", password="bench", database=name
        )

    def fill_till(self, stored: int) -> None:
        """Fills Till's tables, which Till has made, as stores.till() fills them in SQLite."""
        database = self.connect(TILL)
        with database.cursor() as cursor:
            orders = enumerate(stores.orders(stored), 1)
            made = (stores.rows_of_create(1, n, order) for n, order in orders)
            while batch := list(islice(made, 2000)):
                for table in batch[0]:
                    text = insert_text(table, batch[0][table])
                    cursor.executemany(text, [list(rows[table].values()) for rows in batch])
        database.commit()
        database.close()
        self.raw = f"{self.host}:{self.port}/{TILL}"

    def fill_peer(self, name: str, stored: int) -> None:
        """Fills the peer's tables, which the peer has made."""
        database = self.connect(name)
        columns = ("store_id", "order_number", "user_id", "grand_total", "created_ms")
        keys = ("store", "order_number", "customer", "grand_total", "at")
        with database.cursor() as cursor:
            made = iter(stores.orders(stored))
            while batch := list(islice(made, 2000)):
                cursor.executemany(
                    f"INSERT INTO orders ({', '.join(columns)}) VALUES (%s, %s, %s, %s, %s)",
                    [[order[key] for key in keys] for order in batch],
                )
        database.commit()
        database.close()

    def _create(self, name: str) -> None:
        import pymysql

        root = pymysql.connect(unix_socket=str(self._socket), user="root")
        with root.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
            cursor.execute("CREATE USER IF NOT EXISTS bench@'127.0.0.1' IDENTIFIED BY 'bench'")
            cursor.execute(f"GRANT ALL ON {name}.* TO bench@'127.0.0.1'")
        root.commit()
        root.close()


@contextmanager
def running(folder: Path) -> Iterator[MariaDB | None]:
    """Yields a MariaDB on the servers' core, or None where it is not installed."""
    if not (shutil.which("mariadbd") and shutil.which("mariadb-install-db")):
        yield None
        return
    data, socket, log = folder / "mariadb", folder / "mariadb.sock", folder / "mariadb.log"
    user = ["--user=root"]
    install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--skip-test-db"]
    install += ["--auth-root-authentication-method=normal", *user]
    subprocess.run(install, check=True, capture_output=True)
    address = processes.free_address()
    host, port = address.split(":")
    command = ["mariadbd", *FLAGS, *user, f"--datadir={data}", f"--socket={socket}"]
    command += [f"--bind-address={host}", f"--port={port}", f"--pid-file={folder / 'mariadb.pid'}"]
    process = processes.start(command, log)
    try:
        processes.wait_for(address, process, log)
        yield MariaDB(address, socket, process.pid)
    finally:
        with suppress(ProcessLookupError):
            processes.stop(process)


def insert_text(table: str, row: dict[str, Any]) -> str:
    """Returns the INSERT of a row, filled by position."""
    names = ", ".join(f"`{name}`" for name in row)
    return f"INSERT INTO {table} ({names}) VALUES ({', '.join(['%s'] * len(row))})"
