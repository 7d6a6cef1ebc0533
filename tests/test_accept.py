"""Calls that stand in line are taken together."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from server.accept import AHEAD, Acceptors

CALLS = AHEAD - 4
PASSES = 4
"""Turns of the event loop, far fewer than the trips through gRPC that calls taken singly need."""


@asynccontextmanager
async def echo(*, ahead: bool) -> AsyncIterator[Any]:
    """Serves one method that answers what it is asked, and yields a call of it."""

    async def answer(request: bytes, _: Any) -> bytes:
        return request

    server = grpc.aio.server()
    handlers = {"Say": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_registered_method_handlers("test.Echo", handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    acceptors = Acceptors(server, {"/test.Echo/Say": handlers["Say"]} if ahead else {})
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        await asyncio.to_thread(grpc.channel_ready_future(channel).result, 10)
        yield channel.unary_unary("/test.Echo/Say", _registered_method=False)
        await server.stop(None)
    del acceptors  # whose tasks nobody else holds


async def begun(*, ahead: bool) -> int:
    """Returns how many tasks calls have, a few turns after the loop could not hear them come."""
    async with echo(ahead=ahead) as say:
        await asyncio.to_thread(say, b"first")
        before = len(asyncio.all_tasks())
        calls = [say.future(b"%d" % n) for n in range(CALLS)]
        time.sleep(0.5)  # the loop is at work elsewhere
        for _ in range(PASSES):
            await asyncio.sleep(0)
        found = len(asyncio.all_tasks()) - before
        answers = await asyncio.gather(*(asyncio.to_thread(call.result, 10) for call in calls))
        assert answers == [b"%d" % n for n in range(CALLS)]
        return found


def test_calls_that_stand_in_line_are_taken_together() -> None:
    assert asyncio.run(begun(ahead=True)) >= CALLS


def test_without_acceptors_they_are_taken_one_by_one() -> None:
    assert asyncio.run(begun(ahead=False)) < CALLS


def test_acceptors_end_with_the_server() -> None:
    async def left() -> list[asyncio.Task[Any]]:
        async with echo(ahead=True) as say:
            await asyncio.to_thread(say, b"a call")
        await asyncio.sleep(0.05)
        return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    assert asyncio.run(left()) == []
