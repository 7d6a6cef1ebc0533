"""Envoy's configuration for the settings: envoy/envoy.yaml with addresses and paths put in."""

import socket
from pathlib import Path
from typing import Any

import yaml

from server.config import ROOT, Config

SOURCE = ROOT / "envoy" / "envoy.yaml"
# Envoy takes relative paths from its working directory; these must hold wherever it is started.
FILES = ("generated/descriptors.pb", "envoy/rest.lua")


def write(config: Config, path: Path) -> Path:
    """Writes the rendered configuration to a file and returns the file."""
    path.write_text(render(config), encoding="utf-8")
    return path


def render(config: Config, source: Path = SOURCE) -> str:
    """Returns, as YAML text, an Envoy that listens and finds the server where config says."""
    edge = _absolute(yaml.safe_load(source.read_text(encoding="utf-8")))
    edge["admin"]["address"] = _socket_address(config.admin_address)
    listeners = edge["static_resources"]["listeners"]
    _named(listeners, "rest")["address"] = _socket_address(config.rest_address)
    _named(listeners, "grpc")["address"] = _socket_address(config.edge_grpc_address)
    till = _named(edge["static_resources"]["clusters"], "till")
    _only_endpoint(till)["address"] = _socket_address(config.grpc_address)
    text: str = yaml.safe_dump(edge, sort_keys=False, allow_unicode=True)
    return text


def host_and_port(address: str) -> tuple[str, int]:
    """Splits `host:port`, or `[host]:port` for IPv6. Raises ValueError when it is neither."""
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 65536):
        raise ValueError(f"{address!r} is not an address; write host:port, like 127.0.0.1:8080")
    return host.removeprefix("[").removesuffix("]"), int(port)


def hold(address: str) -> socket.socket:
    """Listens on an address, which proves it free. Raises OSError or ValueError when it is not."""
    host, port = host_and_port(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def _socket_address(address: str) -> dict[str, Any]:
    host, port = host_and_port(address)
    # Envoy listens on and connects to numbers only; `localhost` is looked up here.
    number = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0]
    return {"socket_address": {"address": number, "port_value": port}}


def _absolute(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _absolute(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_absolute(child) for child in value]
    return str(ROOT / value) if value in FILES else value


def _named(resources: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(resource for resource in resources if resource["name"] == name)


def _only_endpoint(cluster: dict[str, Any]) -> dict[str, Any]:
    """Returns the one endpoint of a cluster; unpacking refuses a second, which has no setting."""
    [locality] = cluster["load_assignment"]["endpoints"]
    [member] = locality["lb_endpoints"]
    endpoint: dict[str, Any] = member["endpoint"]
    return endpoint
