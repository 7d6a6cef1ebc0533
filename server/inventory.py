"""InventoryService: dated stock over gRPC."""

import re
from typing import Any

from google.protobuf.struct_pb2 import ListValue, Struct
from till.v1 import inventory_pb2 as pb
from till.v1.inventory_pb2_grpc import InventoryServiceServicer

from server import call, message
from storage import inventory
from storage.engine import Engine
from storage.errors import NotFound
from storage.tables import Inventory

PAGE_SIZE = 25
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_DECIMAL = re.compile(r"[0-9]{1,16}")


class InventoryServicer(InventoryServiceServicer):
    """Translates between messages and stock."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def ListDayTicketInventory(
        self, request: pb.ListDayTicketInventoryRequest, context: Any
    ) -> pb.ListDayTicketInventoryResponse:
        """Returns a page of a product's stock, in the version that the product's code or id asks
        for.
        """
        tenant, code = call.current().tenant, request.product_idcode
        number = request.page.value if request.HasField("page") else 1
        size = request.page_size.value if request.HasField("page_size") else PAGE_SIZE
        old = _DECIMAL.fullmatch(code) is not None
        if not old and not _UUID.fullmatch(code):
            raise NotFound("there is no such product")

        def query() -> tuple[dict[str, int], list[Inventory]]:
            product, options = inventory.product(tenant, code)
            return options, inventory.page(tenant, product, number, size)

        options, rows = await self._engine.scan(query)
        if old:
            return pb.ListDayTicketInventoryResponse(status_code=200, data=_by_id(options, rows))
        return pb.ListDayTicketInventoryResponse(status_code=200, option_codes=_by_option(rows))

    async def BatchSetInventory(
        self, request: pb.BatchSetInventoryRequest, context: Any
    ) -> pb.BatchSetInventoryResponse:
        """Puts rows up for sale."""
        tenant, actor = call.current().tenant, call.current().caller.client
        settings = [
            inventory.Setting(
                f"rows[{index}]",
                row.option_code,
                row.date,
                row.max_quantity.value,
                row.inventory_code,
            )
            for index, row in enumerate(request.rows)
        ]
        rows = await self._engine.write(lambda: inventory.batch_set(tenant, settings, actor))
        return pb.BatchSetInventoryResponse(rows=[message.inventory(row) for row in rows])


def _by_option(rows: list[Inventory]) -> Struct:
    """Returns the new version: lists of rows by option code."""
    by_option: dict[str, Any] = {}
    for row in rows:
        by_option.setdefault(row.option_code, []).append(
            {"inventory_code": row.inventory_code, **_stock(row)}
        )
    found = Struct()
    found.update(by_option)
    return found


def _by_id(options: dict[str, int], rows: list[Inventory]) -> ListValue:
    """Returns the old version: one list of rows with decimal ids."""
    found = ListValue()
    rows_as_json: Any = [
        {
            "id": row.inventory_id,
            **_stock(row),
            "depth_combination_id": options[row.option_code],
        }
        for row in rows
    ]
    found.extend(rows_as_json)
    return found


def _stock(row: Inventory) -> dict[str, Any]:
    return {
        "date": row.date,
        "max_quantity": row.max_quantity,
        "remain_quantity": inventory.remain(row),
        "ordered_quantity": row.ordered,
    }
