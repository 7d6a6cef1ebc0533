"""Calls accepted side by side, each answered in as few trips through gRPC as it can be.

gRPC's asyncio server has one call of a method handed over at a time, and each handing over is a
trip through gRPC's poller and back. While calls stand in line the event loop would sleep, wake
and find its caches cold for every one of them. Asked for some ahead, it finds several each time.
"""

import asyncio
import socket
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any, NoReturn

import grpc
import structlog
from grpc._cython import cygrpc  # type: ignore[attr-defined] # what grpc.aio itself is made of

from server.turns import Turns

log = structlog.get_logger("till.call")
AHEAD = 32
"""Calls of a method that may be handed over at once; twice as many bring nothing more."""
LASTS_SECONDS = 0.05
"""How long a call takes, or twice as long, before it is asked whether its caller is there still."""
_NO_FLAGS = 0
_WAKES_MAX = 4096
"""Bytes that the loop hears at once: more than lie there."""


class Wakes(socket.socket):
    """Where gRPC's poller wakes the event loop, with a byte for every event. gRPC takes a byte a
    turn of the loop, though the first turn finds all the events; the others would be for nothing.
    So are bytes beside a few that lie there unheard: they are refused, which costs less.
    """

    def recv(self, _: int, flags: int = 0) -> bytes:
        """Returns every byte there is."""
        return super().recv(_WAKES_MAX, flags)


def new_server(options: Sequence[tuple[str, Any]] = ()) -> grpc.aio.Server:
    """Returns a server of gRPC; being the first of grpc.aio here, it has Wakes."""
    former = cygrpc.socket
    cygrpc.socket = SimpleNamespace(socketpair=_pair)
    try:
        return grpc.aio.server(options=options)
    finally:
        cygrpc.socket = former


def _pair() -> tuple[Wakes, socket.socket]:
    heard, said = socket.socketpair()
    said.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # as few bytes as it may hold
    said.setblocking(False)  # gRPC does not ask what became of a byte
    return Wakes(fileno=heard.detach()), said


class Acceptors:
    """Take calls of registered methods, beside the one task with which the server takes them; they
    end with the server.
    """

    def __init__(
        self,
        server: grpc.aio.Server,
        methods: Mapping[str, Any],
        writes: Collection[str],
        turns: Turns,
    ) -> None:
        """`methods` are those registered with the server, which has been started; `writes` names
        those of them that go before the others.
        """
        self._server = server._server  # type: ignore[attr-defined]
        self._turns, self._writes = turns, writes
        self._exchanges = Exchanges(turns)
        self._tasks = [
            self._exchanges.loop.create_task(self._accept(name, handler))
            for name, handler in methods.items()
            for _ in range(0 if handler.stream_stream else AHEAD)
        ]

    async def _accept(self, name: str, handler: Any) -> None:
        encoded, writes = name.encode(), name in self._writes
        while self._server.is_running():
            try:
                call = await self._server._request_registered_call(encoded)
            except cygrpc._RequestCallError:  # its caller is gone already, or the server stops
                continue
            if writes:
                self._exchanges.begin(call, handler, writes=True)
            else:
                self._turns.read(partial(self._exchanges.begin, call, handler, writes=False))


class Exchanges:
    """The exchanges that have begun, each held until its end: the loop itself would let a waiting
    task be collected. One timer looks after all of them, because one each is a fiftieth of a call.
    """

    def __init__(self, turns: Turns) -> None:
        self.loop = asyncio.get_running_loop()
        self._turns = turns
        self._begun: dict[Exchange, tuple[float, asyncio.Task[None]]] = {}
        self._looks = False

    def begin(self, call: Any, handler: Any, *, writes: bool) -> None:
        """Starts to answer a call."""
        self._turns.writes += writes
        exchange = Exchange(call, self, writes)
        task = self.loop.create_task(exchange.answer(handler))
        self._begun[exchange] = self.loop.time(), task
        self._look_later()

    def end(self, exchange: "Exchange") -> None:
        """Lets go of an exchange that is over."""
        self._pass(exchange)
        del self._begun[exchange]

    def _pass(self, exchange: "Exchange") -> None:
        """Has a write hold up no read any more."""
        self._turns.writes -= exchange.writes
        exchange.writes = False

    def _look_later(self) -> None:
        if not self._looks and self._begun:
            self._looks = True
            self.loop.call_later(LASTS_SECONDS, self._look)

    def _look(self) -> None:
        """Has those that last watched, the oldest first; nobody waits for one whose caller takes
        his time to send or to receive.
        """
        late = self.loop.time() - LASTS_SECONDS
        for exchange, (since, task) in self._begun.items():
            if since > late:
                break
            exchange.watch(task)
            if not exchange.at_work:
                self._pass(exchange)
        self._looks = False
        self._look_later()


