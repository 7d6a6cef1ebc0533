"""Access tokens: RS256 JWTs as Amazon Cognito issues them, checked against the issuer's keys."""

import asyncio
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt

from server.errors import Unauthenticated

ALGORITHM = "RS256"
LEEWAY_SECONDS = 30
"""How far the clocks of issuer and server may differ."""
TOKEN_BYTES_MAX = 8192
CACHE_MAX = 10_000
"""Verified tokens remembered; verifying one costs about 200 µs, finding one about 2 µs."""
REFRESH_SECONDS = 600.0
"""How long the issuer's keys are used before they are read again."""
RETRY_SECONDS = 10.0
"""How long an unknown key id, or a failure to read the keys, waits for the next try."""


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
        self._keys: dict[str, jwt.PyJWK] = {}
        self._read = self._tried = float("-inf")
        self._lock = asyncio.Lock()

    async def find(self, key_id: str) -> jwt.PyJWK | None:
        """Returns a key; reads the source again when it is unknown or the keys are old."""
        if key_id not in self._keys or time.monotonic() - self._read > REFRESH_SECONDS:
            async with self._lock:  # whoever comes while the keys are read waits for them
                if time.monotonic() - self._tried > RETRY_SECONDS:
                    self._tried = time.monotonic()
                    await self._refresh()
        return self._keys.get(key_id)

    async def _refresh(self) -> None:
        try:
            found = jwt.PyJWKSet.from_dict(await self._fetch())
        except (OSError, ValueError, httpx.HTTPError, jwt.PyJWTError):
            return  # the keys we have stay good; a token of a new one is refused until the next try
        self._keys = {key.key_id: key for key in found.keys if key.key_id and key.key_type == "RSA"}
        self._read = time.monotonic()

    async def _fetch(self) -> dict[str, Any]:
        if self._source.startswith(("https://", "http://")):
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

    async def verify(self, text: str) -> Token:
        """Returns what a token says. Raises Unauthenticated, never telling what was wrong."""
        if not text or len(text) > TOKEN_BYTES_MAX:
            raise Unauthenticated
        digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
        known = self._known.get(digest)
        if known is None:
            known = self._remember(digest, await self._check(text))
        if known.expires + LEEWAY_SECONDS <= time.time():
            self._known.pop(digest, None)
            raise Unauthenticated
        return known

    async def _check(self, text: str) -> Token:
        try:
            # The algorithm is ours; the key is found by its id alone: jwk, jku, x5c are not read.
            header = jwt.get_unverified_header(text)
            key_id = header.get("kid")
            key = await self._keys.find(key_id) if isinstance(key_id, str) else None
            if key is None or header.get("alg") != ALGORITHM:
                raise Unauthenticated
            claims = jwt.decode(
                text,
                key.key,
                algorithms=[ALGORITHM],
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                # Cognito's access tokens have no aud.
                options={"require": ["exp", "iss", "sub", "token_use"], "verify_aud": False},
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise Unauthenticated from None
        return _token(claims)

    def _remember(self, digest: bytes, token: Token) -> Token:
        if len(self._known) >= CACHE_MAX:
            self._known.pop(next(iter(self._known)))
        self._known[digest] = token
        return token


def _token(claims: dict[str, Any]) -> Token:
    """Takes only what it understands: a list where a string belongs is no scope."""
    client_id, scope = claims.get("client_id"), claims.get("scope", "")
    if claims["token_use"] != "access" or not isinstance(client_id, str) or not client_id:
        raise Unauthenticated
    if not isinstance(scope, str):
        raise Unauthenticated
    return Token(client_id, frozenset(scope.split(" ")), float(claims["exp"]))
