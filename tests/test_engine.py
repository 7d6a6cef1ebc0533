"""The engine: what is acknowledged is on disk, and what is refused leaves nothing."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from conftest import eventually
from databases import file_of, log_of, rows
from inside import TENANT, Book, opened, owned
from invariants import dump

from storage import ids, store
from storage.database import Options
from storage.engine import Engine
from storage.errors import NotFound, Overloaded
from storage.group_commit import CAREFUL_BATCHES, CHECKPOINT_UNITS
from storage.sql import insert
from storage.tables import Store

WAL_HEADER, FRAME_HEADER, PAGE = 32, 24, 4096


def add(name: str) -> Callable[[], str]:
    """Returns a unit that registers a store and returns its name."""

    def unit() -> str:
        insert(Store(tenant=TENANT, store=name, display_name="", create_ms=ids.now_ms()))
        store.event.record(TENANT, "store.created", name)
        return name

    return unit


def then(unit: Callable[[], object], error: Exception) -> Callable[[], object]:
    """Returns a unit that does its work and then raises."""

    def fail() -> object:
        unit()
        raise error

    return fail


def together(book: Book, *units: Callable[[], object]) -> list[Any]:
    """Runs units side by side and returns their results or errors."""

    async def run() -> list[Any]:
        writes = [book.engine.write(unit) for unit in units]
        return await asyncio.gather(*writes, return_exceptions=True)

    return book.run(run())


def stores(url: str) -> set[str]:
    """Returns the stores that are on disk, as another process sees them."""
    return {name for (name,) in rows(url, "SELECT store FROM stores")}


def commits(url: str) -> int:
    """Returns how many commits SQLite's write-ahead log holds: frames that tell the database's
    size.
    """
    frames = log_of(url).read_bytes()[WAL_HEADER:]
    starts = range(0, len(frames), FRAME_HEADER + PAGE)
    return sum(frames[start + 4 : start + 8] != bytes(4) for start in starts)


def test_many_units_share_one_commit(sqlite_book: Book) -> None:
    before = commits(sqlite_book.url)

    made = together(sqlite_book, *(add(f"s{number}") for number in range(200)))

    assert made == [f"s{number}" for number in range(200)]
    assert stores(sqlite_book.url) == set(made)
    assert commits(sqlite_book.url) - before == 2, "the first alone, then all that came meanwhile"


def test_a_crowd_larger_than_a_batch_is_served_in_order(sqlite_book: Book) -> None:
    ran: list[int] = []

    together(sqlite_book, *(lambda n=number: ran.append(n) for number in range(600)))

    assert ran == list(range(600))


def assert_in_the_file(url: str, name: str) -> None:
    """Asserts that the database file itself holds a name, and not only its log."""
    assert name.encode() in file_of(url).read_bytes()


def test_the_log_is_copied_into_the_file_beside_the_next_commits(sqlite_book: Book) -> None:
    together(sqlite_book, *(add(f"store-{number}") for number in range(CHECKPOINT_UNITS)))

    eventually(lambda: assert_in_the_file(sqlite_book.url, "store-0"))


@pytest.mark.parametrize("error", [NotFound("no"), ZeroDivisionError(), RecursionError()], ids=repr)
def test_a_unit_that_raises_undoes_only_itself(book: Book, error: Exception) -> None:
    made = together(book, add("a"), add("b"), then(add("c"), error), add("d"))

    assert made == ["a", "b", error, "d"]
    assert stores(book.url) == {"a", "b", "d"}


def test_a_unit_that_raises_leaves_its_neighbours_their_one_commit(sqlite_book: Book) -> None:
    before = commits(sqlite_book.url)

    together(sqlite_book, add("a"), add("b"), then(add("c"), NotFound("no")), add("d"))

    assert stores(sqlite_book.url) == {"a", "b", "d"}
    assert commits(sqlite_book.url) - before == 2


def runs_beside(book: Book, refused: Callable[[], object]) -> int:
    """Returns how often a unit runs whose neighbour in the batch is refused."""
    ran: list[int] = []

    async def run(started: threading.Event, go: threading.Event) -> None:
        first = asyncio.ensure_future(book.engine.write(lambda: (started.set(), go.wait(60))))
        await asyncio.to_thread(started.wait)
        batch = [asyncio.ensure_future(book.engine.write(lambda: ran.append(1)))]
        batch += [asyncio.ensure_future(book.engine.write(refused))]
        await asyncio.sleep(0)
        go.set()
        *_, error = await asyncio.gather(first, *batch, return_exceptions=True)
        assert isinstance(error, NotFound)

    book.run(run(threading.Event(), threading.Event()))
    return len(ran)


def test_a_batch_starts_over_only_for_a_unit_that_wrote_before_it_was_refused(
    sqlite_book: Book,
) -> None:
    reads, writes = then(owned(Store).count, NotFound("no")), then(add("x"), NotFound("no"))

    assert [runs_beside(sqlite_book, unit) for unit in (reads, writes)] == [1, 2]
    assert "x" not in stores(sqlite_book.url)


def test_refusals_that_come_in_crowds_undo_only_themselves(sqlite_book: Book) -> None:
    refused = then(add("x"), NotFound("no"))
    runs_beside(sqlite_book, refused)

    assert runs_beside(sqlite_book, refused) == 1
    for number in range(CAREFUL_BATCHES):
        sqlite_book.write(add(f"quiet-{number}"))
    assert runs_beside(sqlite_book, refused) == 2, "and later it is worth a try again"


def test_a_refused_unit_that_is_alone_leaves_nothing(book: Book) -> None:
    before = dump(book.url)

    with pytest.raises(NotFound):
        book.write(then(add("a"), NotFound("no")))

    assert dump(book.url) == before


@pytest.mark.parametrize("unit", [owned(Store).count, then(owned(Store).count, NotFound("no"))])
def test_a_unit_that_changes_nothing_costs_no_commit(
    sqlite_book: Book, unit: Callable[[], object]
) -> None:
    sqlite_book.write(add("a"))
    size = log_of(sqlite_book.url).stat().st_size

    together(sqlite_book, unit)

    assert log_of(sqlite_book.url).stat().st_size == size, "nothing to sync"


def test_a_unit_that_lost_a_race_looks_again(book: Book) -> None:
    book.write(add("taken"))
    tries: list[str] = []

    def unit() -> str:
        tries.append("x")
        add("half")()
        return add("taken" if len(tries) == 1 else "free")()

    assert book.write(unit) == "free"
    assert stores(book.url) == {"taken", "half", "free"}


def test_a_unit_that_meets_a_key_each_time_is_told_to_come_back(book: Book) -> None:
    book.write(add("taken"))
    tries: list[str] = []

    with pytest.raises(Overloaded):
        book.write(lambda: (tries.append("x"), add("half")(), add("taken")()), seconds=0.5)

    assert len(tries) >= 2
    assert stores(book.url) == {"taken"}


def test_a_caller_that_went_away_takes_its_unit_along(url: str) -> None:
    async def run(started: threading.Event, go: threading.Event) -> None:
        first = asyncio.ensure_future(
            book.engine.write(lambda: (started.set(), go.wait(60), add("first")()))
        )
        await asyncio.to_thread(started.wait)
        gone = asyncio.ensure_future(book.engine.write(add("gone")))
        stays = asyncio.ensure_future(book.engine.write(add("stays")))
        await asyncio.sleep(0)
        gone.cancel()
        go.set()
        await asyncio.gather(first, stays)

    with opened(url, connections=1) as book:
        book.run(run(threading.Event(), threading.Event()))

    assert stores(url) == {"first", "stays"}


def test_a_unit_that_has_begun_is_kept_though_its_caller_left(book: Book) -> None:
    async def run(started: threading.Event, go: threading.Event) -> None:
        gone = asyncio.ensure_future(
            book.engine.write(lambda: (started.set(), go.wait(60), add("begun")()))
        )
        await asyncio.to_thread(started.wait)
        gone.cancel()
        go.set()
        await book.engine.write(add("next"))

    book.run(run(threading.Event(), threading.Event()))

    assert stores(book.url) == {"begun", "next"}


def in_a_loop(url: str, scenario: Callable[[Engine], Awaitable[None]], **settings: int) -> None:
    """Plays a scenario with an engine that has one writer and that the scenario closes."""

    async def run() -> None:
        await scenario(Engine(url, options=Options(connections=1), **settings))

    asyncio.run(run())


def test_one_more_than_may_wait_is_refused(url: str) -> None:
    started, go = threading.Event(), threading.Event()

    async def scenario(small: Engine) -> None:
        begun = [asyncio.ensure_future(small.write(lambda: (started.set(), go.wait(60))))]
        await asyncio.to_thread(started.wait)
        begun += [asyncio.ensure_future(small.write(add(name))) for name in ("a", "b")]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="too many"):
            await small.write(add("c"))
        go.set()
        await asyncio.gather(*begun)
        assert await small.write(add("d")) == "d", "room again"
        await small.close()

    in_a_loop(url, scenario, queue_max=2)

    assert stores(url) == {"a", "b", "d"}


def test_closing_commits_what_waits(url: str) -> None:
    async def scenario(engine: Engine) -> None:
        waiting = [asyncio.ensure_future(engine.write(add(f"s{n}"))) for n in range(300)]
        await asyncio.sleep(0)
        await engine.close()
        assert len(await asyncio.gather(*waiting)) == 300

    in_a_loop(url, scenario)

    assert len(stores(url)) == 300


def test_what_was_written_is_there_when_it_is_opened_again(url: str) -> None:
    for name in ("a", "b"):
        with opened(url) as book:
            book.write(add(name))

    assert stores(url) == {"a", "b"}


def test_a_reader_sees_only_what_is_committed(book: Book) -> None:
    async def run(written: threading.Event, go: threading.Event) -> None:
        write = asyncio.ensure_future(
            book.engine.write(lambda: (add("a")(), written.set(), go.wait(60)))
        )
        await asyncio.to_thread(written.wait)
        assert await book.engine.read(owned(Store).count) == 0
        assert await book.engine.scan(owned(Store).count) == 0
        go.set()
        await write
        assert await book.engine.read(owned(Store).count) == 1

    book.run(run(threading.Event(), threading.Event()))


def test_a_scan_sees_one_snapshot_while_others_write(book: Book) -> None:
    async def run(counted: threading.Event, go: threading.Event) -> None:
        def twice() -> tuple[int, int]:
            first = owned(Store).count()
            counted.set()
            go.wait(60)
            return first, owned(Store).count()

        scan = asyncio.ensure_future(book.engine.scan(twice))
        await asyncio.to_thread(counted.wait)
        await book.engine.write(add("meanwhile"))
        go.set()
        assert await scan == (0, 0)
        assert await book.engine.scan(owned(Store).count) == 1

    book.run(run(threading.Event(), threading.Event()))


def test_a_query_that_fails_leaves_the_reader_usable(book: Book) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            book.read(lambda: 1 / 0)

    assert book.read(owned(Store).count) == 0
