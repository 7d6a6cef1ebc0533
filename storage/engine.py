"""The engine: every write is durable before its caller is answered, and writes share their commits.

A unit is a plain function over the tables. It runs inside a transaction it does not see, may be
run again, and either returns or raises; what raises leaves no trace. On SQLite one thread owns
writing: it takes what waits as a batch, gives each unit a savepoint of its own, and commits the
batch once with synchronous=FULL.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from peewee import DatabaseError, IntegrityError, SqliteDatabase

from storage.errors import OutcomeUnknown, Overloaded
from storage.sql import Bound
from storage.tables import DB, TABLES

T = TypeVar("T")
log = logging.getLogger("till.engine")

BATCH_MAX = 256
"""Units a commit may carry."""
LINGER_SECONDS = 0.004
"""How long a batch may wait for as many units as the last one had."""
PRAGMAS = {
    "journal_mode": "wal",
    "synchronous": 2,  # FULL: a commit is on disk before it returns
    "cache_size": -65536,  # 64 MiB
    "mmap_size": 268_435_456,
    "wal_autocheckpoint": 4000,
    "busy_timeout": 5000,
}


class _Sqlite(Bound, SqliteDatabase):
    """SQLite, with every query bound to a tenant."""


class Job:
    """A unit that waits, and what became of it."""

    __slots__ = ("error", "future", "result", "unit")

    def __init__(self, unit: Callable[[], Any], future: "asyncio.Future[Any]") -> None:
        self.unit, self.future = unit, future
        self.result: Any = None
        self.error: BaseException | None = None

    def settle(self) -> None:
        """Answers the caller, unless it has gone; runs on the event loop."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Engine:
    """Runs units and queries over one database; made on the event loop that will use it."""

    def __init__(self, url: str, queue_max: int = 4096) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue_max = queue_max
        self._waiting: list[Job] = []
        self._expected = 1
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._handover: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self._scans = ThreadPoolExecutor(2, "till-scan")
        open_sqlite(url)
        self._writer = threading.Thread(target=self._drain, name="till-writer", daemon=True)
        self._writer.start()

    async def write(self, unit: Callable[[], T]) -> T:
        """Runs a unit in a transaction and returns its result once that is on disk.

        A caller that goes away before its unit starts takes the unit with it.
        Raises what the unit raises; Overloaded (not begun); OutcomeUnknown (the commit itself
        failed).
        """
        if len(self._waiting) >= self._queue_max:
            raise Overloaded("too many writes are waiting")
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append(Job(unit, future))
        self._consider()
        return await future

    async def read(self, query: Callable[[], T]) -> T:
        """Runs a query that takes microseconds over one snapshot, without leaving the event
        loop.
        """
        return _snapshot(query)

    async def scan(self, query: Callable[[], T]) -> T:
        """Runs a query that may take long over one snapshot, on a thread."""
        return await self._loop.run_in_executor(self._scans, _snapshot, query)

    async def close(self) -> None:
        """Commits what waits, then ends."""
        while self._waiting or self._busy:
            await asyncio.sleep(0.005)
        self._handover.put(None)
        await asyncio.to_thread(self._writer.join)
        self._scans.shutdown()
        DB.close()

    def _consider(self) -> None:
        """Hands the batch over, or lets it grow to the size of the last one for a moment."""
        if self._busy or not self._waiting:
            return
        if len(self._waiting) >= min(self._expected, BATCH_MAX):
            self._hand_over()
        elif self._timer is None:
            self._timer = self._loop.call_later(LINGER_SECONDS, self._hand_over)

    def _hand_over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
        self._busy = True
        self._handover.put(batch)

    def _committed(self, batch: list[Job]) -> None:
        self._busy = False
        self._expected = len(batch)
        for job in batch:
            job.settle()
        self._consider()

    def _drain(self) -> None:
        """The writer thread: takes batches until it is handed None."""
        while (batch := self._handover.get()) is not None:
            _commit(batch)
            with suppress(RuntimeError):  # the loop was closed under us: nobody is left to answer
                self._loop.call_soon_threadsafe(self._committed, batch)
        DB.close()


def open_sqlite(url: str) -> None:
    """Opens the database file of `sqlite:///path`, makes its tables, and asserts that commits are
    durable.

    Raises ValueError for any other URL, RuntimeError when the file cannot give the durability
    promised.
    """
    scheme, _, path = url.partition(":///")
    if scheme != "sqlite" or not path:
        raise ValueError(f"TILL_DATABASE must be sqlite:///path, not {url!r}")
    Path(path).resolve().parent.mkdir(parents=True, exist_ok=True)
    DB.initialize(_Sqlite(path, pragmas=PRAGMAS))
    DB.connect(reuse_if_open=True)
    DB.create_tables(TABLES)
    mode, level = DB.pragma("journal_mode"), DB.pragma("synchronous")
    if (mode, level) != ("wal", 2):
        raise RuntimeError(
            f"SQLite gives journal_mode={mode}, synchronous={level}; Till needs wal and 2 (FULL)"
        )


def _snapshot(query: Callable[[], T]) -> T:
    DB.execute_sql("BEGIN DEFERRED")
    try:
        return query()
    finally:
        DB.execute_sql("COMMIT")


def _commit(batch: list[Job]) -> None:
    """Runs a batch in one transaction; every job then holds its result or its error."""
    try:
        DB.execute_sql("BEGIN IMMEDIATE")
    except DatabaseError as error:
        return _fail(batch, Overloaded("the database is busy"), error)
    try:
        for job in batch:
            if not job.future.cancelled():
                _run(job)
    except DatabaseError as error:  # the transaction is gone: nothing of the batch was kept
        _roll_back()
        return _fail(batch, Overloaded("the database could not write"), error)
    try:
        DB.execute_sql("COMMIT")
    except DatabaseError as error:
        _fail(
            batch, OutcomeUnknown("the commit failed; repeat the request with the same key"), error
        )
        _roll_back()


def _run(job: Job) -> None:
    """Runs one unit inside a savepoint, so that a refusal undoes only itself.

    A broken constraint means that another process won a race after the unit looked: it looks
    again, once.
    """
    for attempt in (1, 2):
        DB.execute_sql("SAVEPOINT unit")
        try:
            job.result = job.unit()
            break
        except Exception as error:
            job.error = error if attempt == 2 or not isinstance(error, IntegrityError) else None
            _undo(error)
        if job.error is not None:
            break
    DB.execute_sql("RELEASE unit")


def _undo(cause: Exception) -> None:
    """Takes a unit back; when SQLite has taken back everything (the disk is full), says why."""
    try:
        DB.execute_sql("ROLLBACK TO unit")
    except DatabaseError:
        raise DatabaseError(f"the transaction was lost: {cause}") from cause


def _fail(batch: list[Job], refusal: Exception, cause: Exception) -> None:
    log.error("a batch of %d writes failed: %s", len(batch), cause)
    for job in batch:
        job.error = refusal


def _roll_back() -> None:
    with suppress(DatabaseError):
        DB.execute_sql("ROLLBACK")
