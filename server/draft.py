"""DraftService: drafts, and changes of their items, over gRPC."""

from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from till.v1 import draft_pb2 as pb
from till.v1.draft_item_pb2 import DraftItem as ItemMessage
from till.v1.draft_pb2_grpc import DraftServiceServicer

from server import call, wire
from server.errors import InvalidRequest
from server.item import columns, item_message
from storage import draft
from storage.engine import Engine
from storage.tables import Draft

_DRAFT_FIELDS = ("display_name",)
_ITEM_FIELDS = (
    "line_number",
    "product_number",
    "sku",
    "product_name",
    "quantity",
    "unit_price",
    "line_total",
    "is_active",
    "version",
)


class DraftServicer(DraftServiceServicer):
    """Translates between messages and drafts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def GetDraft(self, request: pb.GetDraftRequest, context: Any) -> pb.Draft:
        """Returns a draft."""
        tenant = call.current().tenant
        return _message(
            await self._engine.read(lambda: draft.get(tenant, request.checkout_draft_id))
        )

    async def ListDrafts(
        self, request: pb.ListDraftsRequest, context: Any
    ) -> pb.ListDraftsResponse:
        """Returns a page of drafts."""
        tenant, size = call.current().tenant, request.page_size or wire.PAGE_SIZE
        after = wire.page_position(request.page_token, str) or ""
        rows = await self._engine.scan(
            lambda: draft.list_page(tenant, after, size + 1, show_deleted=request.show_deleted)
        )
        more = wire.page_token(rows[size - 1].draft) if len(rows) > size else ""
        return pb.ListDraftsResponse(
            drafts=[_message(row) for row in rows[:size]], next_page_token=more
        )

    async def UpdateDraft(self, request: pb.UpdateDraftRequest, context: Any) -> pb.Draft:
        """Changes what the mask names."""
        tenant, given = call.current().tenant, request.draft
        names = _masked(request.update_mask, given, _DRAFT_FIELDS)
        changes = {name: getattr(given, name) for name in names}
        return _message(
            await self._engine.write(
                lambda: draft.update(tenant, given.checkout_draft_id, changes, given.etag)
            )
        )

    async def DeleteDraft(self, request: pb.DeleteDraftRequest, context: Any) -> pb.Draft:
        """Deletes a draft softly."""
        tenant = call.current().tenant
        return _message(
            await self._engine.write(
                lambda: draft.delete(tenant, request.checkout_draft_id, request.etag)
            )
        )

    async def UndeleteDraft(self, request: pb.UndeleteDraftRequest, context: Any) -> pb.Draft:
        """Takes a draft's deletion back."""
        tenant = call.current().tenant
        return _message(
            await self._engine.write(
                lambda: draft.undelete(tenant, request.checkout_draft_id, request.etag)
            )
        )

    async def UpdateDraftItem(
        self, request: pb.UpdateDraftItemRequest, context: Any
    ) -> ItemMessage:
        """Changes what the mask names."""
        tenant, given = call.current().tenant, request.item
        changes = columns(given, _masked(request.update_mask, given, _ITEM_FIELDS), "item.")
        return item_message(
            await self._engine.write(
                lambda: draft.update_item(tenant, given.checkout_draft_item_id, changes, given.etag)
            )
        )

    async def DeleteDraftItem(
        self, request: pb.DeleteDraftItemRequest, context: Any
    ) -> ItemMessage:
        """Deletes an item softly."""
        tenant = call.current().tenant
        return item_message(
            await self._engine.write(
                lambda: draft.delete_item(tenant, request.checkout_draft_item_id, request.etag)
            )
        )

    async def UndeleteDraftItem(
        self, request: pb.UndeleteDraftItemRequest, context: Any
    ) -> ItemMessage:
        """Takes an item's deletion back."""
        tenant = call.current().tenant
        return item_message(
            await self._engine.write(
                lambda: draft.undelete_item(tenant, request.checkout_draft_item_id, request.etag)
            )
        )


def _masked(mask: FieldMask, given: Message, updatable: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the fields that change: those of the mask, all for `*`, those set without a mask.

    Raises InvalidRequest for a path that cannot be changed.
    """
    paths = tuple(mask.paths)
    if not paths:
        present = {field.name for field, _ in given.ListFields()}
        return tuple(name for name in updatable if name in present)
    if paths == ("*",):
        return updatable
    if unknown := [path for path in paths if path not in updatable]:
        raise InvalidRequest([("update_mask", f"cannot change {path}") for path in unknown])
    return paths


def _message(row: Draft) -> pb.Draft:
    return pb.Draft(
        checkout_draft_id=row.draft,
        display_name=row.display_name,
        order_id=row.order_id or 0,
        is_deleted=row.delete_ms is not None,
        create_time=wire.timestamp(row.create_ms),
        update_time=wire.timestamp(row.update_ms),
        etag=wire.etag(row.revision),
    )
