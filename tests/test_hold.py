"""Holds: nothing is held twice, given back twice, or counted a millisecond too long."""

from collections import Counter
from collections.abc import Iterator
from uuid import uuid4

import grpc
import pytest
from callers import CHANNEL
from conftest import Lend
from google.protobuf import json_format
from google.rpc.error_details_pb2 import ErrorInfo, PreconditionFailure
from inside import TENANT, Book, Served, at_once, refused, serving
from invariants import dump
from market import Clock, Left, Market, counters, detail, trading
from samples import DAY, holding, product, stock
from till.v1 import inventory_pb2
from till.v1.stock_pb2 import Hold

from storage import hold, ids, inventory
from storage.errors import InvalidField, NotFound, OutOfStock, Overloaded
from storage.movement import Wanted

OTHER_TENANT = 2
MONTH_MS = 30 * 24 * 3600 * 1000


@pytest.fixture(scope="module")
def market(lend: Lend) -> Iterator[Market]:
    """A market that the tests of this module share."""
    with lend() as url, trading(url) as market:
        yield market


def put_up(book: Book, *units: int) -> list[str]:
    """Puts units of new options up for sale, in storage."""
    options = [str(uuid4()) for _ in units]
    book.write(lambda: product(*options))
    for option, top in zip(options, units, strict=True):
        book.write(lambda o=option, t=top: stock(o, t))
    return options


def test_a_hold_of_several_rows_is_all_or_nothing(book: Book) -> None:
    enough, short = put_up(book, 10, 1)
    before = dump(book.url)

    with pytest.raises(OutOfStock) as refusal:
        book.write(lambda: holding((enough, 5), (short, 2)))

    assert refusal.value.lines == [("lines[1]", 2, 1)]
    assert dump(book.url) == before


def test_another_tenant_finds_neither_row_nor_hold(book: Book) -> None:
    (option,) = put_up(book, 10)
    made = book.write(lambda: holding((option, 5)))
    found = book.read(lambda: inventory.get(TENANT, "", option, DAY))
    until = ids.now_ms() + 1000
    foreign = [Wanted("lines[0]", found.inventory_id, 1)]
    before = dump(book.url)

    for act in (hold.confirm, hold.release, hold.use):
        with pytest.raises(NotFound):
            book.write(lambda a=act: a(OTHER_TENANT, made.hold_id, ""))
    with pytest.raises(NotFound):
        book.write(lambda: hold.extend(OTHER_TENANT, made.hold_id, until))
    with pytest.raises(NotFound):
        book.write(lambda: holding((option, 1), tenant=OTHER_TENANT))
    with pytest.raises(AssertionError, match="never deleted"):
        book.write(lambda: hold.create(OTHER_TENANT, foreign, until, ""))
    book.write(lambda: hold.expire(OTHER_TENANT, made.hold_id))
    assert dump(book.url) == before


def test_a_hold_that_another_writer_ended_moves_nothing(book: Book) -> None:
    (option,) = put_up(book, 10)
    made, _ = (book.write(lambda: holding((option, 3))) for _ in range(2))
    stale = book.read(lambda: hold.get(TENANT, made.hold_id))
    book.write(lambda: hold.release(TENANT, made.hold_id, ""))
    before = dump(book.url)

    with pytest.raises(Overloaded, match="changed by another"):
        book.write(lambda: hold._end(stale, "RELEASED", ""), seconds=0.5)
    assert dump(book.url) == before


@pytest.mark.parametrize("offset", [-1, 0, MONTH_MS + 60_000])
def test_a_hold_ends_in_the_future_but_not_far(book: Book, offset: int) -> None:
    (option,) = put_up(book, 10)

    with pytest.raises(InvalidField, match="expire_time"):
        book.write(lambda: holding((option, 1), seconds=offset / 1000))


def test_lines_on_one_row_are_one_line_of_the_hold(market: Market) -> None:
    (option,) = market.open(10)

    made = market.hold((option, 3), (option.upper(), 4))

    assert [(each.option_code, each.quantity) for each in made.lines] == [(option, 7)]
    assert market.left(option) == (10, 0, 7, 3)
    code, _ = refused(lambda: market.hold((option, 2), (option, 2)))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert market.left(option) == (10, 0, 7, 3)


