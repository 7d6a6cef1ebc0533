"""SQLite: one thread owns writing. It takes what waits as a batch, gives each unit a savepoint of
its own, and commits the batch once with synchronous=FULL.
"""

import asyncio
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

from peewee import DatabaseError, IntegrityError, SqliteDatabase

from storage import event
from storage.errors import OutcomeUnknown, Overloaded, Race
from storage.row import DB
from storage.sql import Bound, execute
from storage.unit import Job, learned, perform

T = TypeVar("T")
log = logging.getLogger("till.engine")

BATCH_MAX = 256
"""Units a commit may carry."""
LINGER_SECONDS = 0.004
"""How long a batch may wait for as many units as there are writers."""
BACKUP_PAGES = 2000
"""Pages copied between two reports of progress."""
TRIES_MAX = 2
"""How often a unit runs that another process's units keep overtaking."""
PRAGMAS = {
    "journal_mode": "wal",
    "synchronous": 2,  # FULL: a commit is on disk before it returns
    "cache_size": -65536,  # 64 MiB
    "wal_autocheckpoint": 4000,
    "busy_timeout": 5000,
}


class _Sqlite(Bound, SqliteDatabase):
    """SQLite, with every query bound to a tenant."""


def open_sqlite(path: str) -> None:
    """Opens a database file and asserts that its commits are durable.

    Raises RuntimeError when the file cannot give the durability promised.
    """
    Path(path).resolve().parent.mkdir(parents=True, exist_ok=True)
    DB.initialize(_Sqlite(path, pragmas=PRAGMAS))
    DB.connect(reuse_if_open=True)
    mode, level = DB.pragma("journal_mode"), DB.pragma("synchronous")
    if (mode, level) != ("wal", 2):
        raise RuntimeError(
            f"SQLite gives journal_mode={mode}, synchronous={level}; Till needs wal and 2 (FULL)"
        )


def backup(path: Path, tell: Callable[[int, int], None]) -> None:
    """Copies the open database to a file, whole or not at all, as it is at this moment; a query
    for the engine. `tell` hears of progress: pages done, pages in all.

    The query's snapshot is held throughout, so that writers go on and the copy never starts over.
    """
    DB.execute_sql("SELECT count(*) FROM sqlite_master").fetchone()
    draft = path.with_name(f"{path.name}.part")
    draft.unlink(missing_ok=True)
    with closing(sqlite3.connect(draft)) as file:
        DB.connection().backup(
            file,
            pages=BACKUP_PAGES,
            sleep=0,
            progress=lambda _, left, pages: tell(pages - left, pages),
        )
    with draft.open("rb") as file_on_disk:
        os.fsync(file_on_disk.fileno())
    draft.replace(path)


def restore(path: Path, tell: Callable[[int, int], None]) -> None:
    """Copies a backup into the open database, over whatever it holds.

    Raises ValueError when the backup is damaged.
    """
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:
        (verdict,) = file.execute("PRAGMA quick_check").fetchone()
        if verdict != "ok":
            raise ValueError(f"{path} is damaged: {verdict}")
        file.backup(
            DB.connection(),
            pages=BACKUP_PAGES,
            sleep=0,
            progress=lambda _, left, pages: tell(pages - left, pages),
        )


class GroupCommit:
    """Collects jobs on the event loop and hands them to the writer thread a batch at a time."""

    reads_wait = False
    """In WAL mode a reader never waits for the writer, so short reads stay on the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Job] = []
        self._expected = 1
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._handover: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._drain, name="till-writer", daemon=True)
        self._writer.start()

    @property
    def waiting(self) -> int:
        """How many jobs are in no batch yet."""
        return len(self._waiting)

    def put(self, job: Job) -> None:
        """Takes a job; it is settled once it is on disk, or will never be."""
        self._waiting.append(job)
        self._consider()

    def snapshot(self, query: Callable[[], T]) -> T:
        """Runs a query over one snapshot, on this thread's own connection."""
        execute("BEGIN DEFERRED")
        try:
            return query()
        finally:
            execute("COMMIT")

    async def close(self) -> None:
        """Commits what waits, then ends."""
        while self._waiting or self._busy:
            await asyncio.sleep(0.005)
        self._handover.put(None)
        await asyncio.to_thread(self._writer.join)

    def _consider(self) -> None:
        """Hands the batch over, or lets it grow for a moment while a crowd is writing."""
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
        # Whoever is answered now will soon write again: the crowd is they and those who wait. A
        # batch as large as the last one would stay small for ever once it was small.
        self._expected = len(batch) + len(self._waiting)
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


def _commit(batch: list[Job]) -> None:
    """Runs a batch in one transaction; every job then holds its result or its error."""
    try:
        execute("BEGIN IMMEDIATE")
    except DatabaseError as error:
        return _fail(batch, Overloaded("the database is busy"), error)
    try:
        for job in batch:
            if job.wanted():
                _run(job)
        _number([each for job in batch for each in job.events])
    except DatabaseError as error:  # the transaction is gone: nothing of the batch was kept
        _roll_back()
        return _fail(batch, Overloaded("the database could not write"), error)
    try:
        execute("COMMIT")
    except DatabaseError as error:
        _fail(
            batch, OutcomeUnknown("the commit failed; repeat the request with the same key"), error
        )
        return _roll_back()
    for job in batch:
        for action in job.learned:
            action()


def _run(job: Job) -> None:
    """Runs one unit inside a savepoint, so that a refusal undoes only itself.

    A broken constraint means that another process won a race after the unit looked: it looks
    again.
    """
    for tries in range(1, TRIES_MAX + 1):
        execute("SAVEPOINT unit")
        try:
            job.result, job.error = perform(job.unit), None
            job.events, job.learned = event.collected(), learned()
        except (IntegrityError, Race) as error:
            job.error = error
        except Exception as error:
            job.error = error
            tries = TRIES_MAX
        if job.error is not None:
            _undo(job.error)
        execute("RELEASE unit")
        if job.error is None or tries == TRIES_MAX:
            break
    if isinstance(job.error, Race):
        job.error = Overloaded(f"others were faster each time: {job.error}")


def _number(events: list[event.Waiting]) -> None:
    """Writes the events of a whole batch; SQLite's one writer holds every tenant's tip anyway."""
    for text, rows in event.closing(events):
        DB.cursor().executemany(text, rows)


def _undo(cause: BaseException) -> None:
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
        execute("ROLLBACK")
