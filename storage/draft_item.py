"""The items of drafts. An item is written exactly once, in the transaction that accepts it; where
that cannot be, it is promised, and written by the worker or by the order that takes the draft,
whichever comes first."""

from collections.abc import Callable
from typing import Any

import orjson
from peewee import Case, IntegrityError

from storage import event, ids, operation
from storage.errors import DraftNotOrderable, KeyReused, NotFound, Race
from storage.money import LIMIT
from storage.once import Claim, once
from storage.operation import Refused
from storage.sql import Prepared, insert, param, rows_with, upsert
from storage.tables import Draft, DraftItem, OrderItem

_IS_OPEN = Draft.order_id.is_null() & Draft.delete_ms.is_null()
_SERVER_FIELDS = {"idempotency_key", "revision", "create_ms", "update_ms"}
_FIND = rows_with(DraftItem, "item")
_TAKEN_BACK = Prepared(
    lambda: DraftItem.delete().where(
        (DraftItem.tenant == param("tenant")) & (DraftItem.item == param("item"))
    )
)
_ITEMS = rows_with(DraftItem, "draft")
_DRAFT = rows_with(Draft, "draft")
_MEET = Prepared(
    lambda: Draft.update(item_changes=Draft.item_changes + 1).where(
        _open_draft(param("tenant"), param("draft"))
    )
)
# A draft that is closed would get no number of changes, which its column refuses.
_OPEN_OR_MEET = Prepared(
    lambda: upsert(
        Draft.insert(
            tenant=param("tenant"),
            draft=param("draft"),
            create_ms=param("now"),
            update_ms=param("now"),
        ),
        [Draft.tenant, Draft.draft],
        {Draft.item_changes: Case(None, [(_IS_OPEN, Draft.item_changes + 1)])},
    )
)


def submit(claim: Claim, item: DraftItem) -> str:
    """Writes an item, or why not, and returns the name of its operation, which has ended; the same
    again returns the same name.

    The key with other content gets an operation of its own, which has FAILED with ALREADY_EXISTS.
    """

    def work(name: str) -> None:
        operation.record(claim.tenant, name, item.draft, item.item, _write(item))

    return _named(claim, item, work)


def promise(claim: Claim, item: DraftItem) -> str:
    """Leaves an item to the worker and returns the name of its operation, as `submit` would."""
    request = orjson.dumps(item.__data__).decode()

    def work(name: str) -> None:
        operation.promise(claim.tenant, name, item.draft, item.item, request)

    return _named(claim, item, work)


def apply(tenant: int, name: str) -> None:
    """Keeps a promise, unless that was done: the item is there, or the reason why not."""
    request = operation.request_of(tenant, name)
    if request is not None:
        operation.end(tenant, name, _write(DraftItem(**orjson.loads(request))))


def apply_pending(tenant: int, draft: str) -> None:
    """Applies everything that was accepted for a draft and waits."""
    for name in operation.pending_of_draft(tenant, draft):
        apply(tenant, name)


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
    if find_draft(tenant, draft) is None:
        raise NotFound(f"there is no draft {draft}")
    items = [item for item in _items(tenant, draft) if after is None or position(item) > after]
    return items[:size]


def position(item: DraftItem) -> tuple[int, str]:
    """Returns where an item stands in its draft."""
    return item.line_number or 0, item.item


def take_for_order(tenant: int, draft: str, order_id: int) -> list[OrderItem]:
    """Marks a draft as ordered and returns its active items as lines.

    Everything that was accepted before is applied first, so that no item is left behind.
    Raises DraftNotOrderable when the draft is unknown or deleted, was ordered before, has no active
    items, or one that costs too much.
    """
    apply_pending(tenant, draft)
    known = find_draft(tenant, draft)
    if known is None:
        raise DraftNotOrderable(f"there is no draft {draft}")
    taken = {"order_id": order_id, "revision": Draft.revision + 1, "update_ms": ids.now_ms()}
    if Draft.update(taken).where(_open_draft(tenant, draft)).execute() != 1:
        raise DraftNotOrderable(why_closed(known) or f"draft {draft} was taken just now")
    lines = [_line(item) for item in _items(tenant, draft) if _counts(item)]
    if not lines:
        raise DraftNotOrderable(f"draft {draft} has no active items")
    return lines


