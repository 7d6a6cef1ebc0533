"""SQLite's side of the engine when the file fails it: less durable than promised, locked, full, or
gone. How a server fails is told in test_connections.py.
"""

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from conftest import eventually
from databases import connect, file_of, held, log_of
from inside import TENANT, Book, opened, owned
from test_engine import add, assert_in_the_file, stores, together

from storage import checkout, event, group_commit, sqlite
from storage.database import open_database
from storage.errors import OutcomeUnknown, Overloaded
from storage.row import DB
from storage.tables import Store


@contextmanager
def no_larger_files(than: Path) -> Iterator[None]:
    """Lets no file grow beyond one as it is: a full disk, made by the kernel."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (than.stat().st_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_writers_own_connection_is_durable(sqlite_book: Book) -> None:
    settings = sqlite_book.write(lambda: (DB.pragma("journal_mode"), DB.pragma("synchronous")))

    assert settings == ("wal", 2)


@pytest.mark.parametrize(("pragma", "value"), [("synchronous", 1), ("journal_mode", "delete")])
def test_less_durable_settings_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pragma: str, value: object
) -> None:
    monkeypatch.setitem(sqlite.PRAGMAS, pragma, value)

    with pytest.raises(RuntimeError, match="Till needs wal and 2"):
        open_database(f"sqlite:///{tmp_path / 'till.db'}")
    DB.close()


@pytest.fixture
def new_file(tmp_path: Path) -> Iterator[str]:
    """The URL of a file that nobody has opened yet; what opens it is closed."""
    (tmp_path / "till.db").touch()
    yield f"sqlite:///{tmp_path / 'till.db'}"
    DB.close()


def test_a_new_file_that_another_process_has_locked_is_waited_for(
    new_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as others:
        others.enter_context(held(new_file))
        monkeypatch.setattr(time, "sleep", lambda seconds: others.close())

        open_database(new_file)

    assert DB.pragma("journal_mode") == "wal"


def test_a_new_file_that_stays_locked_is_no_database(
    new_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "WAIT_SECONDS", -1, raising=False)

    with held(new_file), pytest.raises(RuntimeError, match="is locked by another process"):
        open_database(new_file)


def test_a_database_in_memory_is_refused() -> None:
    with pytest.raises(RuntimeError, match="journal_mode=memory"):
        open_database("sqlite:///:memory:")
    DB.close()


@pytest.mark.parametrize("url", ["", "till.db", "sqlite://x", "sqlite:///", "postgres:///x"])
def test_a_url_that_is_no_database_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="TILL_DATABASE"):
        open_database(url)


def test_a_busy_database_is_told_and_nothing_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sqlite.PRAGMAS, "busy_timeout", 20)
    with opened(f"sqlite:///{tmp_path / 'till.db'}") as book:
        with held(book.url):
            errors = together(book, add("a"), add("b"))
            assert book.read(owned(Store).count) == 0, "readers do not wait"
        assert book.write(add("c")) == "c"

    assert [str(error) for error in errors] == ["the database is busy"] * 2
    assert stores(book.url) == {"c"}


@pytest.mark.parametrize(
    "write",
    [
        lambda: checkout.note(TENANT, "x" * 100_000, []),
        lambda: event.record(TENANT, "store.created", "x" * 100_000),  # is written with the commit
    ],
    ids=["a row", "an event"],
)
def test_a_lost_transaction_answers_everyone_of_its_batch(
    sqlite_book: Book, caplog: pytest.LogCaptureFixture, write: Callable[[], None]
) -> None:
    def fill() -> None:
        (pages,) = DB.execute_sql("PRAGMA page_count").fetchone()
        DB.execute_sql(f"PRAGMA max_page_count={pages}")
        write()

    sqlite_book.write(add("before"))
    made = together(sqlite_book, add("alone"), add("a"), fill, add("b"))
    sqlite_book.write(lambda: DB.execute_sql("PRAGMA max_page_count=1000000").fetchone())
    sqlite_book.write(add("after"))

    assert [type(each) for each in made] == [str, Overloaded, Overloaded, Overloaded]
    assert stores(sqlite_book.url) == {"before", "alone", "after"}
    assert "database or disk is full" in caplog.text


def test_a_commit_that_fails_has_an_unknown_outcome(sqlite_book: Book) -> None:
    with no_larger_files(log_of(sqlite_book.url)):
        errors = together(sqlite_book, add("a"), add("b"))
    sqlite_book.write(add("after"))

    assert [type(error) for error in errors] == [OutcomeUnknown] * 2
    assert stores(sqlite_book.url) == {"after"}, "whatever it was, it was all or nothing"


def test_a_checkpoint_that_fails_loses_nothing_and_is_made_up_for(
    sqlite_book: Book, caplog: pytest.LogCaptureFixture
) -> None:
    def told() -> None:
        assert "a checkpoint failed" in caplog.text

    def crowd(name: str) -> list[Callable[[], str]]:
        return [add(f"{name}-{number}") for number in range(group_commit.CHECKPOINT_UNITS)]

    with closing(connect(sqlite_book.url, writing=True)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with no_larger_files(file_of(sqlite_book.url)):
        made = together(sqlite_book, *crowd("first"))
        eventually(told)
    made += together(sqlite_book, *crowd("then"))

    assert stores(sqlite_book.url) == set(made)
    eventually(lambda: assert_in_the_file(sqlite_book.url, "first-0"))