def test_a_hold_is_made_once_per_key(market: Market) -> None:
    (option,) = market.open(10)
    key, until = str(uuid4()), ids.now_ms() + 60_000

    made = at_once([lambda: market.hold((option, 3), until=until, key=key)] * 20)

    assert len({each.SerializeToString() for each in made}) == 1
    assert market.left(option) == (10, 0, 3, 7)
    code, status = refused(lambda: market.hold((option, 4), until=until, key=key))
    assert (code, detail(status, ErrorInfo).reason) == (grpc.StatusCode.ABORTED, "KEY_REUSED")


@pytest.mark.parametrize(
    ("first", "allowed"),
    [("confirm", {"confirm"}), ("release", {"release"}), ("order", {"confirm"})],
)
def test_a_hold_ends_once(market: Market, first: str, allowed: set[str]) -> None:
    (option,) = market.open(10)
    made = market.hold((option, 4))
    again = {
        "confirm": lambda: market.confirm(made.hold_id),
        "release": lambda: market.release(made.hold_id),
        "extend": lambda: market.extend(made.hold_id, ids.now_ms() + 1000),
        "order": lambda: market.order((option, 1), hold_id=made.hold_id),
    }
    again[first]()
    ended, before = market.get(made.hold_id), market.left(option)

    for name, call in again.items():
        if name in allowed:
            assert call() == ended
        else:
            code, status = refused(call)
            assert detail(status, ErrorInfo).reason == "HOLD_NOT_ACTIVE", name
            assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert (market.get(made.hold_id), market.left(option)) == (ended, before)


@pytest.mark.parametrize(("ordered", "left"), [(2, 8), (5, 5), (9, 1)])
def test_an_order_uses_a_hold_up_whatever_it_takes(market: Market, ordered: int, left: int) -> None:
    option, other = market.open(10, 10)
    made = market.hold((option, 5), (other, 6))

    market.order((option, ordered), hold_id=made.hold_id)

    assert market.left(option) == (10, ordered, 0, left)
    assert market.left(other) == (10, 0, 0, 10), "what the order leaves of a hold is released"
    assert market.get(made.hold_id).state == Hold.CONFIRMED


def test_an_order_that_is_short_leaves_its_hold_alone(market: Market) -> None:
    option, other = market.open(10, 1)
    made = market.hold((option, 8))

    _, status = refused(lambda: market.order((option, 10), (other, 2), hold_id=made.hold_id))

    (short,) = detail(status, PreconditionFailure).violations
    assert (short.subject, short.description) == ("quoteItems[1]", "asked 2, left 1")
    assert market.left(option) == (10, 0, 8, 2)
    assert market.get(made.hold_id) == made


def test_an_unknown_hold_orders_nothing(market: Market) -> None:
    (option,) = market.open(10)

    code, _ = refused(lambda: market.order((option, 1), hold_id="f" * 32))

    assert code is grpc.StatusCode.NOT_FOUND
    assert market.left(option) == (10, 0, 0, 10)


class Ending:
    """10 units, 8 of them in a hold that is about to end; the sweeper comes, or it does not."""

    def __init__(self, served: Served, clock: Clock, *, swept: bool) -> None:
        self.market, self.swept = Market(served.channel), swept
        self._served, self._clock = served, clock
        self.product = str(uuid4())
        (self.option,) = self.market.open(10, product_code=self.product)
        self.until = clock.ms + 1000
        self.hold_id = self.market.hold((self.option, 8), until=self.until).hold_id

    def come(self, ms: int) -> None:
        """Lets it be so many milliseconds after the end."""
        self._clock.ms = self.until + ms
        for tenant, name in self._served.write(lambda: hold.overdue(10)) if self.swept else ():
            self._served.write(lambda t=tenant, n=name: hold.expire(t, n))

    def seen(self) -> set[Left]:
        """Returns the row's counters, as every read tells them."""
        row = self.market.row(self.option)
        asked = inventory_pb2.ListDayTicketInventoryRequest(product_idcode=self.product)
        known = tuple(CHANNEL.items())
        tickets = self.market.inventory.ListDayTicketInventory(asked, metadata=known)
        told = json_format.MessageToDict(tickets)["option_codes"][self.option][0]
        remain = int(told["remain_quantity"])
        ticket = (int(told["max_quantity"]), int(told["ordered_quantity"]), row.held_quantity)
        sums = Counter[str]()
        for each in self.market.ledger(self.option):
            sums[each.counter] += each.delta
        entered = (sums["max"], sums["ordered"], sums["held"])
        again = self.market.put_up(self.option, row.max_quantity)
        return {
            counters(row),
            counters(again),
            (*ticket, remain),
            (*entered, entered[0] - entered[1] - entered[2]),
        }


