"""Drafts: what was accepted is applied once, and an order takes a draft whole."""

import base64
import json
from collections.abc import Callable

import grpc
import pytest
from callers import CALLER, Stubs, keyed
from conftest import ORDER, Stack, eventually
from inside import TENANT, Book, owned, refused
from invariants import dump
from samples import claim, draft_item, order_lines
from till.v1 import draft_item_pb2 as pb
from till.v1 import order_pb2

from storage import draft_item as drafts
from storage import operation
from storage.errors import DraftNotOrderable, InvalidField, NotFound
from storage.money import MICROS
from storage.once import Claim
from storage.tables import DraftItem, Event, Operation, OrderItem

Take = Callable[[Claim, DraftItem], str]
BOTH_WAYS = pytest.mark.parametrize("how", [drafts.submit, drafts.promise])
DOOR = "/store-checkout-draft-items-post-one"


def accept(
    book: Book, name: str = "item", key: str = "", how: Take = drafts.promise, **fields: object
) -> str:
    """Accepts an item under a key and returns its operation, which waits unless `how` is submit."""
    item = draft_item(name, **fields)
    return book.write(lambda: how(claim(key or name, str(fields)), item))


def apply(book: Book, *names: str) -> list[Operation]:
    """Applies operations and returns how they stand."""
    for name in names:
        book.write(lambda n=name: drafts.apply(TENANT, n))
    return [book.read(lambda n=name: operation.get(TENANT, n)) for name in names]


def ordered(book: Book, draft: str = "draft") -> list[OrderItem]:
    """Orders a draft and returns the lines."""
    return book.write(lambda: order_lines(draft=draft))[1]


def test_what_is_submitted_is_there_at_once(book: Book) -> None:
    name = accept(book, how=drafts.submit)

    assert book.read(lambda: operation.get(TENANT, name)).state == "SUCCEEDED"
    assert book.read(lambda: drafts.get(TENANT, "item")).revision == 1
    assert book.read(lambda: operation.pending(9)) == []


def test_what_is_promised_waits_and_is_there_once_it_is_applied(book: Book) -> None:
    name = accept(book)

    assert book.read(lambda: operation.pending(9)) == [(TENANT, name)]
    with pytest.raises(NotFound):
        book.read(lambda: drafts.get(TENANT, "item"))
    assert [found.state for found in apply(book, name)] == ["SUCCEEDED"]
    assert book.read(lambda: drafts.get(TENANT, "item")).revision == 1
    assert book.read(lambda: operation.pending(9)) == []


def test_applying_again_changes_nothing(book: Book) -> None:
    name = accept(book)
    apply(book, name)
    before = dump(book.url)

    apply(book, name, name)

    assert dump(book.url) == before


@BOTH_WAYS
def test_the_same_key_and_content_name_the_same_operation(book: Book, how: Take) -> None:
    name = accept(book)
    assert accept(book, how=how) == name
    apply(book, name)

    assert accept(book, how=how) == name
    assert book.read(owned(Operation).count) == 1


@BOTH_WAYS
def test_the_same_key_with_other_content_fails_at_once(book: Book, how: Take) -> None:
    first, other = accept(book), accept(book, quantity=2, how=how)

    found = apply(book, first, other)

    assert [(one.state, one.reason) for one in found] == [
        ("SUCCEEDED", None),
        ("FAILED", "ALREADY_EXISTS"),
    ]
    assert book.read(lambda: drafts.get(TENANT, "item")).quantity == 1


@BOTH_WAYS
def test_the_same_item_under_another_key_succeeds_and_writes_nothing(book: Book, how: Take) -> None:
    found = apply(book, *(accept(book, key=key, how=how) for key in ("one", "other")))

    assert [one.state for one in found] == ["SUCCEEDED"] * 2
    assert book.read(owned(DraftItem).count) == 1
    assert book.read(owned(Event).count) == 1


