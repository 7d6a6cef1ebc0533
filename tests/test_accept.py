"""Calls that stand in line are taken together, and answered with one trip through gRPC."""

import asyncio
import select
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from operator import itemgetter
from typing import Any

import grpc
import pytest

from server.accept import AHEAD, LASTS_SECONDS, Acceptors, Wakes, new_server
from server.turns import Turns

CALLS = AHEAD - 4
SAY = "/test.Echo/Say"
PASSES = 4
"""Turns of the event loop, far fewer than the trips through gRPC that calls taken singly need."""


async def say(request: bytes, _: Any) -> bytes:
    """Answers what it is asked."""
    return request


@asynccontextmanager
async def reached(
    method: Any = say, *, ahead: bool = True, encode: Any = bytes, turns: Turns | None = None
) -> AsyncIterator[Any]:
    """Serves one method, a write where turns are given, and yields a channel to it."""
    server = new_server()
    handlers = {"Say": grpc.unary_unary_rpc_method_handler(method, bytes, encode)}
    server.add_registered_method_handlers("test.Echo", handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    methods = {SAY: handlers["Say"]} if ahead else {}
    writes, turns = set(methods if turns else ()), turns or Turns(lambda: 0)
    acceptors = Acceptors(server, methods, writes, turns)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        await asyncio.to_thread(grpc.channel_ready_future(channel).result, 10)
        yield channel
        await server.stop(None)
    del acceptors  # whose tasks nobody else holds


@asynccontextmanager
async def serving(method: Any = say, **options: Any) -> AsyncIterator[Any]:
    """Serves one method and yields a call of it."""
    async with reached(method, **options) as channel:
        yield channel.unary_unary(SAY, _registered_method=False)


async def begun(*, ahead: bool) -> int:
    """Returns how many tasks calls have, a few turns after the loop could not hear them come."""
    async with serving(ahead=ahead) as ask:
        await asyncio.to_thread(ask, b"first")
        await asyncio.sleep(0.05)  # until it has ended here too
        before = len(asyncio.all_tasks())
        calls = [ask.future(b"%d" % n) for n in range(CALLS)]
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
    assert asyncio.run(begun(ahead=False)) < CALLS // 2


def test_the_loop_is_woken_once_by_all_that_happened_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard, recv = [], Wakes.recv

    def hear(wakes: Wakes, size: int) -> bytes:
        said = recv(wakes, size)
        more, _, _ = select.select([wakes], [], [], 0)
        heard.append((len(said), bool(more)))
        return said

    monkeypatch.setattr(Wakes, "recv", hear)
    asyncio.run(begun(ahead=True))
    most, more = max(heard, key=itemgetter(0))  # the first time that so many lay there
    assert 1 < most < CALLS  # few lie there
    assert not more


def test_acceptors_end_with_the_server() -> None:
    async def left() -> list[asyncio.Task[Any]]:
        async with serving() as ask:
            await asyncio.to_thread(ask, b"a call")
        await asyncio.sleep(0.05)
        return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    assert asyncio.run(left()) == []


def told(method: Any, **options: Any) -> Any:
    """Returns how what a method says reaches its caller, once the server's own task has had the
    first call, which it asked for before all acceptors.
    """

    async def ask() -> Any:
        async with serving(method, **options) as asked:
            for _ in range(2):
                call = asked.future(b"x", timeout=10)
                await asyncio.to_thread(call.exception)
            return call

    return asyncio.run(ask())


def test_headers_go_with_the_answer() -> None:
    async def method(request: bytes, context: Any) -> bytes:
        await context.send_initial_metadata((("a", "1"),))
        return request

    call = told(method)

    assert call.result() == b"x"
    assert ("a", "1") in {tuple(pair) for pair in call.initial_metadata()}


def test_a_refusal_has_the_headers_given_before_and_its_own_trailers() -> None:
    async def method(_: bytes, context: Any) -> None:
        await context.send_initial_metadata((("a", "1"),))
        await context.abort(grpc.StatusCode.NOT_FOUND, "ninguém", (("why-bin", b"\x00"),))

    call = told(method)

    assert (call.code(), call.details()) == (grpc.StatusCode.NOT_FOUND, "ninguém")
    assert ("a", "1") in {tuple(pair) for pair in call.initial_metadata()}
    assert ("why-bin", b"\x00") in {tuple(pair) for pair in call.trailing_metadata()}


def test_an_answer_that_cannot_be_written_is_internal_and_tells_nothing() -> None:
    def encode(_: bytes) -> bytes:
        raise ValueError("a secret")

    call = told(say, encode=encode)

    assert (call.code(), call.details()) == (grpc.StatusCode.INTERNAL, "internal error")


def test_a_call_that_lasts_is_stopped_when_its_caller_gives_up() -> None:
    stopped = []

    async def method(_: bytes, __: Any) -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            stopped.append(True)
            raise

    async def give_up() -> None:
        async with serving(method) as ask:
            for _ in range(2):
                call = ask.future(b"x")
                await asyncio.sleep(LASTS_SECONDS * 4)
                call.cancel()
                await asyncio.sleep(LASTS_SECONDS * 4)

    asyncio.run(give_up())
    assert stopped == [True, True]


@pytest.mark.parametrize("fails", [False, True])
def test_a_write_counts_from_its_beginning_to_its_end(fails: bool) -> None:
    seen = []

    async def count() -> None:
        turns = Turns(lambda: 0)

        async def method(request: bytes, _: Any) -> bytes:
            seen.append(turns.writes)
            return 1 / 0 if fails else request  # type: ignore[return-value]

        async with serving(method, turns=turns) as ask:
            for _ in range(2):  # the server's own task has the first
                await asyncio.to_thread(ask.future(b"x", timeout=10).exception)
        seen.append(turns.writes)

    asyncio.run(count())
    assert seen == [0, 1, 0]


def test_a_write_whose_caller_takes_his_time_holds_up_no_read() -> None:
    seen, sends = [], threading.Event()

    def slowly() -> Iterator[bytes]:
        sends.wait(20)
        yield b"x"

    async def count() -> None:
        turns = Turns(lambda: 0)
        async with reached(turns=turns) as channel:
            ask = channel.unary_unary(SAY, _registered_method=False)
            await asyncio.to_thread(ask, b"x")
            call = channel.stream_unary(SAY, _registered_method=False).future(slowly())
            while not turns.writes:
                await asyncio.sleep(0.001)
            await asyncio.sleep(LASTS_SECONDS * 3)
            seen.append(turns.writes)
            sends.set()
            assert await asyncio.to_thread(call.result, 10) == b"x"
        seen.append(turns.writes)

    asyncio.run(count())
    assert seen == [0, 0]
