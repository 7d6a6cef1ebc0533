"""Random stock, holds and orders on a real engine agree with the reference model at every step."""

import time
from collections import Counter
from contextlib import ExitStack
from typing import Any
from uuid import UUID

import pytest
from conftest import Lend
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from inside import TENANT, Book, opened
from reference import Held, Reference, Refused, Units
from samples import ACTOR, line, new_order, product

from storage import hold, inventory, lifecycle, order
from storage.errors import BelowCommitted, HoldNotActive, OutOfStock, Refusal
from storage.inventory import Setting
from storage.movement import Cause, Wanted
from storage.tables import TABLES, Event, Hold, Inventory, InventoryLedger

MANY_DAYS, ONE_DAY = str(UUID(int=1)), str(UUID(int=2))
DAYS = ("2031-05-01", "2031-05-02")
ROWS = {"first": (MANY_DAYS, DAYS[0]), "second": (MANY_DAYS, DAYS[1]), "only": (ONE_DAY, DAYS[0])}
LINES: list[tuple[str | None, dict[str, Any]]] = [
    ("first", {"option_code": MANY_DAYS.upper(), "date": DAYS[0]}),
    ("second", {"option_code": MANY_DAYS, "date": DAYS[1]}),
    ("only", {"option_code": ONE_DAY, "date": DAYS[0]}),
    ("only", {"option_code": ONE_DAY}),
    ("only", {"sku": "S"}),
    ("only", {"price_option_id": 7}),
    ("only", {"product_id": 9}),
    (None, {"option_code": MANY_DAYS}),
    (None, {"sku": "none"}),
]
"""Ways to name a row, and two that name none."""
MAX = 8
quantities = st.integers(1, 5)
moments = st.sampled_from((1, 2, 5))
rows = st.sampled_from(sorted(ROWS))


