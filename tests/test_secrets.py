"""No token, key or secret reaches a log, an answer, an event or a traceback."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from conftest import ROOT, Lend, Stack, running, till
from doors import DOORS, RPC_DOORS, bearer, call, files_of, new_key, token
from examples import EXAMPLES, FIRST, Who, fill, invented, newcomer, settle

WRONG = "till_0123456789abcdef_ThisIsNotTheSecretOfAnybodyAtAllButLooksSo"
PASSWORD = "correct-horse-battery-staple"


class Session:
    """A stack after a day of good and bad calls: what it was told, and what it answered."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.answers = stack, ""
        self.other = newcomer(stack, "customer:write", "operator")
        stranger = token(key=new_key())
        self.tokens = [FIRST.token, self.other.token, stranger, token(token_use="id")]
        self.keys = [FIRST.key, self.other.key, WRONG]
        self.codes = [FIRST.code, self.other.code]
        settle(stack, FIRST, invented())
        for rpc, door in RPC_DOORS:
            self._abuse(rpc, door)
        self._misplace()

    def _abuse(self, rpc: str, door: str) -> None:
        if rpc == "TenantService.CreateApiClient":
            return  # answers with a key, once, as it should
        for request in (fill(EXAMPLES[rpc][0], invented()), {}):
            for who in (FIRST, self.other, *self._impostors()):
                if door == "rest" and not request and "{" in str(EXAMPLES[rpc][0]):
                    continue
                self._keep(call(self.stack, door, rpc, request, who.headers(rpc)))

    def _impostors(self) -> Iterator[Who]:
        for text in self.tokens:
            yield Who(text, WRONG, "wrong")
        yield Who(WRONG, FIRST.token, FIRST.key)  # everything in another's place

    def _misplace(self) -> None:
        """Sends secrets where they do not belong, as people do."""
        rest, key, text = self.stack.rest, self.keys[0], FIRST.token
        for path in ("/orders/1", "/new-order", "/user-orders", "/checkout", "/nowhere"):
            for verb in ("GET", "POST"):
                query = {"access_token": text, "api_key": key}
                answer = rest.request(verb, path, params=query, headers=bearer(f"{text}x", WRONG))
                self.answers += answer.text + str(answer.headers)
                answer = rest.request(verb, path, content=b"{")
                self.answers += answer.text
        rest.get("/orders/1", headers={"cookie": f"token={text}", "proxy-authorization": key})
        for door in DOORS:
            self._keep(
                call(self.stack, door, "OrderService.GetOrder", {"orderId": "1"}, self._ugly())
            )

    def _ugly(self) -> dict[str, str]:
        forged = '"} {"event":"forged"} '
        return bearer(FIRST.token, FIRST.key) | {"x-request-id": f"{forged}{'x' * 500}"}

    def _keep(self, answer: object) -> None:
        self.answers += str(answer)

    def secrets(self) -> list[str]:
        """Returns everything that must be nowhere: whole credentials and their telling parts."""
        signatures = [text.rpartition(".")[2] for text in self.tokens]
        claims = [text.split(".")[1] for text in self.tokens]
        return [*self.keys, *(key.split("_", 2)[2] for key in self.keys), *signatures, *claims]


@pytest.fixture(scope="module")
def session(lend: Lend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A session whose stack has ended; its log and its order book are left."""
    with lend() as url:
        with running(tmp_path_factory.mktemp("session"), {"TILL_DATABASE": url}) as stack:
            session = Session(stack)
        yield session


def test_no_secret_is_in_a_log(session: Session) -> None:
    log = session.stack.log_text()
    assert log.count('"event":"call"') > 500 and log.count('"listener":"grpc"') > 100
    assert [secret for secret in [*session.secrets(), *session.codes] if secret in log] == []


def test_no_secret_is_in_an_answer(session: Session) -> None:
    assert "PERMISSION_DENIED" in session.answers
    assert [secret for secret in session.secrets() if secret in session.answers] == []


def test_no_secret_is_in_the_order_book(session: Session) -> None:
    stored = files_of(session.stack)
    assert b"order.created" in stored
    assert [secret for secret in session.secrets() if secret.encode() in stored] == []
    events = str(session.stack.rows("SELECT * FROM events"))
    assert "api_client.created" in events and FIRST.code not in events


def test_no_call_ended_in_a_way_nobody_foresaw(session: Session) -> None:
    log = session.stack.log_text()
    assert '"code":"INTERNAL"' not in log and '"unexpected"' not in log
    assert "Traceback" not in log


def test_no_caller_writes_lines_of_the_log(session: Session) -> None:
    calls = [line for line in _lines(session.stack.log_text()) if "event" in line]
    assert {line["event"] for line in calls} >= {"call"} and len(calls) > 500
    assert [line for line in calls if line["event"] == "forged"] == []
    assert max(len(line.get("request_id", "")) for line in calls) <= 128


def _lines(log: str) -> Iterator[dict[str, Any]]:
    """Yields the lines, but for those that Envoy and the server wrote into each other."""
    for line in log.splitlines():
        with suppress(ValueError):
            if line.startswith("{"):
                yield json.loads(line)


def test_passwords_of_urls_are_not_printed() -> None:
    url = f"mysql://till:{PASSWORD}@127.0.0.1:1/till"
    keys = f"https://till:{PASSWORD}@issuer.example/keys"
    shown = till("check-config", TILL_DATABASE=url, TILL_JWKS=keys)
    assert PASSWORD not in shown and "mysql://till:***@127.0.0.1:1/till" in shown


def test_a_traceback_at_a_terminal_shows_no_variables() -> None:
    code = """
from server import log
import structlog

def fail(metadata):
    raise KeyError("unforeseen")

log.configure()
try:
    fail({"authorization": "Bearer SECRET"})
except KeyError as error:
    structlog.get_logger("till").error("unexpected", exc_info=error)
"""
    main, terminal = pty.openpty()
    command = [sys.executable, "-c", code]
    subprocess.run(command, cwd=ROOT, stdout=terminal, stderr=terminal, check=True)
    os.close(terminal)
    seen = os.read(main, 100_000).decode()
    os.close(main)
    assert "unforeseen" in seen and "SECRET" not in seen.replace('"Bearer SECRET"', "", 1)
