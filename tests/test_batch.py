"""Batches: a crowd is waited for while the process is busy, and not while it has time."""

import asyncio

import pytest
from inside import Book

from storage.batch import QUIET_SECONDS, Batches
from storage.unit import Job

LONG_SECONDS = 60.0


async def waits(busy_share: float) -> bool:
    """Tells whether one of two callers waits for the other, who is heard but does not come."""
    loop = asyncio.get_running_loop()
    batches = Batches(
        lambda _: None,
        threads=1,
        size_max=8,
        linger_seconds=LONG_SECONDS,
        name="test",
        busy_share=busy_share,
    )

    def put() -> "asyncio.Future[None]":
        future: asyncio.Future[None] = loop.create_future()
        batches.put(Job(lambda: None, future))
        return future

    await asyncio.gather(put(), put(), put())  # the first goes alone, the others are a crowd
    lone = put()
    for _ in range(50):
        if lone.done():
            break
        batches.calls += 1
        await asyncio.sleep(QUIET_SECONDS / 4)
    waited = not lone.done()
    await asyncio.wait_for(lone, LONG_SECONDS / 2)
    await batches.close()
    return waited


@pytest.mark.parametrize(("busy_share", "waited"), [(0.0, True), (1e9, False)])
def test_a_batch_waits_for_a_crowd_unless_the_process_has_time(
    sqlite_book: Book, busy_share: float, waited: bool
) -> None:
    assert sqlite_book.run(waits(busy_share)) is waited
