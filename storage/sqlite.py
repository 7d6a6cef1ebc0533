"""SQLite: one thread owns writing. It takes what waits as a batch, gives each unit a savepoint of
its own, and commits the batch once with synchronous=FULL.
"""

import asyncio
import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

from peewee import DatabaseError, IntegrityError, SqliteDatabase

from storage import event
from storage.batch import Batches
from storage.errors import OutcomeUnknown, Overloaded, Race
from storage.row import DB
from storage.sql import Bound, execute
from storage.unit import Job, perform

T = TypeVar("T")
log = logging.getLogger("till.engine")

BATCH_MAX = 256
"""Units a commit may carry."""
LINGER_SECONDS = 0.008
"""How long a batch may wait for as many units as there are writers."""
CHECKPOINT_UNITS = 256
"""Units after which a checkpoint begins beside the next commits."""
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
    """One writer thread, which commits a batch at a time, and one that makes room in the log."""

    def __init__(self) -> None:
        self._checkpoints = _Checkpoints()
        self.units = Batches(
            self._write,
            threads=1,
            size_max=BATCH_MAX,
            linger_seconds=LINGER_SECONDS,
            name="till-writer",
        )

    def snapshot(self, query: Callable[[], T]) -> T:
        """Runs a query over one snapshot, on this thread's own connection."""
        execute("BEGIN DEFERRED")
        try:
            return query()
        finally:
            execute("COMMIT")

    async def close(self) -> None:
        """Commits what waits, then ends."""
        await self.units.close()
        await asyncio.to_thread(self._checkpoints.close)

    def _write(self, batch: list[Job]) -> None:
        _commit(batch)
        self._checkpoints.count(len(batch))


class _Checkpoints:
    """A thread that copies what was committed from the log into the database file. SQLite's own
    checkpoint is part of a commit, which all writers then wait for; it is left with what came last.
    """

    def __init__(self) -> None:
        self._units, self._ended = 0, False
        self._due = threading.Event()
        self._thread = threading.Thread(target=self._run, name="till-checkpoints", daemon=True)
        self._thread.start()

    def count(self, units: int) -> None:
        """Hears of units that were committed."""
        self._units += units
        if self._units >= CHECKPOINT_UNITS:
            self._units = 0
            self._due.set()

    def close(self) -> None:
        """Ends the thread; the database copies the rest when it is closed."""
        self._ended = True
        self._due.set()
        self._thread.join()

    def _run(self) -> None:
        while self._due.wait() and not self._ended:
            self._due.clear()
            try:
                execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            except DatabaseError as error:  # nothing is lost: the log holds it still
                log.error("a checkpoint failed: %s", error)
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
        job.committed()


def _run(job: Job) -> None:
    """Runs one unit inside a savepoint, so that a refusal undoes only itself.

    A broken constraint means that another process won a race after the unit looked: it looks
    again.
    """
    for tries in range(1, TRIES_MAX + 1):
        execute("SAVEPOINT unit")
        try:
            perform(job)
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
