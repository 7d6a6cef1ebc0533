"""Dated stock: counters move by guarded updates, each with its ledger row."""

from uuid import UUID, uuid4

import grpc
import pytest
from callers import CHANNEL, Stubs
from conftest import Lend, Stack
from hypothesis import given, settings
from hypothesis import strategies as st
from inside import TENANT, Book, opened, owned, refused
from invariants import dump
from samples import ACTOR, DAY, line, order_lines, product, stock
from till.v1 import inventory_pb2 as pb

from storage import inventory, movement
from storage.errors import BelowCommitted, InvalidField, NotFound, OutOfStock
from storage.inventory import Setting
from storage.movement import Cause, Wanted
from storage.tables import Inventory, InventoryLedger

OPTIONS = [str(UUID(int=number)) for number in range(3)]


CAUSE = Cause(ACTOR, "orders/1")


def ledger(book: Book) -> list[tuple[str, int, int, int]]:
    """Returns every movement."""
    rows = book.read(lambda: list(owned(InventoryLedger).order_by(InventoryLedger.entry_id)))
    return [(row.counter, row.before, row.delta, row.after) for row in rows]


def test_every_movement_has_its_ledger_row(book: Book) -> None:
    book.write(lambda: (product(OPTIONS[0]), stock(OPTIONS[0], 10)))
    book.write(lambda: order_lines(line(4, option_code=OPTIONS[0], date=DAY)))
    book.write(lambda: stock(OPTIONS[0], 5))
    book.write(lambda: stock(OPTIONS[0], 5))

    assert ledger(book) == [("max", 0, 10, 10), ("ordered", 0, 4, 4), ("max", 10, -5, 5)]


def test_no_less_than_is_ordered_can_be_the_maximum(book: Book) -> None:
    book.write(lambda: (product(OPTIONS[0]), stock(OPTIONS[0], 10)))
    book.write(lambda: order_lines(line(4, option_code=OPTIONS[0], date=DAY)))
    before = dump(book.url)

    with pytest.raises(BelowCommitted, match="ordered and held, more than"):
        book.write(lambda: stock(OPTIONS[0], 3))
    assert dump(book.url) == before
    assert inventory.remain(book.write(lambda: stock(OPTIONS[0], 4))) == 0


def test_many_settings_are_all_or_none(book: Book) -> None:
    book.write(lambda: product(*OPTIONS[:2]))
    settings = [Setting(f"rows[{n}]", OPTIONS[n], DAY, 5, "") for n in range(3)]
    before = dump(book.url)

    with pytest.raises(NotFound, match=OPTIONS[2]):
        book.write(lambda: inventory.batch_set(TENANT, settings, ACTOR))
    assert dump(book.url) == before


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ([(0, DAY, ""), (0, DAY, "")], "rows[1].date"),
        ([(0, DAY, "A"), (1, DAY, "a")], "rows[1].inventory_code"),
        ([(0, "2023-02-29", "")], "rows[0].date"),
        ([(0, DAY, "taken")], "rows[0].inventory_code"),
    ],
)
def test_a_repeated_or_impossible_row_is_refused_by_name(
    book: Book, settings: list[tuple[int, str, str]], field: str
) -> None:
    book.write(lambda: (product(*OPTIONS), stock(OPTIONS[2], 1, code="TAKEN")))
    rows = [Setting(f"rows[{n}]", OPTIONS[o], d, 1, c) for n, (o, d, c) in enumerate(settings)]

    with pytest.raises(InvalidField) as refusal:
        book.write(lambda: inventory.batch_set(TENANT, rows, ACTOR))

    assert refusal.value.field == field


def test_a_row_keeps_its_code(book: Book) -> None:
    code = str(uuid4())
    book.write(lambda: (product(OPTIONS[0]), stock(OPTIONS[0], 1, code=code)))

    assert book.write(lambda: stock(OPTIONS[0].upper(), 2)).inventory_code == code
    assert book.write(lambda: stock(OPTIONS[0], 3, code=code.upper())).max_quantity == 3
    with pytest.raises(InvalidField, match="differs"):
        book.write(lambda: stock(OPTIONS[0], 3, code=str(uuid4())))


def test_taking_names_every_line_that_is_short(book: Book) -> None:
    book.write(lambda: product(*OPTIONS))
    rows = [book.write(lambda n=n: stock(OPTIONS[n], 5)).inventory_id for n in range(3)]
    wanted = [Wanted("a", rows[0], 3), Wanted("b", rows[1], 5), Wanted("c", rows[0], 3)]

    with pytest.raises(OutOfStock) as refusal:
        book.write(lambda: movement.take(TENANT, [*wanted, Wanted("d", rows[2], 6)], CAUSE))

    assert refusal.value.lines == [("a", 3, 5), ("c", 3, 5), ("d", 6, 5)]


