"""The MySQL family: how to reach a server, what its sessions are like, which of its errors pass.

READ COMMITTED: every statement sees what is committed, so that what a unit reads after a guarded
update is true, and no gap locks hold up neighbours. What must not change between a look and a write
is held by a unique key or by the guard of the write.
"""

import logging
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pymysql
import pymysql.cursors
from peewee import DatabaseError, InterfaceError, MySQLDatabase, chunked
from pymysql.constants import CLIENT

from storage.row import DB
from storage.sql import Bound

T = TypeVar("T")
log = logging.getLogger("till.engine")

CONNECT_SECONDS = 1
LOCK_WAIT_SECONDS = 1
IDLE_SECONDS = 20
"""How long the server waits for a session's next word. A host that vanished in the middle of a
transaction would keep its locks for eight hours, the servers' own measure.
"""
ANSWER_SECONDS = 10
"""How long the database may take for one statement before the connection counts as lost."""
PACKET_STATEMENTS = 1000
"""Statements of one packet: an import writes tens of thousands of events, and servers take no
packet above 16 MiB by default.
"""
UPGRADE_SECONDS = 24 * 3600
"""The same for a statement that changes the schema, which may copy a large table."""
DUPLICATE = 1062
BROKEN_CHECK = {3819, 4025}
"""MySQL's code and MariaDB's."""
BEATEN = {1020, 1205, 1213}
"""Changed since read, lock wait over, deadlock or certification: the transaction is undone."""
LOST = {0, 1040, 1047, 1053, 1180, 1290, 1317, 1927, 2002, 2003, 2006, 2013, 2014, 2055, 4031}
"""No connection any more, or to a server that cannot write now, as a node that leaves its cluster
in the moment of a commit (1180): a new one may be better.
"""
MODES = "STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,NO_ENGINE_SUBSTITUTION"
ERRORS = (DatabaseError, InterfaceError, pymysql.MySQLError)
"""Peewee's, and PyMySQL's own from the later results of one round trip."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_session = threading.local()


@dataclass(frozen=True, slots=True)
class Tls:
    """How to encrypt the way to the database; each is a path, and `tls` is empty or `system`."""

    tls: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""

    def context(self) -> ssl.SSLContext | None:
        """Returns what checks the server's name and certificate, or None when nobody asked.

        Raises ValueError or OSError for files that cannot be used.
        """
        if self.tls not in ("", "system"):
            raise ValueError("tls must be system: the authorities that this machine trusts")
        if not (self.tls or self.ca or self.cert):
            return None
        context = ssl.create_default_context(cafile=self.ca or None)
        if self.cert:
            context.load_cert_chain(self.cert, self.key or None)
        return context


@dataclass(frozen=True, slots=True)
class Server:
    """A database on a server of the MySQL family."""

    host: str
    port: int
    database: str
    user: str
    password: str = field(repr=False)
    tls: ssl.SSLContext | None


class _Cursor(pymysql.cursors.Cursor):
    """Sends a savepoint with the statement that follows it."""

    def execute(self, query: str, args: Any = None) -> int:
        """Runs a statement, after the savepoint that waits on this thread."""
        before, _session.savepoint = getattr(_session, "savepoint", ""), ""
        if before and DB.obj.takes_several:
            super().execute(f"{before}; {query}", args)
            self.nextset()
            return int(self.rowcount)
        if before:
            super().execute(before)
        return super().execute(query, args)


class Database(Bound, MySQLDatabase):
    """Peewee's, with the sessions that Till needs: strict, no autocommit, bounded lock waits;
    and with every query bound to a tenant.
    """

    takes_several = False
    """Whether the server runs several statements that come in one packet. TiDB refuses unless it is
    told to, and so do older versions of Vitess.
    """

    def _connect(self) -> Any:
        seconds = getattr(_session, "answer_seconds", ANSWER_SECONDS)
        connection = pymysql.connect(
            database=self.database,
            read_timeout=CONNECT_SECONDS,  # a server that is silent must not be waited for
            write_timeout=seconds,
            cursorclass=_Cursor,
            **self.connect_params,
        )
        level = getattr(_session, "level", "READ COMMITTED")
        cursor = connection.cursor()
        cursor.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {level}")
        cursor.execute(
            f"SET SESSION sql_mode = '{MODES}', wait_timeout = {IDLE_SECONDS}, "
            f"innodb_lock_wait_timeout = {LOCK_WAIT_SECONDS}"
        )
        connection._read_timeout = seconds  # type: ignore[attr-defined] # it has no other way
        return connection


def open_mysql(server: Server, *, relaxed: bool = False) -> None:
    """Opens a database and asserts that its commits are durable.

    Raises RuntimeError when it cannot be reached, or would lose commits and `relaxed` is not set.
    """
    if server.tls is None and server.host not in LOOPBACK:
        log.warning("the way to the database at %s is not encrypted", server.host)
    database = Database(
        server.database,
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password.encode(),
        charset="utf8mb4",
        ssl=server.tls,
        ssl_disabled=server.tls is None,  # PyMySQL's unasked attempt costs 50 ms and checks no name
        connect_timeout=CONNECT_SECONDS,
        # An UPDATE counts the rows it finds, as SQLite's does; events may travel with their commit.
        client_flag=CLIENT.FOUND_ROWS | CLIENT.MULTI_STATEMENTS,
    )
    DB.initialize(database)
    try:
        DB.connect(reuse_if_open=True)
    except DatabaseError as error:
        told = str(error.args[-1]) if error.args else "no reason given"
        raise RuntimeError(f"no database at {server.host}:{server.port}: {told}") from error
    database.takes_several = _takes_several()
    if weakness := _weakness():
        if not relaxed:
            raise RuntimeError(f"{weakness}; TILL_DURABILITY=relaxed accepts that")
        log.warning("acknowledged commits can be lost: %s", weakness)


def _weakness() -> str:
    """Returns why a power cut could lose a commit, or an empty text."""
    flush, binlog, sync = DB.execute_sql(
        "SELECT @@innodb_flush_log_at_trx_commit, @@log_bin, @@sync_binlog"
    ).fetchone()
    if int(flush) != 1:
        return f"the database gives innodb_flush_log_at_trx_commit={flush}; Till needs 1"
    if int(binlog) and int(sync) != 1:
        return f"the database gives sync_binlog={sync}; Till needs 1"
    return ""


@contextmanager
def patient() -> Iterator[None]:
    """Gives this thread a connection that waits as long as an upgrade of the schema may take."""
    DB.close()
    _session.answer_seconds = UPGRADE_SECONDS
    try:
        DB.connect()
        yield
    finally:
        _session.answer_seconds = ANSWER_SECONDS
        DB.close()
        DB.connect()


def run_all(statements: list[tuple[str, list[object]]]) -> None:
    """Runs statements in their order, in few round trips where the server takes several at once;
    one that fails keeps the rest from running.
    """
    at_once = PACKET_STATEMENTS if DB.obj.takes_several else 1
    for some in chunked(statements, at_once):
        together = "; ".join(text for text, _ in some)
        cursor = DB.execute_sql(together, [value for _, values in some for value in values])
        while cursor.nextset():
            pass


def set_savepoint() -> None:
    """Sets a savepoint on this thread's connection, in the place of the one before, with the next
    statement: alone it would be a round trip.
    """
    _session.savepoint = "SAVEPOINT unit"


def back_to_savepoint() -> None:
    """Undoes what this thread did since the savepoint, if it did anything."""
    if not forget_savepoint():
        DB.execute_sql("ROLLBACK TO unit")


def forget_savepoint() -> bool:
    """Takes a savepoint back that was not sent yet; False when there is none."""
    waits = bool(getattr(_session, "savepoint", ""))
    _session.savepoint = ""
    return waits


def _takes_several() -> bool:
    """Asks the server two things at once, and says whether it answered both."""
    try:
        cursor = DB.execute_sql("SELECT 1; SELECT 2")
        return bool(cursor.fetchone() == (1,) and cursor.nextset() and cursor.fetchone() == (2,))
    except ERRORS as error:
        if error.args and error.args[0] in LOST:
            raise
        return False


def read_one_snapshot() -> None:
    """Makes the connections of this thread see, from its first query to the end of a transaction,
    one state of the database.
    """
    _session.level = "REPEATABLE READ"
