"""Ids: greater than those before, whatever the clock says and whoever else makes them."""

from collections.abc import Callable
from uuid import UUID

import pytest
from inside import TENANT, Book, opened
from market import Clock
from samples import (
    ACTOR,
    DAY,
    OPTION,
    held,
    line,
    order_lines,
    packed,
    product,
    request,
    shop,
    stock,
)

from storage import checkout, ids, inventory, lifecycle, order, store
from storage.tables import Wave

OTHER_OPTION = str(UUID(int=2))
CROWD = 1200
"""More than a process makes in the millisecond that it begins with."""
Make = Callable[[], int]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The one clock there is, stopped."""
    return Clock(monkeypatch)


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets the process know of no id, as one that has just begun."""
    return lambda: monkeypatch.setattr(ids, "_last", 0)


def crowd(tenant: int = TENANT) -> list[int]:
    """Adds orders whose ids are one after the other; a unit."""
    return [order.submit(tenant, "s", f"{n}", "u", 0).order_id for n in range(CROWD)]


def of_another_tenant() -> int:
    """Adds an order and returns its id; a unit, as those below."""
    order_lines()
    return order.submit(2, "s", "1", "u", 0).order_id


def of_stock() -> int:
    """Puts a row up for sale."""
    product(OPTION)
    return stock(OPTION, 5).inventory_id


def of_a_wave() -> int:
    """Packs an order."""
    shop()
    checkout.record(TENANT, request(packed("1")), [])
    return Wave.select().where(Wave.tenant == TENANT).get().wave_id


@pytest.mark.parametrize("make", [lambda: crowd()[-1], of_another_tenant, of_stock, of_a_wave])
def test_ids_go_on_behind_those_of_the_database_though_the_clock_was_set_back(
    url: str, clock: Clock, forget: Callable[[], None], make: Make
) -> None:
    with opened(url) as book:
        before = book.write(make)
    clock.ms -= 3_600_000
    forget()

    with opened(url) as book:
        made = [book.write(order_lines)[0].order_id for _ in range(3)]

    assert before < made[0] < made[1] < made[2]


def test_ids_go_past_those_that_another_process_makes_meanwhile(
    book: Book, clock: Clock, forget: Callable[[], None]
) -> None:
    theirs = book.write(crowd)
    forget()

    ours = [book.write(order_lines)[0].order_id for _ in range(20)]

    assert not {*theirs} & {*ours}


def test_an_id_that_a_caller_chose_is_not_made_again(
    book: Book, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = ids.new_id()
    book.write(lambda: product(OPTION, product_id=chosen, option_id=chosen + 2))
    clock.ms -= 1
    monkeypatch.setattr(ids, "_last", chosen - 1)

    made = book.write(lambda: product(OTHER_OPTION))
    (option,) = book.read(lambda: store.options_of(made))

    assert (made.product_id, option.option_id) == (chosen + 1, chosen + 3)


def test_a_history_is_told_in_its_order_though_another_process_has_a_clock_behind(
    book: Book, clock: Clock, forget: Callable[[], None]
) -> None:
    made, _ = book.write(order_lines)
    moves = ["CONFIRMED", "PICKING", "PACKED", "SHIPPED"]
    for status in moves:
        book.write(lambda s=status: lifecycle.transition(TENANT, made.order_id, s, "", ACTOR))
        clock.ms -= 5000
        forget()

    row, changes = book.read(lambda: lifecycle.history(TENANT, made.order_id))

    assert [each.status for each in changes] == moves
    assert row.status == moves[-1]


def test_a_ledger_is_told_in_its_order_though_another_process_has_a_clock_behind(
    book: Book, clock: Clock, forget: Callable[[], None]
) -> None:
    def sell() -> None:
        order_lines(line(1, option_code=OPTION, date=DAY))

    book.write(lambda: product(OPTION))
    row = book.write(lambda: stock(OPTION, 5))
    for unit in (sell, lambda: stock(OPTION, 6), sell, lambda: held(OPTION, 1)):
        clock.ms -= 5000
        forget()
        book.write(unit)

    told = book.read(lambda: inventory.ledger_page(TENANT, row.inventory_code, None, 9))

    entries = [(each.counter, each.before, each.after) for each in reversed(told)]
    assert entries == [
        ("max", 0, 5),
        ("ordered", 0, 1),
        ("max", 5, 6),
        ("ordered", 1, 2),
        ("held", 0, 1),
    ]
