"""DraftItemService: items of drafts over gRPC, accepted as operations."""

from typing import Any

from till.v1 import draft_item_pb2 as pb
from till.v1.draft_item_pb2_grpc import DraftItemServiceServicer

from server import call, wire
from server.item import columns, item_message
from server.worker import Worker
from storage import draft_item
from storage.engine import Engine
from storage.tables import DraftItem

ACCEPTED = "Request accepted for asynchronous processing."
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
        name = await self._engine.write(lambda: draft_item.submit(claim, item))
        self._worker.wake()
        await context.send_initial_metadata((("x-operation", f"operations/{name}"),))
        return pb.SubmitDraftItemResponse(is_accepted=True, message=ACCEPTED)

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


def _one_spelling(request: pb.SubmitDraftItemRequest) -> pb.SubmitDraftItemRequest:
    """Returns the request without its aliases and with its defaults: equal meanings have equal
    bytes.
    """
    meaning = pb.SubmitDraftItemRequest()
    meaning.CopyFrom(request)
    meaning.checkout_draft_item_id = request.checkout_draft_item_id or request.pk
    meaning.checkout_draft_id = request.checkout_draft_id or request.gsi_1_pk
    if request.HasField("gsi_1_sk"):
        meaning.line_number.CopyFrom(request.gsi_1_sk)
    if not request.HasField("is_active"):
        meaning.is_active.value = True
    meaning.is_deleted.value = request.is_deleted.value
    if not request.deleted_at.value:
        meaning.ClearField("deleted_at")
    for alias in ("pk", "gsi_1_pk", "gsi_1_sk"):
        meaning.ClearField(alias)
    return meaning


def _new_item(tenant: int, meaning: pb.SubmitDraftItemRequest) -> DraftItem:
    return DraftItem(
        tenant=tenant,
        item=meaning.checkout_draft_item_id,
        draft=meaning.checkout_draft_id,
        deleted_at=meaning.deleted_at.value,
        **columns(meaning, _COLUMNS),
    )
