"""The order book as JSON lines: the same lines from every database.

The first line tells the format, then comes a line a row, table by table in the order of their keys,
and the last line counts the rows, so that a file that was cut short is seen before it is loaded.
"""

import base64
import json
from collections.abc import Callable, Iterator
from functools import reduce
from operator import and_, or_
from pathlib import Path
from typing import Any, NamedTuple

from storage import migrate
from storage.row import DB, LongBlob, Row
from storage.sql import across_tenants, streamed, tuples
from storage.tables import TABLES
from storage.whole import replaced

FORMAT = 1
BATCH_ROWS = 500
BATCH_BYTES = 1 << 20
TAIL_BYTES = 1 << 16
"""Where the last line is looked for."""
Tell = Callable[[int, int], None]
"""Hears of progress: rows done, rows in all."""


class Batch(NamedTuple):
    """Neighbouring rows of one table, with the number of their first line."""

    table: type[Row]
    line: int
    rows: list[dict[str, Any]]


def export(path: Path, tell: Tell) -> dict[str, int]:
    """Writes every row to a file, whole or not at all; returns the rows of each table. One query
    for the engine.
    """
    counts = {table._meta.table_name: _count(table) for table in TABLES}
    total, done = sum(counts.values()), 0
    with replaced(path) as draft, draft.open("wb") as file:
        file.write(_line({"format": FORMAT, "schema": migrate.version()}))
        for table in TABLES:
            for row in _rows(table):
                file.write(_line({table._meta.table_name: row}))
                done += 1
                if done % BATCH_ROWS == 0:
                    tell(done, total)
        file.write(_line({"end": counts}))
    tell(done, total)
    return counts


def counts_of(path: Path) -> dict[str, int]:
    """Returns the rows of each table that a file holds. Raises ValueError when it is not whole."""
    with path.open("rb") as file:
        head = _read(file.readline(), 1)
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = file.read().splitlines()
    end = _read(lines[-1], 0) if lines else {}
    if head.get("format") != FORMAT or "end" not in end:
        raise ValueError(f"{path} is no export of Till, or is cut short")
    if head["schema"] > migrate.known()[-1].version:
        raise ValueError(f"{path} was written by a newer Till (schema {head['schema']})")
    return dict(end["end"])


def batches(path: Path) -> Iterator[Batch]:
    """Yields the rows of a file, as many at a time as one transaction should carry."""
    tables = {table._meta.table_name: table for table in TABLES}
    batch, size = Batch(TABLES[0], 0, []), 0
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            name, row = next(iter(_read(text, number).items()))
            if name in ("format", "end"):
                continue
            if name not in tables:
                raise ValueError(f"line {number}: there is no table {name}")
            full = len(batch.rows) >= BATCH_ROWS or size + len(text) > BATCH_BYTES
            if full or batch.table is not tables[name]:
                yield batch
                batch, size = Batch(tables[name], number, []), 0
            batch.rows.append(row)
            size += len(text)
    yield batch


def put(batch: Batch) -> int:
    """Adds the rows that are not there yet and returns how many; a unit, harmless to repeat.

    Raises ValueError when a row is there with other content.
    """
    if not batch.rows:
        return 0
    table, key = batch.table, _key(batch.table)
    given = [{**_defaults(table), **row} for row in batch.rows]
    known = {tuple(row[name] for name in key): row for row in _stored(table, key, given)}
    missing = []
    for number, row in enumerate(given, batch.line):
        there = known.get(tuple(row[name] for name in key))
        if there is None:
            missing.append(row)
        elif there != row:
            raise ValueError(f"line {number}: {table._meta.table_name} has another row of its key")
    _insert(table, missing)
    return len(missing)


def is_empty() -> bool:
    """Says whether the open database holds no row of any table."""
    return all(_count(table) == 0 for table in TABLES)


def _count(table: type[Row]) -> int:
    (rows,) = DB.execute_sql(f"SELECT count(*) FROM `{table._meta.table_name}`").fetchone()
    return int(rows)


def _rows(table: type[Row]) -> Iterator[dict[str, Any]]:
    fields = [getattr(table, name) for name in _key(table)]
    for row in streamed(table.select().order_by(*fields)):
        yield dict(zip(table._meta.sorted_field_names, map(_portable, row), strict=True))


def _stored(
    table: type[Row], key: tuple[str, ...], given: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yields the stored rows of the same keys, as an export would tell them."""
    same = [[getattr(table, name) == row[name] for name in key] for row in given]
    near = table.select().where(_any_of([reduce(and_, one) for one in same]))
    for row in tuples(across_tenants(near)):
        yield dict(zip(table._meta.sorted_field_names, map(_portable, row), strict=True))


def _any_of(conditions: list[Any]) -> Any:
    """Joins conditions by OR as a flat tree: Peewee writes a tree by recursion."""
    while len(conditions) > 1:
        conditions = [reduce(or_, conditions[at : at + 2]) for at in range(0, len(conditions), 2)]
    return conditions[0]


def _insert(table: type[Row], rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    blobs = {name for name, field in table._meta.fields.items() if isinstance(field, LongBlob)}
    values = [
        {name: base64.b64decode(value) if name in blobs else value for name, value in row.items()}
        for row in rows
    ]
    table.insert_many(values).execute()


def _key(table: type[Row]) -> tuple[str, ...]:
    key: Any = table._meta.primary_key  # a field, or what names several
    return getattr(key, "field_names", None) or (key.name,)


def _defaults(table: type[Row]) -> dict[str, Any]:
    """What a column holds that an older export does not know."""
    meta: Any = table._meta  # its stub has no types
    return {**dict.fromkeys(meta.sorted_field_names), **meta.get_default_dict()}


def _portable(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes | memoryview) else value


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _read(text: bytes, number: int) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        raise ValueError(f"line {number} is no JSON: this is no export of Till") from None
    if not isinstance(value, dict) or not value:
        raise ValueError(f"line {number} is no row")
    return value
