"""`till backup`, `restore`, `export` and `import`: the whole order book, out and in again."""

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
import threading
from argparse import Namespace
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from callers import keyed
from conftest import ORDER, ROOT, Lend, Stack, environment, eventually
from databases import connect, file_of, is_file, log_of, rows
from inside import Book
from invariants import assert_invariants, dump
from mariadb import PASSWORD, QUOTED, MariaDB
from ports import free_ports

from server import keep
from server.config import Config
from storage import portable, sqlite


def till(url: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of `till` over a database."""
    return subprocess.run(
        [sys.executable, "-m", "server.cli", *arguments],
        cwd=ROOT,
        env=environment() | {"TILL_DATABASE": url} | settings,
        capture_output=True,
        text=True,
        check=False,
    )


def done(ran: subprocess.CompletedProcess[str]) -> dict[str, object]:
    """Returns what a command that must succeed printed."""
    assert ran.returncode == 0, ran.stderr
    printed: dict[str, object] = json.loads(ran.stdout)
    return printed


def tenants(url: str) -> list[str]:
    """Returns the names of the tenants of a book."""
    return [name for (name,) in rows(url, "SELECT name FROM tenants ORDER BY tenant")]


def fill(stack: Stack) -> None:
    """Makes rows in every corner of the book, some of them awkward."""
    for number in ("1", "\uff11", "1 ", "주문-🛒"):
        order = {"store_id": "s", "order_id": number, "user_id": "u", "grand_total": 0.1}
        assert stack.rest.post("/new-order", json=order).status_code == 201
    for _ in range(20):
        body = {**ORDER, "notes": 'a "quoted"\n\\ line'}
        assert stack.rest.post("/orders", json=body, headers=keyed()).status_code == 200
    item = {"pk": "i", "gsi_1_pk": "d", "quantity": 1, "idempotency_key": "k"}
    accepted = stack.rest.post("/store-checkout-draft-items-post-one", json=item)
    operation = accepted.headers["x-operation"]
    eventually(lambda: assert_done(stack, operation))


def assert_done(stack: Stack, operation: str) -> None:
    """Asserts that an operation has ended well."""
    assert stack.operator.get(f"/v1/{operation}").json()["metadata"]["state"] == "SUCCEEDED"


def test_an_export_is_the_same_from_every_database(
    fresh_stack: Stack, mariadb: MariaDB, tmp_path: Path
) -> None:
    fill(fresh_stack)
    first, second, third = (tmp_path / name for name in ("1.jsonl", "2.jsonl", "3.jsonl"))
    server = mariadb.database(f"till_{uuid4().hex}")
    file = f"sqlite:///{tmp_path / 'copy.db'}"

    told = done(till(fresh_stack.url, "export", str(first)))
    done(till(server, "import", str(first)))
    done(till(server, "export", str(second)))
    done(till(file, "import", str(second)))
    done(till(file, "export", str(third)))

    assert told["orders"] == 24
    assert first.read_bytes() == second.read_bytes() == third.read_bytes()
    assert_invariants(file)


def test_an_import_that_was_cut_off_goes_on_and_may_be_repeated(
    fresh_stack: Stack, lend: Lend, tmp_path: Path
) -> None:
    fill(fresh_stack)
    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    rows = done(till(fresh_stack.url, "export", str(whole)))["rows"]
    lines = whole.read_bytes().splitlines(keepends=True)
    end = json.dumps({"end": {"rows": len(lines) // 2}}).encode()
    part.write_bytes(b"".join(lines[: len(lines) // 2 + 1]) + end)

    with lend() as url:
        added = [done(till(url, "import", str(path)))["added"] for path in (part, whole, whole)]

    assert added == [len(lines) // 2, int(str(rows)) - len(lines) // 2, 0]


def test_a_file_that_was_cut_short_is_refused_before_anything_is_loaded(
    fresh_stack: Stack, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    done(till(fresh_stack.url, "export", str(whole)))
    cut.write_bytes(whole.read_bytes()[:-20])

    refused = till(f"sqlite:///{tmp_path / 'new.db'}", "import", str(cut))

    assert refused.returncode != 0
    assert "export of Till" in refused.stderr


def test_a_row_that_differs_is_refused_by_its_line(fresh_stack: Stack, tmp_path: Path) -> None:
    fill(fresh_stack)
    whole, other = tmp_path / "whole.jsonl", tmp_path / "other.jsonl"
    done(till(fresh_stack.url, "export", str(whole)))
    other.write_bytes(whole.read_bytes().replace(b'"status":"NEW"', b'"status":"PACKED"', 1))

    refused = till(fresh_stack.url, "import", str(other))

    assert "orders has another row of its key" in refused.stderr


def test_a_backup_made_while_serving_is_whole(
    fresh_stack: Stack, lend: Lend, tmp_path: Path
) -> None:
    fill(fresh_stack)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            fresh_stack.rest.post("/orders", json=ORDER, headers=keyed())

    writer = threading.Thread(target=write)
    writer.start()
    try:
        ran = till(fresh_stack.url, "backup", str(tmp_path / "backup"))
    finally:
        stop.set()
        writer.join()
    done(ran)
    assert '"done"' in ran.stderr, "progress is told where nobody watches"
    with lend() as url:
        done(till(url, "restore", str(tmp_path / "backup")))
        assert_invariants(url)
        assert len(dump(url)["orders"]) >= 24
        again = till(url, "restore", str(tmp_path / "backup"))
        assert "the database is not empty" in again.stderr


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is told from the first row or page on."""
    monkeypatch.setattr(portable, "BATCH_ROWS", 1)
    monkeypatch.setattr(sqlite, "BACKUP_PAGES", 1)


def write_file(book: Book, verb: str, path: Path, tell: portable.Tell) -> None:
    """Writes a book to a file as a command of `till` does, in this process."""
    write = sqlite.backup if verb == "backup" and is_file(book.url) else portable.export
    book.run(book.engine.scan(lambda: write(path, tell)))


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("verb", ["backup", "export"])
def test_a_file_that_two_write_at_once_is_whole_after_each(
    book: Book, lend: Lend, tmp_path: Path, verb: str
) -> None:
    path, early = tmp_path / "book", tmp_path / "early"
    names = iter(["meanwhile"])

    def another(done_: int, total: int) -> None:
        for name in names:  # there is one
            done(till(book.url, "tenant", "create", name))
            done(till(book.url, verb, str(path)))
            early.write_bytes(path.read_bytes())

    done(till(book.url, "tenant", "create", "before"))
    write_file(book, verb, path, another)

    kept = []
    for file in (early, path):
        with lend() as url:
            done(till(url, "restore", str(file)))
            kept.append(tenants(url))
    assert kept == [["before", "meanwhile"], ["before"]]
    assert not [*tmp_path.glob("*.part")]


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("verb", ["backup", "export"])
def test_a_file_that_cannot_be_written_to_its_end_leaves_the_last_one(
    book: Book, tmp_path: Path, verb: str
) -> None:
    def fail(done_: int, total: int) -> None:
        raise OSError("the disk is full")

    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / "book").write_text("the last one")
    done(till(book.url, "tenant", "create", "a"))

    with pytest.raises(OSError, match="full"):
        write_file(book, verb, folder / "book", fail)

    assert [(file.name, file.read_text()) for file in folder.iterdir()] == [
        ("book", "the last one")
    ]


