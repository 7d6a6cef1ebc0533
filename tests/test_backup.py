"""Backups while others are at work: they write the same file, or the database that is restored."""

import asyncio
import sqlite3
from argparse import Namespace
from contextlib import closing
from pathlib import Path

import pytest
from conftest import Lend
from databases import connect, file_of, is_file, log_of, rows
from inside import Book
from test_keep import done, till

from server import keep
from server.config import Config
from storage import portable, sqlite


def tenants(url: str) -> list[str]:
    """Returns the names of the tenants of a book."""
    return [name for (name,) in rows(url, "SELECT name FROM tenants ORDER BY tenant")]


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is told from the first row or page on."""
    monkeypatch.setattr(portable, "BATCH_ROWS", 1)
    monkeypatch.setattr(sqlite, "BACKUP_PAGES", 1)


def write_file(book: Book, verb: str, path: Path, tell: portable.Tell) -> None:
    """Writes a book to a file as a command of `till` does, in this process."""
    write = sqlite.backup if verb == "backup" and is_file(book.url) else portable.export
    book.run(book.engine.scan(lambda: write(path, tell)))


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("verb", ["backup", "export"])
def test_a_file_that_two_write_at_once_is_whole_after_each(
    book: Book, lend: Lend, tmp_path: Path, verb: str
) -> None:
    path, early = tmp_path / "book", tmp_path / "early"
    names = iter(["meanwhile"])

    def another(done_: int, total: int) -> None:
        for name in names:  # there is one
            done(till(book.url, "tenant", "create", name))
            done(till(book.url, verb, str(path)))
            early.write_bytes(path.read_bytes())

    done(till(book.url, "tenant", "create", "before"))
    write_file(book, verb, path, another)

    kept = []
    for file in (early, path):
        with lend() as url:
            done(till(url, "restore", str(file)))
            kept.append(tenants(url))
    assert kept == [["before", "meanwhile"], ["before"]]
    assert not [*tmp_path.glob("*.part")]


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("verb", ["backup", "export"])
def test_a_file_that_cannot_be_written_to_its_end_leaves_the_last_one(
    book: Book, tmp_path: Path, verb: str
) -> None:
    def fail(done_: int, total: int) -> None:
        raise OSError("the disk is full")

    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / "book").write_text("the last one")
    done(till(book.url, "tenant", "create", "a"))

    with pytest.raises(OSError, match="full"):
        write_file(book, verb, folder / "book", fail)

    assert [(file.name, file.read_text()) for file in folder.iterdir()] == [
        ("book", "the last one")
    ]


@pytest.mark.parametrize("verb", ["backup", "export"])
@pytest.mark.parametrize("name", ["till.db", "till.db-wal", "link"])
def test_the_database_itself_is_never_written_over(
    sqlite_book: Book, tmp_path: Path, verb: str, name: str
) -> None:
    live = file_of(sqlite_book.url)
    (tmp_path / "link").symlink_to(live)
    before = live.stat().st_ino, log_of(sqlite_book.url).stat().st_ino

    refused = till(sqlite_book.url, verb, str(tmp_path / name))

    assert (refused.returncode, "the database itself" in refused.stderr) == (1, True)
    assert (live.stat().st_ino, log_of(sqlite_book.url).stat().st_ino) == before


@pytest.fixture
def new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty database in a file, for whose locks nobody waits long."""
    monkeypatch.setitem(sqlite.PRAGMAS, "busy_timeout", 20)
    url = f"sqlite:///{tmp_path / 'new.db'}"
    keep.bring_up(Config(database=url))
    return url


def backed_up(folder: Path, name: str = "book.bak") -> Path:
    """Returns a backup of a book with the tenant `kept`, under a name."""
    url = f"sqlite:///{folder / 'old.db'}"
    done(till(url, "tenant", "create", "kept"))
    done(till(url, "backup", str(folder / name)))
    return folder / name


def restore(url: str, path: Path) -> None:
    """Restores a backup in this process."""
    asked = Namespace(command="restore", file=str(path))
    asyncio.run(keep.run(Config(database=url), asked))


def test_nobody_can_write_once_a_database_was_found_empty_for_a_backup(
    new_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, is_empty = backed_up(tmp_path), portable.is_empty

    def and_then_another_writes() -> bool:
        found = is_empty()
        locked = pytest.raises(sqlite3.OperationalError, match="locked")
        with closing(sqlite3.connect(file_of(new_file), timeout=0)) as other, locked:
            other.execute("INSERT INTO tenants VALUES (7, 'new', '', 'REQUIRE_MATCH', 0)")
        return found

    monkeypatch.setattr(portable, "is_empty", and_then_another_writes)
    restore(new_file, path)

    assert tenants(new_file) == ["kept"]


def test_a_database_that_somebody_has_open_is_left_as_it_is(new_file: str, tmp_path: Path) -> None:
    path = backed_up(tmp_path)
    with closing(connect(new_file)) as other:
        look = "SELECT name FROM tenants"
        assert other.execute(look).fetchall() == []
        with pytest.raises(ValueError, match="who has it open"):
            restore(new_file, path)
        assert other.execute(look).fetchall() == []


@pytest.mark.parametrize("name", ["book#2.bak", "book?2.bak", "book%232.bak"])
def test_a_backup_of_any_name_is_the_one_that_is_restored(
    new_file: str, tmp_path: Path, name: str
) -> None:
    path = backed_up(tmp_path, name)
    empty = f"sqlite:///{tmp_path / 'empty.db'}"
    for other in {"book", "book#2.bak"} - {name}:  # as which a URI would understand such a name
        done(till(empty, "backup", str(tmp_path / other)))

    restore(new_file, path)

    assert tenants(new_file) == ["kept"]
