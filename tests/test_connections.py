"""Connections to a database server: cut in a commit, killed, kept waiting. SQLite has none."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from uuid import uuid4

import pytest
import test_units
from conftest import PATIENCE_SECONDS
from databases import connect, rows
from inside import on_this_thread
from invariants import assert_invariants
from mariadb import MariaDB
from proxy import Cut, Proxy, proxied
from test_units import assert_the_book_adds_up, claim, submit, using

from storage import event, mysql, order
from storage.engine import Engine
from storage.errors import OrderExists, OutcomeUnknown, Overloaded
from storage.mysql import PACKET_STATEMENTS
from storage.once import once
from storage.pool import RETRY_SECONDS
from storage.row import DB


@contextmanager
def through_a_proxy(mariadb: MariaDB, *, narrow: bool) -> Iterator[tuple[str, str, Proxy]]:
    """Gives the URL of an empty database, the same through a proxy, and the proxy."""
    with mariadb.lend() as direct, proxied(mariadb.port, narrow=narrow) as proxy:
        yield direct, direct.replace(f":{mariadb.port}/", f":{proxy.port}/"), proxy


CROWD = 31
NARROW = pytest.mark.parametrize("narrow", [False, True], ids=["together", "one_by_one"])
"""Whether the server takes the statements of a commit together."""


@NARROW
def test_whether_the_server_takes_several_statements_is_found_out(
    mariadb: MariaDB, narrow: bool
) -> None:
    with through_a_proxy(mariadb, narrow=narrow) as (_, url, _), on_this_thread(url):
        assert DB.obj.takes_several is not narrow


@pytest.mark.parametrize(
    "play",
    [
        test_units.test_a_hundred_writes_with_one_key_do_the_work_once,
        test_units.test_the_last_unit_under_one_key_is_sold_to_every_twin_alike,
        test_units.test_a_hot_row_of_600_units_sells_exactly_600,
        test_units.test_two_checkouts_of_one_order_see_each_other,
        test_units.test_a_crowd_that_rotates_a_key_adds_one,
    ],
    ids=lambda play: play.__name__.removeprefix("test_"),
)
def test_where_statements_go_one_by_one(mariadb: MariaDB, play: Callable[[str], None]) -> None:
    with through_a_proxy(mariadb, narrow=True) as (direct, url, _):
        play(url)
        assert_invariants(direct, keyed=False)


@NARROW
@pytest.mark.parametrize(
    "cuts",
    [("before",), ("after",), ("denied",), ("before", "after"), ("after", "after")],
    ids="-".join,
)
def test_a_keyed_commit_of_unknown_end_is_done_once(
    mariadb: MariaDB, cuts: tuple[Cut, ...], narrow: bool
) -> None:
    async def use(engine: Engine) -> None:
        await engine.write(lambda: submit("warm"))
        proxy.cut(*cuts)
        answer, _ = await engine.write(lambda: once(claim("k"), lambda: submit("1")))
        again, replayed = await engine.write(lambda: once(claim("k"), lambda: submit("1")))
        assert (again, replayed) == (answer, True)

    with through_a_proxy(mariadb, narrow=narrow) as (direct, url, proxy):
        using(url, use)
        assert rows(direct, "SELECT count(*) FROM orders") == [(2,)]
        assert_the_book_adds_up(direct)


@NARROW
@pytest.mark.parametrize(("cut", "kept"), [("before", 1), ("after", 2), ("denied", 2)])
def test_a_commit_of_unknown_end_without_a_key_is_said_to_be_unknown(
    mariadb: MariaDB, cut: Cut, kept: int, narrow: bool
) -> None:
    async def use(engine: Engine) -> None:
        await engine.write(lambda: submit("warm"))
        proxy.cut(cut)
        with pytest.raises(OutcomeUnknown):
            await engine.write(lambda: submit("1"))

    with through_a_proxy(mariadb, narrow=narrow) as (direct, url, proxy):
        using(url, use)
        assert rows(direct, "SELECT count(*) FROM orders") == [(kept,)]


@NARROW
@pytest.mark.parametrize("cut", ["before", "after", "denied"])
def test_a_crowd_whose_one_commit_is_cut_is_kept_once_or_told(
    mariadb: MariaDB, cut: Cut, narrow: bool
) -> None:
    """Units share the commit: the keyed ones are done once, those without a key are in doubt, what
    was refused is refused.
    """

    def unit(number: int) -> Callable[[], object]:
        if number % 3 == 0:
            return lambda: once(claim(f"k{number}"), lambda: submit(f"{number}"))
        return lambda: submit(f"{number}" if number % 3 == 1 else "warm")

    outcomes: list[object] = []

    async def use(engine: Engine) -> None:
        first = [engine.write(lambda n=n: submit("warm" + "!" * n)) for n in range(CROWD)]
        await asyncio.gather(*first)  # the next batch waits for as many
        proxy.cut(cut)
        crowd = [engine.write(unit(number)) for number in range(CROWD)]
        outcomes.extend(await asyncio.gather(*crowd, return_exceptions=True))

    with through_a_proxy(mariadb, narrow=narrow) as (direct, url, proxy):
        using(url, use, connections=1)
        numbers = {number for (number,) in rows(direct, "SELECT order_number FROM orders")}
        assert_the_book_adds_up(direct)
    assert not any(isinstance(outcome, BaseException) for outcome in outcomes[::3])
    assert {str(number) for number in range(0, CROWD, 3)} <= numbers
    assert {type(outcome) for outcome in outcomes[2::3]} == {OrderExists}
    for number in range(1, CROWD, 3):
        told = outcomes[number]
        assert isinstance(told, OutcomeUnknown) or (
            not isinstance(told, BaseException) and str(number) in numbers
        )
    assert any(isinstance(told, OutcomeUnknown) for told in outcomes[1::3])


def test_refusals_in_a_crowd_undo_only_themselves(mariadb: MariaDB) -> None:
    url = mariadb.database(f"till_{uuid4().hex}")

    outcomes: list[object] = []

    async def use(engine: Engine) -> None:
        await engine.write(lambda: submit("warm"))
        crowd = [
            engine.write(lambda n=n: (submit(f"{n}"), n % 2 and submit("warm"))) for n in range(40)
        ]
        outcomes.extend(await asyncio.gather(*crowd, return_exceptions=True))

    using(url, use, connections=1)
    assert {type(outcome) for outcome in outcomes[1::2]} == {OrderExists}
    kept = {number for (number,) in rows(url, "SELECT order_number FROM orders")}
    assert kept == {"warm", *(str(number) for number in range(0, 40, 2))}
    assert_the_book_adds_up(url)


def test_a_crowd_is_told_of_a_database_that_is_away_not_one_by_one(mariadb: MariaDB) -> None:
    async def use(engine: Engine) -> None:
        await asyncio.gather(*(engine.write(lambda n=n: submit(f"{n}")) for n in range(CROWD)))
        proxy.fall_silent()
        began = time.monotonic()
        writes = [engine.write(lambda n=n: submit(f"new{n}")) for n in range(CROWD)]
        reads = [engine.read(lambda: order.recent(1, "s", "u")) for _ in range(CROWD)]
        told = await asyncio.gather(*writes, *reads, return_exceptions=True)
        assert {type(each) for each in told} == {Overloaded}
        assert time.monotonic() - began < 6 * RETRY_SECONDS < CROWD

    with through_a_proxy(mariadb, narrow=False) as (direct, url, proxy):
        using(url, use, connections=1)
        assert rows(direct, "SELECT count(*) FROM orders") == [(CROWD,)]


def test_connections_killed_by_an_operator_are_replaced_unseen(mariadb: MariaDB) -> None:
    url = mariadb.database(f"till_{uuid4().hex}")

    async def use(engine: Engine) -> None:
        for number in range(20):
            await asyncio.gather(
                *(
                    engine.write(
                        lambda n=n, number=number: once(
                            claim(f"{number}-{n}"), lambda: submit(f"{number}-{n}")
                        )
                    )
                    for n in range(4)
                )
            )
            mariadb.run("KILL USER till")
            assert len(await engine.read(lambda: order.recent(1, "s", "u"))) == min(
                5, 4 * (number + 1)
            )

    using(url, use, connections=4)
    assert rows(url, "SELECT count(*) FROM orders") == [(80,)]


def test_a_host_that_vanishes_in_a_transaction_lets_its_locks_go(
    mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "IDLE_SECONDS", 1)
    stands, goes_on = threading.Event(), threading.Event()

    def stand_still() -> bytes:
        order_id = submit("1")
        stands.set()
        assert goes_on.wait(PATIENCE_SECONDS)
        return order_id

    async def use(engine: Engine) -> None:
        first = asyncio.create_task(engine.write(lambda: once(claim("k"), stand_still)))
        await asyncio.to_thread(stands.wait)
        twin, replayed = await engine.write(lambda: once(claim("k"), lambda: submit("1")))
        goes_on.set()
        assert (await first, replayed) == ((twin, True), False)

    with mariadb.lend() as url:
        using(url, use)
        assert rows(url, "SELECT count(*) FROM orders") == [(1,)]


def test_more_events_than_a_packet_holds_are_written_with_their_change(mariadb: MariaDB) -> None:
    (most,) = mariadb.run("SELECT @@max_allowed_packet")
    events = 3 * PACKET_STATEMENTS
    text = "x" * (4 * int(most[0]) // 3 // events)

    def unit() -> None:
        for _ in range(events):
            event.record(1, "store.created", "s", text=text)

    with mariadb.lend() as url:
        using(url, lambda engine: engine.write(unit))
        assert rows(url, "SELECT count(*), max(seq) FROM events") == [(events, events)]


def test_a_lock_held_by_somebody_else_is_waited_out_or_told(mariadb: MariaDB) -> None:
    url = mariadb.database(f"till_{uuid4().hex}")

    async def use(engine: Engine) -> None:
        await engine.write(lambda: submit("1"))
        with closing(connect(url)) as holder:
            holder.cursor().execute("UPDATE event_tips SET seq = seq")
            began = asyncio.create_task(engine.write(lambda: submit("2")))
            await asyncio.sleep(0.2)
            holder.rollback()
            await began
            holder.cursor().execute("UPDATE event_tips SET seq = seq WHERE tenant = 1")
            with pytest.raises(Overloaded):
                await engine.write(lambda: submit("3"))

    using(url, use)
    assert rows(url, "SELECT count(*) FROM orders") == [(2,)]
