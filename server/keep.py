"""`till migrate`, `backup`, `restore`, `export` and `import`: the order book as a whole."""

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from server.config import Config
from storage import database, migrate, portable, sqlite
from storage.engine import Engine

Tell = Callable[[int, int], None]
TELL_SECONDS = 1.0
"""How often progress is told where nobody watches."""
_SQLITE_MAGIC = b"SQLite format 3\0"


async def run(config: Config, asked: Namespace) -> Any:
    """Does what was asked and returns what to print. Raises ValueError, RuntimeError, OSError."""
    return await _VERBS[asked.command](config, asked)


def bring_up(config: Config) -> list[str]:
    """Brings the schema up to date and returns the names of the steps taken."""
    steps: list[str] = []
    database.open_database(config.database, config.options())
    try:
        migrate.up(tell=lambda step: steps.append(f"{step.version:04}_{step.name}"))
    finally:
        database.close_database()
    return steps


async def _migrate(config: Config, asked: Namespace) -> Any:
    return {"migrated": bring_up(config), "schema": migrate.known()[-1].version}


async def _backup(config: Config, asked: Namespace) -> Any:
    place = database.parse(config.database, config.options())
    if not isinstance(place, database.File):
        return await _export(config, asked)
    path = _target(config, asked)
    engine = _engine(config)
    try:
        with _progress("pages") as tell:
            await engine.scan(lambda: sqlite.backup(path, tell))
    finally:
        await engine.close()
    return {"file": str(path), "bytes": path.stat().st_size}


async def _restore(config: Config, asked: Namespace) -> Any:
    path = Path(asked.file)
    with path.open("rb") as file:
        is_sqlite = file.read(len(_SQLITE_MAGIC)) == _SQLITE_MAGIC
    bring_up(config)
    place = database.open_database(config.database, config.options())
    try:
        if is_sqlite and not isinstance(place, database.File):
            raise ValueError(f"{path} is a SQLite file; `till export` it, then `till import`")
        if is_sqlite:
            sqlite.keep_others_out()  # what they wrote after the look would be overwritten
        if not portable.is_empty():
            raise ValueError("the database is not empty; restore into a new one (TILL_DATABASE)")
        if is_sqlite:
            with _progress("pages") as tell:
                sqlite.restore(path, tell)
            migrate.up()
    finally:
        database.close_database()
    return {"file": str(path)} if is_sqlite else await _import(config, asked)


async def _export(config: Config, asked: Namespace) -> Any:
    path = _target(config, asked)
    engine = _engine(config)
    try:
        with _progress("rows") as tell:
            counts = await engine.scan(lambda: portable.export(path, tell))
    finally:
        await engine.close()
    return {"file": str(path), "rows": sum(counts.values()), **_filled(counts)}


async def _import(config: Config, asked: Namespace) -> Any:
    path = Path(asked.file)
    counts = portable.counts_of(path)
    total, done, added = sum(counts.values()), 0, 0
    engine = _engine(config)
    try:
        with _progress("rows") as tell:
            for batch in portable.batches(path):
                added += await engine.write(lambda batch=batch: portable.put(batch))  # type: ignore[misc]
                done += len(batch.rows)
                tell(done, total)
    finally:
        await engine.close()
    if done != total:
        raise ValueError(f"{path} tells of {total} rows and holds {done}")
    return {"file": str(path), "rows": done, "added": added, **_filled(counts)}


_VERBS = {
    "migrate": _migrate,
    "backup": _backup,
    "restore": _restore,
    "export": _export,
    "import": _import,
}


def _target(config: Config, asked: Namespace) -> Path:
    """Returns the file to write. Raises ValueError where the database itself is kept."""
    path, place = Path(asked.file), database.parse(config.database, config.options())
    if isinstance(place, database.File):
        own = [Path(f"{place.path}{end}").resolve() for end in ("", "-wal", "-shm")]
        if path.resolve() in own:
            raise ValueError(f"{path} is the database itself; choose another file")
    return path


def _engine(config: Config) -> Engine:
    return Engine(config.database, config.queue_max, config.options())


def _filled(counts: dict[str, int]) -> dict[str, int]:
    return {table: rows for table, rows in counts.items() if rows}


@contextmanager
def _progress(what: str) -> Iterator[Tell]:
    """Shows a bar at a terminal, and a JSON line now and then where nobody watches."""
    if not sys.stderr.isatty():
        yield _Lines(what)
        return
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _Lines:
    """Tells progress as JSON lines on standard error."""

    def __init__(self, what: str) -> None:
        self._what, self._last = what, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last >= TELL_SECONDS or done == total:
            self._last = now
            line = {"done": done, "total": total, "what": self._what}
            print(orjson.dumps(line).decode(), file=sys.stderr, flush=True)
