"""Drafts, and changes of the items they hold, until an order takes them.

A change names the etag its caller has seen (empty means any). What was accepted for the draft is
applied first: it was promised before the change.
"""

from typing import Any, TypeVar

from peewee import fn

from storage import draft_item, event, ids, revision
from storage.errors import DraftNotOpen, EtagMismatch, NotFound
from storage.tables import Draft, DraftItem

R = TypeVar("R", Draft, DraftItem)


def get(tenant: int, draft: str) -> Draft:
    """Returns a draft. Raises NotFound."""
    found = draft_item.find_draft(tenant, draft)
    if found is None:
        raise NotFound(f"there is no draft {draft}")
    return found


def list_page(tenant: int, after: str, size: int, *, show_deleted: bool) -> list[Draft]:
    """Returns up to `size` drafts whose id follows `after`, by id."""
    wanted = (Draft.tenant == tenant) & (Draft.draft > after)
    if not show_deleted:
        wanted &= Draft.delete_ms.is_null()
    return list(Draft.select().where(wanted).order_by(Draft.draft).limit(size))


def update(tenant: int, draft: str, changes: dict[str, Any], etag: str) -> Draft:
    """Changes columns of a draft. Raises NotFound, DraftNotOpen (ordered), EtagMismatch."""
    seen = _unordered(tenant, draft)
    revision.check(etag, seen.revision)
    return _change_draft(seen, "draft.updated", changes)


def delete(tenant: int, draft: str, etag: str) -> Draft:
    """Deletes a draft softly; one that is deleted is returned as it is, whatever the etag.

    Raises NotFound, DraftNotOpen (ordered), EtagMismatch.
    """
    seen = _unordered(tenant, draft)
    if seen.delete_ms is not None:
        return seen
    revision.check(etag, seen.revision)
    return _change_draft(seen, "draft.deleted", {"delete_ms": ids.now_ms()})


def undelete(tenant: int, draft: str, etag: str) -> Draft:
    """Takes a deletion back; a draft that is not deleted is returned as it is, whatever the etag.

    Raises NotFound, EtagMismatch.
    """
    seen = _settled(tenant, draft)
    if seen.delete_ms is None:
        return seen
    revision.check(etag, seen.revision)
    return _change_draft(seen, "draft.undeleted", {"delete_ms": None})


def update_item(tenant: int, item: str, changes: dict[str, Any], etag: str) -> DraftItem:
    """Changes columns of an item. Raises NotFound, DraftNotOpen, EtagMismatch."""
    seen = _item_of_open_draft(tenant, item)
    revision.check(etag, seen.revision)
    return _change_item(seen, "draft_item.updated", changes)


def delete_item(tenant: int, item: str, etag: str) -> DraftItem:
    """Deletes an item softly; one that is deleted is returned as it is, whatever the etag.

    Raises NotFound, DraftNotOpen, EtagMismatch.
    """
    seen = _item_of_open_draft(tenant, item)
    if seen.is_deleted:
        return seen
    revision.check(etag, seen.revision)
    at = seen.deleted_at or ids.now_text()
    return _change_item(seen, "draft_item.deleted", {"is_deleted": True, "deleted_at": at})


def undelete_item(tenant: int, item: str, etag: str) -> DraftItem:
    """Takes a deletion back; an item that is not deleted is returned as it is, whatever the etag.

    Raises NotFound, DraftNotOpen, EtagMismatch.
    """
    seen = _item_of_open_draft(tenant, item)
    if not draft_item.is_deleted(seen):
        return seen
    revision.check(etag, seen.revision)
    return _change_item(seen, "draft_item.undeleted", {"is_deleted": False, "deleted_at": ""})


def _settled(tenant: int, draft: str) -> Draft:
    """Returns a draft once nothing waits for it."""
    draft_item.apply_pending(tenant, draft)
    return get(tenant, draft)


def _unordered(tenant: int, draft: str) -> Draft:
    found = _settled(tenant, draft)
    if found.order_id is not None:
        raise DraftNotOpen(draft_item.why_closed(found))
    return found


def _item_of_open_draft(tenant: int, item: str) -> DraftItem:
    found = _settled(tenant, draft_item.get(tenant, item).draft)
    if why := draft_item.why_closed(found):
        raise DraftNotOpen(why)
    return draft_item.get(tenant, item)


def _change_draft(seen: Draft, kind: str, changes: dict[str, Any]) -> Draft:
    same = (Draft.tenant == seen.tenant) & (Draft.draft == seen.draft) & Draft.order_id.is_null()
    if changed := _change(seen, same, changes):
        event.record(seen.tenant, kind, seen.draft, fields=changed)
    return seen


def _change_item(seen: DraftItem, kind: str, changes: dict[str, Any]) -> DraftItem:
    same = (DraftItem.tenant == seen.tenant) & (DraftItem.item == seen.item)
    still_open = fn.EXISTS(Draft.select().where(draft_item.open_draft(seen.tenant, seen.draft)))
    if changed := _change(seen, same & still_open, changes):
        event.record(seen.tenant, kind, seen.item, checkout_draft_id=seen.draft, fields=changed)
    return seen


def _change(seen: R, same: Any, changes: dict[str, Any]) -> list[str]:
    """Changes a row that is still as it was seen, and returns the columns that differ."""
    model = type(seen)
    new = {name: value for name, value in changes.items() if getattr(seen, name) != value}
    if not new:
        return []
    moved = {**new, "revision": seen.revision + 1, "update_ms": ids.now_ms()}
    if model.update(moved).where(same & (model.revision == seen.revision)).execute() != 1:
        raise EtagMismatch(revision.etag(seen.revision), "another change came first")
    for name, value in moved.items():
        setattr(seen, name, value)
    return sorted(new)