@pytest.mark.parametrize("verb", ["backup", "export"])
@pytest.mark.parametrize("name", ["till.db", "till.db-wal", "link"])
def test_the_database_itself_is_never_written_over(
    sqlite_book: Book, tmp_path: Path, verb: str, name: str
) -> None:
    live = file_of(sqlite_book.url)
    (tmp_path / "link").symlink_to(live)
    before = live.stat().st_ino, log_of(sqlite_book.url).stat().st_ino

    refused = till(sqlite_book.url, verb, str(tmp_path / name))

    assert (refused.returncode, "the database itself" in refused.stderr) == (1, True)
    assert (live.stat().st_ino, log_of(sqlite_book.url).stat().st_ino) == before


@pytest.fixture
def new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty database in a file, for whose locks nobody waits long."""
    monkeypatch.setitem(sqlite.PRAGMAS, "busy_timeout", 20)
    url = f"sqlite:///{tmp_path / 'new.db'}"
    keep.bring_up(Config(database=url))
    return url


def backed_up(folder: Path, name: str = "book.bak") -> Path:
    """Returns a backup of a book with the tenant `kept`, under a name."""
    url = f"sqlite:///{folder / 'old.db'}"
    done(till(url, "tenant", "create", "kept"))
    done(till(url, "backup", str(folder / name)))
    return folder / name


def restore(url: str, path: Path) -> None:
    """Restores a backup in this process."""
    asked = Namespace(command="restore", file=str(path))
    asyncio.run(keep.run(Config(database=url), asked))


def test_nobody_can_write_once_a_database_was_found_empty_for_a_backup(
    new_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, is_empty = backed_up(tmp_path), portable.is_empty

    def and_then_another_writes() -> bool:
        found = is_empty()
        locked = pytest.raises(sqlite3.OperationalError, match="locked")
        with closing(sqlite3.connect(file_of(new_file), timeout=0)) as other, locked:
            other.execute("INSERT INTO tenants VALUES (7, 'new', '', 'REQUIRE_MATCH', 0)")
        return found

    monkeypatch.setattr(portable, "is_empty", and_then_another_writes)
    restore(new_file, path)

    assert tenants(new_file) == ["kept"]


def test_a_database_that_somebody_has_open_is_left_as_it_is(new_file: str, tmp_path: Path) -> None:
    path = backed_up(tmp_path)
    with closing(connect(new_file)) as other:
        look = "SELECT name FROM tenants"
        assert other.execute(look).fetchall() == []
        with pytest.raises(ValueError, match="who has it open"):
            restore(new_file, path)
        assert other.execute(look).fetchall() == []


@pytest.mark.parametrize("name", ["book#2.bak", "book?2.bak", "book%232.bak"])
def test_a_backup_of_any_name_is_the_one_that_is_restored(
    new_file: str, tmp_path: Path, name: str
) -> None:
    path = backed_up(tmp_path, name)
    empty = f"sqlite:///{tmp_path / 'empty.db'}"
    for other in {"book", "book#2.bak"} - {name}:  # as which a URI would understand such a name
        done(till(empty, "backup", str(tmp_path / other)))

    restore(new_file, path)

    assert tenants(new_file) == ["kept"]


def test_the_password_comes_from_a_file_and_is_shown_nowhere(
    mariadb: MariaDB, tmp_path: Path
) -> None:
    url = mariadb.database(f"till_{uuid4().hex}")
    bare = url.replace(f":{QUOTED}@", "@")
    secret = tmp_path / "password"
    secret.write_text(f"{PASSWORD}\n")

    ran = [
        till(bare, "migrate", TILL_DATABASE_PASSWORD_FILE=str(secret)),
        till(url, "check-config"),
        till(url.replace("mysql:", "postgres:"), "migrate"),
        till(url.replace("till:", "nobody:"), "migrate"),
    ]

    assert [one.returncode for one in ran] == [0, 0, 1, 1]
    told = "".join(one.stdout + one.stderr for one in ran)
    assert PASSWORD not in told
    assert QUOTED not in told
    assert "till:***@" in told


def test_a_server_that_may_lose_commits_is_refused_unless_accepted(mariadb: MariaDB) -> None:
    url = mariadb.database(f"till_{uuid4().hex}")
    mariadb.run("SET GLOBAL innodb_flush_log_at_trx_commit = 2")
    try:
        refused = till(url, "migrate")
        accepted = till(url, "migrate", TILL_DURABILITY="relaxed")
    finally:
        mariadb.run("SET GLOBAL innodb_flush_log_at_trx_commit = 1")

    assert "innodb_flush_log_at_trx_commit=2; Till needs 1" in refused.stderr
    assert "can be lost" in accepted.stderr
    assert (refused.returncode, accepted.returncode) == (1, 0)


@pytest.mark.parametrize("query", ["tls=no", "tls_ca=/nowhere.pem", "ssl=1"])
def test_a_parameter_that_cannot_be_kept_is_refused(mariadb: MariaDB, query: str) -> None:
    refused = till(f"{mariadb.database('till_tls')}?{query}", "migrate")

    assert refused.returncode == 1
    assert "TILL_DATABASE" in refused.stderr


def test_tls_checks_who_the_server_is(tmp_path: Path) -> None:
    pair = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    name = ["-subj", "/CN=till", "-addext", "subjectAltName=IP:127.0.0.1"]
    openssl = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *pair, *name]
    subprocess.run(openssl, check=True, capture_output=True)
    (tmp_path / "data").mkdir()
    server = MariaDB(tmp_path / "data", *free_ports(1))
    try:
        server.stop()
        server.start(f"--ssl-cert={tmp_path / 'cert.pem'}", f"--ssl-key={tmp_path / 'key.pem'}")
        server.run("ALTER USER till@'%' REQUIRE SSL")
        url = server.database("till")
        trusted = till(f"{url}?tls_ca={tmp_path / 'cert.pem'}", "migrate")
        stranger = till(f"{url}?tls=system", "migrate")
        plain = till(url, "migrate")
    finally:
        server.stop(signal.SIGKILL)

    assert [one.returncode for one in (trusted, stranger, plain)] == [0, 1, 1]
    assert "CERTIFICATE_VERIFY_FAILED" in stranger.stderr


def test_tls_that_the_server_does_not_speak_is_no_connection(mariadb: MariaDB) -> None:
    refused = till(f"{mariadb.database('till_tls')}?tls=system", "migrate")

    assert "no database at" in refused.stderr
