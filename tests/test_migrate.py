"""The schema's versions: the models and the migrations agree, and no start can hurt another."""

import re
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from alone import alone
from databases import connect, is_file
from inside import at_once, on_this_thread
from mariadb import MariaDB

from storage import ddl, lease, migrate
from storage.database import close_database
from storage.row import DB

FIRST = "CREATE TABLE `a` (`x` BIGINT NOT NULL PRIMARY KEY)"
SECOND = "ALTER TABLE `a` ADD COLUMN `y` VARCHAR(9) NOT NULL DEFAULT 'new'"
THIRD = "CREATE UNIQUE INDEX `a_y_x` ON `a` (`y`, `x`)"
OF_DRAFT_ITEMS = tuple(
    statement for statement in migrate.known()[0].statements if "`draft_items`" in statement
)


@pytest.fixture
def new_url(
    backend: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], str]:
    """Gives the URL of another database without a schema."""
    if backend == "sqlite":
        return lambda: f"sqlite:///{tmp_path_factory.mktemp('new') / 'till.db'}"
    server: MariaDB = request.getfixturevalue("mariadb")
    return lambda: server.database(f"till_{uuid4().hex}")


@pytest.fixture
def url(new_url: Callable[[], str]) -> str:
    """The URL of a database without a schema."""
    return new_url()


def rows(query: str) -> list[tuple[Any, ...]]:
    """Returns the rows of a query on the open database."""
    return [tuple(row) for row in DB.execute_sql(query).fetchall()]


