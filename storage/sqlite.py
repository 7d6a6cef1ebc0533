"""SQLite: how a database file is opened, copied and brought back."""

import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from peewee import OperationalError, SqliteDatabase

from storage.row import DB
from storage.sql import Bound
from storage.whole import replaced

WAIT_SECONDS = 5.0
"""How long to wait for a file that others keep locked while it is opened."""
PAUSE_SECONDS_MAX = 0.05
BACKUP_PAGES = 2000
"""Pages copied between two reports of progress."""
PRAGMAS = {
    "journal_mode": "wal",
    "synchronous": 2,  # FULL: a commit is on disk before it returns
    "cache_size": -4096,  # 4 MiB: a commit that split a page looks through all of it
    "wal_autocheckpoint": 4000,
    "busy_timeout": 5000,
    "temp_store": 2,  # MEMORY: what a savepoint would bring back goes into no file
}


class _Sqlite(Bound, SqliteDatabase):
    """SQLite, with every query bound to a tenant."""


def open_sqlite(path: str) -> None:
    """Opens a database file and asserts that its commits are durable.

    Raises RuntimeError when the file stays locked, or cannot give the durability promised.
    """
    Path(path).resolve().parent.mkdir(parents=True, exist_ok=True)
    DB.initialize(_Sqlite(path, pragmas=PRAGMAS))
    _connect(path)
    mode, level = DB.pragma("journal_mode"), DB.pragma("synchronous")
    if (mode, level) != ("wal", 2):
        raise RuntimeError(
            f"SQLite gives journal_mode={mode}, synchronous={level}; Till needs wal and 2 (FULL)"
        )


def _connect(path: str) -> None:
    """Connects once nobody is in the way: of those who open a new file at once, one makes it a
    file with a log, and SQLite refuses the others without its busy_timeout.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            DB.connect(reuse_if_open=True)
            return
        except OperationalError as error:
            if "locked" not in str(error):
                raise
            if time.monotonic() > deadline:
                raise RuntimeError(f"{path} is locked by another process") from error
        time.sleep(random.uniform(0, PAUSE_SECONDS_MAX))


def backup(path: Path, tell: Callable[[int, int], None]) -> None:
    """Copies the open database to a file, whole or not at all, as it is at this moment; a query
    for the engine. `tell` hears of progress: pages done, pages in all.

    The query's snapshot is held throughout, so that writers go on and the copy never starts over.
    """
    DB.execute_sql("SELECT count(*) FROM sqlite_master").fetchone()
    with replaced(path) as draft, closing(sqlite3.connect(draft)) as file:
        DB.connection().backup(
            file,
            pages=BACKUP_PAGES,
            sleep=0,
            progress=lambda _, left, pages: tell(pages - left, pages),
        )


def keep_others_out() -> None:
    """Has the open database for this connection alone, for writing and reading, until it is closed.

    Raises ValueError when somebody else has it open.
    """
    DB.execute_sql("PRAGMA locking_mode=EXCLUSIVE")
    try:
        DB.execute_sql("BEGIN IMMEDIATE")  # takes the lock, which the COMMIT then keeps
        DB.execute_sql("COMMIT")
    except OperationalError as error:
        raise ValueError(f"the database cannot be had alone; who has it open? ({error})") from None


def restore(path: Path, tell: Callable[[int, int], None]) -> None:
    """Copies a backup into the open database, over whatever it holds: who calls has looked what
    that is, and keeps others out since.

    Raises ValueError when the backup is damaged.
    """
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as file:
        (verdict,) = file.execute("PRAGMA quick_check").fetchone()
        if verdict != "ok":
            raise ValueError(f"{path} is damaged: {verdict}")
        file.backup(
            DB.connection(),
            pages=BACKUP_PAGES,
            sleep=0,
            progress=lambda _, left, pages: tell(pages - left, pages),
        )
