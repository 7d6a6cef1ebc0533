"""Stores that are full before anything is measured: made once per size, then copied.

Till's is written through storage's own tables, row for row as Till would have written it.
"""

import hashlib
import json
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from bench.plan import STOCK_ROWS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "bench" / "stores"
STORES = 8
ORDERS_A_USER = 10
BATCH = 5000
"""Orders of one statement while a store is filled."""
FIRST_MS = int(time.time() * 1000) - 6 * 3600 * 1000
"""When the first order came: so lately that Till forgets no key of it while it is measured."""
FRESH_SECONDS = 3 * 24 * 3600
"""How long a store may be used, for the same reason."""
CLIENT = "local-development"
DAY = "2030-01-01"
SUBMIT = "SubmitStoreOrder"


def users(stored: int) -> int:
    """Returns how many customers a store of so many orders has."""
    return stored // ORDERS_A_USER


def option_code(row: int) -> str:
    """Returns the option of a stock row; the load makes the same codes."""
    return f"00000000-0000-4000-8000-{row:012d}"


def till(stored: int) -> Path:
    """Returns a Till store with so many orders, made now or before."""
    path = FOLDER / f"till-{stored}-{_version('storage/migrations')}.db"
    if not path.exists():
        _make(path, lambda partial: _fill_till(partial, stored))
    return path


def peer(stored: int) -> Path:
    """Returns a store of the peers' tables with so many orders, made now or before."""
    path = FOLDER / f"peer-{stored}-{_version('tests/bench/peers/peewee_tables.py')}.db"
    if not path.exists():
        _make(path, lambda partial: _fill_peer(partial, stored))
    return path


def copy(source: Path, target: Path) -> Path:
    """Copies a store that nobody has open, onto the disk."""
    shutil.copy(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    return target


def into_memory(database: Path) -> None:
    """Reads a store's files once, as a book in use would have been: a kernel may take the memory of
    files that rest (Linux's DAMON does, within minutes), and the disk be measured instead.
    """
    for path in database.parent.glob(f"{database.name}*"):
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 20):
                pass


def orders(stored: int) -> Iterator[dict[str, Any]]:
    """Yields the orders of a store in the order they came in, as the load would have sent them."""
    for number in range(stored):
        user = number * 7919 % users(stored)
        yield {
            "store": f"store{user % STORES}",
            "order_number": f"old-{number}",
            "customer": f"user{user}",
            "grand_total": (100 + number % 100_000) * 10_000,
            "at": FIRST_MS + number,
            "key": f"{number:08x}-0000-4000-8000-000000000000",
        }


