"""Where the order book is kept: the URL, read once, and what opens it."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from storage import mysql, sqlite
from storage.row import DB

_SECRET = re.compile(r"(://[^/@:]*):.*@")


@dataclass(frozen=True, slots=True)
class Options:
    """What a URL does not say."""

    password_file: str = ""
    """A file whose first line is the password; empty for none, or the URL's own."""
    connections: int = 8
    """Connections to a database server that write at once; as many again read, and as many scan."""
    relaxed: bool = False
    """Whether a database that may lose acknowledged commits is good enough; said in the log."""


DEFAULTS = Options()


@dataclass(frozen=True, slots=True)
class File:
    """A SQLite database."""

    path: str


def parse(url: str, options: Options = DEFAULTS) -> File | mysql.Server:
    """Returns the place that a URL means. Raises ValueError that never repeats a password."""
    if url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
        return File(url.removeprefix("sqlite:///"))
    if not url.startswith("mysql://"):
        raise ValueError(
            "TILL_DATABASE must be sqlite:///path or mysql://user:password@host:port/database, "
            f"not {redacted(url)!r}"
        )
    try:
        return _server(url, options)
    except (ValueError, OSError) as error:
        raise ValueError(f"TILL_DATABASE {redacted(url)!r}: {error}") from None


def redacted(url: str) -> str:
    """Returns a URL fit for logs and screens: *** stands for its password."""
    return _SECRET.sub(r"\1:***@", url)


def open_database(url: str, options: Options = DEFAULTS) -> File | mysql.Server:
    """Opens the database of a URL on this thread, and says which kind it is.

    Raises ValueError for a URL that cannot be read, RuntimeError when the database cannot be
    reached or would lose commits.
    """
    place = parse(url, options)
    if isinstance(place, File):
        sqlite.open_sqlite(place.path)
    else:
        mysql.open_mysql(place, relaxed=options.relaxed)
    return place


def close_database() -> None:
    """Closes this thread's connection."""
    DB.close()


def _server(url: str, options: Options) -> mysql.Server:
    parts = urlsplit(url)
    name = unquote(parts.path.removeprefix("/"))
    if not parts.hostname or not name or "/" in name:
        raise ValueError("must name a host and a database: mysql://user@host:3306/database")
    password = unquote(parts.password or "")
    if options.password_file:
        password = Path(options.password_file).read_text("utf-8").partition("\n")[0].rstrip("\r")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := set(query) - {"tls", "tls_ca", "tls_cert", "tls_key"}:
        raise ValueError(
            f"{min(unknown)} is no parameter; those are tls, tls_ca, tls_cert, tls_key"
        )
    return mysql.Server(
        parts.hostname,
        parts.port or 3306,
        name,
        unquote(parts.username or ""),
        password,
        mysql.Tls(**{key.removeprefix("tls_"): value for key, value in query.items()}).context(),
    )