def described(url: str) -> dict[str, object]:
    """Returns all that a database says of its tables: columns, keys, checks and collation."""
    if url.startswith("sqlite:"):
        texts = rows("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        parts = re.compile(r",(?=`|CHECK|PRIMARY)|(?<=\))(?=WITHOUT)|\)$")
        return {
            name: sorted(filter(None, parts.split(re.sub(r"\s+", "", sql)))) for name, sql in texts
        }
    here = "WHERE table_schema = DATABASE()"
    return {
        "columns": rows(
            "SELECT table_name, column_name, column_type, is_nullable, column_default,"
            f" collation_name FROM information_schema.columns {here} ORDER BY 1, 2"
        ),
        "tables": rows(
            "SELECT table_name, engine, table_collation FROM information_schema.tables"
            f" {here} ORDER BY 1"
        ),
        "keys": rows(
            "SELECT table_name, index_name, seq_in_index, column_name, non_unique"
            f" FROM information_schema.statistics {here} ORDER BY 1, 2, 3"
        ),
        "checks": rows(
            "SELECT table_name, check_clause FROM information_schema.check_constraints"
            " WHERE constraint_schema = DATABASE() ORDER BY 1, 2"
        ),
    }


def written(folder: Path, *steps: tuple[str, ...]) -> Path:
    """Writes migrations of these statements and returns their folder."""
    folder.mkdir(exist_ok=True)
    for number, statements in enumerate(steps, 1):
        text = "".join(f"{statement};\n" for statement in statements)
        (folder / f"{number:04}_step.sql").write_text(text)
    return folder


def test_the_migrations_make_what_the_models_say(url: str, new_url: Callable[[], str]) -> None:
    with on_this_thread(url):
        migrate.up()
        migrated = described(url)
    with on_this_thread(other := new_url()):
        leases = [] if is_file(other) else [lease.TABLE]
        for statement in [migrate._TABLE, *leases, *ddl.of_tables()]:
            DB.execute_sql(ddl.spoken(statement))
        modelled = described(other)

    assert migrated == modelled


def test_a_server_database_is_exact_and_transactional(mariadb: Any) -> None:
    url = mariadb.database("till_exact")
    with on_this_thread(url):
        migrate.up()
        told = described(url)

    assert {row[1:] for row in told["tables"]} == {("InnoDB", "utf8mb4_nopad_bin")}  # type: ignore[attr-defined]
    assert len(told["checks"]) >= 10  # type: ignore[arg-type]


def test_migrating_again_changes_nothing(url: str) -> None:
    with on_this_thread(url):
        migrate.up()
        before = described(url), rows("SELECT * FROM schema_versions")
        migrate.up()

        assert (described(url), rows("SELECT * FROM schema_versions")) == before


def together(folder: Path) -> None:
    """Migrates as eight servers do that start at once: one database object, a connection each."""

    def start() -> None:
        try:
            migrate.up(folder)
        finally:
            close_database()

    at_once([start] * 8)


def test_many_servers_starting_at_once_migrate_once(url: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "steps", (FIRST,), (SECOND, THIRD))
    with on_this_thread(url):
        together(folder)

        assert rows("SELECT version, statements FROM schema_versions ORDER BY 1") == [
            (1, 1),
            (2, 2),
        ]


@pytest.mark.parametrize("lease_ms", [-1, 3], ids=["at once", "soon"])
def test_servers_that_overtake_each_other_do_every_statement_once(
    mariadb: MariaDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lease_ms: int
) -> None:
    monkeypatch.setattr(lease, "LEASE_MS", lease_ms)
    monkeypatch.setattr(lease, "PAUSE_SECONDS", 0.001)
    more = [f"INSERT INTO `a` (`x`) VALUES ({number})" for number in range(9)]
    url = mariadb.database("till_overtaken")
    with on_this_thread(url):
        together(written(tmp_path / "steps", (FIRST,), (SECOND, *more, THIRD)))

        counted = rows("SELECT version, statements FROM schema_versions ORDER BY 1")
        assert counted == [(1, 1), (2, 11)]
        assert rows("SELECT count(*), sum(x) FROM a") == [(9, 36)]
        assert rows("SELECT * FROM schema_leases") == []


def test_the_lease_of_a_server_that_died_runs_out(
    mariadb: MariaDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_MS", 300)
    with on_this_thread(mariadb.database("till_died")):
        DB.execute_sql(ddl.spoken(lease.TABLE))
        assert lease._taken("one that died")
        began = time.monotonic()
        migrate.up(written(tmp_path / "steps", (FIRST,)))

    assert 0.2 < time.monotonic() - began < 5


def test_a_newer_schema_than_the_program_knows_is_refused(url: str, tmp_path: Path) -> None:
    with on_this_thread(url):
        migrate.up(written(tmp_path / "new", (FIRST,), (SECOND,)))
        with pytest.raises(RuntimeError, match="version 2 and this program knows up to 1"):
            migrate.up(written(tmp_path / "old", (FIRST,)))


def test_a_schema_that_other_steps_made_is_refused(url: str, tmp_path: Path) -> None:
    with on_this_thread(url):
        migrate.up(written(tmp_path / "other", (FIRST, SECOND)))
        with pytest.raises(RuntimeError, match="version 1 is not this program's"):
            migrate.up(written(tmp_path / "own", (FIRST,)))


def test_a_step_that_fails_is_told_and_finished_once_it_can_be(url: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "steps", (FIRST,), (SECOND, "CREATE NONSENSE", THIRD))
    with on_this_thread(url):
        with pytest.raises(RuntimeError, match="0002 step failed at statement 2"):
            migrate.up(folder)
        assert migrate.version() == (0 if url.startswith("sqlite:") else 1)
        migrate.up(written(folder, (FIRST,), (SECOND, "CREATE TABLE `b` (`x` INTEGER)", THIRD)))

        assert migrate.version() == 2
        DB.execute_sql("INSERT INTO a (x) VALUES (1)")
        assert rows("SELECT x, y FROM a") == [(1, "new")]


def crash_before_counting(steps: tuple[str, ...]) -> None:
    """Leaves the database as a start does that dies after a statement, before it is counted."""
    for statement in (migrate._TABLE, *steps):
        DB.execute_sql(ddl.spoken(statement))
    begun = "INSERT INTO schema_versions VALUES (1, 'step', %s, NULL)"
    DB.execute_sql(begun, (len(steps) - 1,))
    DB.execute_sql("COMMIT")


@pytest.mark.parametrize(
    ("steps", "table", "column"),
    [((FIRST, SECOND, THIRD), "a", "y"), (OF_DRAFT_ITEMS, "draft_items", "item")],
)
def test_a_crash_between_doing_and_counting_is_made_up_for(
    mariadb: MariaDB, tmp_path: Path, steps: tuple[str, ...], table: str, column: str
) -> None:
    folder, found = written(tmp_path / "steps", steps), []
    for done in range(-1, len(steps)):
        with on_this_thread(mariadb.database("till_crashed")):
            if done >= 0:
                crash_before_counting(steps[: done + 1])
            migrate.up(folder)

            assert migrate.version() == 1
            assert rows(f"SHOW COLUMNS FROM {table} LIKE '{column}'")
            found.append(described("mysql:"))
    assert found == found[:1] * (len(steps) + 1)


def test_the_items_of_a_draft_lie_beside_each_other_on_a_server(mariadb: MariaDB) -> None:
    with on_this_thread(mariadb.database("till_items")):
        migrate.up()
        keys = rows("SHOW INDEX FROM draft_items")

    assert [(name, column, unique == 0) for _, unique, name, _, column, *_ in keys] == [
        ("PRIMARY", "tenant", True),
        ("PRIMARY", "draft", True),
        ("PRIMARY", "item", True),
        ("draftitem_tenant_item", "tenant", True),
        ("draftitem_tenant_item", "item", True),
    ]


def test_a_server_goes_on_while_the_schema_is_expanded(url: str, tmp_path: Path) -> None:
    with alone(url, tmp_path) as server:
        with closing(connect(url, writing=True)) as newer:
            for step in (SECOND.replace("`a`", "stores"), "CREATE TABLE colours (x INTEGER)"):
                newer.cursor().execute(step)
            newer.commit()
        from till.v1 import order_pb2

        for number in ("1", "2"):
            order = order_pb2.SubmitStoreOrderRequest(
                store_id="s", order_id=number, user_id="u", grand_total=1
            )
            assert server.stubs.order.SubmitStoreOrder(order).status_code == 201
