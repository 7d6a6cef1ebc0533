"""Packing checkouts: all of a request or nothing, and the same again changes no row."""

import json

import grpc
import pytest
from callers import Stubs
from conftest import Lend, Stack
from google.protobuf.wrappers_pb2 import Int32Value, StringValue
from hypothesis import given, settings
from hypothesis import strategies as st
from inside import TENANT, Book, opened, owned, refused
from invariants import dump
from samples import ACTOR, line, order_lines, packed, request, shop
from till.v1 import checkout_pb2 as pb
from till.v1 import store_pb2

from storage import checkout, lifecycle, order
from storage.checkout_request import Code, Fault, Request
from storage.errors import NotFound
from storage.row import DB
from storage.tables import Event, OrderItem, OrderStoring, Protocol, Wave


def record(book: Book, asked: Request) -> list[Fault]:
    """Records a checkout and returns its faults."""
    return book.write(lambda: checkout.record(TENANT, asked, []))[1]


def lines(book: Book, number: str = "o", store: str = "s") -> dict[str, OrderItem]:
    """Returns the lines of an order by their id."""
    found = book.read(lambda: order.find(TENANT, store, number))
    rows = book.read(lambda: order.items(TENANT, found.order_id))
    return {row.order_item_id: row for row in rows}


@pytest.fixture
def shop_book(book: Book) -> Book:
    """An order book with a store `s` and its depots `d` and `e`."""
    book.write(lambda: shop("s", "d", "e"))
    return book


def test_items_are_grouped_into_one_wave_per_type(shop_book: Book) -> None:
    asked = [packed("1"), packed("2", kind="expresso"), packed("3"), packed("4", kind="expresso")]

    assert record(shop_book, request(*asked)) == []

    waves = {name: row.wave_id for name, row in lines(shop_book).items()}
    assert waves["1"] == waves["3"] != waves["2"] == waves["4"]
    kinds = shop_book.read(lambda: sorted(wave.type for wave in owned(Wave)))
    assert kinds == ["comum", "expresso"]
    assert shop_book.read(owned(OrderStoring).count) == 2


def test_the_same_again_writes_its_protocol_alone(shop_book: Book) -> None:
    asked = request(packed("1"), packed("2", depot="e", kind="expresso"))
    record(shop_book, asked)
    before = dump(shop_book.url, "protocols")

    assert record(shop_book, asked) == []

    assert dump(shop_book.url, "protocols") == before
    assert shop_book.read(owned(Protocol).count) == 2


def test_an_item_in_a_wave_stays_in_it(shop_book: Book) -> None:
    record(shop_book, request(packed("1")))
    first = lines(shop_book)["1"]

    record(shop_book, request(packed("1", depot="e", kind="expresso"), packed("2"), external="c2"))

    second = lines(shop_book)
    assert second["1"].__data__ == first.__data__
    assert second["2"].wave_id != first.wave_id


def test_a_line_of_another_door_takes_its_depot_and_type_from_the_packing(shop_book: Book) -> None:
    made, _ = shop_book.write(lambda: order_lines(line(7), line(8), store="s"))

    record(shop_book, request(packed("1", depot="e", kind="expresso"), order=made.order_number))

    found = lines(shop_book, made.order_number)
    assert (found["1"].depot, found["1"].type, found["1"].quantity) == ("e", "expresso", 7)
    assert (found["2"].depot, found["2"].wave_id) == (None, None)
    assert shop_book.read(lambda: order.get(TENANT, made.order_id))[0].status == "PICKING"


def test_one_order_item_may_be_packed_twice_under_two_numbers(shop_book: Book) -> None:
    record(shop_book, request(packed("1", item="a"), packed("2", item="a", depot="e")))

    found = lines(shop_book)
    assert (list(found), found["a"].depot) == (["a"], "d")
    assert len(shop_book.read(lambda: checkout.get(TENANT, "c"))[1]) == 2


@pytest.mark.parametrize("status", ["SHIPPED", "DELIVERED"])
def test_packing_never_moves_an_order_back(shop_book: Book, status: str) -> None:
    made, _ = shop_book.write(lambda: order_lines(line(), line(), store="s"))
    for move in ("PACKED", "SHIPPED", "DELIVERED")[: 2 + (status == "DELIVERED")]:
        shop_book.write(lambda to=move: lifecycle.transition(TENANT, made.order_id, to, "", ACTOR))

    record(shop_book, request(packed("1"), order=made.order_number))

    assert shop_book.read(lambda: order.get(TENANT, made.order_id))[0].status == status


