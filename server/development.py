"""The development issuer: a key pair and credentials of this machine, so that everything works at
once.

Production refuses all of it (server/config.py), and revokes the development client it may find.
"""

import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from server.config import ROOT, Config
from storage import tenant
from storage.tables import ApiClient

CLIENT_ID = "local-development"
SCOPES = ("customer:write", "operator", "platform")
TOKEN_SECONDS = 12 * 3600
KEY_ID = "development"


def jwks_path(config: Config) -> Path:
    """Returns where the development issuer's public keys are."""
    return _folder(config) / "jwks.json"


def keys_source(config: Config) -> str:
    """Returns where the issuer's public keys are: a file or a URL, the development issuer's when
    nobody says.
    """
    return config.jwks or str(jwks_path(config))


def ensure(config: Config) -> dict[str, str]:
    """Returns the development client's key and channel code; makes them and the issuer if new."""
    folder = _folder(config)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (folder / "issuer.pem").exists():
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        _write_once(folder / "issuer.pem", _pem(private))
    _write_once(jwks_path(config), json.dumps(_jwks(_private(config))))
    fresh = {"api_key": tenant.new_key(), "channel_code": uuid.uuid4().hex}
    _write_once(folder / "client.json", json.dumps(fresh))
    known: dict[str, str] = json.loads((folder / "client.json").read_text())
    return known


def ensure_client(config: Config) -> None:
    """Adds the development client to an order book that lacks it; a unit of storage."""
    known = ensure(config)
    client = ApiClient(
        tenant=tenant.FIRST,
        client_id=CLIENT_ID,
        display_name="Local development",
        scopes=" ".join(SCOPES),
        channel_code=known["channel_code"],
    )
    tenant.ensure_client(client, known["api_key"])


def forbid_client() -> None:
    """Revokes the development client of an order book that comes into production; a unit."""
    if tenant.client_of_id(CLIENT_ID) is not None:
        tenant.revoke_client(tenant.FIRST, CLIENT_ID)


def credentials(config: Config, scopes: list[str]) -> dict[str, str]:
    """Returns everything a caller needs, ready to paste; the token has these scopes."""
    known = ensure(config)
    return {
        "token": _token(config, scopes),
        "api_key": known["api_key"],
        "channel_token": known["api_key"],
        "channel_code": known["channel_code"],
    }


def _folder(config: Config) -> Path:
    return ROOT / config.development_folder


def _token(config: Config, scopes: list[str]) -> str:
    now = int(time.time())
    claims = {
        "iss": config.issuer,
        "sub": CLIENT_ID,
        "client_id": CLIENT_ID,
        "token_use": "access",
        "scope": " ".join(f"{config.scope_prefix}{scope}" for scope in scopes),
        "iat": now,
        "exp": now + TOKEN_SECONDS,
        "jti": str(uuid.uuid4()),
    }
    return jwt.encode(claims, _private(config), algorithm="RS256", headers={"kid": KEY_ID})


def _private(config: Config) -> rsa.RSAPrivateKey:
    pem = (_folder(config) / "issuer.pem").read_bytes()
    key = serialization.load_pem_private_key(pem, password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def _pem(private: rsa.RSAPrivateKey) -> str:
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def _jwks(private: rsa.RSAPrivateKey) -> dict[str, Any]:
    public = jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    return {"keys": [{**public, "kid": KEY_ID, "use": "sig", "alg": "RS256"}]}


def _write_once(path: Path, text: str) -> None:
    """Writes a file that only its owner reads, whole or not at all; whoever was first wins."""
    if path.exists():
        return
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
