"""The MySQL family: a bounded pool of connections, each owned by a thread; one unit is one
transaction, and a unit that loses a race or its connection runs again as a whole.

READ COMMITTED: every statement sees what is committed, so that what a unit reads after a guarded
update is true, and no gap locks hold up neighbours. What must not change between a look and a write
is held by a unique key or by the guard of the write.
"""

import asyncio
import logging
import random
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pymysql
from peewee import DatabaseError, InterfaceError, MySQLDatabase
from pymysql.constants import CLIENT

from storage import event, once
from storage.errors import OutcomeUnknown, Overloaded, Race
from storage.row import DB
from storage.unit import Job, perform

T = TypeVar("T")
log = logging.getLogger("till.engine")

RETRY_SECONDS = 1.5
"""How long after its arrival a unit is run again; then its caller is told to come back."""
PAUSE_SECONDS_MAX = 0.2
CONNECT_SECONDS = 1
LOCK_WAIT_SECONDS = 1
ANSWER_SECONDS = 10
"""How long the database may take for one statement before the connection counts as lost."""
DUPLICATE = 1062
BEATEN = {1020, 1205, 1213}
"""Changed since read, lock wait over, deadlock or certification: the transaction is undone."""
LOST = {0, 1040, 1047, 1053, 1290, 1317, 1927, 2002, 2003, 2006, 2013, 2014, 2055}
"""No connection any more, or to a server that cannot write now: a new one may be better."""
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
    tls: Tls


class Database(MySQLDatabase):
    """Peewee's, with the sessions that Till needs: strict, no autocommit, bounded lock waits."""

    def _connect(self) -> Any:
        seconds = getattr(_session, "answer_seconds", ANSWER_SECONDS)
        connection = pymysql.connect(
            database=self.database,
            read_timeout=seconds,
            write_timeout=seconds,
            **self.connect_params,
        )
        level = getattr(_session, "level", "READ COMMITTED")
        cursor = connection.cursor()
        cursor.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {level}")
        cursor.execute(
            f"SET SESSION sql_mode = '{MODES}', innodb_lock_wait_timeout = {LOCK_WAIT_SECONDS}"
        )
        return connection


def open_mysql(server: Server, *, relaxed: bool = False) -> None:
    """Opens a database and asserts that its commits are durable.

    Raises RuntimeError when it cannot be reached, or would lose commits and `relaxed` is not set.
    """
    tls = server.tls.context()
    if tls is None and server.host not in LOOPBACK:
        log.warning("the way to the database at %s is not encrypted", server.host)
    database = Database(
        server.database,
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password.encode(),
        charset="utf8mb4",
        ssl=tls,
        ssl_disabled=tls is None,  # PyMySQL's unasked attempt costs 50 ms and checks no name
        connect_timeout=CONNECT_SECONDS,
        # An UPDATE counts the rows it finds, as SQLite's does; events travel with their commit.
        client_flag=CLIENT.FOUND_ROWS | CLIENT.MULTI_STATEMENTS,
    )
    DB.initialize(database)
    try:
        DB.connect(reuse_if_open=True)
    except DatabaseError as error:
        told = str(error.args[-1]) if error.args else "no reason given"
        raise RuntimeError(f"no database at {server.host}:{server.port}: {told}") from error
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


class Pool:
    """Writer threads, each with a connection of its own."""

    reads_wait = True
    """A read is a round trip: it leaves the event loop."""

    def __init__(self, connections: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(connections, "till-write")
        self._lock = threading.Lock()
        self.waiting = 0
        """How many jobs no thread has taken yet."""

    def put(self, job: Job) -> None:
        """Takes a job; it is settled once it is on disk, or will never be."""
        self._count(1)
        self._threads.submit(self._take, job)

    def snapshot(self, query: Callable[[], T]) -> T:
        """Runs a query over one snapshot, on this thread's own connection; on a new one if that is
        lost.
        """
        _session.level = "REPEATABLE READ"
        since, tries = time.monotonic(), 0
        while True:
            tries += 1
            try:
                return query()
            except ERRORS as error:
                _undo(error)
                if not _again(error, tries, since + RETRY_SECONDS):
                    raise _told(error) from error
            finally:
                _roll_back()

    async def close(self) -> None:
        """Commits what waits, then ends."""
        await asyncio.to_thread(self._threads.shutdown)

    def _count(self, step: int) -> None:
        with self._lock:
            self.waiting += step

    def _take(self, job: Job) -> None:
        """A writer thread's work on one job."""
        self._count(-1)
        if job.wanted():
            try:
                job.result = _run(job)
            except BaseException as error:
                job.error = error
        with suppress(RuntimeError):  # the loop was closed under us: nobody is left to answer
            self._loop.call_soon_threadsafe(job.settle)


def _run(job: Job) -> Any:
    """Runs a unit until it is committed, refused, or its time is over.

    What the server refused is undone for certain. A connection lost in the commit may have carried
    it or not: run again, a claim finds its first answer; without one only the caller can tell.
    """
    until = min(job.deadline, job.since + RETRY_SECONDS)
    tries, committing, doubt = 0, False, False
    while True:
        tries, committing = tries + 1, False
        try:
            result = perform(job.unit)
            committing = True
            _commit()
            return result
        except (*ERRORS, Race) as error:
            _undo(error)
            doubt = doubt or (committing and _lost(error))
            if doubt and not once.claimed():
                raise _unknown() from error
            if not _again(error, tries, until):
                raise (_unknown() if doubt else _told(error)) from error
        except BaseException:
            _roll_back()
            raise


def _commit() -> None:
    """Writes the unit's events and commits in one round trip, so that the tenant's tip is locked
    for no longer than the server needs; a statement that fails keeps the rest from running.
    """
    closing = [*event.closing(), ("COMMIT", [])]
    cursor = DB.execute_sql(
        "; ".join(text for text, _ in closing), [value for _, values in closing for value in values]
    )
    while cursor.nextset():
        pass


def _again(error: Exception, tries: int, until: float) -> bool:
    """Says, after a pause, whether a unit or query that failed is worth another run."""
    return _mendable(error) and _pause(tries, until)


def _pause(tries: int, until: float) -> bool:
    """Sleeps with full jitter, the longer the more often it was tried; False when time is over."""
    seconds = random.uniform(0, min(PAUSE_SECONDS_MAX, 0.002 * 2**tries))
    if time.monotonic() + seconds > until:
        return False
    time.sleep(seconds)
    return True


def _told(error: Exception) -> Exception:
    """Returns what to tell of an error once there is no time for another run."""
    if not _mendable(error):
        return error
    log.warning("gave up: %s", error)
    return Overloaded("the database is busy or away")


def _unknown() -> OutcomeUnknown:
    return OutcomeUnknown("the connection was lost; repeat the request with the same key")


def _code(error: BaseException) -> object:
    return error.args[0] if error.args else None


def _lost(error: Exception) -> bool:
    return isinstance(error, ERRORS) and _code(error) in LOST


def _mendable(error: Exception) -> bool:
    return isinstance(error, Race) or _lost(error) or _code(error) in {DUPLICATE, *BEATEN}


def _undo(error: Exception) -> None:
    """Leaves the connection clean for the next run: rolled back, or closed when it is lost."""
    if _lost(error):
        _drop()
    else:
        _roll_back()


def _roll_back() -> None:
    """Ends the transaction; a connection that cannot even do that is closed."""
    if not DB.is_closed():
        try:
            DB.execute_sql("ROLLBACK")
        except ERRORS:
            _drop()


def _drop() -> None:
    with suppress(Exception):  # it is broken already; how does not matter
        DB.close()
