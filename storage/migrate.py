"""Versions of the schema: numbered files of SQL, applied in order and never backwards.

Our own instead of playhouse.migrations, which takes no lock and drops CHECKs. SQLite
takes all of an upgrade as one transaction. MySQL commits every statement by itself, so a lease
keeps a second server out, and each statement that is done is counted once, by whoever was first:
the next start goes on after it, and so does a server that was overtaken.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from peewee import DatabaseError, MySQLDatabase

from storage import ids, mysql
from storage.ddl import spoken
from storage.errors import Race
from storage.lease import FASTER, extend, lease, roll_back, undisturbed
from storage.mysql import BEATEN
from storage.row import DB

FOLDER = Path(__file__).parent / "migrations"
WAIT_SECONDS = 300
"""How long to wait for another server that is upgrading the schema."""
DONE = {1050, 1060, 1061, 1091, 1826, 3822}
"""The table, column, index or constraint is there, or gone: a crash came between doing and
counting.
"""
_TABLE = """CREATE TABLE IF NOT EXISTS schema_versions (
    version INTEGER NOT NULL PRIMARY KEY, name VARCHAR(100) NOT NULL, statements INTEGER NOT NULL,
    done_ms BIGINT)"""


class Migration(NamedTuple):
    """One step of the schema."""

    version: int
    name: str
    statements: list[str]


def known(folder: Path = FOLDER) -> list[Migration]:
    """Returns the migrations of this program, in order."""
    return [_read(path) for path in sorted(folder.glob("[0-9]*.sql"))]


def version() -> int:
    """Returns the version of the open database, 0 when it is new; a half-done step does not
    count.
    """
    done = [number for number, _, done_ms in _applied() if done_ms is not None]
    return max(done, default=0)


def up(folder: Path = FOLDER, tell: Callable[[Migration], None] = lambda step: None) -> None:
    """Brings the open database to the newest schema; `tell` hears of each step before it runs.

    Raises RuntimeError when the schema is newer than this program or made by other steps, when a
    step fails, or when another server takes too long over it.
    """
    steps = known(folder)
    _refuse_others(steps)
    if version() == steps[-1].version:
        return
    if isinstance(DB.obj, MySQLDatabase):
        _up_server(steps, tell)
    else:
        _up_file(steps, tell)


def _refuse_others(steps: list[Migration]) -> None:
    sizes = {step.version: len(step.statements) for step in steps}
    for number, count, done_ms in _applied():
        if number not in sizes:
            raise RuntimeError(
                f"the database has schema version {number} and this program knows up to "
                f"{steps[-1].version}; run the newer Till that made it"
            )
        if done_ms is not None and count != sizes[number]:
            raise RuntimeError(
                f"the database's schema version {number} is not this program's: a Till from before "
                "the first release made it; run that one, or begin a new database"
            )


def _read(path: Path) -> Migration:
    number, _, name = path.stem.partition("_")
    bare = re.sub(r"^--.*\n", "", path.read_text("utf-8"), flags=re.MULTILINE)
    statements = [text.strip() for text in bare.split(";\n") if text.strip()]
    return Migration(int(number), name, statements)


def _applied() -> list[tuple[int, int, int | None]]:
    """Returns (version, statements done, time of the end) of every step that was begun."""

    def read() -> list[tuple[int, int, int | None]]:
        if "schema_versions" not in DB.get_tables():
            return []
        rows = DB.execute_sql("SELECT version, statements, done_ms FROM schema_versions")
        return [(number, done, done_ms) for number, done, done_ms in rows.fetchall()]

    return undisturbed(read)


def _up_file(steps: list[Migration], tell: Callable[[Migration], None]) -> None:
    DB.execute_sql("BEGIN IMMEDIATE")
    try:
        _apply(steps, tell, lambda: None)
        DB.execute_sql("COMMIT")
    except BaseException:
        DB.execute_sql("ROLLBACK")
        raise


def _up_server(steps: list[Migration], tell: Callable[[Migration], None]) -> None:
    deadline, done = time.monotonic() + WAIT_SECONDS, False
    with mysql.patient():
        while not done:
            with lease(deadline - time.monotonic()) as owner:
                done = _applied_all(steps, tell, owner)


def _applied_all(steps: list[Migration], tell: Callable[[Migration], None], owner: str) -> bool:
    """Runs what is missing; False when another server took over in the middle of it."""
    try:
        _apply(steps, tell, lambda: extend(owner))
    except Race:
        roll_back()
        return False
    return True


def _apply(
    steps: list[Migration], tell: Callable[[Migration], None], go_on: Callable[[], None]
) -> None:
    """Runs what is missing; looks again first, since it may have waited for another server. `go_on`
    follows each count and raises Race when it is another server's turn.
    """
    if "schema_versions" not in DB.get_tables():
        undisturbed(lambda: DB.execute_sql(spoken(_TABLE)))
    begun = {number: (count, done_ms) for number, count, done_ms in _applied()}
    for step in steps:
        count, done_ms = begun.get(step.version, (None, None))
        if done_ms is not None:
            continue
        tell(step)
        if count is None:
            begin = "INSERT INTO schema_versions (version, name, statements) VALUES (?, ?, 0)"
            _count(go_on, begin, step.version, step.name)
        _finish(step, count or 0, go_on)


def _finish(step: Migration, count: int, go_on: Callable[[], None]) -> None:
    for number, statement in enumerate(step.statements[count:], count + 1):
        try:
            DB.execute_sql(spoken(statement))
        except DatabaseError as error:
            if not (number == count + 1 and error.args[0] in DONE):
                _overtaken(error, step, number - 1, go_on)
                raise _failed(step, number, error) from error
        after = "UPDATE schema_versions SET statements = ? WHERE version = ? AND statements = ?"
        _count(go_on, after, number, step.version, number - 1)
    end = "UPDATE schema_versions SET done_ms = ? WHERE version = ?"
    _count(go_on, end, ids.now_ms(), step.version)


def _overtaken(
    error: DatabaseError, step: Migration, count: int, go_on: Callable[[], None]
) -> None:
    """Raises Race when a statement failed because another server is at work on the schema too, or
    did that statement before its lease ran out.
    """
    if error.args[0] in BEATEN:
        raise Race("another server was in the way") from error
    go_on()
    if (step.version, count) not in [(version, done) for version, done, _ in _applied()]:
        raise Race("another server did the same statement") from error


def _failed(step: Migration, number: int, error: Exception) -> RuntimeError:
    return RuntimeError(
        f"migration {step.version:04} {step.name} failed at statement {number}: {error}"
    )


def _count(go_on: Callable[[], None], text: str, *values: object) -> None:
    """Writes how far a step is. Raises Race when another server was first."""
    try:
        if DB.execute_sql(text.replace("?", DB.obj.param), values).rowcount != 1:
            raise Race("another server did the same statement")
        if isinstance(DB.obj, MySQLDatabase):
            DB.execute_sql("COMMIT")
    except DatabaseError as error:
        if error.args[0] not in FASTER:
            raise
        raise Race("another server counted the same statement") from error
    go_on()
