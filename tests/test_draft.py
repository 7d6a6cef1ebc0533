"""Drafts that change until an order takes them, as the store keeps them."""

from collections.abc import Callable, Iterator

import pytest
from inside import on_this_thread

from storage import draft, draft_item, event, migrate, once, operation
from storage.errors import DraftNotOpen, DraftNotOrderable, EtagMismatch, NotFound, Race
from storage.once import Claim
from storage.row import DB
from storage.tables import DraftItem, Event

TENANT, ANY = 1, ""
STALE = '"99"'
CHANGES: dict[str, Callable[[str], object]] = {
    "update": lambda etag: draft.update(TENANT, "d", {"display_name": "new"}, etag),
    "delete": lambda etag: draft.delete(TENANT, "d", etag),
    "update_item": lambda etag: draft.update_item(TENANT, "i", {"quantity": 7}, etag),
    "delete_item": lambda etag: draft.delete_item(TENANT, "i", etag),
}


@pytest.fixture
def book(url: str) -> Iterator[None]:
    """An order book with the draft `d` that holds two units as the item `i`; a test is a unit."""
    with on_this_thread(url):
        migrate.up()
        once.begin()
        event.begin()
        draft_item.apply(TENANT, accept("i", 2))
        yield


def accept(item: str, quantity: int, key: str = "") -> str:
    """Accepts an item of the draft `d` and returns its operation, which waits."""
    texts = ("entity_number", "product_number", "sku", "product_name", "deleted_at")
    numbers = ("line_number", "unit_price", "line_total", "schema_version", "version")
    row = DraftItem(tenant=TENANT, item=item, draft="d", quantity=quantity, is_active=True)
    row.__data__ |= dict.fromkeys((*texts, "created_at", "updated_at"), "") | dict.fromkeys(numbers)
    row.is_deleted, row.idempotency_key = False, key or item
    return draft_item.promise(Claim(TENANT, "", "SubmitDraftItem", key or item, b"-"), row)


def events() -> list[str]:
    """Returns the kinds of all events, in their order."""
    for text, rows in event.closing(event.collected()):
        for row in rows:
            DB.execute_sql(text, row)
    event.begin()
    return [row.kind for row in Event.select().where(Event.tenant == TENANT)]


def test_a_change_counts_itself_and_writes_one_event(book: None) -> None:
    changed = draft.update_item(TENANT, "i", {"quantity": 3, "sku": "S"}, '"1"')
    named = draft.update(TENANT, "d", {"display_name": "Sunday"}, '"1"')

    assert (named.revision, named.display_name) == (2, "Sunday")
    assert draft.get(TENANT, "d").__data__ == named.__data__
    assert draft_item.get(TENANT, "i").__data__ == changed.__data__
    assert events() == ["draft_item.created", "draft_item.updated", "draft.updated"]


def test_what_changes_nothing_writes_nothing(book: None) -> None:
    draft.update(TENANT, "d", {"display_name": ""}, ANY)
    draft.update_item(TENANT, "i", {"quantity": 2, "is_active": True}, ANY)
    draft.undelete(TENANT, "d", STALE)
    draft.undelete_item(TENANT, "i", STALE)

    assert (draft.get(TENANT, "d").revision, draft_item.get(TENANT, "i").revision) == (1, 1)
    assert events() == ["draft_item.created"]


@pytest.mark.parametrize("change", CHANGES)
def test_another_etag_is_refused_with_the_current_one(book: None, change: str) -> None:
    with pytest.raises(EtagMismatch) as refused:
        CHANGES[change](STALE)

    assert refused.value.etag == '"1"'
    assert events() == ["draft_item.created"]


def test_a_deletion_may_be_repeated_and_taken_back_whatever_the_etag(book: None) -> None:
    for etag in ('"1"', '"1"', STALE):
        assert draft.delete(TENANT, "d", etag).revision == 2
    for etag in ('"2"', '"2"', STALE):
        assert draft.undelete(TENANT, "d", etag).revision == 3

    assert events()[1:] == ["draft.deleted", "draft.undeleted"]