@pytest.mark.parametrize(
    "units", [{"ordered": 2}, {"held": 2}, {"ordered": 1, "held": 1}, {"ordered": -5}, {"held": -1}]
)
def test_a_movement_out_of_bounds_is_refused_by_the_update_itself(
    book: Book, units: dict[str, int]
) -> None:
    row = book.write(lambda: (product(OPTIONS[0]), stock(OPTIONS[0], 5)))[1]
    book.write(lambda: order_lines(line(4, option_code=OPTIONS[0], date=DAY)))
    before = dump(book.url)

    assert not book.write(lambda: movement.move(TENANT, row.inventory_id, CAUSE, **units))
    assert dump(book.url) == before


def test_a_page_is_ordered_by_option_then_day_then_code(book: Book) -> None:
    made = book.write(lambda: product(*OPTIONS[:2], product_id=7))
    days = ["2031-05-02", "2031-05-01"]
    book.write(lambda: [stock(option, 1, day) for option in OPTIONS[1::-1] for day in days])

    def page(number: int) -> list[tuple[str, str]]:
        rows = inventory.page(TENANT, made, number, 3)
        return [(row.option_code, row.date) for row in rows]

    wanted = [(option, day) for option in OPTIONS[:2] for day in days[::-1]]
    assert [book.read(lambda n=n: page(n)) for n in (1, 2, 3)] == [wanted[:3], wanted[3:], []]
    for code in ("7", made.product_code.upper()):
        assert book.read(lambda c=code: inventory.product(TENANT, c))[0] == made
    with pytest.raises(NotFound):
        book.read(lambda: inventory.product(2, "7"))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["set", "take"]), st.lists(st.integers(0, 9), min_size=2, max_size=2)
        )
    )
)
@settings(max_examples=20)
def test_any_sequence_of_settings_and_orders_is_right(
    lend: Lend, moves: list[tuple[str, list[int]]]
) -> None:
    """Against a model of two numbers a row; the invariants are asserted when the book closes."""
    left, sold = [0, 0], [0, 0]
    with lend() as url, opened(url) as book:
        book.write(lambda: (product(*OPTIONS[:2]), [stock(option, 0) for option in OPTIONS[:2]]))
        for kind, (first, second) in moves:
            asked = [first, second]
            try:
                book.write(lambda k=kind, a=asked: play(k, a))
            except (OutOfStock, BelowCommitted):
                may = zip(asked, left if kind == "take" else sold, strict=True)
                assert any(n > m if kind == "take" else n < m for n, m in may)
                continue
            moved = zip(left, sold, asked, strict=True)
            if kind == "take":
                left, sold = map(list, zip(*((m - n, s + n) for m, s, n in moved), strict=True))
            else:
                left = [n - s for _, s, n in moved]
        rows = book.read(lambda: list(owned(Inventory).order_by(Inventory.option_code)))
        assert [(inventory.remain(row), row.ordered) for row in rows] == [
            *zip(left, sold, strict=True)
        ]


def play(kind: str, asked: list[int]) -> None:
    """Sets both maximums, or orders from both rows; a unit."""
    if kind == "take":
        wanted = zip(OPTIONS, asked, strict=False)
        order_lines(*(line(n, option_code=code, date=DAY) for code, n in wanted if n))
    else:
        rows = [Setting(f"rows[{n}]", OPTIONS[n], DAY, asked[n], "") for n in range(2)]
        inventory.batch_set(TENANT, rows, ACTOR)


def test_the_old_and_the_new_version_tell_the_same_row(fresh_stack: Stack) -> None:
    option = str(uuid4())
    body = {"productId": 7, "options": [{"optionCode": option, "optionId": 15}]}
    made = fresh_stack.operator.post("/v1/products", json=body).json()
    rows = [{"option_code": option, "date": DAY, "max_quantity": 5}]
    (row,) = fresh_stack.operator.post("/v1/inventory:batchSet", json={"rows": rows}).json()["rows"]

    new, old = (
        fresh_stack.rest.get(f"/v1/channel/inventory/day-ticket/{code}", headers=CHANNEL).json()
        for code in (made["productCode"], 7)
    )

    stocked = {"date": DAY, "max_quantity": 5, "remain_quantity": 5, "ordered_quantity": 0}
    told = {"inventory_code": row["inventory_code"], **stocked}
    assert new == {"status_code": 200, "option_codes": {option: [told]}}
    told = {"id": int(row["inventory_id"]), **stocked, "depth_combination_id": 15}
    assert old == {"status_code": 200, "data": [told]}


@pytest.mark.parametrize("code", ["x", "1.5", "-1", "12345678901234567", "1" * 64, OPTIONS[0]])
def test_a_product_that_is_none_is_not_found(inner: Stubs, code: str) -> None:
    asked = pb.ListDayTicketInventoryRequest(product_idcode=code)
    metadata = tuple((name.lower(), value) for name, value in CHANNEL.items())

    found, _ = refused(lambda: inner.inventory.ListDayTicketInventory(asked, metadata=metadata))

    assert found is grpc.StatusCode.NOT_FOUND
