"""The invariants find what they are for: each is broken once by hand."""

import sqlite3
from contextlib import closing
from pathlib import Path
from uuid import UUID

import pytest
from inside import TENANT, opened
from invariants import BROKEN_BY, assert_invariants
from samples import (
    DAY,
    claim,
    draft_item,
    held,
    line,
    order_lines,
    packed,
    product,
    request,
    shop,
    stock,
)

from storage import checkout
from storage import draft_item as drafts

OPTION = str(UUID(int=1))
WAVE = "(SELECT min(wave_id) FROM waves)"
HARM = {
    "a counter is the sum of its ledger": "UPDATE inventory SET ordered = ordered + 1",
    "a ledger goes from zero to its counter without a jump": """
        UPDATE inventory_ledger SET before = before + 1, after = after + 1""",
    "a ledger is about stock": "UPDATE inventory_ledger SET inventory_id = inventory_id + 1",
    "units are taken for orders and holds that exist": """
        UPDATE inventory_ledger SET source = 'orders/1'""",
    "what is held are the lines of active holds": "UPDATE hold_lines SET quantity = quantity + 1",
    "the units of an order's lines are in the ledger until it is cancelled": """
        UPDATE order_items SET quantity = quantity + 1""",
    "a hold's lines are as active, and end, as the hold": "UPDATE holds SET state = 'RELEASED'",
    "an order's status is the last it moved to": "UPDATE orders SET status = 'CONFIRMED'",
    "an order is worth its lines": "UPDATE orders SET grand_total = grand_total + 1",
    "a line belongs to an order": "UPDATE order_items SET order_id = order_id + 1",
    "lines are counted from one, without gaps": "UPDATE order_items SET position = position + 1",
    "a picked item is in a wave of its store and type": "UPDATE waves SET type = 'expresso'",
    "a wave holds something": "UPDATE order_items SET wave_id = NULL",
    "one storing per order and wave": "DELETE FROM order_storings",
    "what is packed was picked": "UPDATE order_items SET wave_id = NULL",
    "a checkout packs orders of its own store": "UPDATE checkouts SET store = 'other'",
    "events have no gaps": "DELETE FROM events WHERE seq = 2",
    "an ordered draft and its order know each other": "UPDATE drafts SET order_id = NULL",
    "an item is in a draft": "UPDATE draft_items SET draft = 'other'",
    "nothing is seen RUNNING": "UPDATE operations SET state = 'RUNNING'",
    "what SUCCEEDED is there": "DELETE FROM draft_items",
    "what FAILED, and nothing else, says why": "UPDATE operations SET state = 'FAILED'",
    "one order.created for each": "UPDATE events SET kind = 'x' WHERE kind = 'order.created'",
}
KEPT_BY_THE_TABLES = {
    "no unit is sold twice": "UPDATE inventory SET ordered = max_quantity + 1",
    "one order per store and number": "UPDATE orders SET store = 's', order_number = '1'",
}


def fill() -> None:
    """Writes a little of everything; a unit."""
    shop()
    product(OPTION)
    stock(OPTION, 5)
    drafts.submit(claim(), draft_item())
    order_lines(line(2, option_code=OPTION, date=DAY), draft="draft")
    held((OPTION, 1))
    checkout.record(TENANT, request(packed("1")), [])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An order book that is right."""
    with opened(tmp_path / "till.db") as book:
        book.write(fill)
    return tmp_path / "till.db"


def harm(path: Path, statement: str) -> None:
    """Does to the file what no code of ours does."""
    with closing(sqlite3.connect(path)) as database, database:
        assert database.execute(statement).rowcount > 0


@pytest.mark.parametrize("rule", HARM)
def test_harm_is_found(path: Path, rule: str) -> None:
    harm(path, HARM[rule])

    with pytest.raises(AssertionError, match=rule):
        assert_invariants(path, keyed=False)


@pytest.mark.parametrize("rule", KEPT_BY_THE_TABLES)
def test_some_harm_is_refused_by_the_tables_themselves(path: Path, rule: str) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        harm(path, KEPT_BY_THE_TABLES[rule])


def test_an_order_without_a_key_is_found(path: Path) -> None:
    with pytest.raises(AssertionError, match="one order per key"):
        assert_invariants(path)


def test_every_rule_is_tried() -> None:
    untried = set(BROKEN_BY) - {*HARM, *KEPT_BY_THE_TABLES}

    assert untried == {"a draft is ordered at most once"}, "which takes two orders"
