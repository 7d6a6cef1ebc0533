"""The issuer's keys come and go, and what was verified by them is remembered, not too long."""

import asyncio
import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from doors import issuer_key, jwks, new_key, public_jwk, token

from server import token as tokens
from server.config import Config
from server.errors import Unauthenticated

STRANGER = new_key()
ISSUER = Config().issuer


class Issuer(ThreadingHTTPServer):
    """A server of keys that a test can change or break."""

    served, status = "", 200


class Serve(BaseHTTPRequestHandler):
    """Answers with the keys of its server."""

    def do_GET(self) -> None:
        assert isinstance(self.server, Issuer)
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.served.encode())

    def log_message(self, *_: Any) -> None:
        """Keeps quiet."""


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer(("127.0.0.1", 0), Serve) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def url(issuer: Issuer) -> str:
    return f"http://127.0.0.1:{issuer.server_port}/jwks.json"


async def accepts(verifier: tokens.Verifier, text: str) -> bool:
    """Returns whether a token is accepted."""
    try:
        return bool(await verifier.verify(text))
    except Unauthenticated:
        return False


async def until(verifier: tokens.Verifier, text: str, accepted: bool) -> None:
    """Returns once a token is accepted, or no longer is."""
    async with asyncio.timeout(30):
        while await accepts(verifier, text) is not accepted:
            await asyncio.sleep(0.05)


def test_keys_of_a_file_may_change(tmp_path: Path) -> None:
    old, new, file = new_key(), new_key(), tmp_path / "jwks.json"

    async def rotate() -> None:
        file.write_text(jwks(old=old))
        verifier = tokens.Verifier(tokens.Keys(str(file)), ISSUER)
        first, second = token({"kid": "old"}, old), token({"kid": "new"}, new)
        assert (await accepts(verifier, first), await accepts(verifier, second)) == (True, False)
        file.write_text(jwks(old=old, new=new))
        await until(verifier, second, True)
        assert await accepts(verifier, first)
        file.write_text("{broken")
        await asyncio.sleep(tokens.LOOK_SECONDS)
        assert await accepts(verifier, first) and await accepts(verifier, second)
        file.write_text(jwks(new=new))
        await until(verifier, first, False)
        assert await accepts(verifier, second)

    asyncio.run(rotate())


def test_keys_of_a_url_may_change_and_outlive_its_failures(issuer: Issuer) -> None:
    old, new = new_key(), new_key()
    issuer.served = jwks(old=old)

    async def rotate() -> None:
        verifier = tokens.Verifier(tokens.Keys(url(issuer)), ISSUER)
        first, second = token({"kid": "old"}, old), token({"kid": "new"}, new)
        # All who come at the start wait for the same answer.
        assert all(await asyncio.gather(*(accepts(verifier, first) for _ in range(5))))
        issuer.served = jwks(old=old, new=new)
        await until(verifier, second, True)
        issuer.status = 500
        await asyncio.sleep(tokens.RETRY_SECONDS)
        assert not await accepts(verifier, token({"kid": "newest"}, STRANGER))
        fresh = token({"kid": "old"}, old, sub="again")
        assert await accepts(verifier, fresh) and await accepts(verifier, second)
        issuer.status, issuer.served = 200, jwks(new=new)
        await asyncio.sleep(tokens.RETRY_SECONDS)
        assert not await accepts(verifier, token({"kid": "newest"}, STRANGER))  # makes it look
        assert (await accepts(verifier, first), await accepts(verifier, second)) == (False, True)

    asyncio.run(rotate())


@pytest.mark.parametrize("served", ["", "[]", "{}", '{"keys":[]}', '{"keys":[1]}', '{"keys":7}'])
def test_what_is_no_key_set_lets_nobody_in(issuer: Issuer, served: str) -> None:
    issuer.served = served

    async def asked() -> bool:
        return await accepts(tokens.Verifier(tokens.Keys(url(issuer)), ISSUER), token())

    assert not asyncio.run(asked())


@pytest.mark.parametrize("changed", [{"use": "enc"}, {"alg": "RS512"}, {"kid": None}])
def test_keys_for_something_else_verify_no_token(tmp_path: Path, changed: dict[str, Any]) -> None:
    key, file = new_key(), tmp_path / "jwks.json"
    jwk = {**public_jwk(key), "kid": "a", **changed}
    file.write_text(json.dumps({"keys": [{n: v for n, v in jwk.items() if v is not None}]}))

    async def asked() -> bool:
        verifier = tokens.Verifier(tokens.Keys(str(file)), ISSUER)
        return await accepts(verifier, token({"kid": "a"}, key))

    assert not asyncio.run(asked())


def test_a_token_that_is_remembered_still_expires(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(jwks(development=issuer_key()))

    async def outlive() -> None:
        verifier = tokens.Verifier(tokens.Keys(str(file)), ISSUER)
        text = token(exp=int(time.time()) - tokens.LEEWAY_SECONDS + 2)
        assert await accepts(verifier, text) and await accepts(verifier, text)
        await until(verifier, text, False)

    asyncio.run(outlive())
