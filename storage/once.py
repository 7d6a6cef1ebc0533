"""Idempotency: a key, what it was used for and the first answer are one row, written with the
change itself.

The key is claimed before the work: a twin in flight waits at the key itself, then gives the first
answer, and never meets half of what the first one did.
"""

import threading
from collections.abc import Callable
from typing import NamedTuple

from peewee import IntegrityError

from storage import ids
from storage.errors import KeyReused, Race
from storage.sql import Prepared, across_tenants, insert_values, param, tuples
from storage.tables import IdempotencyKey

KEPT_MS = 7 * 24 * 3600 * 1000
"""How long an answer is remembered; callers may count on a day."""


class Claim(NamedTuple):
    """Who asks for what under which key; the fingerprint stands for the meaning of the request."""

    tenant: int
    client: str
    rpc: str
    key: str
    fingerprint: bytes


_unit = threading.local()
_FIND = Prepared(
    lambda: IdempotencyKey.select(IdempotencyKey.fingerprint, IdempotencyKey.answer).where(
        (IdempotencyKey.tenant == param("tenant"))
        & (IdempotencyKey.client == param("client"))
        & (IdempotencyKey.rpc == param("rpc"))
        & (IdempotencyKey.key == param("key"))
    )
)
_ANSWER = Prepared(
    lambda: IdempotencyKey.update(answer=param("answer")).where(
        (IdempotencyKey.tenant == param("tenant"))
        & (IdempotencyKey.client == param("client"))
        & (IdempotencyKey.rpc == param("rpc"))
        & (IdempotencyKey.key == param("key"))
    )
)


def once(
    claim: Claim | None, work: Callable[[], bytes], foretold: bytes = b""
) -> tuple[bytes, bool]:
    """Does the work, or returns the answer it gave the first time; the flag says which (True:
    replayed). An answer that is known before the work is `foretold`: it costs one write less.

    Without a claim the work is simply done. A refusal is not remembered: the unit that raised it
    left nothing. Raises KeyReused when the key was used for another request, and whatever the work
    raises.
    """
    if claim is None:
        return work(), False
    _unit.claimed = True
    try:
        _take(claim, foretold)
    except IntegrityError:
        return _first_answer(claim), True
    answer = work()
    if answer != foretold:
        _ANSWER.run(answer=answer, **_key(claim))
    return answer, False


def begin() -> None:
    """Says that a unit starts on this thread; the engine calls it first."""
    _unit.claimed = False


def claimed() -> bool:
    """Says whether the unit on this thread came to a claim, so that running it again after its
    commit would give its first answer.
    """
    return bool(_unit.claimed)


def forget_old(limit: int) -> int:
    """Deletes about `limit` keys that are older than KEPT_MS, if there are so many, and returns how
    many.
    """
    old = (
        IdempotencyKey.select(IdempotencyKey.create_ms)
        .where(IdempotencyKey.create_ms < ids.now_ms() - KEPT_MS)
        .order_by(IdempotencyKey.create_ms)
        .limit(limit)
    )
    newest = max((created for (created,) in tuples(across_tenants(old))), default=None)
    if newest is None:
        return 0
    outdated = IdempotencyKey.delete().where(IdempotencyKey.create_ms <= newest)
    deleted: int = across_tenants(outdated).execute()
    return deleted


def _take(claim: Claim, answer: bytes) -> None:
    insert_values(
        IdempotencyKey,
        **_key(claim),
        fingerprint=claim.fingerprint,
        answer=answer,
        create_ms=ids.now_ms(),
    )


def _first_answer(claim: Claim) -> bytes:
    seen = _FIND.row(**_key(claim))
    if seen is None:
        raise Race(f"the idempotency key {claim.key} was forgotten just now")
    if bytes(seen[0]) != claim.fingerprint:
        raise KeyReused(f"the idempotency key {claim.key} was used for another request")
    return bytes(seen[1])


def _key(claim: Claim) -> dict[str, object]:
    return {"tenant": claim.tenant, "client": claim.client, "rpc": claim.rpc, "key": claim.key}
