"""Hot statements: a Peewee query is turned into text once, then run with parameters.

Building a query costs about seventy times the work that SQLite does for it.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeVar

from peewee import Field, Model, ModelInsert, MySQLDatabase, Query, Select, Value
from peewee import __exception_wrapper__ as peewee_errors  # type: ignore[attr-defined] # untyped
from pymysql.cursors import SSCursor

from storage.row import DB

M = TypeVar("M", bound=Model)
Q = TypeVar("Q", bound=Query)


class _Named(NamedTuple):
    name: str


def param(name: str) -> Any:
    """Returns a place in a query that is filled by name when it runs."""
    return Value(_Named(name), converter=False, unpack=False)


class Unbound(Exception):
    """A query that reads or changes rows does not say whose: a mistake in the code, refused when
    it runs.
    """


class Bound:
    """Makes a Peewee database refuse queries over tenants' rows that are not bound to a tenant.

    The one place that a new query cannot get around; `across_tenants` names the few that may.
    """

    def execute(self, query: Any, *args: Any, **options: Any) -> Any:
        """Runs a query that was built anew. Raises Unbound."""
        if isinstance(query, Query):  # what makes tables comes here too
            refuse_unbound(query, query.sql()[0])
        return super().execute(query, *args, **options)  # type: ignore[misc]


# A column of the query's own table, compared with a value: `SET tenant = ?` and a join are neither.
_BOUND = re.compile(r'\.["`]tenant["`] = (\?|%s)')
_TABLE = re.compile(r'\b(?:FROM|JOIN|UPDATE) ["`]')


def across_tenants(query: Q) -> Q:
    """Lets a query see every tenant's rows: to find out who calls, and for chores."""
    query.across_tenants = True  # type: ignore[attr-defined]
    return query


def refuse_unbound(query: Query, text: str) -> None:
    """Raises Unbound for a SELECT, UPDATE or DELETE with a table that has no condition on the
    tenant.
    """
    if text.startswith("INSERT") or getattr(query, "across_tenants", False):
        return
    if len(_BOUND.findall(text)) < max(1, len(_TABLE.findall(text))):
        raise Unbound(text)


class Prepared:
    """A query whose text is made at its first run on a dialect, once a database is open."""

    def __init__(self, build: Callable[[], Query]) -> None:
        self._build = build
        self._texts: dict[type[object], tuple[str, list[object]]] = {}

    def rows(self, **values: object) -> list[tuple[Any, ...]]:
        """Runs a SELECT and returns its rows."""
        return list(self._execute(values).fetchall())

    def row(self, **values: object) -> tuple[Any, ...] | None:
        """Runs a SELECT and returns its first row, if there is one."""
        row: tuple[Any, ...] | None = self._execute(values).fetchone()
        return row

    def one(self, model: type[M], **values: object) -> M | None:
        """Runs a SELECT of every column of a table and returns its first row as the model."""
        row = self.row(**values)
        return None if row is None else as_model(model, row)

    def only(self, model: type[M], **values: object) -> M | None:
        """Runs a SELECT of every column of a table and returns its row, if there is just one."""
        rows = self._execute(values).fetchmany(2)
        return as_model(model, rows[0]) if len(rows) == 1 else None

    def all(self, model: type[M], **values: object) -> list[M]:
        """Runs a SELECT of every column of a table and returns its rows as models."""
        return [as_model(model, row) for row in self.rows(**values)]

    def run(self, **values: object) -> int:
        """Runs an UPDATE or DELETE and returns how many rows it touched."""
        count: int = self._execute(values).rowcount
        return count

    @property
    def text(self) -> str:
        """The query in the words of the database that is open."""
        return self._made()[0]

    def values(self, **values: object) -> list[object]:
        """Returns the parameters of the text, for who runs it later."""
        return [values[p.name] if isinstance(p, _Named) else p for p in self._made()[1]]

    def _made(self) -> tuple[str, list[object]]:
        made = self._texts.get(type(DB.obj))
        if made is None:
            query = self._build()
            made = self._texts[type(DB.obj)] = query.sql()
            refuse_unbound(query, made[0])
        return made

    def _execute(self, values: dict[str, object]) -> Any:
        text, places = self._made()
        return execute(text, [values[p.name] if type(p) is _Named else p for p in places])


def rows_with(model: type[Model], *columns: str) -> Prepared:
    """Returns the query for those rows of a tenant that have these columns as they are given."""
    names = ("tenant", *columns)
    return Prepared(lambda: model.select().where(*(getattr(model, n) == param(n) for n in names)))


def execute(text: str, values: Sequence[object] = ()) -> Any:
    """Runs a statement on this thread's connection and returns its cursor.

    Peewee's own execute_sql, less its log and hooks: half of what a statement of ours costs.
    """
    cursor = DB.obj.cursor()
    try:
        cursor.execute(text, values)
    except Exception:
        with peewee_errors:
            raise
    return cursor


def execute_each(text: str, rows: Sequence[Sequence[object]]) -> None:
    """Runs a statement on this thread's connection once with each row of parameters."""
    with peewee_errors:
        DB.obj.cursor().executemany(text, rows)


def insert(row: Model) -> None:
    """Inserts a row as it is; columns that were not set take their defaults."""
    _insert(type(row), row.__data__)


def insert_values(model: type[Model], **values: object) -> None:
    """Inserts a row that nobody needs as a model; every column without a default must be there."""
    _insert(model, values)


def insertion(model: type[Model], values: dict[Field, Any]) -> ModelInsert:
    """Returns an INSERT whose values may be read from the very table. MySQL wants a SELECT for
    that, whose row SQLite would put aside in a table of its own.
    """
    if isinstance(DB.obj, MySQLDatabase):
        return model.insert_from(Select(columns=[*values.values()]), [*values])
    return model.insert(values)


def upsert(row: ModelInsert, key: list[Field], change: dict[Field, object]) -> ModelInsert:
    """Returns an INSERT that makes the change instead where the key is taken."""
    if isinstance(DB.obj, MySQLDatabase):  # finds the key by itself
        return row.on_conflict(update=change)
    return row.on_conflict(conflict_target=key, update=change)


def tuples(query: Query) -> list[tuple[Any, ...]]:
    """Runs a SELECT that is built anew each time and returns its rows as tuples; for the cold
    paths.
    """
    return list(query.tuples())


def streamed(query: Query) -> Iterator[tuple[Any, ...]]:
    """Runs a SELECT over all tenants and yields its rows as they come, never all in memory."""
    text, values = query.sql()
    if isinstance(DB.obj, MySQLDatabase):
        cursor = DB.connection().cursor(SSCursor)
        cursor.execute(text, values)
    else:
        cursor = DB.execute_sql(text, values)
    yield from cursor


def as_model(model: type[M], row: tuple[Any, ...]) -> M:
    """Returns a row that selected every column, as its model."""
    made = model(__no_default__=True)
    made.__data__ = dict(zip(_names(model), row, strict=True))
    return made


@cache
def _names(model: type[Model]) -> list[str]:
    return [field.name for field in model._meta.sorted_fields]


@cache
def _insertion(model: type[Model]) -> Prepared:
    return Prepared(lambda: model.insert({f: param(f.name) for f in model._meta.sorted_fields}))


def _insert(model: type[Model], values: dict[str, Any]) -> None:
    execute(_insertion(model).text, [values.get(name) for name in _names(model)])
