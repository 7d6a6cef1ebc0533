"""The development issuer: everything at once at a desk, nothing of it in production."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from conftest import ROOT, Lend, Stack, eventually, running, till
from doors import DOORS, bearer, call, jwks, new_key, token
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from server.development import CLIENT_ID

ISSUER = "https://issuer.example/pool"
UNKNOWN = {"order_id": "4503599627370496"}
PRODUCTION = {"TILL_MODE": "production", "TILL_ISSUER": ISSUER}


def said(text: str) -> dict[str, Any]:
    """Returns the claims of a token."""
    return dict(jwt.decode(text, options={"verify_signature": False}))


def test_credentials_are_ready_to_paste(tmp_path: Path) -> None:
    found = json.loads(till("credentials", "--json", TILL_DEVELOPMENT_FOLDER=str(tmp_path)))
    assert [*found] == ["token", "api_key", "channel_token", "channel_code"]
    assert all(isinstance(text, str) and text for text in found.values())
    assert "till/customer:write" in said(found["token"])["scope"].split()
    again = json.loads(till("credentials", "--json", TILL_DEVELOPMENT_FOLDER=str(tmp_path)))
    assert again | {"token": ""} == found | {"token": ""}


@pytest.mark.parametrize(
    ("asked", "scope"),
    [
        (["--scope", "customer:read"], "till/customer:read"),
        (["--scope", "till/customer:read"], "till/customer:read"),
        (["--scope", "operator", "--scope", "platform"], "till/operator till/platform"),
        (["--scope", "customer:read operator"], "till/customer:read till/operator"),
    ],
)
def test_a_token_can_be_narrowed(tmp_path: Path, asked: list[str], scope: str) -> None:
    found = till("credentials", "--json", *asked, TILL_DEVELOPMENT_FOLDER=str(tmp_path))
    assert said(json.loads(found)["token"])["scope"] == scope


def test_a_shell_can_read_them(tmp_path: Path) -> None:
    lines = till("credentials", "--shell", TILL_DEVELOPMENT_FOLDER=str(tmp_path))
    script = f'{lines}printf %s "$TOKEN|$API_KEY|$CHANNEL_TOKEN|$CHANNEL_CODE"'
    seen = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    known = json.loads((tmp_path / "client.json").read_text())
    key = known["api_key"]
    assert seen.stdout.split("|")[1:] == [key, key, known["channel_code"]]


@pytest.mark.parametrize("door", DOORS)
def test_a_narrow_token_of_the_script_reads_and_does_not_write(stack: Stack, door: str) -> None:
    found = json.loads(stack.till("credentials", "--json", "--scope", "customer:read"))
    headers = bearer(found["token"], found["api_key"])
    read = call(stack, door, "OrderService.GetOrder", UNKNOWN, headers)
    write = call(stack, door, "OrderService.CreateOrder", {}, headers)
    assert read.code in ("404", "NOT_FOUND") and write.code in ("403", "PERMISSION_DENIED")


def test_only_its_owner_reads_what_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    till("credentials", TILL_DEVELOPMENT_FOLDER=str(folder))
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in folder.iterdir()}
    assert modes == dict.fromkeys(("issuer.pem", "jwks.json", "client.json"), "0o600")
    assert oct(folder.stat().st_mode & 0o777) == "0o700"


def test_processes_that_start_together_agree(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "server.cli", "credentials", "--json"]
    environment = os.environ | {"TILL_DEVELOPMENT_FOLDER": str(tmp_path)}
    both = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    found = [json.loads(process.communicate()[0]) for process in both]
    assert (
        len({one["api_key"] for one in found}) == len({one["channel_code"] for one in found}) == 1
    )
    [key] = json.loads((tmp_path / "jwks.json").read_text())["keys"]
    for one in found:
        jwt.decode(one["token"], jwt.PyJWK(key), algorithms=["RS256"])
    assert len([*tmp_path.iterdir()]) == 3, "no drafts are left"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"TILL_JWKS": "data/development/jwks.json", "TILL_ISSUER": ISSUER},
        {"TILL_JWKS": "data/../data/development/jwks.json", "TILL_ISSUER": ISSUER},
        {"TILL_JWKS": "keys.json"},
        {"TILL_ISSUER": ISSUER},
    ],
)
@pytest.mark.parametrize("command", ["run", "serve"])
def test_production_does_not_start_with_the_development_issuer(
    command: str, settings: dict[str, str]
) -> None:
    with pytest.raises(RuntimeError, match="not the development issuer") as refused:
        till(command, TILL_MODE="production", **settings)
    assert len(str(refused.value).splitlines()) == 1, "a sentence, not a traceback"


def test_production_gives_no_development_credentials() -> None:
    with pytest.raises(RuntimeError, match="no development credentials in production"):
        till("credentials", TILL_JWKS="keys.json", **PRODUCTION)


@pytest.mark.parametrize("url", ["http://issuer.example/keys", "http://192.0.2.1/keys"])
def test_keys_are_not_fetched_where_anybody_could_change_them(url: str) -> None:
    with pytest.raises(RuntimeError, match="TILL_JWKS must be a file or an https URL"):
        till("check-config", TILL_JWKS=url)


KEY = new_key()


@pytest.fixture(scope="module")
def production(lend: Lend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack in production whose order book was a development one before."""
    folder = tmp_path_factory.mktemp("production")
    (folder / "keys.json").write_text(jwks(first=KEY))
    with lend() as url:
        known = {"TILL_DATABASE": url}
        with running(folder, known):
            pass
        settings = PRODUCTION | known | {"TILL_JWKS": str(folder / "keys.json")}
        with running(folder, settings) as stack:
            yield stack


