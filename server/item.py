"""Items of drafts, between rows and messages: what both services about them share."""

from functools import cache
from typing import Any

from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import DoubleValue, Int32Value, Int64Value
from till.v1.draft_item_pb2 import DraftItem as ItemMessage

from server import wire
from server.message import wrapped
from storage import money
from storage.tables import DraftItem

_MONEY = ("unit_price", "line_total")
_TEXTS = (
    "entity_number",
    "product_number",
    "sku",
    "product_name",
    "created_at",
    "updated_at",
    "idempotency_key",
)


def item_message(item: DraftItem) -> ItemMessage:
    """Returns an item as its message; the aliases are derived here and nowhere kept."""
    line_number = wrapped(Int32Value, item.line_number)
    return ItemMessage(
        pk=item.item,
        gsi_1_pk=item.draft,
        gsi_1_sk=line_number,
        checkout_draft_item_id=item.item,
        checkout_draft_id=item.draft,
        line_number=line_number,
        quantity=item.quantity,
        unit_price=wrapped(DoubleValue, _amount(item.unit_price)),
        line_total=wrapped(DoubleValue, _amount(item.line_total)),
        is_active=bool(item.is_active),
        is_deleted=bool(item.is_deleted),
        deleted_at=item.deleted_at,
        schema_version=wrapped(Int64Value, item.schema_version),
        version=wrapped(Int64Value, item.version),
        revision=item.revision,
        create_time=wire.timestamp(item.create_ms),
        update_time=wire.timestamp(item.update_ms),
        etag=wire.etag(item.revision),
        **{name: getattr(item, name) for name in _TEXTS},
    )


def columns(given: Message, names: tuple[str, ...], path: str = "") -> dict[str, Any]:
    """Returns fields of a message, which stands at a path of the request, as an item's columns.

    Raises InvalidField.
    """
    bare, wrappers = _kinds(given.DESCRIPTOR, names)
    found = {name: getattr(given, name) for name in bare}
    for name in wrappers:
        found[name] = getattr(given, name).value if given.HasField(name) else None
    for name in _MONEY:
        if found.get(name) is not None:
            found[name] = money.micros(path + name, found[name])
    return found


@cache
def _kinds(message: Any, names: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Returns which fields of a message are values, and which are wrappers."""
    wrappers = [name for name in names if message.fields_by_name[name].message_type]
    return [name for name in names if name not in wrappers], wrappers


def _amount(micros: int | None) -> float | None:
    return None if micros is None else money.amount(micros)
