"""Calls accepted side by side.

gRPC's asyncio server has one call of a method handed over at a time, and each handing over is a
trip through gRPC's poller and back. While calls stand in line the event loop would sleep, wake
and find its caches cold for every one of them. Asked for some ahead, it finds several each time.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined] # what grpc.aio itself is made of

AHEAD = 16
"""Calls of a method that may be handed over at once; more of them would not fit the caches."""


class Acceptors:
    """Take calls of registered methods, beside the one task with which the server takes them; they
    end with the server.
    """

    def __init__(self, server: grpc.aio.Server, methods: Mapping[str, Any]) -> None:
        """`methods` are those registered with the server, which has been started."""
        self._loop = asyncio.get_running_loop()
        self._server = server._server  # type: ignore[attr-defined]
        self._tasks: set[asyncio.Task[None]] = set()
        for name, handler in methods.items():
            for _ in range(0 if handler.stream_stream else AHEAD):
                self._begin(self._accept(name, handler))

    async def _accept(self, name: str, handler: Any) -> None:
        while self._server.is_running():
            try:
                call = await self._server._request_registered_call(name.encode())
            except cygrpc._RequestCallError:  # its caller is gone already, or the server stops
                continue
            # The server itself asks who handles the method, in a way that leaves garbage in cycles.
            answer = cygrpc._handle_unary_unary_rpc(handler, call, self._loop)
            self._begin(cygrpc._schedule_rpc_coro(answer, call, self._loop, name))

    def _begin(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)  # the loop itself would let a waiting task be collected
        task.add_done_callback(self._tasks.discard)
