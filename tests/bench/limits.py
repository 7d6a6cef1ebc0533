"""Limits: the rows of creates written by the driver alone, without a server, on one thread.

    python -m bench.limits group|single DATABASE SECONDS
    python -m bench.limits innodb URL SECONDS

Prints {"calls", "seconds"}.
"""

import json
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from bench import mariadb, stores
from bench.plan import CALLERS

from storage.sqlite import PRAGMAS

Rows = dict[str, dict[str, Any]]


def new_rows(tenant: int) -> Iterator[Rows]:
    """Yields the rows of creates that no store has yet."""
    start = time.time_ns()
    for n, order in enumerate(stores.orders(100_000_000)):
        fresh = {
            "order_number": f"raw-{start}-{n}",
            "at": start // 1000 + n,  # no two runs meet: nothing writes a million a second
            "key": f"{start:x}-{n}",
        }
        yield stores.rows_of_create(tenant, start + n, order | fresh)


def main(kind: str, target: str, seconds: float) -> None:
    """Measures one limit."""
    count = CALLERS if kind == "group" else 1
    write = _innodb(target) if kind == "innodb" else _sqlite(target)
    made = new_rows(tenant=2 if kind == "innodb" else 1)  # Till is at home in that MariaDB
    started, calls = time.perf_counter(), 0
    while (spent := time.perf_counter() - started) < seconds:
        write([next(made) for _ in range(count)])
        calls += count
    print(json.dumps({"calls": calls, "seconds": spent}))


def _sqlite(path: str) -> Callable[[list[Rows]], None]:
    database = sqlite3.connect(path, isolation_level=None)
    for name, value in PRAGMAS.items():
        database.execute(f"PRAGMA {name}={value}")

    def write(batch: list[Rows]) -> None:
        database.execute("BEGIN IMMEDIATE")
        for rows in batch:
            for table, row in rows.items():
                database.execute(stores.insert_text(table, row), row)
        database.execute("COMMIT")

    return write


def _innodb(target: str) -> Callable[[list[Rows]], None]:
    database = mariadb.connect(target)

    def write(batch: list[Rows]) -> None:
        with database.cursor() as cursor:
            for rows in batch:
                for table, row in rows.items():
                    cursor.execute(mariadb.insert_text(table, row), list(row.values()))
        database.commit()

    return write


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
