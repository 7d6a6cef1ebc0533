"""Access tokens: RS256 JWTs as Amazon Cognito issues them, checked against the issuer's keys."""

import asyncio
import hashlib
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
import structlog

from server.errors import Unauthenticated
from server.limit import keep

log = structlog.get_logger("till.token")
ALGORITHM = "RS256"
LEEWAY_SECONDS = 30
"""How far the clocks of issuer and server may differ."""
TOKEN_BYTES_MAX = 8192
CACHE_MAX = 10_000
"""Verified tokens remembered; verifying one costs about 110 µs, finding one about 3 µs."""
REFRESH_SECONDS = 60.0
"""How long the keys of a URL are used before they are read again."""
LOOK_SECONDS = 1.0
"""The same for the keys of a file."""
RETRY_SECONDS = 2.0
"""How long the next try waits after a failure to read the keys, or an unknown key id."""
_UNREADABLE = (OSError, ValueError, TypeError, AttributeError, httpx.HTTPError, jwt.PyJWTError)
# Python's base64 skips what is not of its alphabet: one signature would have many spellings.
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Token:
    """What a verified access token says."""

    client_id: str
    scopes: frozenset[str]
    expires: float


class Keys:
    """The issuer's public keys by key id, from a file or a URL; kept while the source fails."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._remote = source.startswith(("https://", "http://"))
        self._keys: dict[str, jwt.PyJWK] = {}
        self._found: object = None
        self._due = self._retry = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self.generation = 0
        """Counts the changes of the keys; what an older generation verified counts no longer."""

    async def current(self) -> int:
        """Returns the generation of the keys, seeing to it that they are not too old."""
        if time.monotonic() >= self._due:
            reading = self._read()
            if not (self._keys and self._remote):  # a URL may take long; the keys we have are good
                await asyncio.wait({reading})
        return self.generation

    async def find(self, key_id: str) -> jwt.PyJWK | None:
        """Returns a key; for one that is not known the source is read again, but not too often."""
        await self.current()
        late = self._reading is not None and not self._reading.done()
        if key_id not in self._keys and (late or time.monotonic() >= self._retry):
            await asyncio.wait({self._read()})
        return self._keys.get(key_id)

    def _read(self) -> asyncio.Task[None]:
        """Returns the one task that reads the source, for all who wait."""
        if self._reading is None or self._reading.done():
            self._due = time.monotonic() + (REFRESH_SECONDS if self._remote else LOOK_SECONDS)
            self._retry = time.monotonic() + RETRY_SECONDS
            self._reading = asyncio.create_task(self._refresh())
        return self._reading

    async def _refresh(self) -> None:
        try:
            found = await self._fetch()
            keys = {str(k.key_id): k for k in jwt.PyJWKSet.from_dict(found).keys if _signs(k)}
        except _UNREADABLE as error:
            # The keys we have stay good; a token of a new one is refused until the next try.
            self._due = min(self._due, self._retry)
            log.warning("the issuer's keys cannot be read", error=type(error).__name__)
            return
        if found != self._found:
            self._found, self._keys, self.generation = found, keys, self.generation + 1

    async def _fetch(self) -> dict[str, Any]:
        if self._remote:
            async with httpx.AsyncClient(timeout=5) as client:
                answer = await client.get(self._source)
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
            return found
        found = json.loads(await asyncio.to_thread(Path(self._source).read_text))
        return found


class Verifier:
    """Verifies tokens, and remembers the good ones until they expire."""

    def __init__(self, keys: Keys, issuer: str) -> None:
        self._keys, self._issuer = keys, issuer
        self._known: dict[bytes, Token] = {}
        self._generation = 0

    async def verify(self, text: str) -> Token:
        """Returns what a token says. Raises Unauthenticated, never telling what was wrong."""
        if len(text) > TOKEN_BYTES_MAX or not _COMPACT.fullmatch(text):
            raise Unauthenticated
        if self._generation != (generation := await self._keys.current()):
            self._known, self._generation = {}, generation  # a key may have been withdrawn
        digest = hashlib.sha256(text.encode()).digest()
        known = self._known.get(digest)
        if known is None:
            known = await self._check(text)
            keep(self._known, digest, known, CACHE_MAX)
        if known.expires + LEEWAY_SECONDS <= time.time():
            self._known.pop(digest, None)
            raise Unauthenticated
        return known

    async def _check(self, text: str) -> Token:
        try:
            # The algorithm is ours; the key is found by its id alone: jwk, jku, x5c are not read.
            header = jwt.get_unverified_header(text)
            key_id = header.get("kid")
            if not isinstance(key_id, str) or header.get("alg") != ALGORITHM:
                raise Unauthenticated
            key = await self._keys.find(key_id)
            if key is None:
                raise Unauthenticated
            claims = jwt.decode(
                text,
                key.key,
                algorithms=[ALGORITHM],
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                # Cognito's access tokens have no aud.
                options={"require": ["exp", "iss", "token_use"], "verify_aud": False},
            )
            return _token(claims)
        except (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError):
            raise Unauthenticated from None


def _signs(key: jwt.PyJWK) -> bool:
    """Whether a key is for signatures of our algorithm."""
    mine = key.algorithm_name == ALGORITHM and key.public_key_use in (None, "sig")
    return bool(key.key_id) and mine


def _token(claims: dict[str, Any]) -> Token:
    """Takes only what it understands: a list where a string belongs is no scope."""
    client_id, scope = claims.get("client_id"), claims.get("scope", "")
    if claims["token_use"] != "access" or not isinstance(client_id, str) or not client_id:
        raise Unauthenticated
    if not isinstance(scope, str):
        raise Unauthenticated
    return Token(client_id, frozenset(scope.split(" ")), float(claims["exp"]))
