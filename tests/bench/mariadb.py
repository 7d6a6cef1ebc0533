"""MariaDB for the bench: the throw-away server of the tests, with the memory of a real one."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from bench import processes, stores
from ports import free_ports

OPTIONS = ("--innodb-buffer-pool-size=512M", "--innodb-log-file-size=256M")
COLUMNS = ("store_id", "order_number", "user_id", "grand_total", "created_ms")
KEYS = ("store", "order_number", "customer", "grand_total", "at")
BATCH = 2000


class MariaDB:
    """A server with a database for each who asks."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.raw: str | None = None
        """The database that raw inserts go to, once Till has made its tables."""

    @property
    def processes(self) -> tuple[int, ...]:
        """Returns the server's process."""
        return tuple(pid for pid in processes.family(1) if processes.is_program(pid, "mariadbd"))

    def sqlalchemy_url(self, name: str) -> str:
        """Returns SQLAlchemy's URL of a new database."""
        url: str = self._server.database(name)
        return url.replace("mysql://", "mysql+pymysql://") + "?charset=utf8mb4"

    def till_url(self, name: str) -> str:
        """Returns TILL_DATABASE of a new database."""
        url: str = self._server.database(name)
        self.raw = url
        return url

    def fill_till(self, stored: int) -> None:
        """Fills Till's tables, which Till has made, as stores.till() fills them in SQLite."""
        assert self.raw is not None
        database = connect(self.raw)
        with database.cursor() as cursor:
            cursor.execute("SELECT seq FROM event_tips WHERE tenant = 1")
            (tip,) = cursor.fetchone()  # the server has told of its tenant and client
            orders = enumerate(stores.orders(stored), tip + 1)
            made = (stores.rows_of_create(1, number, order) for number, order in orders)
            while batch := list(islice(made, BATCH)):
                for table, row in batch[0].items():
                    values = [list(rows[table].values()) for rows in batch]
                    cursor.executemany(insert_text(table, row), values)
            cursor.execute("UPDATE event_tips SET seq = seq + %s WHERE tenant = 1", (stored,))
        database.commit()
        database.close()

    def fill_peer(self, url: str, stored: int) -> None:
        """Fills the peer's tables, which the peer has made."""
        made = iter(stores.orders(stored))
        text = insert_text("orders", dict.fromkeys(COLUMNS))
        database = connect(url)
        with database.cursor() as cursor:
            while batch := list(islice(made, BATCH)):
                cursor.executemany(text, [[order[key] for key in KEYS] for order in batch])
        database.commit()
        database.close()


@contextmanager
def running(folder: Path) -> Iterator[MariaDB | None]:
    """Yields a MariaDB on the servers' core, or None where it is not installed."""
    from mariadb import MariaDB as Server  # tests/mariadb.py

    (folder / "mariadb").mkdir()
    try:
        with processes.on(processes.SERVER_CORES):
            server = Server(folder / "mariadb", *free_ports(1))
            server.stop()
            server.start(*OPTIONS)
    except RuntimeError:
        yield None
        return
    try:
        yield MariaDB(server)
    finally:
        server.stop()


def connect(url: str) -> Any:
    """Returns a connection to the database of a URL."""
    import pymysql

    where = urlsplit(url)
    return pymysql.connect(
        host=where.hostname or "",
        port=where.port or 0,
        user=where.username or "",
        password=unquote(where.password or ""),
        database=where.path.strip("/"),
    )


def insert_text(table: str, row: dict[str, Any]) -> str:
    """Returns the INSERT of a row, filled by position."""
    names = ", ".join(f"`{name}`" for name in row)
    return f"INSERT INTO {table} ({names}) VALUES ({', '.join(['%s'] * len(row))})"