@BOTH_WAYS
def test_an_item_cannot_move_to_another_draft(book: Book, how: Take) -> None:
    there = {"key": "other", "draft": "elsewhere", "how": how}
    found = apply(book, accept(book, how=how), accept(book, **there))

    assert [one.reason for one in found] == [None, "ALREADY_EXISTS"]
    assert book.read(lambda: drafts.find_draft(TENANT, "elsewhere")) is None


def test_an_order_applies_what_was_promised_for_its_draft(book: Book) -> None:
    names = [accept(book, name, quantity=number) for number, name in enumerate("abc", 1)]

    lines = ordered(book)

    assert [line.quantity for line in lines] == [1, 2, 3]
    assert {found.state for found in apply(book, *names)} == {"SUCCEEDED"}


@BOTH_WAYS
def test_an_item_that_comes_after_the_order_fails(book: Book, how: Take) -> None:
    apply(book, accept(book))
    ordered(book)

    (late,) = apply(book, accept(book, "late", how=how))

    assert (late.state, late.reason) == ("FAILED", "FAILED_PRECONDITION")
    assert late.error == "draft draft is already ordered"
    assert book.read(lambda: drafts.find(TENANT, "late")) is None


def test_only_active_items_become_lines(book: Book) -> None:
    odd = [{"is_active": False}, {"is_deleted": True}, {"deleted_at": "2026-01-01T00:00:00Z"}]
    odd.append({"quantity": 0})
    for number, fields in enumerate(odd):
        accept(book, f"odd{number}", **fields)
    with pytest.raises(DraftNotOrderable, match="no active items"):
        ordered(book)
    accept(book, "good", quantity=7)

    assert [line.quantity for line in ordered(book)] == [7]


def test_a_line_costs_what_its_item_says_or_else_quantity_times_price(book: Book) -> None:
    accept(book, "a", line_number=1, quantity=15, unit_price=158 * MICROS, line_total=1896 * MICROS)
    accept(book, "b", line_number=2, quantity=2, unit_price=3 * MICROS, sku="S")
    accept(book, "c", line_number=3, quantity=2)

    lines = ordered(book)

    assert [line.total for line in lines] == [1896 * MICROS, 6 * MICROS, 0]
    assert [line.sku for line in lines] == [None, "S", None]


def test_a_draft_that_cannot_be_ordered_stays_as_it_was(book: Book) -> None:
    accept(book, line_total=-1, quantity=1)
    before = dump(book.url)

    for draft in ("draft", "unknown"):
        with pytest.raises((DraftNotOrderable, InvalidField)):
            ordered(book, draft)

    assert dump(book.url) == before, "its operation waits as before"


def test_items_are_paged_by_line_and_then_by_name(book: Book) -> None:
    lines = {"z": None, "y": 0, "b": 2, "a": 2, "x": 1}
    apply(book, *(accept(book, name, line_number=number) for name, number in lines.items()))

    def page(after: tuple[int, str] | None) -> list[str]:
        return [item.item for item in drafts.list_page(TENANT, "draft", after, 2)]

    assert book.read(lambda: page(None)) == ["y", "z"]
    assert book.read(lambda: page((0, "z"))) == ["x", "a"]
    assert book.read(lambda: page((2, "a"))) == ["b"]
    assert book.read(lambda: page((2, "b"))) == []


def test_tenants_share_no_draft(book: Book) -> None:
    apply(book, accept(book))

    with pytest.raises(NotFound):
        book.read(lambda: drafts.get(2, "item"))
    with pytest.raises(DraftNotOrderable):
        book.write(lambda: drafts.take_for_order(2, "draft", 1))


