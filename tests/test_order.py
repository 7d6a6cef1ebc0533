"""The order book: every door writes to it, and an order is right or it is not there."""

from uuid import uuid4

import grpc
import pytest
from callers import CALLER, Stubs, keyed
from conftest import ORDER, Stack
from inside import TENANT, Book, owned, refused
from invariants import dump
from peewee import IntegrityError
from samples import ACTOR, DAY, claim, draft_item, line, order_lines, product, stock
from till.v1 import checkout_pb2, order_pb2, store_pb2

from storage import draft_item as drafts
from storage import inventory, lifecycle, order
from storage.errors import (
    DraftNotOrderable,
    InvalidField,
    NotFound,
    OrderExists,
    OutOfStock,
    StatusNotAllowed,
)
from storage.money import LIMIT, MICROS
from storage.tables import Event, Order

LAST_ID = 2**53


def create_request(*items: order_pb2.QuoteItem) -> order_pb2.CreateOrderRequest:
    """Returns the smallest order over gRPC, with these lines."""
    return order_pb2.CreateOrderRequest(
        requester_id=1,
        user_id=2,
        facility_id=3,
        shipping_address_id=4,
        billing_address_id=5,
        shipping_method="GROUND",
        quote_items=items,
    )


def test_an_order_is_numbered_by_its_id_and_worth_its_lines(book: Book) -> None:
    made, lines = book.write(lambda: order_lines(line(2, 1_500_000), line(1, 1)))

    assert made.order_number == str(made.order_id) and 0 < made.order_id < LAST_ID
    assert made.grand_total == 3_000_001
    assert [(each.order_item_id, each.position) for each in lines] == [("1", 1), ("2", 2)]
    read, read_lines = book.read(lambda: order.get(TENANT, made.order_id))
    assert made.__data__.items() <= read.__data__.items()
    assert [each.order_item_id for each in read_lines] == ["1", "2"]


def test_ids_grow_with_time(book: Book) -> None:
    made = [book.write(order_lines)[0].order_id for _ in range(20)]

    assert made == sorted(set(made))


def test_the_number_that_one_door_gave_is_taken_for_the_other(book: Book) -> None:
    made, _ = book.write(order_lines)
    before = dump(book.url)

    with pytest.raises(OrderExists):
        book.write(lambda: order.submit(TENANT, "default", made.order_number, "u", 1))
    assert dump(book.url) == before


def test_a_customers_times_grow_though_the_clock_stands(book: Book) -> None:
    def many() -> None:
        for n in range(50):
            order.submit(TENANT, "s", f"o{n}", "u", 0)

    book.write(many)

    recent = book.read(lambda: order.recent(TENANT, "s", "u"))
    assert [number for number, _, _ in recent] == [f"o{n}" for n in range(49, 44, -1)]
    times = [at for _, _, at in recent]
    assert times == sorted(set(times), reverse=True)


def test_another_tenants_order_is_not_found(book: Book) -> None:
    made, _ = book.write(order_lines)

    with pytest.raises(NotFound):
        book.read(lambda: order.get(2, made.order_id))
    assert book.read(lambda: order.find(2, made.store, made.order_number)) is None
    book.write(lambda: order.submit(2, made.store, made.order_number, "u", 0))


@pytest.mark.parametrize("total", [LIMIT + 1, -1])
def test_a_total_that_is_absurd_or_negative_is_refused(book: Book, total: int) -> None:
    odd = line()
    odd.total = total

    with pytest.raises(InvalidField, match="grandTotal"):
        book.write(lambda: order_lines(odd))


def test_a_line_that_is_absurd_is_refused_though_another_makes_up_for_it(book: Book) -> None:
    before = dump(book.url)

    with pytest.raises(InvalidField) as refusal:
        book.write(lambda: order_lines(line(), line(10**6, LIMIT), line(10**6, -LIMIT)))

    assert refusal.value.field == "quoteItems[1].price"
    assert dump(book.url) == before


def test_a_drafts_item_that_is_absurd_is_refused_by_name(book: Book) -> None:
    for name, price in (("a", LIMIT), ("b", -LIMIT)):
        book.write(lambda n=name, p=price: drafts_of(n, quantity=10**6, unit_price=p))

    with pytest.raises(DraftNotOrderable, match="draft item a: unit_price"):
        book.write(lambda: order_lines(draft="draft"))


def test_a_day_that_does_not_exist_is_refused_by_name(book: Book) -> None:
    with pytest.raises(InvalidField) as refusal:
        book.write(lambda: order_lines(line(), line(date="2023-02-30", sku="S")))

    assert refusal.value.field == "quoteItems[1].date"


def test_a_refused_order_leaves_no_row_at_all(book: Book) -> None:
    option = str(uuid4())
    book.write(lambda: (product(option), stock(option, 1)))
    book.write(lambda: drafts_of("a"))
    before = dump(book.url)

    with pytest.raises(OutOfStock) as refusal:
        book.write(lambda: order_lines(line(2, option_code=option, date=DAY), draft="draft"))

    assert refusal.value.lines == [("quoteItems[0]", 2, 1)]
    assert dump(book.url) == before, "the draft is open, its item still waits"


def drafts_of(*names: str, **fields: object) -> None:
    """Accepts draft items whose operations wait; a unit."""
    for name in names:
        drafts.promise(claim(name), draft_item(name, **fields))


