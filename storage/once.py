"""Idempotency: a key, what it was used for and the first answer are one row, written with the
change itself.
"""

from collections.abc import Callable
from dataclasses import dataclass

from storage import ids
from storage.errors import KeyReused
from storage.sql import Prepared, across_tenants, insert, param, tuples
from storage.tables import IdempotencyKey

KEPT_MS = 7 * 24 * 3600 * 1000
"""How long an answer is remembered; the contract promises 24 hours."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Who asks for what under which key; the fingerprint stands for the meaning of the request."""

    tenant: int
    client: str
    rpc: str
    key: str
    fingerprint: bytes


_FIND = Prepared(
    lambda: IdempotencyKey.select(IdempotencyKey.fingerprint, IdempotencyKey.answer).where(
        (IdempotencyKey.tenant == param("tenant"))
        & (IdempotencyKey.client == param("client"))
        & (IdempotencyKey.rpc == param("rpc"))
        & (IdempotencyKey.key == param("key"))
    )
)


def once(claim: Claim | None, work: Callable[[], bytes]) -> tuple[bytes, bool]:
    """Does the work, or returns the answer it gave the first time; the flag says which (True:
    replayed).

    Without a claim the work is simply done. A refusal is not remembered: the unit that raised it
    left nothing. Raises KeyReused when the key was used for another request, and whatever the work
    raises.
    """
    if claim is None:
        return work(), False
    seen = _FIND.row(tenant=claim.tenant, client=claim.client, rpc=claim.rpc, key=claim.key)
    if seen is None:
        answer = work()
        _remember(claim, answer)
        return answer, False
    if bytes(seen[0]) != claim.fingerprint:
        raise KeyReused(f"the idempotency key {claim.key} was used for another request")
    return bytes(seen[1]), True


def _remember(claim: Claim, answer: bytes) -> None:
    insert(
        IdempotencyKey(
            tenant=claim.tenant,
            client=claim.client,
            rpc=claim.rpc,
            key=claim.key,
            fingerprint=claim.fingerprint,
            answer=answer,
            create_ms=ids.now_ms(),
        )
    )


def forget_old(limit: int = 500) -> int:
    """Deletes some keys that are older than KEPT_MS and returns how many."""
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
