"""The right to change the schema of a database on a server: a row that ends by itself.

A named lock (GET_LOCK) is one node's alone in a cluster, and some clusters refuse it. A row is
everybody's: only one INSERT of it is committed, whatever node it came by. A lease may run out under
a long statement, so whoever holds one must be ready to be overtaken.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from peewee import DatabaseError, IntegrityError

from storage import ids
from storage.ddl import spoken
from storage.errors import Race
from storage.mysql import BEATEN, DUPLICATE
from storage.row import DB

T = TypeVar("T")
LEASE_MS = 20_000
"""How long a server that died in the middle of an upgrade holds up the next one."""
PAUSE_SECONDS = 0.2
TRIES = 50
FASTER = {DUPLICATE, *BEATEN}
"""What a database says when another server was."""
TABLE = """CREATE TABLE IF NOT EXISTS schema_leases (
    name VARCHAR(16) NOT NULL PRIMARY KEY, owner VARCHAR(32) NOT NULL, until_ms BIGINT NOT NULL)"""
_TAKE = "INSERT INTO schema_leases (name, owner, until_ms) VALUES ('schema', %s, %s)"
_TAKE_OVER = "UPDATE schema_leases SET owner = %s, until_ms = %s WHERE until_ms < %s"
_EXTEND = "UPDATE schema_leases SET until_ms = %s WHERE owner = %s"
_GIVE_BACK = "DELETE FROM schema_leases WHERE owner = %s"


@contextmanager
def lease(patience_seconds: float) -> Iterator[str]:
    """Waits for the lease and gives its owner's name. Raises RuntimeError when that takes too
    long.
    """
    if "schema_leases" not in DB.get_tables():
        undisturbed(lambda: DB.execute_sql(spoken(TABLE)))
    owner, deadline = secrets.token_hex(16), time.monotonic() + patience_seconds
    while not _taken(owner):
        if time.monotonic() > deadline:
            raise RuntimeError(
                f"another server has been upgrading the schema for {patience_seconds} s"
            )
        time.sleep(PAUSE_SECONDS)
    try:
        yield owner
    finally:
        _run(_GIVE_BACK, owner)


def extend(owner: str) -> None:
    """Begins the lease anew. Raises Race when it is another's."""
    if _run(_EXTEND, ids.now_ms() + LEASE_MS, owner) != 1:
        raise Race("another server took over the upgrade")


def undisturbed(work: Callable[[], T]) -> T:
    """Runs statements, and again when another server was in their way: in a cluster a change of the
    schema throws back whatever is open at any node.
    """
    tries = 1
    while True:
        try:
            return work()
        except DatabaseError as error:
            if tries == TRIES or error.args[0] not in BEATEN:
                raise
        roll_back()
        time.sleep(PAUSE_SECONDS)
        tries += 1


def roll_back() -> None:
    """Ends the transaction; one that was thrown back says so to this too."""
    with suppress(DatabaseError):
        DB.execute_sql("ROLLBACK")


def _taken(owner: str) -> bool:
    """Tries to take the lease: one that has run out, or a new one."""
    now = ids.now_ms()
    try:
        return (
            _run(_TAKE_OVER, owner, now + LEASE_MS, now) == 1
            or _run(_TAKE, owner, now + LEASE_MS) == 1
        )
    except IntegrityError:
        roll_back()
        return False


def _run(text: str, *values: object) -> int:
    """Runs and commits a statement, and returns how many rows it touched."""

    def run() -> int:
        count: int = DB.execute_sql(text, values).rowcount
        DB.execute_sql("COMMIT")
        return count

    return undisturbed(run)