def test_a_drafts_lines_follow_the_orders_own(book: Book) -> None:
    book.write(lambda: drafts_of("a", "b", quantity=2, unit_price=MICROS))

    made, lines = book.write(lambda: order_lines(line(1, 5 * MICROS), draft="draft"))

    assert [each.quantity for each in lines] == [1, 2, 2]
    assert made.grand_total == 9 * MICROS
    with pytest.raises(DraftNotOrderable):
        book.write(lambda: order_lines(draft="draft"))


@pytest.mark.parametrize("name", ["sku", "price_option_id", "product_id", "option_code"])
def test_stock_is_found_by_whatever_means_one_option(book: Book, name: str) -> None:
    option = str(uuid4())
    known = {"sku": "S", "price_option_id": 5, "product_id": 7, "option_code": option.upper()}
    book.write(lambda: product(option, product_id=7, sku="S", price_option_id=5))
    book.write(lambda: stock(option, 3))

    _, lines = book.write(lambda: order_lines(line(2, **{name: known[name]}, date=DAY)))

    assert lines[0].option_code == option
    assert inventory.remain(book.read(lambda: inventory.find(TENANT, option, DAY))) == 1


@pytest.mark.parametrize("fields", [{"product_id": 7}, {"sku": "?"}, {"option_code": "?"}], ids=str)
def test_a_line_that_means_no_one_option_is_taken_untracked(
    book: Book, fields: dict[str, object]
) -> None:
    options = [str(uuid4()), str(uuid4())]
    book.write(lambda: product(*options, product_id=7))
    book.write(lambda: [stock(option, 0) for option in options])

    made, _ = book.write(lambda: order_lines(line(9, **fields, date=DAY)))

    assert book.read(lambda: order.get(TENANT, made.order_id))


def test_a_status_is_moved_once(book: Book) -> None:
    made, _ = book.write(order_lines)
    book.write(lambda: lifecycle.set_status(made, "CONFIRMED", ACTOR))
    with pytest.raises(StatusNotAllowed):
        book.write(lambda: lifecycle.set_status(made, "CONFIRMED", ACTOR))

    read, _ = book.read(lambda: order.get(TENANT, made.order_id))
    assert (read.status, read.revision) == ("CONFIRMED", 2)


def test_the_table_itself_refuses_a_status_that_is_none(book: Book) -> None:
    made, _ = book.write(order_lines)

    mine = (Order.tenant == TENANT) & (Order.order_id == made.order_id)
    with pytest.raises(IntegrityError, match=r"(?i)constraint"):
        book.write(lambda: Order.update(status="LOST").where(mine).execute())
    assert book.read(lambda: order.get(TENANT, made.order_id))[0].status == "NEW"


def test_an_order_has_one_event_and_so_has_its_store(book: Book) -> None:
    book.write(lambda: order_lines(line()))

    assert [each.kind for each in book.read(lambda: list(owned(Event)))] == [
        "store.created",
        "order.created",
    ]


def test_what_a_door_does_not_know_is_absent(inner: Stubs) -> None:
    total = order_pb2.SubmitStoreOrderRequest(store_id="s", order_id="1", user_id="u")
    total.grand_total = 1.5
    inner.order.SubmitStoreOrder(total)
    number = owned(Order).where(Order.order_number == "1").get().order_id

    read = inner.order.GetOrder(
        order_pb2.GetOrderRequest(order_id=number), metadata=tuple(CALLER.items())
    )

    assert (read.customer.value, read.grand_total) == ("u", 1.5)
    assert not any(read.HasField(name) for name in ("user_id", "notes", "use_shipping_account"))
    assert read.create_time.ToMilliseconds() == read.update_time.ToMilliseconds() > 0


def test_five_hundred_lines_are_one_order(inner: Stubs) -> None:
    items = [order_pb2.QuoteItem(quantity=1, price=0.1) for _ in range(500)]

    made = inner.order.CreateOrder(create_request(*items), metadata=tuple(keyed().items()))

    assert (len(made.line_items), made.grand_total) == (500, 50.0)


def test_a_line_more_than_an_order_has_is_refused(book: Book) -> None:
    before = dump(book.url)

    with pytest.raises(InvalidField, match="more than 32767 lines"):
        book.write(lambda: order_lines(*(line() for _ in range(32_768))))
    assert dump(book.url) == before


def test_a_price_of_seven_decimals_is_refused_by_name(inner: Stubs) -> None:
    items = [order_pb2.QuoteItem(quantity=1, price=price) for price in (0.1 + 0.2, 0.1234567)]

    code, status = refused(
        lambda: inner.order.CreateOrder(create_request(*items), metadata=tuple(keyed().items()))
    )

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert status.message == "quoteItems[1].price must have at most six decimals"


def test_the_etag_changes_with_the_packing(stack: Stack, stubs: Stubs) -> None:
    made = stack.rest.post(
        "/orders", headers=keyed(), json={**ORDER, "quoteItems": [{"quantity": 1}]}
    )
    number = made.json()["orderNumber"]
    stubs.store.CreateDepot(
        store_pb2.CreateDepotRequest(store_id="default", depot=store_pb2.Depot(storage_name="d"))
    )
    item = checkout_pb2.CheckoutRequestItem(order_item_id="1", item_number="1", storage_name="d")
    packing = checkout_pb2.RecordCheckoutRequest(
        store="default", order_number=number, external_number="c", items=[item]
    )
    stubs.checkout.RecordCheckout(packing)

    read = stack.rest.get(f"/orders/{number}", headers=CALLER).json()
    assert (read["status"], made.json()["status"]) == ("PACKED", "NEW")
    assert read["etag"] != made.json()["etag"]
