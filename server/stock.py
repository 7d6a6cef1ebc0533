"""StockService: holds, adjustments and the ledger over gRPC."""

from collections.abc import Callable
from typing import Any

from till.v1 import stock_pb2 as pb
from till.v1.inventory_pb2 import Inventory as InventoryMessage
from till.v1.stock_pb2_grpc import StockServiceServicer

from server import call, message, wire
from storage import hold, inventory
from storage.engine import Engine
from storage.movement import Cause, Wanted
from storage.once import once
from storage.tables import Hold, InventoryLedger


class StockServicer(StockServiceServicer):
    """Translates between messages and the movements of stock."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def HoldStock(self, request: pb.HoldStockRequest, context: Any) -> pb.Hold:
        """Keeps units back, or returns the first answer to its key."""
        asked = call.current()
        claim, caller = asked.claim(request), asked.caller

        def create() -> bytes:
            wanted = [_wanted(caller.tenant, i, line) for i, line in enumerate(request.lines)]
            until = wire.epoch_ms("expire_time", request.expire_time)
            return _hold(
                hold.create(caller.tenant, wanted, until, caller.client)
            ).SerializeToString()

        answer, replayed = await self._engine.write(lambda: once(claim, create))
        await call.mark(context, replayed)
        return pb.Hold.FromString(answer)

    async def GetHold(self, request: pb.GetHoldRequest, context: Any) -> pb.Hold:
        """Returns a hold."""
        tenant = call.current().tenant
        return await self._engine.read(lambda: _hold(hold.get(tenant, request.hold_id)))

    async def ConfirmHold(self, request: pb.ConfirmHoldRequest, context: Any) -> pb.Hold:
        """Turns held units into ordered ones."""
        return await self._end(hold.confirm, request.hold_id)

    async def ReleaseHold(self, request: pb.ReleaseHoldRequest, context: Any) -> pb.Hold:
        """Gives held units back."""
        return await self._end(hold.release, request.hold_id)

    async def ExtendHold(self, request: pb.ExtendHoldRequest, context: Any) -> pb.Hold:
        """Moves the time at which a hold ends."""
        tenant, until = call.current().tenant, wire.epoch_ms("expire_time", request.expire_time)
        return await self._engine.write(lambda: _hold(hold.extend(tenant, request.hold_id, until)))

    async def AdjustInventory(
        self, request: pb.AdjustInventoryRequest, context: Any
    ) -> InventoryMessage:
        """Moves a row's maximum, or returns the first answer to its key."""
        asked = call.current()
        claim, caller = asked.claim(request), asked.caller
        seen = request.HasField("expected_max_quantity")
        expected = request.expected_max_quantity.value if seen else None
        cause = Cause(caller.client, "adjust", request.reason)

        def adjust() -> bytes:
            row = inventory.get(caller.tenant, "date", request.option_code, request.date)
            to = request.max_quantity
            if request.HasField("delta"):
                to = row.max_quantity + request.delta
            moved = inventory.adjust(caller.tenant, row, to, expected, cause)
            return message.inventory(moved).SerializeToString()

        answer, replayed = await self._engine.write(lambda: once(claim, adjust))
        await call.mark(context, replayed)
        return InventoryMessage.FromString(answer)

    async def ListInventory(
        self, request: pb.ListInventoryRequest, context: Any
    ) -> pb.ListInventoryResponse:
        """Returns a page of stock rows."""
        tenant, size = call.current().tenant, request.page_size or wire.PAGE_SIZE
        after = wire.page_position(request.page_token, str, str)
        dates = (request.date_from, request.date_to)
        rows = await self._engine.scan(
            lambda: inventory.list_page(tenant, request.option_code, dates, after, size + 1)
        )
        last = rows[size - 1] if len(rows) > size else None
        return pb.ListInventoryResponse(
            rows=[message.inventory(row) for row in rows[:size]],
            next_page_token=wire.page_token([last.option_code, last.date]) if last else "",
        )

    async def ListInventoryLedger(
        self, request: pb.ListInventoryLedgerRequest, context: Any
    ) -> pb.ListInventoryLedgerResponse:
        """Returns a page of a row's movements, those of holds that have expired among them."""
        tenant, size = call.current().tenant, request.page_size or wire.PAGE_SIZE
        before = wire.page_position(request.page_token, int)
        code = request.inventory_code
        if late := await self._engine.scan(lambda: inventory.overdue(tenant, code)):
            await self._engine.write(lambda: hold.free_overdue(tenant, late))
        rows = await self._engine.scan(
            lambda: inventory.ledger_page(tenant, code, before, size + 1)
        )
        return pb.ListInventoryLedgerResponse(
            movements=[_movement(row) for row in rows[:size]],
            next_page_token=wire.page_token(rows[size - 1].entry_id) if len(rows) > size else "",
        )

    async def _end(self, end: Callable[[int, str, str], Hold], hold_id: str) -> pb.Hold:
        caller = call.current().caller
        return await self._engine.write(lambda: _hold(end(caller.tenant, hold_id, caller.client)))


def _wanted(tenant: int, index: int, line: pb.HoldLine) -> Wanted:
    field = f"lines[{index}]"
    row = inventory.get(tenant, f"{field}.date", line.option_code, line.date)
    return Wanted(field, row.inventory_id, line.quantity)


def _hold(row: Hold) -> pb.Hold:
    """Returns a hold as its message; reads its lines, so it belongs into the unit."""
    lines = hold.lines(row)
    rows = inventory.by_ids(row.tenant, [line.inventory_id for line in lines])
    return pb.Hold(
        hold_id=row.hold_id,
        state=pb.Hold.State.Value(row.state),
        lines=[
            pb.HoldLine(
                option_code=rows[line.inventory_id].option_code,
                date=rows[line.inventory_id].date,
                quantity=line.quantity,
            )
            for line in lines
        ],
        expire_time=wire.timestamp(row.expire_ms),
        create_time=wire.timestamp(row.create_ms),
        etag=wire.etag(row.revision),
    )


def _movement(row: InventoryLedger) -> pb.InventoryMovement:
    return pb.InventoryMovement(
        entry_id=row.entry_id,
        counter=row.counter,
        before=row.before,
        delta=row.delta,
        after=row.after,
        actor=row.actor,
        source=row.source,
        reason=row.reason,
        create_time=wire.timestamp(row.create_ms),
    )
