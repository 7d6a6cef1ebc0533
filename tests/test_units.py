"""The engine on both databases: units under a crowd, one of them right and no two alike."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from databases import rows

from storage import checkout, draft_item, inventory, order, store, tenant
from storage.checkout_request import Item, Request
from storage.database import Options
from storage.engine import Engine
from storage.errors import ClientNotUsable, OrderExists, OutOfStock, Overloaded
from storage.once import Claim, once
from storage.tables import ApiClient, DraftItem, Order, OrderItem, Product, ProductOption
from storage.unit import DEADLINE

CALLERS = 100
DAY = "2031-05-01"
Use = Callable[[Engine], Awaitable[None]]


def using(url: str, use: Use, **options: Any) -> None:
    """Runs a coroutine over an engine of its own."""

    async def run() -> None:
        engine = Engine(url, options=Options(**options))
        try:
            await use(engine)
        finally:
            await engine.close()

    asyncio.run(run())


def claim(key: str) -> Claim:
    """Returns the claim of a key."""
    return Claim(1, "client", "Rpc", key, b"meaning")


def submit(number: str, store_code: str = "s") -> bytes:
    """Adds an order of that number and returns its id."""
    return str(order.submit(1, store_code, number, "u", 5).order_id).encode()


def stocked(units: int) -> tuple[str, int]:
    """Registers an option with so many units of a day; returns its code and units."""
    option = str(uuid4())
    product = Product(tenant=1, product_code="", product_id=0, display_name="")
    options = [ProductOption(tenant=1, option_code=option, option_id=0)]
    store.create_product(product, options)
    inventory.batch_set(1, [inventory.Setting("row", option, DAY, units, "")], "test")
    return option, units


def bought(option: str, quantity: int = 1) -> Order:
    """Creates an order of one line."""
    new = Order(tenant=1, store="s", user_id=7)
    line = OrderItem(quantity=quantity, option_code=option, date=DAY)
    return order.create(new, [line])[0]


async def outcomes(writes: list[Awaitable[Any]]) -> Counter[str]:
    """Waits for all writes and counts their ends: `done`, or the name of what they raised."""
    ends = await asyncio.gather(*writes, return_exceptions=True)
    return Counter(type(end).__name__ if isinstance(end, Exception) else "done" for end in ends)


def test_a_hundred_writes_with_one_key_do_the_work_once(url: str) -> None:
    async def use(engine: Engine) -> None:
        writes = [engine.write(lambda: once(claim("k"), lambda: submit("1"))) for _ in range(100)]
        answers = await asyncio.gather(*writes)

        assert len({answer for answer, _ in answers}) == 1
        assert Counter(replayed for _, replayed in answers) == {True: 99, False: 1}

    using(url, use)
    assert rows(url, "SELECT count(*) FROM orders") == [(1,)]


def test_the_last_unit_under_one_key_is_sold_to_every_twin_alike(url: str) -> None:
    async def use(engine: Engine) -> None:
        option, _ = await engine.write(lambda: stocked(1))

        def buy() -> bytes:
            return str(bought(option).order_id).encode()

        ends = await outcomes([engine.write(lambda: once(claim("k"), buy)) for _ in range(CALLERS)])

        assert ends == {"done": CALLERS}

    using(url, use)


def test_a_hot_row_of_600_units_sells_exactly_600(url: str) -> None:
    async def use(engine: Engine) -> None:
        option, units = await engine.write(lambda: stocked(600))

        async def buy_until_sold_out() -> int:
            sold = 0
            while True:
                try:
                    await engine.write(lambda: bought(option))
                    sold += 1
                except OutOfStock:
                    return sold
                except Overloaded:
                    continue

        sold = await asyncio.gather(*(buy_until_sold_out() for _ in range(32)))

        assert sum(sold) == units

    using(url, use)
    assert rows(url, "SELECT ordered, max_quantity FROM inventory") == [(600, 600)]
    assert_the_book_adds_up(url)


def assert_the_book_adds_up(url: str) -> None:
    """Asserts that events have no gap and that each ledger row follows the one before."""
    numbers = [seq for (seq,) in rows(url, "SELECT seq FROM events ORDER BY seq")]
    entries = rows(
        url, "SELECT `before`, `after` FROM inventory_ledger WHERE counter = 'ordered' ORDER BY 1"
    )

    assert numbers == list(range(1, len(numbers) + 1))
    assert [before for before, _ in entries] == [0, *(after for _, after in entries)][:-1]


def test_the_maximum_may_move_while_units_are_sold(url: str) -> None:
    async def use(engine: Engine) -> None:
        option, _ = await engine.write(lambda: stocked(50))
        moves = [
            engine.write(
                lambda n=n: inventory.batch_set(
                    1, [inventory.Setting("r", option, DAY, n, "")], "test"
                )
            )
            for n in range(60, 80)
        ]
        await asyncio.gather(*moves, *(engine.write(lambda: bought(option)) for _ in range(50)))

    using(url, use)
    [(top,)] = rows(url, "SELECT max_quantity FROM inventory")
    assert rows(url, "SELECT sum(delta) FROM inventory_ledger WHERE counter = 'max'") == [(top,)]


def test_a_number_has_one_winner_without_a_key(url: str) -> None:
    async def use(engine: Engine) -> None:
        ends = await outcomes([engine.write(lambda: submit("1")) for _ in range(CALLERS)])

        assert ends == {"done": 1, OrderExists.__name__: CALLERS - 1}

    using(url, use)


def test_new_stores_of_one_name_are_one_store(url: str) -> None:
    async def use(engine: Engine) -> None:
        await asyncio.gather(*(engine.write(lambda n=n: submit(str(n), "new")) for n in range(50)))

    using(url, use)
    assert rows(url, "SELECT count(*) FROM stores") == [(1,)]
    assert_the_book_adds_up(url)


def test_two_checkouts_of_one_order_see_each_other(url: str) -> None:
    def pack(number: str, item: str) -> None:
        asked = Item(item, item, "depot", 1, "comum")
        checkout.record(1, Request("s", number, f"{number}-{item}", [asked]), [])

    async def use(engine: Engine) -> None:
        await engine.write(lambda: store.create(1, "s", ""))
        await engine.write(lambda: store.create_depot(1, "s", "depot"))
        for number in map(str, range(10)):
            await asyncio.gather(
                *(engine.write(lambda n=number, i=i: pack(n, str(i))) for i in range(8))
            )

    using(url, use)
    assert rows(url, "SELECT DISTINCT status FROM orders") == [("PACKED",)]
    assert rows(url, "SELECT count(*) FROM order_items") == [(80,)]
    assert rows(
        url,
        "SELECT count(DISTINCT order_id, position) FROM order_items".replace(
            "order_id, position", "order_id * 100 + position"
        ),
    ) == [(80,)]
    assert rows(url, "SELECT count(*) FROM waves") == rows(
        url, "SELECT count(DISTINCT wave_id) FROM order_items"
    )


def draft_row(draft: str, item: str) -> DraftItem:
    """Returns an item of a draft to submit."""
    blank = {name: "" for name in ("entity_number", "product_number", "sku", "product_name")}
    times = {name: "" for name in ("deleted_at", "created_at", "updated_at")}
    return DraftItem(
        tenant=1,
        item=item,
        draft=draft,
        quantity=1,
        is_active=True,
        is_deleted=False,
        idempotency_key=item,
        **blank,
        **times,
    )


@pytest.mark.parametrize("how", [draft_item.submit, draft_item.promise])
def test_an_item_is_in_its_drafts_order_or_is_refused(
    url: str, how: Callable[[Claim, DraftItem], str]
) -> None:
    async def use(engine: Engine) -> None:
        async def add(draft: str, item: str) -> None:
            name = await engine.write(lambda: how(claim(item), draft_row(draft, item)))
            await engine.write(lambda: draft_item.apply(1, name))

        for draft in map(str, range(12)):
            await add(draft, f"{draft}-first")

            def take(draft: str = draft) -> None:
                order.create(Order(tenant=1, store="s", user_id=1, draft=draft), [])

            late = f"{draft}-late"
            await asyncio.gather(add(draft, late), engine.write(take), add(draft, late))

    using(url, use)
    applied = rows(url, "SELECT count(*) FROM draft_items")
    assert rows(url, "SELECT count(*) FROM order_items") == applied


def test_a_crowd_opens_a_draft_once(url: str) -> None:
    def submit_item(number: int) -> str:
        item = draft_row(f"draft-{number % 4}", f"item-{number}")
        return draft_item.submit(claim(item.item), item)

    async def use(engine: Engine) -> None:
        units = [engine.write(lambda n=n: submit_item(n)) for n in range(CALLERS)]
        assert await outcomes(units) == {"done": CALLERS}

    using(url, use)
    assert rows(url, "SELECT count(*) FROM drafts") == [(4,)]
    assert rows(url, "SELECT count(*) FROM operations WHERE state = 'SUCCEEDED'") == [(CALLERS,)]


def test_a_customers_times_differ_under_a_crowd(url: str) -> None:
    async def use(engine: Engine) -> None:
        ends = await outcomes([engine.write(lambda n=n: submit(str(n))) for n in range(CALLERS)])
        assert ends == {"done": CALLERS}

    using(url, use)
    assert rows(url, "SELECT count(DISTINCT customer_ms) FROM orders") == [(CALLERS,)]


def test_a_crowd_that_rotates_a_key_adds_one(url: str) -> None:
    def one_more() -> str:
        return tenant.rotate_key(1, "client")[1]

    async def use(engine: Engine) -> None:
        await engine.write(lambda: tenant.create("demo", "1001"))
        await engine.write(lambda: tenant.create_client(ApiClient(tenant=1, client_id="client")))
        for _ in range(10):
            ends = await outcomes([engine.write(one_more) for _ in range(16)])
            assert ends == {"done": 1, ClientNotUsable.__name__: 15}
            client = await engine.read(lambda: tenant.get_client(1, "client"))
            (old, _) = await engine.read(lambda c=client: tenant.valid_keys(c))
            await engine.write(lambda k=old.key_id: tenant.revoke_key(1, "client", k))

    using(url, use)
    assert rows(url, "SELECT count(*) FROM api_keys") == [(11,)]
    assert_the_book_adds_up(url)


def test_identities_are_exact_to_the_last_space(url: str) -> None:
    names = ["a", "A", "a ", "á", "a\u0301", "\uff41", "주문", "🛒"]

    async def use(engine: Engine) -> None:
        for name in names:
            await engine.write(lambda name=name: submit(name, name))
        for name in names:
            found = await engine.read(lambda name=name: order.find(1, name, name))
            assert found is not None
            assert (found.store, found.order_number) == (name, name)

    using(url, use)
    assert rows(url, "SELECT count(*) FROM stores") == [(len(names),)]


def test_a_megabyte_of_request_is_kept_whole(url: str) -> None:
    text = "é" * 500_000

    async def use(engine: Engine) -> None:
        protocol = await engine.write(lambda: checkout.note(1, text, []))
        kept, _ = await engine.read(lambda: checkout.get_protocol(1, protocol))
        assert kept.request == text
        answer = text.encode()
        await engine.write(lambda: once(claim("large"), lambda: answer))
        again = await engine.write(lambda: once(claim("large"), lambda: b"other"))
        assert again == (answer, True)

    using(url, use)


def test_a_write_whose_callers_time_is_over_is_not_begun(url: str) -> None:
    async def late(engine: Engine) -> None:
        DEADLINE.set(time.monotonic() - 1)
        await engine.write(lambda: submit("late"))

    async def use(engine: Engine) -> None:
        with pytest.raises(Overloaded):
            await asyncio.create_task(late(engine))

    using(url, use)
    assert rows(url, "SELECT count(*) FROM orders") == [(0,)]


def test_a_full_queue_refuses_before_it_begins(url: str) -> None:
    async def run() -> None:
        engine = Engine(url, queue_max=8, options=Options(connections=1))
        ends = await outcomes([engine.write(lambda n=n: submit(str(n))) for n in range(CALLERS)])
        await engine.close()
        assert ends["done"] >= 8
        assert ends["done"] + ends["Overloaded"] == CALLERS

    asyncio.run(run())
