"""The pool: writer threads, each with a connection to a database server. One unit is one
transaction, and a unit that loses a race or its connection runs again as a whole.
"""

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from peewee import IntegrityError

from storage import event, mysql, once
from storage.errors import OutcomeUnknown, Overloaded, Race
from storage.mysql import BEATEN, BROKEN_CHECK, DUPLICATE, ERRORS, LOST
from storage.row import DB
from storage.unit import Job, learned, perform

T = TypeVar("T")
log = logging.getLogger("till.engine")

RETRY_SECONDS = 1.5
"""How long after its arrival a unit waits for a database that is away; then its caller is told to
come back.
"""
RACE_SECONDS = 5.0
"""How long after its arrival a unit that others overtook is run again: the database is there, and
the crowd will thin.
"""
PAUSE_SECONDS_MAX = 0.2


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
        mysql.read_one_snapshot()
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
    tries, committing, doubt = 0, False, False
    while True:
        tries, committing = tries + 1, False
        try:
            result = perform(job.unit)
            committing = True
            _commit()
            for action in learned():
                action()
            return result
        except (*ERRORS, Race) as error:
            _undo(error)
            doubt = doubt or (committing and _lost(error))
            if doubt and not once.claimed():
                raise _unknown() from error
            patience = RETRY_SECONDS if _lost(error) else RACE_SECONDS
            if not _again(error, tries, min(job.deadline, job.since + patience)):
                raise (_unknown() if doubt else _told(error)) from error
        except BaseException:
            _roll_back()
            raise


def _commit() -> None:
    """Writes the unit's events and commits, in one round trip where that is possible, so that the
    tenant's tip is locked for no longer than the server needs.
    """
    numbered = event.closing(event.collected())
    mysql.run_all([*((text, row) for text, rows in numbered for row in rows), ("COMMIT", [])])


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
    if _code(error) in BROKEN_CHECK:  # PyMySQL calls it operational, as if it could pass
        return IntegrityError(*error.args)
    if not _mendable(error):
        return error
    if isinstance(error, Race):
        return Overloaded(f"others were faster each time: {error}")
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
