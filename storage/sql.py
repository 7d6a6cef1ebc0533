"""Hot statements: a Peewee query is turned into text once, then run with parameters.

Building a query costs about seventy times the work that SQLite does for it.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypeVar

from peewee import Model, Query, Value

from storage.tables import DB

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
    """A query whose text is made at its first run, once a database is open."""

    def __init__(self, build: Callable[[], Query]) -> None:
        self._build = build
        self._text: tuple[str, list[object]] | None = None

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

    def all(self, model: type[M], **values: object) -> list[M]:
        """Runs a SELECT of every column of a table and returns its rows as models."""
        return [as_model(model, row) for row in self.rows(**values)]

    def run(self, **values: object) -> int:
        """Runs an UPDATE or DELETE and returns how many rows it touched."""
        count: int = self._execute(values).rowcount
        return count

    def _execute(self, values: dict[str, object]) -> Any:
        if self._text is None:
            query = self._build()
            self._text = query.sql()
            refuse_unbound(query, self._text[0])
        text, places = self._text
        filled = [values[p.name] if isinstance(p, _Named) else p for p in places]
        return DB.execute_sql(text, filled)


def insert(row: Model) -> None:
    """Inserts a row as it is; columns that were not set take their defaults."""
    text, names = _insert(type(row))
    data = row.__data__
    DB.execute_sql(text, [data.get(name) for name in names])


def tuples(query: Query) -> list[tuple[Any, ...]]:
    """Runs a SELECT that is built anew each time and returns its rows as tuples; for the cold
    paths.
    """
    return list(query.tuples())


def as_model(model: type[M], row: tuple[Any, ...]) -> M:
    """Returns a row that selected every column, as its model."""
    return model(**dict(zip(_names(model), row, strict=True)))


@cache
def _names(model: type[Model]) -> list[str]:
    return [field.name for field in model._meta.sorted_fields]


@cache
def _insert(model: type[Model]) -> tuple[str, list[str]]:
    fields = model._meta.sorted_fields
    text, _ = model.insert({field: param(field.name) for field in fields}).sql()
    return text, _names(model)
