"""How SQLite, which has no statistics here, goes about our queries: none that looks for a few rows
may read all of a tenant's.
"""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest
from inside import TENANT, on_this_thread
from samples import ACTOR, DAY, claim, draft_item, fill, line, new_order

from storage import (
    checkout,
    draft,
    hold,
    ids,
    inventory,
    lifecycle,
    migrate,
    order,
    store,
    tenant,
)
from storage import draft_item as drafts
from storage.movement import Wanted
from storage.row import DB
from storage.tables import ApiClient, Inventory, Product, ProductOption
from storage.unit import Job, perform

MANY = 40
"""More than SQLite believes that a tenant has."""
CODES = [str(UUID(int=number)) for number in range(100, 100 + MANY)]
LOOKS = re.compile('(?!.*ORDER BY "t1"."tenant"$)(SELECT|UPDATE|DELETE)')
"""What looks for rows; who makes a tenant reads all of them, on purpose."""
WHOLE = re.compile(r"\bSCAN (?!CONSTANT)|\(tenant=\?\)")
"""The step of a plan that goes through a table, or through a tenant's part of it."""


def one_unit(work: Callable[[], object]) -> None:
    """Runs a unit on this thread, but for its events. Raises what it raises."""
    perform(Job(work, Future()))  # type: ignore[arg-type] # of another kind: nobody waits


def product_of_many() -> None:
    """Registers a product of many options and puts all of them up for sale; a unit."""
    options = [
        ProductOption(
            tenant=TENANT, option_code=code, option_id=7000 + n, sku=f"sku-{n}", price_option_id=n
        )
        for n, code in enumerate(CODES)
    ]
    asked = Product(tenant=TENANT, product_code="", product_id=7000, display_name="many")
    store.create_product(asked, options)
    settings = [inventory.Setting(f"rows[{n}]", c, DAY, 5, "") for n, c in enumerate(CODES)]
    inventory.batch_set(TENANT, settings, ACTOR)


def sell(rows: list[int]) -> None:
    """Orders, holds and cancels many rows at once; a unit."""
    wanted = [Wanted(f"lines[{n}]", row, 1) for n, row in enumerate(rows)]
    held = hold.create(TENANT, wanted, ids.now_ms() + 60_000, ACTOR)
    lines = [line(1, option_code=code, date=DAY) for code in CODES]
    lines += [line(1, sku="sku-1"), line(1, price_option_id=2), line(1, product_id=7000)]
    made, _ = order.create(new_order(), lines)
    hold.release(TENANT, held.hold_id, ACTOR)
    lifecycle.cancel(TENANT, made.order_id, "", "", ACTOR)


def keep_promises(_: list[int]) -> None:
    """Promises many items and orders their draft; a unit."""
    for number in range(MANY):
        item = draft_item(f"item-{number}", "many")
        drafts.promise(claim(item.item), item)
    draft.update(TENANT, "many", {"display_name": "many"}, "")
    order.create(new_order(draft="many"), [])


def look_up(rows: list[int]) -> None:
    """Reads what callers ask for; a query."""
    many = inventory.product(TENANT, "7000")[0]
    inventory.by_ids(TENANT, rows)
    inventory.page(TENANT, many, 1, MANY)
    inventory.ledger_page(TENANT, inventory.get(TENANT, "", CODES[0], DAY).inventory_code, None, 9)
    store.get_product(TENANT, many.product_code)
    lifecycle.batch_get(TENANT, [order.submit(TENANT, "s", f"{n}", "u", 1).order_id for n in rows])
    order.recent(TENANT, "s", "u")
    drafts.list_page(TENANT, "first", None, MANY)
    checkout.list_page(TENANT, "s", "", MANY)
    tenant.valid_keys(ApiClient(tenant=TENANT, client_id="client"))


PLAYS = {
    "fill": lambda _: fill(),
    "sell": sell,
    "keep_promises": keep_promises,
    "look_up": look_up,
}


@pytest.fixture
def book(tmp_path: Path) -> Iterator[list[int]]:
    """An order book with a product of many options in stock: the ids of their rows."""
    with on_this_thread(f"sqlite:///{tmp_path / 'till.db'}"):
        migrate.up()
        one_unit(product_of_many)
        one_unit(lambda: drafts.submit(claim("first"), draft_item("first", "first")))
        yield [row.inventory_id for row in Inventory.select().where(Inventory.tenant == TENANT)]


@pytest.mark.parametrize("play", PLAYS)
def test_who_looks_for_a_few_rows_does_not_read_them_all(book: list[int], play: str) -> None:
    statements: list[str] = []
    DB.connection().set_trace_callback(statements.append)
    one_unit(partial(PLAYS[play], book))
    DB.connection().set_trace_callback(None)

    plans = {text: plan(text) for text in statements if LOOKS.match(text)}
    assert len(plans) > 10
    assert not {text: found for text, found in plans.items() if WHOLE.search(found)}


def plan(statement: str) -> str:
    """Returns how SQLite goes about a statement."""
    return "; ".join(step[3] for step in DB.execute_sql(f"EXPLAIN QUERY PLAN {statement}"))
