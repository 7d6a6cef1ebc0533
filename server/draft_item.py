"""DraftItemService: items of drafts over gRPC, accepted as operations."""

from typing import Any

import structlog
from till.v1 import draft_item_pb2 as pb
from till.v1.draft_item_pb2_grpc import DraftItemServiceServicer

from server import call, wire
from server.check import check
from server.item import columns, item_message
from server.worker import Worker
from storage import draft_item
from storage.engine import Engine
from storage.errors import Refusal
from storage.once import Claim
from storage.tables import DraftItem

log = structlog.get_logger("till.draft_item")
ACCEPTED = pb.SubmitDraftItemResponse(
    is_accepted=True, message="Request accepted for asynchronous processing."
)
_ALIASES = {
    "pk": "checkout_draft_item_id",
    "gsi_1_pk": "checkout_draft_id",
    "gsi_1_sk": "line_number",
}
_COLUMNS = (
    "entity_number",
    "line_number",
    "product_number",
    "sku",
    "product_name",
    "quantity",
    "unit_price",
    "line_total",
    "is_active",
    "is_deleted",
    "created_at",
    "updated_at",
    "idempotency_key",
    "schema_version",
    "version",
)


class DraftItemServicer(DraftItemServiceServicer):
    """Translates between messages and drafts."""

    def __init__(self, engine: Engine, worker: Worker) -> None:
        self._engine, self._worker = engine, worker

    async def SubmitDraftItem(
        self, request: pb.SubmitDraftItemRequest, context: Any
    ) -> pb.SubmitDraftItemResponse:
        """Accepts an item once its operation is on disk."""
        asked = call.current()
        meaning = _one_spelling(request)
        claim = asked.claim_of(request.idempotency_key, meaning)
        item = _new_item(asked.tenant, meaning)
        name = await self._accepted(claim, item)
        await context.send_initial_metadata((("x-operation", f"operations/{name}"),))
        return ACCEPTED

    async def GetDraftItem(self, request: pb.GetDraftItemRequest, context: Any) -> pb.DraftItem:
        """Returns one item."""
        tenant = call.current().tenant
        return item_message(
            await self._engine.read(lambda: draft_item.get(tenant, request.checkout_draft_item_id))
        )

    async def ListDraftItems(
        self, request: pb.ListDraftItemsRequest, context: Any
    ) -> pb.ListDraftItemsResponse:
        """Returns a page of a draft's items."""
        tenant, size = call.current().tenant, request.page_size or wire.PAGE_SIZE
        after = wire.page_position(request.page_token, int, str)
        items = await self._engine.scan(
            lambda: draft_item.list_page(tenant, request.checkout_draft_id, after, size + 1)
        )
        more = wire.page_token(draft_item.position(items[size - 1])) if len(items) > size else ""
        return pb.ListDraftItemsResponse(
            items=[item_message(item) for item in items[:size]], next_page_token=more
        )

    async def _accepted(self, claim: Claim, item: DraftItem) -> str:
        """Returns the name of an item's operation. That an item cannot be written now is no reason
        to refuse it: the worker tries again.
        """
        try:
            return await self._engine.write(lambda: draft_item.submit(claim, item))
        except Refusal:
            raise
        except Exception as error:
            log.error("an item waits for the worker", exc_info=error)
        name = await self._engine.write(lambda: draft_item.promise(claim, item))
        self._worker.wake()
        return name


def _one_spelling(request: pb.SubmitDraftItemRequest) -> pb.SubmitDraftItemRequest:
    """Returns the request, now without its aliases and with its defaults: equal meanings have equal
    bytes. Raises InvalidRequest.
    """
    faults = []
    for alias, name in _ALIASES.items():
        if (value := _given(request, alias)) is not None:
            if _given(request, name) not in (None, value):
                faults.append((alias, f"must equal {name}"))
            request.MergeFrom(pb.SubmitDraftItemRequest(**{name: value}))
            request.ClearField(alias)  # type: ignore[arg-type] # its stub wants names in words
    check(request, faults)
    if not request.HasField("is_active"):
        request.is_active.value = True
    if not request.HasField("is_deleted"):
        request.is_deleted.value = False
    if request.HasField("deleted_at") and not request.deleted_at.value:
        request.ClearField("deleted_at")
    return request


def _given(request: Any, name: str) -> Any:
    """Returns what a field says; None when it says nothing."""
    value = getattr(request, name)
    if isinstance(value, str):
        return value or None
    return value if request.HasField(name) else None


def _new_item(tenant: int, meaning: pb.SubmitDraftItemRequest) -> DraftItem:
    return DraftItem(
        tenant=tenant,
        item=meaning.checkout_draft_item_id,
        draft=meaning.checkout_draft_id,
        deleted_at=meaning.deleted_at.value,
        **columns(meaning, _COLUMNS),
    )
