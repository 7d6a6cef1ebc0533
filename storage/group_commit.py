"""Group commit for SQLite: one thread owns writing. It takes what waits as a batch, runs one unit
after the other, and commits the batch once with synchronous=FULL. A unit that fails undoes only
itself.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from peewee import DatabaseError, IntegrityError

from storage import event, ids
from storage.batch import Batches
from storage.errors import OutcomeUnknown, Overloaded, Race
from storage.row import DB
from storage.sql import execute, execute_each
from storage.unit import Job, perform

T = TypeVar("T")
log = logging.getLogger("till.engine")

BATCH_MAX = 256
"""Units a commit may carry."""
LINGER_SECONDS = 0.008
"""How long a batch may wait for as many units as there are writers."""
BUSY_SHARE = 0.7
"""What the process must use of a core for a batch to wait at all."""
CHECKPOINT_UNITS = 256
"""Units after which a checkpoint begins beside the next commits."""
CAREFUL_BATCHES = 16
"""Batches with savepoints from the one on that had to be undone for want of them: refusals come in
crowds."""
TRIES_MAX = 16
"""How often a unit runs that meets rows of another process: its ids have leapt over many by then.
"""


class GroupCommit:
    """One writer thread, which commits a batch at a time, and one that makes room in the log."""

    def __init__(self) -> None:
        self._checkpoints = _Checkpoints()
        self._careful = 0
        self.units = Batches(
            self._write,
            threads=1,
            size_max=BATCH_MAX,
            linger_seconds=LINGER_SECONDS,
            name="till-writer",
            busy_share=BUSY_SHARE,
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
        """Commits a batch, without savepoints unless they were needed lately: SQLite copies every
        page that changes after one.
        """
        if self._careful or not _commit(batch, _run_plainly):
            self._careful = (self._careful or CAREFUL_BATCHES) - 1
            _commit(batch, _run_from_savepoint)
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


class _HalfDone(Exception):
    """A unit that has no savepoint to go back to failed, and may have written."""


def _commit(batch: list[Job], run: Callable[[Job], None]) -> bool:
    """Runs a batch in one transaction; every job then holds its result or its error. Returns False
    when nothing is done, because it takes savepoints.
    """
    try:
        execute("BEGIN IMMEDIATE")
    except DatabaseError as error:
        _fail(batch, Overloaded("the database is busy"), error)
        return True
    try:
        for job in batch:
            if job.wanted():
                run(job)
        _number([each for job in batch for each in job.events])
    except _HalfDone:
        _roll_back()
        for job in batch:
            job.forget()
        return False
    except DatabaseError as error:  # the transaction is gone: nothing of the batch was kept
        _roll_back()
        _fail(batch, Overloaded("the database could not write"), error)
        return True
    try:
        execute("COMMIT")
    except DatabaseError as error:
        _fail(
            batch, OutcomeUnknown("the commit failed; repeat the request with the same key"), error
        )
        _roll_back()
    else:
        for job in batch:
            job.committed()
    return True


def _run_plainly(job: Job) -> None:
    """Runs one unit; its refusal stands when it wrote nothing before. Raises _HalfDone."""
    connection = DB.connection()
    before = connection.total_changes
    try:
        perform(job)
    except Exception as error:
        if isinstance(error, (DatabaseError, Race)) or connection.total_changes != before:
            raise _HalfDone from error
        job.error = error


def _run_from_savepoint(job: Job) -> None:
    """Runs one unit inside a savepoint, so that a refusal undoes only itself.

    A broken constraint means that another process won a race after the unit looked, or made the
    same ids: it looks again, with others.
    """
    for tries in range(1, TRIES_MAX + 1):
        execute("SAVEPOINT unit")
        try:
            perform(job)
        except (IntegrityError, Race) as error:
            job.error = error
            ids.leap(tries)
        except Exception as error:
            job.error = error
            tries = TRIES_MAX
        if job.error is not None:
            _undo(job.error)
        execute("RELEASE unit")
        if job.error is None or tries == TRIES_MAX:
            break
    if job.error is not None:
        job.error = _told(job.error)


def _told(error: BaseException) -> BaseException:
    """Returns what to tell of a unit that raised this to the end."""
    if isinstance(error, Race):
        return Overloaded(f"others were faster each time: {error}")
    if isinstance(error, IntegrityError) and str(error).startswith("UNIQUE"):
        log.warning("gave up: %s", error)
        return Overloaded("the database is busy")
    return error


def _number(events: list[event.Waiting]) -> None:
    """Writes the events of a whole batch; SQLite's one writer holds every tenant's tip anyway."""
    for text, rows in event.closing(events):
        execute_each(text, rows)


def _undo(cause: BaseException) -> None:
    """Takes a unit back; when SQLite has taken back everything (the disk is full), says why."""
    try:
        execute("ROLLBACK TO unit")
    except DatabaseError:
        raise DatabaseError(f"the transaction was lost: {cause}") from cause


def _fail(batch: list[Job], refusal: Exception, cause: Exception) -> None:
    log.error("a batch of %d writes failed: %s", len(batch), cause)
    for job in batch:
        job.error = refusal


def _roll_back() -> None:
    with suppress(DatabaseError):
        execute("ROLLBACK")
