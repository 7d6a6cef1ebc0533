"""Every RPC through every door (Envoy's REST, Envoy's gRPC, the server's own port), with any
credentials.
"""

import base64
import json
import re
import time
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import quote

import grpc
import jwt
from conftest import ROOT, Stack
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from databases import file_of, is_file
from google.api import annotations_pb2
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # noqa: F401 - details are printed by name

from server import app, development
from server.config import Config

DOORS = ("rest", "grpc", "server")
UNSERVED = {"Operations.DeleteOperation", "Operations.CancelOperation"}
"""RPCs of google.longrunning that Till has no rule for: nobody may call them."""
Headers = dict[str, str] | Iterable[tuple[str, str]]


def _rpcs() -> dict[str, MethodDescriptor]:
    services = [descriptor_pool.Default().FindServiceByName(name) for name in app.SERVICES]
    return {f"{s.name}.{method.name}": method for s in services for method in s.methods}


ALL = _rpcs()
"""Every RPC of the descriptors, by Service.Method."""
RPCS = {name: method for name, method in ALL.items() if name not in UNSERVED}
"""Those that somebody may call."""
RPC_DOORS = [
    (rpc, door)
    for rpc in RPCS
    for door in DOORS
    if door != "rest" or RPCS[rpc].GetOptions().Extensions[annotations_pb2.http].ByteSize()
]


class Answer(NamedTuple):
    """What a door answered: an HTTP status or the name of a gRPC code, the body, the headers."""

    code: str
    body: str
    headers: dict[str, str]


def path_of(method: MethodDescriptor) -> str:
    """Returns the path of an RPC on the wire."""
    return f"/{method.containing_service.full_name}/{method.name}"


def call(
    stack: Stack, door: str, rpc: str, request: dict[str, Any], headers: Headers = ()
) -> Answer:
    """Calls an RPC, its request told as JSON, through a door."""
    method, pairs = ALL[rpc], list(headers.items() if isinstance(headers, dict) else headers)
    message = ParseDict(request, message_factory.GetMessageClass(method.input_type)())
    if door == "rest":
        return _by_rest(stack, method, message, pairs)
    return by_grpc(stack.grpc if door == "grpc" else stack.server, method, message, pairs)


def by_grpc(
    address: str,
    method: MethodDescriptor,
    message: Message,
    pairs: list[tuple[str, str]],
    credentials: grpc.ChannelCredentials | None = None,
) -> Answer:
    """Calls an RPC at an address."""
    answer = message_factory.GetMessageClass(method.output_type)
    to_bytes, channel = type(message).SerializeToString, _channel(address, credentials)
    stub = channel.unary_unary(path_of(method), to_bytes, answer.FromString)
    try:
        found, rpc = stub.with_call(message, metadata=pairs, timeout=30)
    except grpc.RpcError as error:
        return _refusal(error)
    return Answer("OK", _text(found), _headers(rpc.initial_metadata()))


@cache
def _channel(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
    return (
        grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address)
    )


def _refusal(error: Any) -> Answer:
    headers = _headers((*(error.initial_metadata() or ()), *(error.trailing_metadata() or ())))
    status = status_pb2.Status.FromString(headers.pop("grpc-status-details-bin", b""))
    return Answer(error.code().name, error.details() + _text(status), headers)


def _headers(pairs: Any) -> dict[str, Any]:
    return dict(pairs or ())


def _text(message: Message) -> str:
    return json.dumps(MessageToDict(message), ensure_ascii=False)


def _by_rest(
    stack: Stack, method: MethodDescriptor, message: Message, pairs: list[tuple[str, str]]
) -> Answer:
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    verb = rule.WhichOneof("pattern")
    values = MessageToDict(message, preserving_proto_field_name=True)
    path = re.sub(r"\{([\w.]+)(=[^}]*)?\}", lambda m: _segment(values, m), getattr(rule, verb))
    body: Any = None
    if rule.body == "payload":
        body = base64.b64decode(values["payload"]["data"])
    elif rule.body:
        body = json.dumps(values if rule.body == "*" else values.get(rule.body, {})).encode()
    query = {} if rule.body == "*" else {k: v for k, v in values.items() if k != rule.body}
    sent = [("content-type", "application/json"), *pairs]
    answer = stack.rest.request(verb, path, params=query, headers=sent, content=body)
    return Answer(str(answer.status_code), answer.text, dict(answer.headers))


def _segment(values: dict[str, Any], match: re.Match[str]) -> str:
    *parents, name = match[1].split(".")
    for parent in parents:
        values = values.get(parent, {})
    value = str(values.pop(name, "operations" if match[2] else ""))
    return quote(value, safe="/" if match[2] else "")


# What follows makes credentials that are almost right.


@cache
def issuer_key() -> rsa.RSAPrivateKey:
    """Returns the development issuer's key."""
    pem = (ROOT / Config().development_folder / "issuer.pem").read_bytes()
    key = serialization.load_pem_private_key(pem, None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def new_key() -> rsa.RSAPrivateKey:
    """Returns a key that no issuer knows."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def jwks(**keys: rsa.RSAPrivateKey) -> str:
    """Returns a key set, by key id."""
    return json.dumps({"keys": [{**public_jwk(key), "kid": name} for name, key in keys.items()]})


def public_jwk(key: rsa.RSAPrivateKey) -> dict[str, Any]:
    """Returns the public half of a key as a JWK."""
    return dict(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True))


def claims(**changed: Any) -> dict[str, Any]:
    """Returns what an access token of the development client says; None takes a claim away."""
    said = {
        "iss": Config().issuer,
        "sub": development.CLIENT_ID,
        "client_id": development.CLIENT_ID,
        "token_use": "access",
        "scope": "till/customer:write till/operator till/platform",
        "exp": int(time.time()) + 600,
    }
    return {name: value for name, value in (said | changed).items() if value is not None}


def token(
    header: dict[str, Any] | None = None, key: rsa.RSAPrivateKey | None = None, **changed: Any
) -> str:
    """Returns a signed token; header values of None are left out."""
    return jwt.encode(
        claims(**changed),
        key or issuer_key(),
        algorithm="RS256",
        headers={"kid": development.KEY_ID, **(header or {})},
    )


def part(value: Any) -> str:
    """Returns a segment of a token."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def bearer(text: str, key: str = "") -> dict[str, str]:
    """Returns the headers of a token, and of a key if there is one."""
    return {"authorization": f"Bearer {text}".strip(), **({"x-api-key": key} if key else {})}


def files_of(stack: Stack) -> bytes:
    """Returns whatever a stack has written beside its database, the write-ahead log included; or,
    from a database server, every row.
    """
    if not is_file(stack.url):
        tables = [name for (name,) in stack.rows("SHOW TABLES")]
        return str([stack.rows(f"SELECT * FROM `{name}`") for name in tables]).encode()
    found = file_of(stack.url).parent.glob("till.db*")
    return b"".join(path.read_bytes() for path in found)
