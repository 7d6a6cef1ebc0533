"""The engine: every write is durable before its caller is answered.

A unit is a plain function over the tables. It runs inside a transaction it does not see, may be
run again, and either returns or raises; what raises leaves no trace. Which database that is stands
in storage/group_commit.py and storage/pool.py, and what lies below them.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from storage import database, greatest, migrate
from storage.batch import Batches
from storage.errors import Overloaded
from storage.group_commit import GroupCommit
from storage.pool import Pool
from storage.row import DB
from storage.unit import Job

T = TypeVar("T")
SCANS_MAX = 2
"""Queries that may take long and run at once."""


class Engine:
    """Runs units and queries over one database; made on the event loop that will use it."""

    def __init__(
        self, url: str, queue_max: int = 4096, options: database.Options = database.DEFAULTS
    ) -> None:
        """Opens the database and brings its schema up to date.

        Raises ValueError for a URL of no known kind, RuntimeError when the database cannot be
        reached, is not durable, or has a schema newer than this program.
        """
        place = database.open_database(url, options)
        migrate.up()
        greatest.go_on_behind()
        self._loop = asyncio.get_running_loop()
        self._queue_max = queue_max
        self.writing = 0
        """Units whose callers wait for the database."""
        self._side: GroupCommit | Pool
        if isinstance(place, database.File):
            self._side, readers = GroupCommit(), SCANS_MAX
        else:
            self._side, readers = Pool(options.connections), options.connections
        self._readers = ThreadPoolExecutor(readers, "till-read")

    async def write(self, unit: Callable[[], T]) -> T:
        """Runs a unit in a transaction and returns its result once that is on disk.

        A caller that goes away before its unit starts takes the unit with it.
        Raises what the unit raises; Overloaded (not begun, or undone); OutcomeUnknown (the commit
        itself failed).
        """
        if self._side.units.waiting >= self._queue_max:
            raise Overloaded("too many writes are waiting")
        self.writing += 1
        try:
            return await self._settled(self._side.units, unit)
        finally:
            self.writing -= 1

    async def read(self, query: Callable[[], T]) -> T:
        """Runs a query that takes microseconds over one snapshot, without leaving the event loop
        where that cannot wait.
        """
        if isinstance(self._side, Pool):
            return await self._settled(self._side.reads, query)
        self._side.units.calls += 1
        return self._side.snapshot(query)

    async def glance(self, query: Callable[[], T]) -> T:
        """Runs a query of one SELECT, which is a snapshot by itself, as `read` would."""
        if isinstance(self._side, Pool):
            return await self.read(query)
        self._side.units.calls += 1
        return query()

    async def _settled(self, batches: Batches, work: Callable[[], T]) -> T:
        future: asyncio.Future[T] = self._loop.create_future()
        batches.put(Job(work, future))
        return await future

    async def scan(self, query: Callable[[], T]) -> T:
        """Runs a query that may take long over one snapshot, on a thread."""
        return await self._loop.run_in_executor(self._readers, self._side.snapshot, query)

    async def close(self) -> None:
        """Commits what waits, then ends."""
        await self._side.close()
        await asyncio.to_thread(self._readers.shutdown)
        DB.close()
