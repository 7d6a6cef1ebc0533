"""Access tokens that are almost right, at every door."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from callers import CALLER, KNOWN
from conftest import Stack, eventually
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from doors import DOORS, bearer, call, claims, issuer_key, new_key, part, public_jwk, token

from server.config import Config
from server.development import KEY_ID

STRANGER = new_key()
ISSUER = Config().issuer
KEY = KNOWN["api_key"]
NOW = int(time.time())
ORDER_OF_NOBODY = {"order_id": "4503599627370496"}


def signed(header: dict[str, Any], said: dict[str, Any], key: Any = None) -> str:
    """Returns a token with exactly this header, signed by RS256 whatever it says."""
    text = f"{part(header)}.{part(said)}"
    raw = (key or issuer_key()).sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{text}.{part(raw)}"


def unsigned(algorithm: str) -> str:
    """Returns a token that claims to need no signature."""
    return f"{part({'alg': algorithm, 'typ': 'JWT', 'kid': KEY_ID})}.{part(claims())}."


def keyed_by_the_public_key(algorithm: str = "HS256") -> str:
    """Returns a token signed by a secret that everybody knows: the issuer's public key."""
    pem = (
        issuer_key()
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    text = f"{part({'alg': algorithm, 'kid': KEY_ID})}.{part(claims())}"
    return f"{text}.{part(hmac.digest(pem, text.encode(), hashlib.sha256))}"


def header(**changed: Any) -> dict[str, Any]:
    """Returns an honest header with changes; None takes a name away."""
    said = {"alg": "RS256", "typ": "JWT", "kid": KEY_ID, **changed}
    return {name: value for name, value in said.items() if value is not None}


def by_stranger(**changed: Any) -> str:
    """Returns a token that brings its own key along."""
    return signed(header(**changed), claims(), STRANGER)


def cut(text: str, *places: int) -> list[str]:
    """Returns some of the three parts of a token."""
    return [text.split(".")[place] for place in places]


def good() -> str:
    """Returns a token that is accepted."""
    return token()


X5C = [base64.b64encode(b"certificate").decode()]
HOSTILE: dict[str, Callable[[], str]] = {
    **{
        f"alg {name}": lambda name=name: unsigned(name) for name in ("none", "None", "NONE", "nOnE")
    },
    **{
        f"alg {name!r} over a good signature": lambda name=name: signed(header(alg=name), claims())
        for name in ("rs256", "RS256 ", "RS512", "PS256", "HS256", "ES256", "", 7)
    },
    "no alg": lambda: signed(header(alg=None), claims()),
    "HS256 by the public key": keyed_by_the_public_key,
    "HS512 by the public key": lambda: keyed_by_the_public_key("HS512"),
    "unknown kid": lambda: token({"kid": "unknown"}),
    "kid as path": lambda: token({"kid": "../../../../dev/null"}),
    "kid as SQL": lambda: token({"kid": "' OR 1=1 --"}),
    "kid as number": lambda: signed(header(kid=1), claims()),
    "kid as list": lambda: signed(header(kid=[KEY_ID]), claims()),
    "kid in capitals": lambda: token({"kid": KEY_ID.upper()}),
    "kid in unicode": lambda: token({"kid": f"{KEY_ID}\u200b"}),
    "no kid": lambda: signed(header(kid=None), claims()),
    "embedded jwk": lambda: by_stranger(jwk=public_jwk(STRANGER), kid=None),
    "embedded jwk under a known kid": lambda: by_stranger(jwk=public_jwk(STRANGER)),
    "jku": lambda: by_stranger(jku="http://127.0.0.1:9/jwks.json"),
    "x5u": lambda: by_stranger(x5u="http://127.0.0.1:9/chain.pem", kid="x"),
    "x5c": lambda: by_stranger(x5c=X5C),
    "another key under a known kid": by_stranger,
    "critical header nobody knows": lambda: signed(header(crit=["till"], till=1), claims()),
    "detached payload": lambda: signed(header(crit=["b64"], b64=False), claims()),
    "expired beyond the leeway": lambda: token(exp=NOW - 31),
    "not yet valid": lambda: token(nbf=NOW + 600),
    "issued in the future": lambda: token(iat=NOW + 600),
    "no exp": lambda: token(exp=None),
    "exp as null": lambda: signed(header(), claims() | {"exp": None}),
    "exp as text": lambda: signed(header(), claims(exp="tomorrow")),
    "exp as list": lambda: signed(header(), claims(exp=[NOW + 600])),
    "exp without end": lambda: signed(header(), claims(exp=float("inf"))),
    "exp beyond every number": lambda: signed(header(), claims(exp=10**400)),
    "exp is no number": lambda: signed(header(), claims(exp=float("nan"))),
    "nbf as text": lambda: signed(header(), claims(nbf="soon")),
    "no issuer": lambda: token(iss=None),
    "wrong issuer": lambda: token(iss="https://cognito.example/pool"),
    "issuer with more": lambda: token(iss=f"{ISSUER}/"),
    "issuer as list": lambda: signed(header(), claims(iss=[ISSUER])),
    "id token": lambda: token(token_use="id"),
    "no token_use": lambda: token(token_use=None),
    "token_use as list": lambda: token(token_use=["access"]),
    "no client": lambda: token(client_id=None),
    "empty client": lambda: token(client_id=""),
    "client as number": lambda: token(client_id=1),
    "unknown client": lambda: token(client_id="nobody"),
    "client as SQL": lambda: token(client_id="' OR '1'='1"),
    "scope as list": lambda: token(scope=["till/customer:write"]),
    "claims as list": lambda: signed(header(), [claims()]),  # type: ignore[arg-type]
    "claims nested too deeply": lambda: f"{part(header())}.{part(b'[' * 5000)}.{part(b'x')}",
    "header as list": lambda: f"{part(['RS256'])}.{part(claims())}.{part(b'x')}",
    "stripped signature": lambda: ".".join([*cut(good(), 0, 1), ""]),
    "no signature at all": lambda: ".".join(cut(good(), 0, 1)),
    "signature of another token": lambda: ".".join([*cut(good(), 0, 1), *cut(token(sub="x"), 2)]),
    "claims of another token": lambda: (
        f"{cut(good(), 0)[0]}.{part(claims(sub='x'))}.{cut(good(), 2)[0]}"
    ),
    "padded signature": lambda: f"{good()}==",
    "four parts": lambda: f"{good()}.{part(b'x')}",
    "two tokens": lambda: f"{good()},{good()}",
    "a space within": lambda: good().replace(".", ". ", 1),
    "three dots": lambda: "...",
    "rubbish": lambda: "rubbish",
    "empty": lambda: "",
    "large": lambda: token(extra="x" * 5000)[:-1],
}
SCOPES: dict[str, Any] = {
    "none": None,
    "empty": "",
    "substring": "till/customer:writ",
    "more behind": "till/customer:write2",
    "more before": "xtill/customer:write",
    "no prefix": "customer:write",
    "other prefix": "shop/customer:write",
    "twice the prefix": "till/till/customer:write",
    "capitals": "TILL/CUSTOMER:WRITE",
    "a tab": "x\ttill/customer:write",
    "a newline": "x\ntill/customer:write",
    "a comma": "till/customer:write,till/customer:read",
    "quoted": '"till/customer:write"',
    "a star": "till/*",
    "operator alone": "till/operator till/platform",
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_token_is_refused_like_none_at_all(stack: Stack, name: str, door: str) -> None:
    headers = bearer(HOSTILE[name](), KEY)
    refused = call(stack, door, "OrderService.GetOrder", ORDER_OF_NOBODY, headers)
    without = call(stack, door, "OrderService.GetOrder", ORDER_OF_NOBODY, {"x-api-key": KEY})
    assert refused[:2] == without[:2]
    assert refused.code in ("401", "UNAUTHENTICATED")
    assert refused.headers["www-authenticate"] == without.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", SCOPES)
def test_a_scope_is_a_whole_word(stack: Stack, name: str, door: str) -> None:
    headers = bearer(token(scope=SCOPES[name]), KEY)
    refused = call(stack, door, "OrderService.GetOrder", ORDER_OF_NOBODY, headers)
    assert refused.code in ("403", "PERMISSION_DENIED")
    assert "these credentials do not allow this call" in refused.body


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "scheme", ["", "Basic ", "Token ", "Bearer", "Bearer:", "xBearer ", "JWT "]
)
def test_a_good_token_under_another_scheme_is_none(stack: Stack, scheme: str, door: str) -> None:
    headers = {"authorization": f"{scheme}{good()}", "x-api-key": KEY}
    refused = call(stack, door, "OrderService.GetOrder", ORDER_OF_NOBODY, headers)
    assert refused.code in ("401", "UNAUTHENTICATED")


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("honest_first", [True, False])
def test_two_authorizations_are_none(stack: Stack, door: str, honest_first: bool) -> None:
    pair = [("authorization", f"Bearer {good()}"), ("authorization", f"Bearer {by_stranger()}")]
    headers = [*(pair if honest_first else pair[::-1]), ("x-api-key", KEY)]
    refused = call(stack, door, "OrderService.GetOrder", ORDER_OF_NOBODY, headers)
    assert refused.code in ("401", "UNAUTHENTICATED")


@pytest.mark.parametrize("door", DOORS)
def test_a_token_larger_than_a_header_may_be_is_refused(stack: Stack, door: str) -> None:
    headers = bearer(token(extra="x" * 50_000), KEY)
    refused = call(stack, door, "OrderService.GetOrder", ORDER_OF_NOBODY, headers)
    assert refused.code in ("431", "RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE", "UNKNOWN")
    assert headers["authorization"][-100:] not in refused.body


@pytest.mark.parametrize("raw", [b"Bearer \xff\xfe", "Bearer ключ.ключ.ключ".encode(), b"\xe2\x80"])
def test_bytes_that_are_no_ascii_are_no_token(stack: Stack, raw: bytes) -> None:
    headers = [(b"authorization", raw), (b"x-api-key", KEY.encode())]
    assert stack.rest.get("/orders/1", headers=headers).status_code == 401


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "changed",
    [
        {"exp": "late"},
        {"nbf": "early"},
        {"aud": "anything"},
        {"sub": None},
        {"scope": "a till/customer:read b"},
    ],
)
def test_honest_tokens_are_accepted(stack: Stack, door: str, changed: dict[str, Any]) -> None:
    now = int(time.time())
    moments = {"late": now - 20, "early": now + 20}  # clocks may differ by 30 s
    text = token(**{name: moments.get(value, value) for name, value in changed.items()})
    answer = call(stack, door, "OrderService.GetOrder", ORDER_OF_NOBODY, bearer(text, KEY))
    assert answer.code in ("404", "NOT_FOUND")


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
def test_the_scheme_may_be_spelled_in_any_case(stack: Stack, scheme: str) -> None:
    headers = CALLER | {"authorization": f"{scheme} {good()}"}
    assert stack.rest.get("/orders/1", headers=headers).status_code == 404


def test_a_client_that_is_revoked_is_out_at_once(stack: Stack) -> None:
    known = json.loads(stack.till("client", "create", "leaver", "--scope", "customer:read"))
    headers = bearer(token(client_id="leaver"), known["api_key"])
    assert stack.rest.get("/orders/1", headers=headers).status_code == 404
    stack.till("client", "revoke", "leaver")
    eventually(lambda: _gone(stack, headers))


def _gone(stack: Stack, headers: dict[str, str]) -> None:
    assert stack.rest.get("/orders/1", headers=headers).status_code == 401
