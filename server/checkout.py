"""CheckoutService: packing checkouts over gRPC."""

import json
from typing import Any

from till.v1 import checkout_pb2 as pb
from till.v1.checkout_pb2_grpc import CheckoutServiceServicer

from server import call, checkout_json, mapping, wire
from server.check import Violation, violations
from server.errors import CheckoutRefused, fault_message
from storage import checkout, store
from storage.checkout_request import Code, Fault, Item, Request
from storage.engine import Engine
from storage.tables import Checkout

DEFAULT_QUANTITY = 1
DEFAULT_TYPE = "comum"
_CODES = {
    "required": Code.FIELD_MISSING,
    "string.pattern": Code.FIELD_MISSING,
    "repeated.min_items": Code.FIELD_MISSING,
    "string.max_len": Code.VALUE_TOO_LONG,
    "repeated.max_items": Code.VALUE_TOO_LONG,
    "int32.gte_lte": Code.QUANTITY_INVALID,
    "string.in": Code.TYPE_UNKNOWN,
}


class CheckoutServicer(CheckoutServiceServicer):
    """Translates between messages and checkouts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def RecordCheckout(
        self, request: pb.RecordCheckoutRequest, context: Any
    ) -> pb.RecordCheckoutResponse:
        """Records a checkout, or refuses it with every fault at once."""
        return await self._record(context, request, [])

    async def RecordJsonCheckout(
        self, request: pb.RecordJsonCheckoutRequest, context: Any
    ) -> pb.RecordCheckoutResponse:
        """Records a checkout that came as JSON."""
        text = request.payload.data
        try:
            found = checkout_json.read(checkout_json.load(text))
        except ValueError as error:
            return await self._refuse(context, text, _unreadable(error))
        return await self._record(context, *found)

    async def RecordCustomCheckout(
        self, request: pb.RecordCustomCheckoutRequest, context: Any
    ) -> pb.RecordCheckoutResponse:
        """Records a checkout that came in the store's own words."""
        tenant = call.current().tenant
        known = await self._engine.read(lambda: store.find(tenant, request.store))
        text = request.payload.data
        if known is None:
            return await self._refuse(
                context, text, Fault(Code.STORE_UNKNOWN, {"store": request.store})
            )
        paths = json.loads(known.checkout_mapping)
        if not paths:
            return await self._refuse(
                context, text, Fault(Code.MAPPING_MISSING, {"store": request.store})
            )
        try:
            payload = mapping.apply(paths, request.store, checkout_json.load(text))
        except ValueError as error:
            return await self._refuse(context, text, _unreadable(error))
        return await self._record(context, *checkout_json.read(payload))

    async def GetCheckout(self, request: pb.GetCheckoutRequest, context: Any) -> pb.Checkout:
        """Returns a checkout with its items."""
        tenant = call.current().tenant
        row, items = await self._engine.scan(lambda: checkout.get(tenant, request.external_number))
        return _checkout(row, [_item(*item) for item in items])

    async def ListCheckouts(
        self, request: pb.ListCheckoutsRequest, context: Any
    ) -> pb.ListCheckoutsResponse:
        """Returns a page of checkouts."""
        tenant, size = call.current().tenant, request.page_size or wire.PAGE_SIZE
        after = wire.page_position(request.page_token, str) or ""
        rows = await self._engine.scan(
            lambda: checkout.list_page(tenant, request.store, after, size + 1)
        )
        more = wire.page_token(rows[size - 1].external_number) if len(rows) > size else ""
        return pb.ListCheckoutsResponse(
            checkouts=[_checkout(row, []) for row in rows[:size]], next_page_token=more
        )

    async def GetProtocol(self, request: pb.GetProtocolRequest, context: Any) -> pb.Protocol:
        """Returns a request as it was understood, and its outcome."""
        tenant = call.current().tenant
        row, faults = await self._engine.read(
            lambda: checkout.get_protocol(tenant, request.protocol)
        )
        return pb.Protocol(
            protocol=row.protocol,
            accepted=bool(row.accepted),
            request=row.request,
            errors=[fault_message(fault) for fault in faults],
            create_time=wire.timestamp(row.create_ms),
        )

    async def _record(
        self, context: Any, request: pb.RecordCheckoutRequest, known: list[Fault]
    ) -> pb.RecordCheckoutResponse:
        """Records what could be read of a request, if nothing is wrong with it or known to be."""
        tenant, asked = call.current().tenant, _asked(request)
        unread = {fault.params["field"] for fault in known}
        broken = [each for each in violations(request) if not _is_in(each.field, unread)]
        faults = [*known, *map(_fault, broken)]
        protocol, faults = await self._engine.write(lambda: checkout.record(tenant, asked, faults))
        return await _answer(context, protocol, faults)

    async def _refuse(self, context: Any, text: bytes, fault: Fault) -> pb.RecordCheckoutResponse:
        """Keeps a request that never became a standard one, and refuses it."""
        tenant, kept = call.current().tenant, text.decode("utf-8", "replace")
        protocol = await self._engine.write(lambda: checkout.note(tenant, kept, [fault]))
        return await _answer(context, protocol, [fault])


async def _answer(context: Any, protocol: str, faults: list[Fault]) -> pb.RecordCheckoutResponse:
    await context.send_initial_metadata((("x-protocol", protocol),))
    if faults:
        raise CheckoutRefused(faults)
    return pb.RecordCheckoutResponse(status_code=200, content=pb.CheckoutReceipt(protocol=protocol))


def _asked(request: pb.RecordCheckoutRequest) -> Request:
    return Request(
        store=request.store,
        order_number=request.order_number,
        external_number=request.external_number,
        items=[
            Item(
                order_item_id=item.order_item_id,
                item_number=item.item_number,
                storage_name=item.storage_name,
                quantity=item.quantity.value if item.HasField("quantity") else DEFAULT_QUANTITY,
                type=item.type.value if item.HasField("type") else DEFAULT_TYPE,
            )
            for item in request.items
        ],
    )


def _fault(violation: Violation) -> Fault:
    """Returns a broken rule as its number in the catalogue."""
    return Fault(_CODES[violation.rule], {"field": violation.field})


def _is_in(field: str, unread: set[str]) -> bool:
    """Whether a field, or what it is in, could not be read: its rule has nothing to add."""
    return field in unread or field.rpartition(".")[0] in unread


def _unreadable(error: ValueError) -> Fault:
    return Fault(Code.UNREADABLE, {"message": str(error)})


def _checkout(row: Checkout, items: list[pb.CheckoutItem]) -> pb.Checkout:
    return pb.Checkout(
        external_number=row.external_number,
        store=row.store,
        items=items,
        create_time=wire.timestamp(row.create_ms),
        update_time=wire.timestamp(row.update_ms),
        etag=wire.etag(row.revision),
    )


def _item(packed: Any, order: Any, line: Any) -> pb.CheckoutItem:
    return pb.CheckoutItem(
        item_number=packed.item_number,
        order_id=order.order_id,
        order_number=order.order_number,
        order_item_id=line.order_item_id,
        storage_name=line.depot or "",
        quantity=line.quantity,
        type=line.type,
        wave_id=line.wave_id or 0,
    )
