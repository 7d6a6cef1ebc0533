"""Certificates of a throw-away authority on both sides of Envoy, and the other ways to keep the
server's port to itself.
"""

import ipaddress
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from conftest import Stack, running, till
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from doors import RPCS, by_grpc
from google.protobuf import message_factory

RPC = RPCS["OrderService.ListRecentUserOrders"]
ORDER = {"store_id": "s", "order_id": "1", "user_id": "u", "grand_total": 1}


class Authority:
    """Issues certificates into a folder, its own among them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "throw-away")])
        basics = x509.BasicConstraints(ca=True, path_length=None)
        self._write("ca.crt", self._certificate(self._name, self._key, basics))

    def issue(self, name: str) -> None:
        """Writes name.crt and name.key, for this machine."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        basics = x509.BasicConstraints(ca=False, path_length=None)
        self._write(f"{name}.crt", self._certificate(subject, key, basics))
        self._write(
            f"{name}.key",
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )

    def read(self, name: str) -> bytes:
        """Returns a file of the folder."""
        return (self.folder / name).read_bytes()

    def _write(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)

    def _certificate(self, subject: x509.Name, key: Any, basics: x509.BasicConstraints) -> bytes:
        here = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(basics, critical=True)
            .add_extension(x509.SubjectAlternativeName(here), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("tls") / "own")
    for name in ("tls", "server", "client"):
        authority.issue(name)
    return authority


@pytest.fixture(scope="module")
def secure(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack where nothing goes in plain text."""
    folder = str(authority.folder)
    settings = {"TILL_EDGE_TLS": folder, "TILL_SERVER_TLS": folder}
    context = ssl.create_default_context(cadata=authority.read("ca.crt").decode())
    with running(tmp_path_factory.mktemp("secure"), settings, context) as stack:
        yield stack


def ask(address: str, credentials: grpc.ChannelCredentials | None) -> str:
    """Returns the code of an answer; FAILED_PRECONDITION means that the server gave it."""
    message = message_factory.GetMessageClass(RPC.input_type)(store_id="s", user_id="nobody")
    return by_grpc(address, RPC, message, [], credentials).code


def test_both_doors_of_envoy_speak_tls_with_a_server_that_knows_it(
    secure: Stack, authority: Authority
) -> None:
    assert secure.rest.post("/new-order", json=ORDER).status_code == 201
    trusting = grpc.ssl_channel_credentials(authority.read("ca.crt"))
    assert ask(secure.grpc, trusting) == "FAILED_PRECONDITION"


def test_envoy_answers_no_plain_text_and_no_old_tls(secure: Stack) -> None:
    plain = str(secure.rest.base_url).replace("https", "http")
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{plain}/healthz")
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{secure.rest.base_url}/healthz")  # no public authority signed it
    assert ask(secure.grpc, None) == "UNAVAILABLE"


def test_the_server_lets_nobody_in_without_a_certificate_of_its_authority(
    secure: Stack, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "stranger")
    stranger.issue("client")
    root = authority.read("ca.crt")
    assert ask(secure.server, None) == "UNAVAILABLE"
    assert ask(secure.server, grpc.ssl_channel_credentials(root)) == "UNAVAILABLE"
    for owner, code in ((stranger, "UNAVAILABLE"), (authority, "FAILED_PRECONDITION")):
        pair = owner.read("client.key"), owner.read("client.crt")
        assert ask(secure.server, grpc.ssl_channel_credentials(root, *pair)) == code


@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "till.example:1", "*:1"])
def test_a_server_others_can_reach_does_not_start_without_certificates(address: str) -> None:
    with pytest.raises(RuntimeError, match="must be loopback or unix:path unless TILL_SERVER_TLS"):
        till("serve", TILL_GRPC_ADDRESS=address)


def test_the_server_may_listen_on_a_socket_of_the_file_system(tmp_path: Path) -> None:
    path = tmp_path / "till.sock"
    with running(tmp_path, {"TILL_GRPC_ADDRESS": f"unix:{path}"}) as stack:
        assert stack.rest.post("/new-order", json=ORDER).status_code == 201
        assert ask(stack.grpc, None) == ask(stack.server, None) == "FAILED_PRECONDITION"
        assert path.stat().st_mode & 0o022 == 0, "only its owner may connect"