class Exchange:
    """One call and its answer; to the method, the context of the call.

    The headers, the answer, the status and the end of the call are one batch for gRPC, where its
    own server makes two, or three when a method gives headers: each is a trip through the poller.
    """

    __slots__ = ("_call", "_context", "_exchanges", "_headers", "_watcher", "at_work", "writes")

    def __init__(self, call: Any, exchanges: Exchanges, writes: bool) -> None:
        self._call, self._exchanges, self.writes = call, exchanges, writes
        self._context = cygrpc._ServicerContext(call, None, None, exchanges.loop)
        self._headers: tuple[Any, ...] = ()
        self._watcher: asyncio.Task[None] | None = None
        self.at_work = False

    async def answer(self, handler: Any) -> None:
        """Has the method answer, and sends that."""
        try:
            received = await cygrpc._receive_message(self._call, self._exchanges.loop)
            if received is not None:  # its caller is there still
                await self._send(*await self._ask(handler, received))
        finally:
            self._exchanges.end(self)

    def watch(self, task: "asyncio.Task[None]") -> None:
        """Asks from now on whether the caller is there still, while the method is at work."""
        if self._watcher is None and self.at_work:
            self._watcher = self._exchanges.loop.create_task(self._stop_with_caller(task))

    def invocation_metadata(self) -> Any:
        """Returns the headers of the request."""
        return self._context.invocation_metadata()

    def time_remaining(self) -> float | None:
        """Returns how many seconds the caller will wait yet, or None where it did not say."""
        left: float | None = self._context.time_remaining()
        return left

    async def send_initial_metadata(self, headers: tuple[Any, ...]) -> None:
        """Gives the answer headers; they go with it."""
        self._headers = headers

    async def abort(
        self, code: grpc.StatusCode, details: str, trailer: tuple[Any, ...]
    ) -> NoReturn:
        """Ends the call with a refusal."""
        raise _Aborted(code.value[0], details, trailer)

    async def _ask(self, handler: Any, received: bytes) -> tuple[bytes | None, int, str, Any]:
        """Returns what the method answers: a message or none, and a status."""
        self.at_work = True
        try:
            answer = await handler.unary_unary(handler.request_deserializer(received), self)
            return handler.response_serializer(answer), 0, "", ()
        except _Aborted as aborted:
            return (None, *aborted.args)
        except Exception as error:  # an answer that cannot be written
            log.error("unexpected", exc_info=error)
            return None, grpc.StatusCode.INTERNAL.value[0], "internal error", ()
        finally:
            self.at_work = False

    async def _send(self, answer: bytes | None, code: int, details: str, trailer: Any) -> None:
        # What was accepted together is answered, then sent together: each step finds its code in
        # the caches still.
        await asyncio.sleep(0)
        steps = [cygrpc.SendInitialMetadataOperation(self._headers, _NO_FLAGS)]
        if answer is not None:
            steps.append(cygrpc.SendMessageOperation(answer, _NO_FLAGS))
        steps.append(cygrpc.SendStatusFromServerOperation(trailer, code, details, _NO_FLAGS))
        if self._watcher is None:
            steps.append(cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS))
        await self._do(*steps)

    async def _stop_with_caller(self, task: "asyncio.Task[None]") -> None:
        """Stops the method of a call that its caller gave up."""
        closed = cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS)
        await self._do(closed)
        if closed.cancelled() and self.at_work:
            task.cancel()

    async def _do(self, *steps: Any) -> None:
        """Has gRPC take some steps at once; a caller that went away hears nothing."""
        with suppress(cygrpc.ExecuteBatchError):
            await cygrpc.execute_batch(self._call, steps, self._exchanges.loop)


class _Aborted(BaseException):
    """A refusal on its way out: code, details, trailer."""