def test_an_item_deleted_and_undeleted_is_as_before(book: None) -> None:
    gone = [draft.delete_item(TENANT, "i", etag) for etag in ('"1"', '"1"')]
    back = [draft.undelete_item(TENANT, "i", etag) for etag in ('"2"', '"2"')]

    assert [bool(item.is_deleted) for item in gone + back] == [True, True, False, False]
    assert gone[0].deleted_at == gone[1].deleted_at and gone[0].deleted_at.endswith("+00:00")
    assert [item.deleted_at for item in back] == ["", ""]
    assert events()[1:] == ["draft_item.deleted", "draft_item.undeleted"]


@pytest.mark.parametrize("change", CHANGES)
def test_an_ordered_draft_takes_no_change(book: None, change: str) -> None:
    draft_item.take_for_order(TENANT, "d", 1)

    with pytest.raises(DraftNotOpen, match="already ordered"):
        CHANGES[change](ANY)


@pytest.mark.parametrize("change", ["update_item", "delete_item"])
def test_items_of_a_deleted_draft_take_no_change(book: None, change: str) -> None:
    draft.delete(TENANT, "d", ANY)

    with pytest.raises(DraftNotOpen, match="is deleted"):
        CHANGES[change](ANY)


def test_a_deleted_draft_is_not_ordered_and_takes_no_item_until_undeleted(book: None) -> None:
    draft.delete(TENANT, "d", ANY)
    late = accept("late", 1)
    draft_item.apply(TENANT, late)

    failed = operation.get(TENANT, late)
    assert (failed.state, failed.reason) == ("FAILED", "FAILED_PRECONDITION")
    with pytest.raises(DraftNotOrderable, match="is deleted"):
        draft_item.take_for_order(TENANT, "d", 1)
    draft.undelete(TENANT, "d", ANY)
    assert [line.quantity for line in draft_item.take_for_order(TENANT, "d", 1)] == [2]


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_accepted_is_applied_before_a_change(book: None, change: str) -> None:
    promised = accept("j", 1)

    CHANGES[change](ANY)

    assert operation.get(TENANT, promised).state == "SUCCEEDED"
    assert events()[1] == "draft_item.created"


def test_a_changed_item_submitted_as_it_was_exists_already(book: None) -> None:
    draft.update_item(TENANT, "i", {"quantity": 3}, ANY)
    for quantity, state, reason in ((2, "FAILED", "ALREADY_EXISTS"), (3, "SUCCEEDED", None)):
        name = accept("i", quantity, key=f"key-{quantity}")
        draft_item.apply(TENANT, name)

        found = operation.get(TENANT, name)
        assert (found.state, found.reason) == (state, reason)
    assert draft_item.get(TENANT, "i").quantity == 3


def test_a_deleted_item_is_no_line(book: None) -> None:
    draft_item.apply(TENANT, accept("j", 5))
    draft.delete_item(TENANT, "i", ANY)

    assert [line.quantity for line in draft_item.take_for_order(TENANT, "d", 1)] == [5]


def test_a_row_that_changed_since_it_was_read_is_not_overwritten(book: None) -> None:
    seen = draft_item.get(TENANT, "i")
    draft.update_item(TENANT, "i", {"quantity": 3}, ANY)

    with pytest.raises(Race):
        draft._change_item(seen, "draft_item.updated", {"quantity": 4})
    assert draft_item.get(TENANT, "i").quantity == 3


def test_another_tenants_draft_is_not_there(book: None) -> None:
    for call in (draft.delete, draft.undelete, draft.delete_item, draft.undelete_item):
        with pytest.raises(NotFound):
            call(TENANT + 1, "i" if "item" in call.__name__ else "d", ANY)
    assert draft.list_page(TENANT + 1, "", 10, show_deleted=True) == []
