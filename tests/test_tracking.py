"""Which lines of an order are tracked: those that name a stock row, whatever they name it by."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from inside import TENANT, Book
from invariants import dump
from samples import (
    ACTOR,
    DAY,
    claim,
    draft_item,
    holding,
    line,
    new_order,
    order_lines,
    packed,
    product,
    request,
    shop,
    stock,
)

from storage import checkout, hold, inventory, lifecycle, order, tenant
from storage import draft_item as drafts
from storage.errors import DraftNotOrderable, HoldNotActive, NoStockRow, NotFound, OutOfStock
from storage.tables import Inventory, OrderItem

OPTION = str(UUID(int=1))
OTHER_DAY = "2031-05-02"
NAMES: list[dict[str, Any]] = [
    {"option_code": OPTION, "date": DAY},
    {"option_code": OPTION.upper(), "date": DAY},
    {"option_code": OPTION},
    {"sku": "S"},
    {"sku": "S", "date": DAY},
    {"price_option_id": 7},
    {"product_id": 9},
    {"sku": "unknown", "product_id": 9},
]
STRANGERS: list[dict[str, Any]] = [
    {},
    {"sku": "s"},
    {"option_code": OPTION, "date": OTHER_DAY},
    {"option_code": "elsewhere", "sku": "S"},
    {"price_option_id": 9},
]


@pytest.fixture
def shelf(book: Book) -> Iterator[Book]:
    """An order book with one row of 10 units."""
    book.write(lambda: tenant.ensure_first("demo", "1001"))
    book.write(lambda: product(OPTION, product_id=9, sku="S", price_option_id=7))
    book.write(lambda: stock(OPTION, 10))
    yield book


def row(book: Book) -> Inventory:
    """Returns the row, as it is now."""
    (found,) = book.read(
        lambda: inventory.as_of_now(TENANT, [inventory.get(TENANT, "", OPTION, DAY)])
    )
    return found


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_a_line_that_names_a_row_takes_its_stock(shelf: Book, name: dict[str, Any]) -> None:
    _, (made,) = shelf.write(lambda: order_lines(line(4, **name)))

    assert (made.option_code, made.date, row(shelf).ordered) == (OPTION, DAY, 4)
    with pytest.raises(OutOfStock):
        shelf.write(lambda: order_lines(line(7, **name)))


@pytest.mark.parametrize("name", STRANGERS, ids=str)
def test_a_line_that_names_no_row_is_taken_unless_the_tenant_refuses(
    shelf: Book, name: dict[str, Any]
) -> None:
    shelf.write(lambda: order_lines(line(99, **name)))
    shelf.write(lambda: tenant.set_stock_policy(TENANT, "REQUIRE_MATCH"))
    before = dump(shelf.url)

    with pytest.raises(NoStockRow, match=r"quoteItems\[1\]"):
        shelf.write(lambda: order_lines(line(1, sku="S"), line(1, **name)))

    assert dump(shelf.url) == before
    shelf.write(lambda: order_lines(line(1, sku="S")))
    assert row(shelf).ordered == 1


def test_a_policy_is_one_tenants_own(shelf: Book) -> None:
    shelf.write(lambda: tenant.create("other", "1002"))
    shelf.write(lambda: tenant.set_stock_policy(2, "REQUIRE_MATCH"))

    assert shelf.read(lambda: tenant.stock_policy(TENANT)) == "TRACK_WHEN_MATCHED"
    shelf.write(lambda: order_lines(line(1)))


def test_lines_that_name_one_row_by_different_names_are_summed(shelf: Book) -> None:
    with pytest.raises(OutOfStock) as refusal:
        shelf.write(lambda: order_lines(*(line(2, **name) for name in NAMES)))

    assert [(asked, left) for _, asked, left in refusal.value.lines] == [(2, 10)] * len(NAMES)
    shelf.write(lambda: order_lines(*(line(2, **name) for name in NAMES[:5])))
    assert inventory.remain(row(shelf)) == 0


def test_a_row_added_later_changes_nothing_of_an_order(shelf: Book) -> None:
    made, _ = shelf.write(lambda: order_lines(line(4, sku="S")))
    shelf.write(lambda: stock(OPTION, 10, OTHER_DAY))
    _, (ambiguous,) = shelf.write(lambda: order_lines(line(4, sku="S")))

    shelf.write(lambda: lifecycle.cancel(TENANT, made.order_id, "", "", ACTOR))

    assert ambiguous.inventory_id is None, "a sku of two days names no row"
    assert row(shelf).ordered == 0
    assert inventory.get(TENANT, "", OPTION, OTHER_DAY).ordered == 0


def test_a_draft_takes_stock_by_its_skus_and_gives_it_back_once(shelf: Book) -> None:
    items = [draft_item(name, sku="S", quantity=3, idempotency_key=name) for name in ("a", "b")]
    for item in items:
        shelf.write(lambda i=item: drafts.submit(claim(i.item, i.item), i))
    made, lines = shelf.write(lambda: order_lines(line(1, sku="S"), draft="draft"))
    assert ([each.quantity for each in lines], row(shelf).ordered) == ([1, 3, 3], 7)

    for _ in range(3):
        shelf.write(lambda: lifecycle.cancel(TENANT, made.order_id, "", "", ACTOR))

    assert row(shelf).ordered == 0
    with pytest.raises(DraftNotOrderable):
        shelf.write(lambda: order_lines(draft="draft"))


def test_items_that_packing_adds_take_no_stock_and_give_none_back(shelf: Book) -> None:
    made, _ = shelf.write(lambda: order_lines(line(4, sku="S")))
    shelf.write(lambda: shop("default"))
    more = request(packed("1"), packed("new"), store="default", order=made.order_number)
    assert shelf.write(lambda: checkout.record(TENANT, more, []))[1] == []
    assert shelf.read(lambda: OrderItem.select().where(OrderItem.tenant == TENANT).count()) == 2

    shelf.write(lambda: lifecycle.cancel(TENANT, made.order_id, "", "", ACTOR))

    assert row(shelf).ordered == 0


@pytest.mark.parametrize("end", ["foreign", "unknown", "released", "confirmed", "expired"])
def test_a_hold_that_is_not_the_orders_to_use_changes_nothing(shelf: Book, end: str) -> None:
    made = shelf.write(lambda: holding((OPTION, 4), seconds=0.1 if end == "expired" else 60))
    if end in ("released", "confirmed"):
        act = hold.release if end == "released" else hold.confirm
        shelf.write(lambda: act(TENANT, made.hold_id, ACTOR))
    hold_id = "0" * 32 if end == "unknown" else made.hold_id
    owner = 2 if end == "foreign" else TENANT
    new = order_of(owner)
    while end == "expired" and hold.get(TENANT, made.hold_id).state == "ACTIVE":
        pass
    before = dump(shelf.url)

    with pytest.raises((NotFound, HoldNotActive)):
        shelf.write(lambda: order.create(new, [line(1, sku="S")], hold_id))

    assert dump(shelf.url) == before


def order_of(owner: int) -> Any:
    """Returns an order of a tenant."""
    made = new_order()
    made.tenant = owner
    return made
