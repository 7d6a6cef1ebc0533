"""The worker: keeps the promises of the store, soon after they are on disk and again after every
start, and tidies it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from storage import draft_item, hold, once, operation
from storage.engine import Engine
from storage.errors import PASSING

log = structlog.get_logger("till.worker")
BATCH = 64
"""Operations looked for at once; their units share a commit."""
TRIES = 3
"""How often an operation may fail for a reason of its own, such as a request nobody can read."""
POLL_SECONDS = 1.0
"""How long until the worker looks by itself, for promises that another process made."""
RETRY_SECONDS = 1.0
"""How long to rest after the database failed."""
CHORES_SECONDS = 30.0
"""How often holds that have expired and keys that are old are tidied away; nothing depends on
it.
"""
CHORES_BATCH = 200
PAUSE_SECONDS = 0.05
"""How long the tidying leaves the store to its callers while there is more: it still forgets nearly
4,000 keys a second, as many as come.
"""


class Worker:
    """Runs as two tasks, one a kind of work; `wake` says that there is some, `progress` waits until
    some was done.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._work = asyncio.Event()
        self._finished = asyncio.Event()
        self._tasks = [
            asyncio.create_task(self._forever(self._apply_or_rest)),
            asyncio.create_task(self._forever(self._do_chores)),
        ]

    def wake(self) -> None:
        """Says that an operation waits."""
        self._work.set()

    async def progress(self, seconds: float) -> None:
        """Returns after operations were applied, or after so many seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._finished.wait(), seconds)

    async def close(self) -> None:
        """Ends the tasks; what is pending stays pending on disk."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _forever(self, round_: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await round_()
                continue
            except PASSING as error:
                log.warning("worker rests", reason=str(error))
            except Exception as error:
                log.error("worker rests", exc_info=error)
            await asyncio.sleep(RETRY_SECONDS)

    async def _apply_or_rest(self) -> None:
        if await self._apply_some() == 0:
            await self._rest()

    async def _do_chores(self) -> None:
        overdue = await self._engine.scan(lambda: hold.overdue(CHORES_BATCH))
        for tenant, hold_id in overdue:
            await self._engine.write(partial(hold.expire, tenant, hold_id))
        forgotten = await self._engine.write(partial(once.forget_old, CHORES_BATCH))
        more = max(len(overdue), forgotten) >= CHORES_BATCH
        await asyncio.sleep(PAUSE_SECONDS if more else CHORES_SECONDS)

    async def _apply_some(self) -> int:
        self._work.clear()
        waiting = await self._engine.read(lambda: operation.pending(BATCH))
        results = await asyncio.gather(
            *(self._apply(tenant, name) for tenant, name in waiting), return_exceptions=True
        )
        self._tell_waiters()
        for failure in results:
            if isinstance(failure, Exception):
                raise failure
        return len(waiting)

    async def _apply(self, tenant: int, name: str) -> None:
        """Applies an operation; one that cannot be applied is ended, so that it holds up nobody."""
        for left in reversed(range(TRIES)):
            try:
                return await self._engine.write(lambda: draft_item.apply(tenant, name))
            except PASSING:  # it stays pending
                raise
            except Exception as error:
                if not left:
                    log.error("operation given up", operation=name, exc_info=error)
        await self._engine.write(lambda: operation.give_up(tenant, name))

    def _tell_waiters(self) -> None:
        """Wakes everybody who waits now; who waits later waits for the next round."""
        finished, self._finished = self._finished, asyncio.Event()
        finished.set()

    async def _rest(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._work.wait(), POLL_SECONDS)