def test_a_cancelled_order_is_fault_8_and_keeps_its_protocol_alone(shop_book: Book) -> None:
    record(shop_book, request(packed("1")))
    known = shop_book.read(lambda: order.find(TENANT, "s", "o"))
    shop_book.write(lambda: lifecycle.cancel(TENANT, known.order_id, "", "", ACTOR))
    before = dump(shop_book.url, "protocols")

    faults = record(shop_book, request(packed("2")))

    assert faults == [Fault(Code.ORDER_CANCELLED, {"store": "s", "orderNumber": "o"})]
    assert dump(shop_book.url, "protocols") == before


def test_every_fault_is_told_at_once_and_once(shop_book: Book) -> None:
    shop_book.write(lambda: shop("other"))
    record(shop_book, request(packed("1"), external="theirs"))
    asked = request(
        packed("1", depot="?"),
        packed("1", depot="?"),
        packed("2"),
        store="other",
        external="theirs",
    )

    faults = record(shop_book, asked)

    assert [(fault.code, *fault.params.values()) for fault in faults] == [
        (Code.STORAGE_UNKNOWN, "other", "?"),
        (Code.ITEM_NUMBER_REPEATED, "1"),
        (Code.CHECKOUT_OF_OTHER_STORE, "theirs"),
    ]


def test_a_protocol_keeps_the_request_and_its_faults(shop_book: Book) -> None:
    asked = request(packed("é"), store="?")
    protocol, faults = shop_book.write(lambda: checkout.record(TENANT, asked, []))

    row, kept = shop_book.read(lambda: checkout.get_protocol(TENANT, protocol))

    assert (bool(row.accepted), kept) == (False, faults)
    assert json.loads(row.request)["items"][0]["itemNumber"] == "é"
    with pytest.raises(NotFound):
        shop_book.read(lambda: checkout.get_protocol(2, protocol))


def test_a_checkout_has_one_event_however_large(shop_book: Book) -> None:
    record(shop_book, request(*(packed(str(number)) for number in range(20))))

    kinds = shop_book.read(lambda: [each.kind for each in owned(Event).order_by(Event.seq)])
    assert kinds[-2:] == ["order.created", "checkout.recorded"]


ITEMS = st.builds(
    packed,
    st.sampled_from("12345"),
    item=st.sampled_from(["", "a", "b"]),
    depot=st.sampled_from(["d", "d", "e", "?"]),
    kind=st.sampled_from(["comum", "expresso"]),
)
REQUESTS = st.builds(
    lambda items, order_number, external, store: Request(store, order_number, external, items),
    st.lists(ITEMS, min_size=1, max_size=4),
    st.sampled_from(["o1", "o2"]),
    st.sampled_from(["c1", "c2"]),
    st.sampled_from(["s", "s", "s", "t", "?"]),
)


@given(st.lists(REQUESTS, max_size=12))
@settings(max_examples=30)
def test_any_sequence_of_checkouts_is_right_and_the_same_again_changes_nothing(
    lend: Lend,
    requests: list[Request],
) -> None:
    """The invariants are asserted when the book closes."""
    with lend() as url, opened(url) as book:
        book.write(lambda: (shop("s", "d", "e"), shop("t")))
        for asked in requests:
            before = dump(book.url, "protocols")
            if record(book, asked):
                assert dump(book.url, "protocols") == before, "a refusal changes nothing"
        accepted = [asked for asked in requests if not record(book, asked)]
        settled = dump(book.url, "protocols")
        for asked in [*accepted, *reversed(accepted)]:
            assert record(book, asked) == []
        assert dump(book.url, "protocols") == settled


def over_grpc(*items: pb.CheckoutRequestItem, **fields: str) -> pb.RecordCheckoutRequest:
    """Returns a checkout over gRPC."""
    known = {"store": "s", "order_number": "o", "external_number": "c"} | fields
    return pb.RecordCheckoutRequest(items=items, **known)


