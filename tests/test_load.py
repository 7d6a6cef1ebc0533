"""`till inventory import`: a file of stock, all of it or nothing."""

import asyncio
import json
import subprocess
import sys
from argparse import Namespace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from conftest import ROOT, Stack, environment
from databases import held, log_of
from databases import rows as stored
from inside import TENANT, Book, opened
from mariadb import MariaDB
from proxy import Cut, proxied
from samples import DAY, OPTION, product
from test_engine_failures import no_larger_files

from server.config import Config
from server.load import run
from storage import mysql, pool, sqlite

LINES = 2000


@pytest.fixture(scope="module")
def option(stack: Stack) -> str:
    """A registered option whose sku is LOAD."""
    code = str(uuid4())
    body = {"options": [{"optionCode": code, "sku": "LOAD"}]}
    assert stack.operator.post("/v1/products", json=body).status_code == 200
    return code


def load(stack: Stack, folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Imports a file while the stack serves."""
    return load_into(stack.url, folder, text)


def load_into(url: str, folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Imports a file into a book."""
    file = folder / "stock.csv"
    file.write_text(text, encoding="utf-8-sig")
    command = [sys.executable, "-m", "server.cli", "inventory", "import", str(file)]
    known = environment() | {"TILL_DATABASE": url}
    return subprocess.run(command, cwd=ROOT, env=known, capture_output=True, text=True)


def rows(stack: Stack, option: str) -> list[tuple[str, int]]:
    """Returns the days and maxima of an option."""
    query = {"option_code": option, "page_size": 1000}
    found = stack.operator.get("/v1/inventory", params=query).json()["rows"]
    return [(row["date"], row["max_quantity"]) for row in found]


def test_a_file_is_loaded_while_serving(stack: Stack, tmp_path: Path, option: str) -> None:
    text = f"option_code,date,max_quantity\n{option},2027-01-01,5\n{option},2027-01-02,0\n"

    done = load(stack, tmp_path, text)

    assert json.loads(done.stdout)["rows"] == 2, done.stderr
    assert rows(stack, option) == [("2027-01-01", 5), ("2027-01-02", 0)]


def test_loading_it_again_changes_nothing(stack: Stack, tmp_path: Path, option: str) -> None:
    text = "sku,date,max_quantity\nLOAD,2027-02-01,5\n"
    assert load(stack, tmp_path, text).returncode == 0
    before = stack.count("inventory_ledger"), stack.count("events")

    assert load(stack, tmp_path, text).returncode == 0

    assert (stack.count("inventory_ledger"), stack.count("events")) == before


def test_every_bad_line_is_told_and_nothing_loaded(
    stack: Stack, tmp_path: Path, option: str
) -> None:
    before = rows(stack, option)
    bad = ["NOBODY,2027-03-01,5", "LOAD,2027-02-30,5", "LOAD,2027-03-01,many", "LOAD,2027-03-02,5"]
    text = "\n".join(["sku,date,max_quantity", "LOAD,2027-03-02,5", *bad])

    done = load(stack, tmp_path, text)

    assert done.returncode == 1
    told = [line.split(":")[0] for line in done.stderr.splitlines()[1:]]
    assert told == ["line 3", "line 4", "line 5", "line 6"]
    assert rows(stack, option) == before


def test_a_line_that_the_stock_refuses_undoes_the_others(
    stack: Stack, tmp_path: Path, option: str
) -> None:
    hold = {
        "lines": [{"option_code": option, "date": "2027-01-01", "quantity": 4}],
        "expire_time": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
    }
    assert stack.operator.post("/v1/holds", json=hold).status_code == 200
    before = rows(stack, option)

    done = load(stack, tmp_path, "sku,date,max_quantity\nLOAD,2027-04-01,5\nLOAD,2027-01-01,3\n")

    assert done.returncode == 1 and "2027-01-01" in done.stderr
    assert rows(stack, option) == before


@pytest.mark.parametrize("header", ["date,max_quantity", "sku,date,max_quantity,price", ""])
def test_a_header_that_is_not_understood_is_refused(
    stack: Stack, tmp_path: Path, header: str
) -> None:
    done = load(stack, tmp_path, f"{header}\n")

    assert done.returncode == 1 and "header" in done.stderr


def test_a_long_season_is_loaded_in_one_go(stack: Stack, tmp_path: Path, option: str) -> None:
    days = [f"LOAD,{2100 + n // 28}-01-{n % 28 + 1:02},{n}" for n in range(LINES)]

    done = load(stack, tmp_path, "\n".join(["sku,date,max_quantity", *days]))

    assert json.loads(done.stdout)["rows"] == LINES, done.stderr


ONE_ROW = f"option_code,date,max_quantity\n{OPTION},{DAY},5\n"


def assert_loaded_once(url: str, folder: Path) -> None:
    """Imports the row, maybe again, and asserts that it is there by one movement."""
    assert load_into(url, folder, ONE_ROW).returncode == 0
    assert stored(url, "SELECT date, max_quantity FROM inventory") == [(DAY, 5)]
    assert stored(url, "SELECT count(*) FROM inventory_ledger") == [(1,)]


@pytest.mark.parametrize(("cut", "kept"), [("before", 0), ("after", 1)])
def test_a_connection_that_is_lost_in_the_commit_leaves_it_open_what_was_loaded(
    mariadb: MariaDB, tmp_path: Path, cut: Cut, kept: int
) -> None:
    with mariadb.lend() as url, proxied(mariadb.port) as proxy:
        with opened(url) as book:
            book.write(lambda: product(OPTION))
        proxy.cut(cut)

        ended = load_into(url.replace(f":{mariadb.port}/", f":{proxy.port}/"), tmp_path, ONE_ROW)

        assert ended.returncode == 1
        assert "all rows were loaded, or none" in ended.stderr
        assert stored(url, "SELECT count(*) FROM inventory") == [(kept,)]
        assert_loaded_once(url, tmp_path)


def test_a_disk_that_is_full_in_the_commit_leaves_it_open_what_was_loaded(
    sqlite_book: Book, tmp_path: Path
) -> None:
    sqlite_book.write(lambda: product(OPTION))
    with no_larger_files(log_of(sqlite_book.url)):
        ended = load_into(sqlite_book.url, tmp_path, ONE_ROW)

    assert ended.returncode == 1
    assert "all rows were loaded, or none" in ended.stderr
    assert_loaded_once(sqlite_book.url, tmp_path)


def test_a_busy_database_is_told_and_nothing_was_loaded(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sqlite.PRAGMAS, "busy_timeout", 20)
    monkeypatch.setattr(mysql, "ANSWER_SECONDS", 1)
    monkeypatch.setattr(pool, "RETRY_SECONDS", 0.0)
    with opened(url) as book:
        book.write(lambda: product(OPTION))
    file = tmp_path / "stock.csv"
    file.write_text(ONE_ROW)

    asked = Namespace(file=str(file), tenant=TENANT)
    with held(url), pytest.raises(RuntimeError, match=r"nothing was loaded: .* busy.*; try again"):
        asyncio.run(run(Config(database=url), asked))

    assert_loaded_once(url, tmp_path)
