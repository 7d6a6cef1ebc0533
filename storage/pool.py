"""The pool: threads with connections to a database server, each running a batch of units in one
transaction, or of reads over one snapshot. A batch that meets trouble is undone, and each of its
jobs runs again alone: a unit that loses a race or its connection as often as its time allows.
"""

import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from peewee import IntegrityError

from storage import event, ids, mysql
from storage.batch import Batches
from storage.errors import OutcomeUnknown, Overloaded, Race
from storage.mysql import BEATEN, BROKEN_CHECK, DUPLICATE, ERRORS, LOST
from storage.row import DB
from storage.unit import Job, perform

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
BATCH_MAX = 64
"""Jobs of one transaction: more would make the rest wait too long for a row that one waits for."""
LINGER_SECONDS = 0.02
"""How long a batch of units may wait for as many as there are writers."""


class Pool:
    """Threads that write, and as many that read, each with a connection of its own."""

    def __init__(self, connections: int) -> None:
        threads = partial(
            Batches, threads=connections, size_max=BATCH_MAX, linger_seconds=LINGER_SECONDS
        )
        self.units = threads(_write, name="till-write")
        self.reads = threads(_read, name="till-read")

    @staticmethod
    def snapshot(query: Callable[[], T], since: float | None = None) -> T:
        """Runs a query, which has waited since then, over one snapshot, on this thread's own
        connection; on a new one if that is lost.
        """
        mysql.read_one_snapshot()
        since, tries = time.monotonic() if since is None else since, 0
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
        await self.units.close()
        await self.reads.close()


def _write(batch: list[Job]) -> None:
    """Commits a batch of units; every job then holds its result or its error."""
    wanted = [job for job in batch if job.wanted()]
    if len(wanted) < 2 or not _write_together(wanted):
        _run_alone(wanted, _write_alone)


def _write_together(batch: list[Job]) -> bool:
    """Runs units in one transaction, each from a savepoint of its own, so that a refusal undoes
    only itself. False when all was undone, or (they are in doubt then) may have been.
    """
    committing = False
    try:
        for job in batch:
            _attempt(job)
        committing = True
        _commit([each for job in batch for each in job.events])
    except (*ERRORS, Race) as error:
        _undo(error)
        for job in batch:
            job.doubt = committing and _lost(error) and job.error is None
            job.forget()
        return False
    for job in batch:
        job.committed()
    return True


def _attempt(job: Job) -> None:
    mysql.set_savepoint()
    try:
        perform(job)
    except (*ERRORS, Race):
        raise
    except Exception as refusal:
        job.error = refusal
        mysql.back_to_savepoint()


def _write_alone(job: Job) -> Any:
    """Runs a unit until it is committed, refused, or its time is over.

    What the server refused is undone for certain. A connection lost in the commit may have carried
    it or not: run again, a claim finds its first answer; without one only the caller can tell.
    """
    tries, committing = 0, False
    while True:
        if job.doubt and not job.claimed:
            raise _unknown()
        tries, committing = tries + 1, False
        try:
            perform(job)
            committing = True
            _commit(job.events)
            job.committed()
            return job.result
        except (*ERRORS, Race) as error:
            _undo(error)
            if _code(error) == DUPLICATE:
                ids.leap(tries)
            job.doubt = job.doubt or (committing and _lost(error))
            patience = RETRY_SECONDS if _lost(error) else RACE_SECONDS
            if not _again(error, tries, min(job.deadline, job.since + patience)):
                raise (_unknown() if job.doubt else _told(error)) from error
        except BaseException:
            _roll_back()
            raise


def _commit(events: list[event.Waiting]) -> None:
    """Writes the events of a transaction and commits, in one round trip where that is possible, so
    that the tenant's tip is locked for no longer than the server needs.
    """
    numbered = event.closing(events)
    mysql.run_all([*((text, row) for text, rows in numbered for row in rows), ("COMMIT", [])])


def _read(batch: list[Job]) -> None:
    """Runs a batch of queries over one snapshot; every job then holds its result or its error."""
    wanted = [job for job in batch if job.wanted()]
    mysql.read_one_snapshot()
    try:
        for job in wanted:
            _keep(job, job.unit, ERRORS)
    except ERRORS as error:
        _undo(error)
        _run_alone(wanted, lambda job: Pool.snapshot(job.unit, job.since))
    finally:
        _roll_back()


def _run_alone(batch: list[Job], run: Callable[[Job], Any]) -> None:
    """Runs jobs one by one. Once the database is away, who has waited long enough is told so at
    once: to try costs a connection's whole timeout, and the others wait behind.
    """
    away = False
    for job in batch:
        if away and time.monotonic() > job.since + RETRY_SECONDS:
            job.error = _unknown() if job.doubt else _busy()
        elif job.doubt or job.wanted():
            _keep(job, partial(run, job))
            cause = job.error.__cause__ if job.error is not None else None
            away = isinstance(cause, Exception) and _lost(cause)


def _keep(job: Job, work: Callable[[], Any], raised: tuple[type[BaseException], ...] = ()) -> None:
    """Keeps what a job's work returns or raises, but for what is not to be kept."""
    try:
        job.result, job.error = work(), None
    except raised:
        raise
    except BaseException as error:
        job.error = error


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
    return _busy()


def _busy() -> Overloaded:
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
    mysql.forget_savepoint()
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