@pytest.fixture(scope="module")
def owner(production: Stack) -> dict[str, str]:
    """An operator of the stack in production, and its key."""
    scopes = ("--scope", "operator", "--scope", "customer:read")
    made = json.loads(production.till("client", "create", "owner", *scopes))
    return {"client_id": "owner", "api_key": made["api_key"]}


def issued(owner: dict[str, str], key: Any = KEY, kid: str = "first") -> str:
    """Returns a token of the issuer in production."""
    return token({"kid": kid}, key, iss=ISSUER, client_id=owner["client_id"])


@pytest.mark.parametrize("door", DOORS)
def test_what_development_gave_away_opens_nothing_in_production(
    production: Stack, owner: dict[str, str], door: str
) -> None:
    known = json.loads((ROOT / "data/development/client.json").read_text())
    rpc = "OrderService.GetOrder"
    for text in (token(), token(iss=ISSUER), token({"kid": "first"}, KEY, iss=ISSUER)):
        answer = call(production, door, rpc, UNKNOWN, bearer(text, known["api_key"]))
        assert answer.code in ("401", "UNAUTHENTICATED")
    mine = call(production, door, rpc, UNKNOWN, bearer(issued(owner), known["api_key"]))
    assert mine.code in ("403", "PERMISSION_DENIED")
    headers = bearer(issued(owner), owner["api_key"])
    assert call(production, door, rpc, UNKNOWN, headers).code in ("404", "NOT_FOUND")
    clients = json.loads(production.till("client", "list"))
    assert [row["revoked"] for row in clients if row["client_id"] == CLIENT_ID] == [True]


@pytest.mark.parametrize("door", ["grpc", "server"])
def test_the_shape_of_the_house_is_an_operators_in_production(
    production: Stack, owner: dict[str, str], door: str
) -> None:
    address = production.grpc if door == "grpc" else production.server
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.insecure_channel(address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[no-untyped-call]
        for headers in ({}, bearer("a.b.c"), {"x-api-key": owner["api_key"]}):
            with pytest.raises(grpc.RpcError) as refused:
                next(stub.ServerReflectionInfo(iter([asked]), metadata=[*headers.items()]))
            assert refused.value.code().name == "UNAUTHENTICATED"
        good = [*bearer(issued(owner)).items()]
        answer = next(stub.ServerReflectionInfo(iter([asked]), metadata=good))
        assert answer.list_services_response.service


def test_new_keys_of_a_file_are_good_at_every_door(
    production: Stack, owner: dict[str, str]
) -> None:
    file, new = Path(production.settings["TILL_JWKS"]), new_key()
    file.write_text(jwks(second=new))
    before, after = issued(owner), issued(owner, new, "second")

    def rotated() -> None:
        for door in DOORS:
            for text, codes in (
                (before, ("401", "UNAUTHENTICATED")),
                (after, ("404", "NOT_FOUND")),
            ):
                headers = bearer(text, owner["api_key"])
                assert (
                    call(production, door, "OrderService.GetOrder", UNKNOWN, headers).code in codes
                )

    eventually(rotated)
    file.write_text(jwks(first=KEY, second=new))