class Market(RuleBasedStateMachine):
    """The order book and the reference, side by side under one clock."""

    lend: Lend
    """Lends empty databases."""
    holds: Bundle[str] = Bundle("holds")
    orders: Bundle[int] = Bundle("orders")

    def __init__(self) -> None:
        super().__init__()
        self.left = ExitStack()
        self.model = Reference(dict.fromkeys(ROWS, MAX), time.time_ns() // 1_000_000)
        clock = self.left.enter_context(pytest.MonkeyPatch.context())
        clock.setattr(time, "time_ns", lambda: self.model.now * 1_000_000)
        url = self.left.enter_context(self.lend())
        self.book: Book = self.left.enter_context(opened(url))
        self.told: Counter[str] = Counter()

    def teardown(self) -> None:
        """Closes the order book, which checks every invariant once more."""
        self.left.close()

    @initialize()
    def open(self) -> None:
        """Registers two products and puts three rows up for sale."""

        def fill() -> list[Inventory]:
            product(MANY_DAYS)
            product(ONE_DAY, product_id=9, sku="S", price_option_id=7)
            every = [Setting("", *named, MAX, "") for named in ROWS.values()]
            return inventory.batch_set(TENANT, every, ACTOR)

        opened_rows = self.book.write(fill)
        self.ids = {name: row.inventory_id for name, row in zip(ROWS, opened_rows, strict=True)}
        self.told["inventory.set"] += 3

    @rule(
        target=holds,
        wanted=st.lists(st.tuples(rows, quantities), min_size=1, max_size=3),
        ms=moments,
    )
    def hold_stock(self, wanted: list[tuple[str, int]], ms: int) -> Any:
        """Holds units of some rows, the same row more than once too."""
        lines = [Wanted(f"lines[{n}]", self.ids[row], q) for n, (row, q) in enumerate(wanted)]
        units, until = summed(wanted), self.model.now + ms
        made = self.agree(
            lambda: self.model.need(units),
            lambda: hold.create(TENANT, lines, until, ACTOR),
            OutOfStock,
        )
        if made is None:
            return multiple()
        self.model.holds[made.hold_id] = Held(units, until)
        self.told["hold.created"] += 1
        return made.hold_id

    @rule(name=holds)
    def confirm(self, name: str) -> None:
        """Turns a hold into ordered units."""
        if self.model.state(name) == "CONFIRMED":
            assert self.book.write(lambda: hold.confirm(TENANT, name, ACTOR)).state == "CONFIRMED"
        elif self.end(name, "CONFIRMED"):
            self.model.sold.update(self.model.holds[name].units)

    @rule(name=holds)
    def release(self, name: str) -> None:
        """Gives a hold back."""
        if self.model.state(name) in ("RELEASED", "EXPIRED"):
            state = self.book.write(lambda: hold.release(TENANT, name, ACTOR)).state
            assert state == self.model.state(name)
        else:
            self.end(name, "RELEASED")

    @rule(name=holds, ms=moments)
    def extend(self, name: str, ms: int) -> None:
        """Moves the end of a hold, forth or back."""
        until = self.model.now + ms
        done = self.agree(
            lambda: self.model.need_active(name),
            lambda: hold.extend(TENANT, name, until),
            HoldNotActive,
        )
        if done is not None and self.model.holds[name].until != until:
            self.model.holds[name].until = until
            self.told["hold.extended"] += 1

    @rule(target=orders, lines=st.lists(st.tuples(st.sampled_from(LINES), quantities)))
    def order_without_hold(self, lines: list[tuple[tuple[str | None, Any], int]]) -> Any:
        """Orders lines named in any way."""
        return self.create(lines, "")

    @rule(
        target=orders, name=holds, lines=st.lists(st.tuples(st.sampled_from(LINES[:5]), quantities))
    )
    def order_with_hold(self, name: str, lines: list[tuple[tuple[str | None, Any], int]]) -> Any:
        """Orders lines that use a hold up: less, as much or more than it holds."""
        return self.create(lines, name)

    @rule(number=consumes(orders))
    def cancel(self, number: int) -> None:
        """Cancels an order twice; its units come back once."""
        for _ in range(2):
            self.book.write(lambda: lifecycle.cancel(TENANT, number, "", "", ACTOR))
        del self.model.orders[number]
        self.told["order.cancelled"] += 1

    @rule(row=rows, top=st.integers(0, 2 * MAX), whole=st.booleans())
    def move_maximum(self, row: str, top: int, whole: bool) -> None:
        """Moves a maximum, by the one door or the other."""
        setting = Setting("", *ROWS[row], top, "")

        def adjust() -> object:
            found = inventory.get(TENANT, "date", *ROWS[row])
            return inventory.adjust(TENANT, found, top, None, Cause(ACTOR, "adjust"))

        def judge() -> None:
            if top < sum(self.model.counters(row)[1:]):
                raise Refused

        unit = (lambda: inventory.batch_set(TENANT, [setting], ACTOR)) if whole else adjust
        if self.agree(judge, unit, BelowCommitted) is not None:
            self.told["inventory.set"] += self.model.top[row] != top
            self.model.top[row] = top

    @rule(ms=moments)
    def wait(self, ms: int) -> None:
        """Lets time pass, and nothing else."""
        self.model.now += ms

    @rule(name=holds, early=st.sampled_from((0, 1)))
    def wait_for_the_end(self, name: str, early: int) -> None:
        """Lets time pass until a hold ends, or until the millisecond before."""
        self.model.now = max(self.model.now, self.model.holds[name].until - early)

    @rule()
    def sweep(self) -> None:
        """Tidies up, as the worker does now and then."""
        for tenant, name in self.book.read(lambda: hold.overdue(100)):
            self.book.write(lambda t=tenant, n=name: hold.expire(t, n))

    @invariant()
    def counters_agree(self) -> None:
        """What is answered is what the model says; what is stored is what the ledger says."""
        for name, inventory_id in getattr(self, "ids", {}).items():
            row = self.book.read(lambda i=inventory_id: inventory.by_ids(TENANT, [i])[i])
            stored = (row.max_quantity, row.ordered, row.held)
            assert self.book.read(lambda i=inventory_id: ledger(i)) == stored
            (now,) = self.book.read(lambda r=row: inventory.as_of_now(TENANT, [r]))
            answered = (now.max_quantity, now.ordered, now.held)
            assert answered == self.model.counters(name)
            assert inventory.remain(now) >= 0 <= row.max_quantity - sum(stored[1:])

    @invariant()
    def holds_agree(self) -> None:
        """Every hold is as far as the model says."""
        for name in self.model.holds:
            found = self.book.read(lambda n=name: hold.get(TENANT, n))
            assert found.state == self.model.state(name)

    @invariant()
    def every_change_has_one_event(self) -> None:
        """Events are as many as changes, kind by kind."""
        expired = self.book.read(lambda: Hold.select().where(mine(Hold, state="EXPIRED")).count())
        told = Counter(
            row.kind for row in self.book.read(lambda: list(Event.select().where(mine(Event))))
        )
        for once in ("product.created", "store.created"):
            told.pop(once, None)
        assert told == self.told + Counter({"hold.expired": expired})

    def create(self, lines: list[tuple[tuple[str | None, Any], int]], name: str) -> Any:
        """Orders lines; whatever the model refuses changes nothing."""
        units = summed([(row, quantity) for (row, _), quantity in lines if row])
        items = [line(quantity, **named) for (_, named), quantity in lines]

        def judge() -> None:
            self.model.need(units, self.model.need_active(name).units if name else {})

        made = self.agree(
            judge, lambda: order.create(new_order(), items, name), OutOfStock, HoldNotActive
        )
        if made is None:
            return multiple()
        if name:
            self.model.holds[name].state = "CONFIRMED"
            self.told["hold.confirmed"] += 1
        self.model.orders[made[0].order_id] = units
        self.told["order.created"] += 1
        return made[0].order_id

    def end(self, name: str, state: str) -> bool:
        """Ends a hold, if it is active; tells whether it did."""
        unit = hold.confirm if state == "CONFIRMED" else hold.release
        done = self.agree(
            lambda: self.model.need_active(name), lambda: unit(TENANT, name, ACTOR), HoldNotActive
        )
        if done is not None:
            self.model.holds[name].state = state
            self.told[f"hold.{state.lower()}"] += 1
        return done is not None

    def agree(self, judge: Any, unit: Any, *refusals: type[Refusal]) -> Any:
        """Runs a unit that must be refused, and change nothing, just when the model refuses."""
        try:
            judge()
        except Refused:
            before = self.book.read(everything)
            with pytest.raises(refusals):
                self.book.write(unit)
            assert self.book.read(everything) == before
            return None
        return self.book.write(unit)


def summed(lines: list[tuple[str, int]]) -> Units:
    """Returns the units of every row that some lines name."""
    units: Counter[str] = Counter()
    for row, quantity in lines:
        units[row] += quantity
    return units


def mine(table: Any, **fields: object) -> Any:
    """Returns the condition for the tenant's rows that have these values."""
    found = table.tenant == TENANT
    for name, value in fields.items():
        found &= getattr(table, name) == value
    return found


def everything() -> dict[str, list[str]]:
    """Returns every row of the tenant, by table."""
    return {
        table.__name__: sorted(map(repr, table.select().where(table.tenant == TENANT).tuples()))
        for table in TABLES
    }


def ledger(inventory_id: int) -> tuple[int, ...]:
    """Returns (max, ordered, held) as the sums of a row's movements."""
    entries = list(InventoryLedger.select().where(mine(InventoryLedger, inventory_id=inventory_id)))
    return tuple(
        sum(entry.delta for entry in entries if entry.counter == counter)
        for counter in ("max", "ordered", "held")
    )


@pytest.mark.timeout(240)
def test_whatever_happens_the_book_agrees_with_the_reference(backend: str, lend: Lend) -> None:
    class Here(Market):
        """The market on this backend."""

    Here.lend = staticmethod(lend)  # type: ignore[assignment]

    # A step on a server is four times as slow.
    examples = settings(max_examples=30 if backend == "sqlite" else 10, stateful_step_count=20)
    run_state_machine_as_test(Here, settings=examples)  # type: ignore[no-untyped-call]