@pytest.fixture(params=[False, True], ids=["unswept", "swept"])
def ending(
    request: pytest.FixtureRequest, url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ending]:
    """A hold about to end, on a clock that stands."""
    clock = Clock(monkeypatch)
    with serving(url) as served:
        yield Ending(served, clock, swept=request.param)


def test_a_hold_counts_to_the_millisecond_in_every_answer(ending: Ending) -> None:
    ending.come(-1)
    assert ending.seen() == {(10, 0, 8, 2)}
    assert ending.market.get(ending.hold_id).state == Hold.ACTIVE

    ending.come(0)
    assert ending.market.get(ending.hold_id).state == Hold.EXPIRED
    assert ending.seen() == {(10, 0, 0, 10)}


def test_an_answer_does_not_tell_whether_the_sweeper_came(ending: Ending) -> None:
    ending.come(0)
    row, ended = ending.market.row(ending.option), ending.market.get(ending.hold_id)

    ending.swept = True
    ending.come(0)

    assert ending.market.row(ending.option) == row
    assert ending.market.get(ending.hold_id) == ended


@pytest.mark.parametrize("act", ["order", "hold", "adjust", "put_up"])
def test_held_units_are_free_at_the_millisecond_and_not_before(ending: Ending, act: str) -> None:
    market, option = ending.market, ending.option
    call = {
        "order": lambda: market.order((option, 3)),
        "hold": lambda: market.hold((option, 3)),
        "adjust": lambda: market.adjust(option, max_quantity=7),
        "put_up": lambda: market.put_up(option, 7),
    }[act]

    ending.come(-1)
    assert refused(call)[0] is grpc.StatusCode.FAILED_PRECONDITION
    assert ending.seen() == {(10, 0, 8, 2)}
    ending.come(0)
    call()

    assert ending.seen() == {{"order": (10, 3, 0, 7), "hold": (10, 0, 3, 7)}.get(act, (7, 0, 0, 7))}


@pytest.mark.parametrize("act", ["confirm", "order", "extend"])
@pytest.mark.parametrize("ms", [-1, 0])
def test_a_hold_serves_until_the_millisecond_and_no_longer(
    ending: Ending, act: str, ms: int
) -> None:
    market, option = ending.market, ending.option
    call = {
        "confirm": lambda: market.confirm(ending.hold_id),
        "order": lambda: market.order((option, 8), hold_id=ending.hold_id),
        "extend": lambda: market.extend(ending.hold_id, ending.until + 5000),
    }[act]

    ending.come(ms)
    if ms < 0:
        call()
        ending.come(0)
        assert ending.seen() == {(10, 0, 8, 2) if act == "extend" else (10, 8, 0, 2)}
        return
    _, status = refused(call)
    assert detail(status, ErrorInfo).reason == "HOLD_NOT_ACTIVE"
    assert market.release(ending.hold_id).state == Hold.EXPIRED
    assert ending.seen() == {(10, 0, 0, 10)}


def test_a_hold_whose_units_another_took_cannot_come_back(ending: Ending) -> None:
    market = ending.market
    ending.come(0)
    market.order((ending.option, 10))

    for act in (market.confirm, lambda name: market.extend(name, ending.until + 5000)):
        code, _ = refused(lambda a=act: a(ending.hold_id))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert ending.seen() == {(10, 10, 0, 0)}
