"""Drafts and their items. An item arrives as a durable operation and is applied exactly once, by
the worker or by the order that takes the draft, whichever comes first."""

import json

from storage import event, ids, operation
from storage.errors import DraftNotOrderable, KeyReused, NotFound, Race
from storage.once import Claim, once
from storage.sql import Prepared, insert, param
from storage.tables import Draft, DraftItem, OrderItem

_SERVER_FIELDS = {"idempotency_key", "revision", "create_ms", "update_ms"}
_FIND = Prepared(
    lambda: DraftItem.select().where(
        (DraftItem.tenant == param("tenant")) & (DraftItem.item == param("item"))
    )
)
_DRAFT = Prepared(
    lambda: Draft.select().where(
        (Draft.tenant == param("tenant")) & (Draft.draft == param("draft"))
    )
)
_MOVE_OPEN = Prepared(
    lambda: Draft.update(revision=Draft.revision + 1).where(
        (Draft.tenant == param("tenant"))
        & (Draft.draft == param("draft"))
        & Draft.order_id.is_null()
    )
)


def submit(claim: Claim, item: DraftItem) -> str:
    """Puts an item's operation on disk and returns its name; the same again returns the same name.

    The key with other content gets an operation of its own, which has FAILED with ALREADY_EXISTS.
    """
    request = json.dumps(item.__data__, separators=(",", ":"))

    def accept() -> bytes:
        return operation.accept(claim.tenant, item.draft, item.item, request).encode()

    try:
        return once(claim, accept)[0].decode()
    except KeyReused as reused:
        name = accept().decode()
        operation.start(claim.tenant, name)
        operation.fail(claim.tenant, name, "ALREADY_EXISTS", str(reused))
        return name


def apply(tenant: int, name: str) -> None:
    """Applies an operation to its end, unless that was done: the item is there, or the reason why
    not.
    """
    started = operation.start(tenant, name)
    if started is None:
        return
    item = DraftItem(**json.loads(started.request))
    if refused := _refusal(item):
        operation.fail(tenant, name, *refused)
        return
    if find(tenant, item.item) is None:
        _add(item)
    operation.succeed(tenant, name)


def find(tenant: int, item: str) -> DraftItem | None:
    """Returns an item, if it was applied."""
    return _FIND.one(DraftItem, tenant=tenant, item=item)


def get(tenant: int, item: str) -> DraftItem:
    """Returns an item. Raises NotFound."""
    found = find(tenant, item)
    if found is None:
        raise NotFound(f"there is no draft item {item}")
    return found


def list_page(tenant: int, draft: str, after: tuple[int, str] | None, size: int) -> list[DraftItem]:
    """Returns up to `size` items of a draft after a (line number, item), in that order. Raises
    NotFound.

    An item without a line number counts as line 0.
    """
    if _draft(tenant, draft) is None:
        raise NotFound(f"there is no draft {draft}")
    items = [item for item in _items(tenant, draft) if after is None or position(item) > after]
    return items[:size]


def position(item: DraftItem) -> tuple[int, str]:
    """Returns where an item stands in its draft."""
    return item.line_number or 0, item.item


def take_for_order(tenant: int, draft: str, order_id: int) -> list[OrderItem]:
    """Marks a draft as ordered and returns its active items as lines.

    Everything that was accepted before is applied first, so that no item is left behind.
    Raises DraftNotOrderable when the draft is unknown, was ordered before, or has no active items.
    """
    for name in operation.pending_of_draft(tenant, draft):
        apply(tenant, name)
    known = _draft(tenant, draft)
    if known is None:
        raise DraftNotOrderable(f"there is no draft {draft}")
    unordered = (Draft.tenant == tenant) & (Draft.draft == draft) & Draft.order_id.is_null()
    if Draft.update(order_id=order_id).where(unordered).execute() != 1:
        raise DraftNotOrderable(f"draft {draft} is already ordered")
    lines = [_line(item) for item in _items(tenant, draft) if _counts(item)]
    if not lines:
        raise DraftNotOrderable(f"draft {draft} has no active items")
    return lines


def _refusal(item: DraftItem) -> tuple[str, str] | None:
    """Returns why an item cannot be applied: a gRPC code's name and a sentence."""
    draft = _draft(item.tenant, item.draft)
    known = find(item.tenant, item.item)
    if known is not None and _content(known) != _content(item):
        return "ALREADY_EXISTS", f"draft item {item.item} exists with other content"
    if known is None and draft is not None and draft.order_id is not None:
        return "FAILED_PRECONDITION", f"draft {item.draft} is already ordered"
    return None


def _content(item: DraftItem) -> dict[str, object]:
    return {name: value for name, value in item.__data__.items() if name not in _SERVER_FIELDS}


def _add(item: DraftItem) -> None:
    item.create_ms = item.update_ms = ids.now_ms()
    if _draft(item.tenant, item.draft) is None:
        insert(Draft(tenant=item.tenant, draft=item.draft, create_ms=item.create_ms))
    elif _MOVE_OPEN.run(tenant=item.tenant, draft=item.draft) != 1:
        raise Race(f"draft {item.draft} was ordered just now")
    insert(item)
    event.record(item.tenant, "draft_item.created", item.item, checkout_draft_id=item.draft)


def _draft(tenant: int, draft: str) -> Draft | None:
    return _DRAFT.one(Draft, tenant=tenant, draft=draft)


def _items(tenant: int, draft: str) -> list[DraftItem]:
    owned = (DraftItem.tenant == tenant) & (DraftItem.draft == draft)
    return sorted(DraftItem.select().where(owned), key=position)


def _counts(item: DraftItem) -> bool:
    deleted = item.is_deleted or item.deleted_at
    return bool(item.is_active and not deleted and item.quantity > 0)


def _line(item: DraftItem) -> OrderItem:
    price = item.unit_price or 0
    total = item.quantity * price if item.line_total is None else item.line_total
    return OrderItem(quantity=item.quantity, price=price, total=total, sku=item.sku or None)
