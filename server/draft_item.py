"""DraftItemService: items of drafts over gRPC, accepted as operations."""

from typing import Any

from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import DoubleValue, Int32Value, Int64Value
from till.v1 import draft_item_pb2 as pb
from till.v1.draft_item_pb2_grpc import DraftItemServiceServicer

from server import call, wire
from server.worker import Worker
from storage import draft_item, money
from storage.engine import Engine
from storage.tables import DraftItem

ACCEPTED = "Request accepted for asynchronous processing."
_TEXTS = (
    "entity_number",
    "product_number",
    "sku",
    "product_name",
    "created_at",
    "updated_at",
    "idempotency_key",
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
        return message(
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
            items=[message(item) for item in items[:size]], next_page_token=more
        )


def message(item: DraftItem) -> pb.DraftItem:
    """Returns an item as its message; the aliases are derived here and nowhere kept."""
    line_number = _wrapped(Int32Value, item.line_number)
    return pb.DraftItem(
        pk=item.item,
        gsi_1_pk=item.draft,
        gsi_1_sk=line_number,
        checkout_draft_item_id=item.item,
        checkout_draft_id=item.draft,
        line_number=line_number,
        quantity=item.quantity,
        unit_price=_wrapped(DoubleValue, _amount(item.unit_price)),
        line_total=_wrapped(DoubleValue, _amount(item.line_total)),
        is_active=bool(item.is_active),
        is_deleted=bool(item.is_deleted),
        deleted_at=item.deleted_at,
        schema_version=_wrapped(Int64Value, item.schema_version),
        version=_wrapped(Int64Value, item.version),
        revision=item.revision,
        create_time=wire.timestamp(item.create_ms),
        update_time=wire.timestamp(item.update_ms),
        etag=wire.etag(item.revision),
        **{name: getattr(item, name) for name in _TEXTS},
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
        line_number=_value(meaning, "line_number"),
        quantity=meaning.quantity,
        unit_price=_micros(meaning, "unit_price"),
        line_total=_micros(meaning, "line_total"),
        is_active=meaning.is_active.value,
        is_deleted=meaning.is_deleted.value,
        deleted_at=meaning.deleted_at.value,
        schema_version=_value(meaning, "schema_version"),
        version=_value(meaning, "version"),
        **{name: getattr(meaning, name) for name in _TEXTS},
    )


def _value(meaning: Message, name: str) -> Any:
    return getattr(meaning, name).value if meaning.HasField(name) else None


def _micros(meaning: Message, name: str) -> int | None:
    value = _value(meaning, name)
    return None if value is None else money.micros(name, value)


def _amount(micros: int | None) -> float | None:
    return None if micros is None else money.amount(micros)


def _wrapped(kind: Any, value: Any) -> Any:
    return None if value is None else kind(value=value)
