"""The DDL of the tables, in words that both dialects share but for a few that are put in here.

`make schema` prints what the models say now: what a new migration is written from.
"""

from typing import Any

from peewee import Database, MySQLDatabase, SchemaManager

from storage.row import DB, Row
from storage.tables import TABLES

ROWID = " WITHOUT ROWID"
COLLATIONS = ("utf8mb4_0900_bin", "utf8mb4_nopad_bin")
"""Exact, case and trailing spaces included, as SQLite compares: MySQL's, then MariaDB's."""


class _Words(Database):
    """Writes SQL that no database has to run yet."""

    quote = "``"


def of_tables() -> list[str]:
    """Returns the statements that make every table, as the models describe it."""
    words = _Words(None)
    return [statement for table in TABLES for statement in _of(table, words)]


def script() -> str:
    """Returns the statements of every table as a migration holds them, a column a line."""
    return "".join(f"{_laid_out(statement)};\n" for statement in of_tables())


def spoken(statement: str) -> str:
    """Returns a statement in the words of the open database."""
    if not isinstance(DB.obj, MySQLDatabase):
        # Only INTEGER PRIMARY KEY is SQLite's own row id; its INTEGER holds 64 bits.
        return statement.replace("BIGINT", "INTEGER")
    statement = statement.replace(ROWID, "")
    if statement.startswith("CREATE TABLE"):
        statement += f" ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE={_collation()}"
    return statement


def _of(table: type[Row], words: Database) -> list[str]:
    manager: Any = SchemaManager(table, words)  # its stub lacks what makes SQL without running it
    made = [manager._create_table(safe=False), *manager._create_indexes(safe=False)]
    return [str(context.query()[0]) for context in made]


def _laid_out(statement: str) -> str:
    """Breaks a CREATE TABLE after every comma that is not inside a column's own parentheses."""
    if not statement.startswith("CREATE TABLE"):
        return statement
    depth, text = 0, ""
    for sign in statement:
        depth += (sign == "(") - (sign == ")")
        if depth == 0 and sign == ")":
            text += "\n"
        text += sign
        if depth == 1 and sign in "(,":
            text += "\n  "
    return text.replace("\n   ", "\n  ")


def _collation() -> str:
    wanted = ", ".join(f"'{name}'" for name in COLLATIONS)
    found = DB.execute_sql(
        "SELECT COLLATION_NAME FROM information_schema.COLLATIONS "
        f"WHERE COLLATION_NAME IN ({wanted}) ORDER BY COLLATION_NAME"
    ).fetchone()
    if found is None:
        raise RuntimeError(f"the database has neither collation: {' nor '.join(COLLATIONS)}")
    return str(found[0])


if __name__ == "__main__":
    print(script(), end="")