def test_an_order_right_after_the_202_has_the_item(inner: Stubs) -> None:
    """The worker may or may not have been there: the promise is kept either way."""
    request = order_pb2.CreateOrderRequest(
        requester_id=1, user_id=1, facility_id=1, shipping_address_id=1, billing_address_id=1
    )
    request.shipping_method = "GROUND"
    for number in range(20):
        item = pb.SubmitDraftItemRequest(
            pk=f"i{number}", gsi_1_pk=f"d{number}", quantity=number + 1
        )
        item.idempotency_key = f"k{number}"
        inner.draft.SubmitDraftItem(item)
        request.checkout_draft_id = f"d{number}"
        made = inner.order.CreateOrder(request, metadata=tuple(keyed().items()))
        assert [line.quantity for line in made.line_items] == [number + 1]


@pytest.mark.parametrize(
    "place", ["x", 5, None, [], [1], ["a", 1], [1, 2], [1, "a", 2], {"a": 1}, "deep"], ids=str
)
def test_a_page_token_of_another_list_is_refused(inner: Stubs, place: object) -> None:
    text = "[" * 100_000 if place == "deep" else json.dumps(place)
    token = base64.urlsafe_b64encode(text.encode()).decode()
    item = pb.SubmitDraftItemRequest(pk="i", gsi_1_pk="d", quantity=1, idempotency_key="k")
    inner.draft.SubmitDraftItem(item)
    eventually(lambda: inner.draft.ListDraftItems(pb.ListDraftItemsRequest(checkout_draft_id="d")))
    asked = pb.ListDraftItemsRequest(checkout_draft_id="d", page_token=token)

    code, status = refused(lambda: inner.draft.ListDraftItems(asked))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert status.message == "page_token is not a token of this list"


@pytest.mark.parametrize("spelling", ["numbers", "strings"])
def test_a_draft_is_played_to_its_order_as_rest(stack: Stack, spelling: str) -> None:
    item = {"pk": f"i-{spelling}", "gsi_1_pk": spelling, "quantity": 3, "unit_price": 1.25}
    if spelling == "strings":
        item = {name: str(value) for name, value in item.items()}
    answer = stack.rest.post(DOOR, json={**item, "idempotency_key": spelling})
    name = answer.headers["x-operation"]
    made = stack.rest.post("/orders", json={**ORDER, "checkoutDraftId": spelling}, headers=keyed())

    assert (answer.status_code, made.json()["grandTotal"]) == (202, 3.75)
    assert stack.rest.get(f"/v1/{name}").json()["metadata"]["state"] == "SUCCEEDED"
    eventually(lambda: stack.rest.get(f"/v1/draftItems/i-{spelling}").raise_for_status())
    read = stack.rest.get(f"/orders/{made.json()['orderId']}", headers=CALLER).json()
    assert read["checkoutDraftId"] == spelling


def stamped(inner: Stubs, text: str) -> None:
    """Submits an item that was made at this time."""
    item = pb.SubmitDraftItemRequest(pk=text, gsi_1_pk="d", quantity=1, idempotency_key=text)
    item.created_at = item.updated_at = item.deleted_at.value = text
    inner.draft.SubmitDraftItem(item)


@pytest.mark.parametrize(
    "text",
    [
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-01-32T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:61Z",
        "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00-00:60",
        f"2026-01-01T00:00:00.{'1' * 300}Z",
    ],
)
def test_a_time_that_no_clock_shows_is_refused(inner: Stubs, text: str) -> None:
    code, status = refused(lambda: stamped(inner, text))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    for field in ("deleted_at", "created_at", "updated_at"):
        assert f"{field} must be an RFC 3339 time" in status.message


@pytest.mark.parametrize(
    "text", ["2024-02-29T23:59:60.123456789+05:45", "2026-12-31 00:00:00z", "2026-06-30t01:02:03Z"]
)
def test_a_time_is_kept_as_it_was_sent(inner: Stubs, text: str) -> None:
    stamped(inner, text)

    found = inner.draft.GetDraftItem(pb.GetDraftItemRequest(checkout_draft_item_id=text))
    assert {found.created_at, found.updated_at, found.deleted_at} == {text}
