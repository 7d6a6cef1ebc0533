"""`till backup`, `restore`, `export` and `import`: the whole order book, out and in again."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from uuid import uuid4

import pytest
from callers import keyed
from conftest import ORDER, ROOT, Lend, Stack, environment, eventually
from invariants import assert_invariants, dump
from mariadb import PASSWORD, QUOTED, MariaDB
from ports import free_ports


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
