"""The databases under the tests, asked and hindered past any code of ours."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pymysql


def is_file(url: str) -> bool:
    """Says whether a database is a file of SQLite's; all others are on a server."""
    return url.startswith("sqlite:")


def file_of(url: str) -> Path:
    """Returns the file of a SQLite database."""
    assert is_file(url), url
    return Path(url.removeprefix("sqlite:///"))


def log_of(url: str) -> Path:
    """Returns the write-ahead log of a SQLite database."""
    return Path(f"{file_of(url)}-wal")


def connect(url: str, *, writing: bool = False) -> Any:
    """Returns a connection of the database's own driver, which no code of ours has set up."""
    if is_file(url):
        return sqlite3.connect(f"file:{file_of(url)}?mode={'rw' if writing else 'ro'}", uri=True)
    parts = urlsplit(url)
    return pymysql.connect(
        host=parts.hostname or "",
        port=parts.port or 0,
        user=parts.username,
        password=unquote(parts.password or ""),
        database=parts.path[1:],
        ssl_disabled=True,  # an unasked attempt costs 50 ms
    )


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    """Returns the rows of a query, asked of the database itself."""
    with closing(connect(url)) as connection:
        cursor = connection.cursor()
        cursor.execute(query)
        return list(cursor.fetchall())


@contextmanager
def held(url: str) -> Iterator[None]:
    """Lets everybody read and nobody write, as another process that holds the lock does."""
    with closing(connect(url, writing=True)) as other:
        cursor = other.cursor()
        if is_file(url):
            cursor.execute("BEGIN IMMEDIATE")
        else:
            tables = [name for (name,) in rows(url, "SHOW TABLES")]
            cursor.execute("LOCK TABLES " + ", ".join(f"`{name}` READ" for name in tables))
        yield  # whoever closes the connection lets go


@contextmanager
def lost(url: str, table: str) -> Iterator[None]:
    """Takes a table away, which no code of ours foresees."""
    with closing(connect(url, writing=True)) as other:
        other.cursor().execute(f"ALTER TABLE {table} RENAME TO lost")
        yield
        other.cursor().execute(f"ALTER TABLE lost RENAME TO {table}")