def test_a_refusal_over_grpc_is_told_by_its_number_and_kept(inner: Stubs) -> None:
    item = pb.CheckoutRequestItem(
        order_item_id="1",
        item_number=" ",
        quantity=Int32Value(value=0),
        type=StringValue(value="x"),
    )
    call = inner.checkout.RecordCheckout.with_call
    code, status = refused(lambda: call(over_grpc(item, order_number="")))

    told = pb.CheckoutError()
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert status.details[-1].Unpack(told) and told.status_code == 409
    found = {
        (e.code, e.params[0].fields["field"].string_value)
        for e in told.content.error.details.errors
    }
    assert found == {
        (Code.FIELD_MISSING, "orderNumber"),
        (Code.FIELD_MISSING, "items[0].itemNumber"),
        (Code.FIELD_MISSING, "items[0].storageName"),
        (Code.QUANTITY_INVALID, "items[0].quantity"),
        (Code.TYPE_UNKNOWN, "items[0].type"),
        (Code.STORE_UNKNOWN, ""),
    }


def test_items_that_have_no_room_in_their_order_are_refused(shop_book: Book) -> None:
    record(shop_book, request(packed("1")))
    shop_book.write(fill_up)

    assert record(shop_book, request(packed("1"), packed("32768"), external="late")) == [
        Fault(Code.VALUE_TOO_LONG, {"field": "items"})
    ]
    assert record(shop_book, request(packed("1"), packed("2"), external="other")) == []


def fill_up() -> None:
    """Gives the only order, which has one line, as many as it may have; a unit."""
    same = "tenant, order_id, quantity, price, total, price_option_id, product_id, type"
    for count in (1 << doubled for doubled in range(15)):
        DB.execute_sql(
            f"INSERT INTO order_items ({same}, position, order_item_id) "
            f"SELECT {same}, position + {count}, CAST(position + {count} AS CHAR) "
            f"FROM order_items WHERE position + {count} < 32768"
        )


def test_what_is_missing_forbids_over_grpc(inner: Stubs) -> None:
    item = pb.CheckoutRequestItem(order_item_id="1", item_number="1", storage_name="d")

    code, _ = refused(lambda: inner.checkout.RecordCheckout(over_grpc(item)))

    assert code is grpc.StatusCode.FAILED_PRECONDITION


def test_a_checkout_over_grpc_reads_back_with_its_defaults(inner: Stubs) -> None:
    depot = store_pb2.Depot(storage_name="d")
    inner.store.CreateStore(store_pb2.CreateStoreRequest(store=store_pb2.Store(store_id="s")))
    inner.store.CreateDepot(store_pb2.CreateDepotRequest(store_id="s", depot=depot))
    item = pb.CheckoutRequestItem(order_item_id="1", item_number="1", storage_name="d")

    _, call = inner.checkout.RecordCheckout.with_call(over_grpc(item))

    protocol = dict(call.initial_metadata())["x-protocol"]
    assert inner.checkout.GetProtocol(pb.GetProtocolRequest(protocol=protocol)).accepted
    read = inner.checkout.GetCheckout(pb.GetCheckoutRequest(external_number="c"))
    assert (read.items[0].quantity, read.items[0].type) == (1, "comum")
    assert read.items[0].wave_id > 0


MAPPING = {
    "orderNumber": "$.pedido.id",
    "externalNumber": "$.ref",
    "items": "$.volumes[*].itens[*]",
    "items.orderItemId": "$.id",
    "items.itemNumber": "$.n",
    "items.storageName": "$.cd",
}
PAYLOAD = {
    "pedido": {"id": 77},
    "ref": "custom",
    "volumes": [
        {"itens": [{"id": 1, "n": 1, "cd": "d"}]},
        {"itens": [{"id": 2, "n": 2, "cd": "d"}]},
    ],
}


@pytest.mark.parametrize("payload", [[], {}, 5, "x", None, {"pedido": [], "volumes": 7}], ids=str)
def test_a_custom_body_of_any_shape_is_refused_or_taken_never_broken(
    stack: Stack, payload: object
) -> None:
    stack.operator.post("/v1/stores", json={"storeId": "s"})
    stack.operator.post("/v1/stores/s/depots", json={"storageName": "d"})
    stack.operator.put("/v1/stores/s/checkoutMapping", json={"mapping": MAPPING}).raise_for_status()

    taken = stack.rest.post("/checkout/custom/s", json=PAYLOAD)
    bad = stack.rest.post("/checkout/custom/s", content=json.dumps(payload))

    assert (taken.status_code, bad.status_code) == (200, 409), bad.text
    read = stack.rest.get("/v1/checkouts/custom").json()
    assert [(each["orderNumber"], each["itemNumber"]) for each in read["items"]] == [
        ("77", "1"),
        ("77", "2"),
    ]
