"""google.longrunning.Operations: what became of a promise."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from google.longrunning import operations_pb2 as pb
from google.longrunning.operations_pb2_grpc import OperationsServicer as Servicer
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from till.v1.draft_item_pb2 import SubmitDraftItemMetadata

from server import call, wire
from server.errors import InvalidRequest
from server.worker import Worker
from storage import operation
from storage.engine import Engine
from storage.errors import NotFound
from storage.tables import Operation

PREFIX = "operations/"
PAGE_MAX = 1000
WAIT_SECONDS = 10.0
"""How long WaitOperation waits when the caller does not say."""
WAIT_SECONDS_MAX = 60.0
"""A wait occupies one of the calls that the server works on."""
POLL_SECONDS = 0.5


class OperationsServicer(Servicer):
    """Reads operations; `result` finds and translates the item that a succeeded one wrote."""

    def __init__(
        self, engine: Engine, worker: Worker, result: Callable[[int, str], Message]
    ) -> None:
        self._engine, self._worker, self._result = engine, worker, result

    async def GetOperation(self, request: pb.GetOperationRequest, context: Any) -> pb.Operation:
        """Returns an operation as it stands."""
        return await self._get(call.current().tenant, request.name)

    async def ListOperations(
        self, request: pb.ListOperationsRequest, context: Any
    ) -> pb.ListOperationsResponse:
        """Returns a page of operations, the oldest first."""
        if request.filter:
            raise InvalidRequest([("filter", "is not supported")])
        if request.page_size < 0:
            raise InvalidRequest([("page_size", "must be at least 0")])
        tenant, size = call.current().tenant, min(request.page_size or wire.PAGE_SIZE, PAGE_MAX)
        after = wire.page_position(request.page_token, str) or ""
        rows = await self._engine.scan(
            lambda: [self._message(row) for row in operation.list_page(tenant, after, size + 1)]
        )
        more = wire.page_token(rows[size - 1].name.removeprefix(PREFIX)) if len(rows) > size else ""
        return pb.ListOperationsResponse(operations=rows[:size], next_page_token=more)

    async def WaitOperation(self, request: pb.WaitOperationRequest, context: Any) -> pb.Operation:
        """Returns an operation once it is done, or as it stands when the time is over."""
        tenant, asked = call.current().tenant, request.timeout
        seconds = asked.seconds + asked.nanos / 1e9 if request.HasField("timeout") else WAIT_SECONDS
        end = asyncio.get_running_loop().time() + min(seconds, WAIT_SECONDS_MAX)
        while True:
            found = await self._get(tenant, request.name)
            left = end - asyncio.get_running_loop().time()
            if found.done or left <= 0:
                return found
            await self._worker.progress(min(left, POLL_SECONDS))

    async def _get(self, tenant: int, name: str) -> pb.Operation:
        if not name.startswith(PREFIX):
            raise NotFound(f"there is no operation {name}")
        bare = name.removeprefix(PREFIX)
        return await self._engine.read(lambda: self._message(operation.get(tenant, bare)))

    def _message(self, row: Operation) -> pb.Operation:
        found = pb.Operation(
            name=f"{PREFIX}{row.operation}", done=row.state in ("SUCCEEDED", "FAILED")
        )
        found.metadata.Pack(_metadata(row))
        if row.state == "SUCCEEDED":
            found.response.Pack(self._result(row.tenant, row.item))
        elif row.state == "FAILED":
            code = grpc.StatusCode[str(row.reason)]
            found.error.CopyFrom(Status(code=code.value[0], message=row.error or ""))
        return found


def _metadata(row: Operation) -> SubmitDraftItemMetadata:
    return SubmitDraftItemMetadata(
        state=SubmitDraftItemMetadata.State.Value(row.state),
        checkout_draft_item_id=row.item,
        checkout_draft_id=row.draft,
        create_time=wire.timestamp(row.create_ms),
        update_time=wire.timestamp(row.update_ms),
    )