def rows_of_create(tenant: int, seq: int, order: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the rows that Till writes for one create, by table."""
    order_id = order["at"] - FIRST_MS + 1  # below the ids that the server makes
    data = {"store": order["store"], "number": order["order_number"]}
    return {
        "orders": {
            "tenant": tenant,
            "order_id": order_id,
            "store": order["store"],
            "order_number": order["order_number"],
            "status": "NEW",
            "customer": order["customer"],
            "customer_ms": order["at"],
            "client": CLIENT,
            "grand_total": order["grand_total"],
            "item_changes": 0,
            "revision": 1,
            "create_ms": order["at"],
            "update_ms": order["at"],
        },
        "events": {
            "tenant": tenant,
            "seq": seq,
            "kind": "order.created",
            "subject": str(order_id),
            "data": json.dumps(data, separators=(",", ":")),
            "create_ms": order["at"],
        },
        "idempotency_keys": {
            "tenant": tenant,
            "client": CLIENT,
            "rpc": SUBMIT,
            "key": order["key"],
            "fingerprint": hashlib.sha256(order["key"].encode()).digest(),
            "answer": b"",
            "create_ms": order["at"],
        },
    }


def insert_text(table: str, row: dict[str, Any]) -> str:
    """Returns the INSERT of a row, filled by name."""
    places = ", ".join(f":{name}" for name in row)
    return f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})"


def _version(tables: str) -> str:
    place = ROOT / tables
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    text = b"".join(file.read_bytes() for file in (*files, Path(__file__)))
    text += b"%d" % (time.time() // FRESH_SECONDS)
    return hashlib.sha256(text).hexdigest()[:8]


def _make(path: Path, fill: Any) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    fill(partial)
    partial.rename(path)


def _fill_till(path: Path, stored: int) -> None:
    from storage import database as databases
    from storage import migrate
    from storage.row import DB

    databases.open_database(f"sqlite:///{path}")
    migrate.up()
    DB.close()
    tenant, seq = 1, STORES + STOCK_ROWS + 1
    with _fast(path) as database:
        _add_stock(database, tenant)
        made = (rows_of_create(tenant, seq + n, order) for n, order in enumerate(orders(stored)))
        for batch in _batches(made, stored):
            for table in batch[0]:
                text = insert_text(table, batch[0][table])
                database.executemany(text, [rows[table] for rows in batch])
        tip = {"tenant": tenant, "seq": seq + stored - 1}
        database.execute(insert_text("event_tips", tip), tip)


def _add_stock(database: sqlite3.Connection, tenant: int) -> None:
    def add(table: str, **row: Any) -> None:
        database.execute(insert_text(table, {"tenant": tenant, **row}), {"tenant": tenant, **row})

    def tell(seq: int, kind: str, subject: str) -> None:
        add("events", seq=seq, kind=kind, subject=subject, data="{}", create_ms=FIRST_MS)

    for n in range(STORES):
        name = f"store{n}"
        add("stores", store=name, display_name="", checkout_mapping="{}", create_ms=FIRST_MS)
        tell(n + 1, "store.created", name)
    product = "00000000-0000-4000-9000-000000000000"
    add("products", product_code=product, product_id=1, display_name="")
    for n in range(STOCK_ROWS):
        code, most = option_code(n), 2_000_000_000
        add("product_options", option_code=code, option_id=n + 1, product_code=product)
        add(
            "inventory",
            inventory_id=n + 1,
            inventory_code=code,
            option_code=code,
            date=DAY,
            max_quantity=most,
            ordered=0,
            held=0,
            revision=1,
        )
        entry = {"before": 0, "delta": most, "after": most, "source": "set"}
        entry |= {"actor": "", "reason": ""}
        add(
            "inventory_ledger",
            entry_id=n + 1,
            inventory_id=n + 1,
            counter="max",
            create_ms=FIRST_MS,
            **entry,
        )
        tell(STORES + n + 1, "inventory.set", code)


def _fill_peer(path: Path, stored: int) -> None:
    from bench.peers.peewee_tables import IdempotencyKey, Order
    from bench.peers.peewee_tables import database as tables

    tables.init(str(path), pragmas={})
    tables.create_tables([Order, IdempotencyKey])
    tables.close()
    rows = (
        {**order, "fingerprint": "0" * 64, "answer": f"Order {order['order_number']} submitted"}
        for order in orders(stored)
    )
    with _fast(path) as database:
        for batch in _batches(rows, stored):
            database.executemany(
                "INSERT INTO orders (store_id, order_number, user_id, grand_total, created_ms)"
                " VALUES (:store, :order_number, :customer, :grand_total, :at)",
                batch,
            )
            database.executemany(
                "INSERT INTO idempotency_keys VALUES (:key, :fingerprint, :answer, :at)", batch
            )


def _batches(rows: Iterator[dict[str, Any]], stored: int) -> Iterator[list[dict[str, Any]]]:
    """Yields rows by the batch, and tells after every million how far it is."""
    for done in range(0, stored, BATCH):
        if done and done % 1_000_000 == 0:
            print(f"  filled {done:,} of {stored:,} orders", file=sys.stderr, flush=True)
        yield list(islice(rows, BATCH))


class _fast:
    """A connection that fills a new file: nothing is lost by starting over after a crash."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path)

    def __enter__(self) -> sqlite3.Connection:
        for pragma in ("journal_mode=off", "synchronous=off", "cache_size=-262144"):
            self._database.execute(f"PRAGMA {pragma}")
        return self._database

    def __exit__(self, *failure: object) -> None:
        self._database.commit()
        self._database.execute("PRAGMA journal_mode=wal")
        self._database.close()