def find_draft(tenant: int, draft: str) -> Draft | None:
    """Returns a draft, if it was opened."""
    return _DRAFT.one(Draft, tenant=tenant, draft=draft)


def meet(tenant: int, draft: str) -> None:
    """Makes a change of an item and an order of its draft wait for each other.

    Raises Race when the draft was ordered or deleted just now.
    """
    if _MEET.run(tenant=tenant, draft=draft) != 1:
        raise Race(f"draft {draft} is no longer open")


def why_closed(draft: Draft) -> str:
    """Returns why a draft can no longer be changed or ordered; nothing when it can."""
    if draft.order_id is not None:
        return f"draft {draft.draft} is already ordered"
    return f"draft {draft.draft} is deleted" if draft.delete_ms is not None else ""


def is_deleted(item: DraftItem) -> bool:
    """Whether an item is deleted; its time of deletion says so too."""
    return bool(item.is_deleted or item.deleted_at)


def _open_draft(tenant: Any, draft: Any) -> Any:
    """Returns the condition that a draft can still be changed and ordered."""
    same = (Draft.tenant == tenant) & (Draft.draft == draft)
    return same & _IS_OPEN


def _named(claim: Claim, item: DraftItem, work: Callable[[str], None]) -> str:
    """Does the work under a new name, once for the key, and returns the name it was done under."""
    name = ids.new_token()

    def accept() -> bytes:
        work(name)
        return name.encode()

    try:
        return once(claim, accept, foretold=name.encode())[0].decode()
    except KeyReused as reused:
        refused = Refused("ALREADY_EXISTS", str(reused))
        operation.record(claim.tenant, name, item.draft, item.item, refused)
        return name


def _write(item: DraftItem) -> Refused | None:
    """Writes an item unless it is there; returns why it cannot be."""
    item.create_ms = item.update_ms = ids.now_ms()
    try:
        insert(item)
    except IntegrityError:
        if (known := find(item.tenant, item.item)) is None:
            raise  # a constraint is broken, or another try will do
        told = f"draft item {item.item} exists with other content"
        return None if _content(known) == _content(item) else Refused("ALREADY_EXISTS", told)
    if why := _why_not_joined(item):
        _TAKEN_BACK.run(tenant=item.tenant, item=item.item)
        return Refused("FAILED_PRECONDITION", why)
    event.record(item.tenant, "draft_item.created", item.item, checkout_draft_id=item.draft)
    return None


def _why_not_joined(item: DraftItem) -> str:
    """Lets an item join its draft, which the first one opens; returns why it cannot, for the draft
    was closed.
    """
    try:
        _OPEN_OR_MEET.run(tenant=item.tenant, draft=item.draft, now=item.create_ms)
    except IntegrityError:
        known = find_draft(item.tenant, item.draft)
        if known is None or not (why := why_closed(known)):
            raise Race(f"draft {item.draft} was opened again just now") from None
        return why
    return ""


def _content(item: DraftItem) -> dict[str, object]:
    return {name: value for name, value in item.__data__.items() if name not in _SERVER_FIELDS}


def _items(tenant: int, draft: str) -> list[DraftItem]:
    return sorted(_ITEMS.all(DraftItem, tenant=tenant, draft=draft), key=position)


def _counts(item: DraftItem) -> bool:
    return bool(item.is_active and not is_deleted(item) and item.quantity > 0)


def _line(item: DraftItem) -> OrderItem:
    price = item.unit_price or 0
    total = item.quantity * price if item.line_total is None else item.line_total
    if abs(total) > LIMIT:
        raise DraftNotOrderable(f"draft item {item.item}: unit_price times quantity is too large")
    return OrderItem(quantity=item.quantity, price=price, total=total, sku=item.sku or None)
