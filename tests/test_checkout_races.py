"""Checkouts that others overtake between their look and their writes: what was true then may be
true no longer, on a server that lets units run side by side.
"""

import asyncio
from collections.abc import Callable

import pytest
from conftest import PATIENCE_SECONDS
from inside import TENANT, Book, opened
from mariadb import MariaDB
from samples import ACTOR, line, packed, request, shop

from storage import checkout, lifecycle, order
from storage.checkout_request import Code, Fault, Request


def overtaken(book: Book, step: str, asked: Request, other: Callable[[], object]) -> list[Fault]:
    """Records a checkout, commits another unit after the first one's step, and returns what the
    checkout is refused for.
    """
    real, others = getattr(checkout, step), [other]

    async def race() -> list[Fault]:
        loop = asyncio.get_running_loop()

        def stepped(*values: object) -> object:
            found = real(*values)
            if others:
                began = book.engine.write(others.pop())
                asyncio.run_coroutine_threadsafe(began, loop).result(PATIENCE_SECONDS)
            return found

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(checkout, step, stepped)
            _, faults = await book.engine.write(lambda: checkout.record(TENANT, asked, []))
        return faults

    return book.run(race())


@pytest.mark.parametrize("number", ["1", "2"])
def test_a_checkout_that_another_store_opens_first_is_not_joined(
    mariadb: MariaDB, number: str
) -> None:
    theirs = request(packed(number), store="other")
    with mariadb.lend() as url, opened(url) as book:
        book.write(lambda: (shop("s"), shop("other")))
        faults = overtaken(
            book, "judge", request(packed("1")), lambda: checkout.record(TENANT, theirs, [])
        )

        row, items = book.read(lambda: checkout.get(TENANT, "c"))
        assert (row.store, [item.item_number for item, _, _ in items]) == ("other", [number])
        assert book.read(lambda: order.find(TENANT, "s", "o")) is None
    assert faults == [Fault(Code.CHECKOUT_OF_OTHER_STORE, {"externalNumber": "c"})]


@pytest.mark.parametrize("step", ["judge", "_add_missing_lines"])
def test_an_order_that_is_cancelled_first_is_not_packed(mariadb: MariaDB, step: str) -> None:
    with mariadb.lend() as url, opened(url) as book:

        def pack() -> int:
            shop("s")
            checkout.record(TENANT, request(packed("1")), [])
            found = order.find(TENANT, "s", "o")
            for position in (2, 3, 4):  # the fourth is never packed, so that the status stays
                order.add_item(found, line(order_item_id=str(position)), position)
            checkout.record(TENANT, request(packed("2"), external="d"), [])
            return int(found.order_id)

        order_id = book.write(pack)
        before = book.read(lambda: order.items(TENANT, order_id))
        faults = overtaken(
            book,
            step,
            request(packed("3"), external="e"),
            lambda: lifecycle.cancel(TENANT, order_id, "", "", ACTOR),
        )

        assert [row.wave_id for row in book.read(lambda: order.items(TENANT, order_id))] == [
            row.wave_id for row in before
        ]
    assert faults == [Fault(Code.ORDER_CANCELLED, {"store": "s", "orderNumber": "o"})]
