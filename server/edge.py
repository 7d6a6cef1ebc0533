"""Envoy's configuration for the settings: envoy/envoy.yaml with addresses, keys and paths put
in.
"""

import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from server import development
from server.config import ROOT, Config

SOURCE = ROOT / "envoy" / "envoy.yaml"
# Envoy takes relative paths from its working directory; these must hold wherever it is started.
FILES = ("generated/descriptors.pb", "envoy/rest.lua")
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
KEYS_SECONDS = 60
"""How long Envoy uses the issuer's keys before it fetches them again."""


def write(config: Config, path: Path) -> Path:
    """Writes the rendered configuration to a file and returns the file."""
    path.write_text(render(config), encoding="utf-8")
    return path


def render(config: Config, source: Path = SOURCE) -> str:
    """Returns, as YAML text, an Envoy that listens and finds the server where config says."""
    edge = _absolute(yaml.load(source.read_text(encoding="utf-8"), yaml.CSafeLoader))
    edge["admin"]["address"] = _address(config.admin_address)
    listeners = edge["static_resources"]["listeners"]
    clusters = edge["static_resources"]["clusters"]
    _named(listeners, "rest")["address"] = _address(config.rest_address)
    _named(listeners, "grpc")["address"] = _address(config.edge_grpc_address)
    _only_endpoint(_named(clusters, "till"))["address"] = _address(config.grpc_address)
    _put_limits(listeners, config)
    _put_issuer(listeners, clusters, config)
    _put_certificates(listeners, _named(clusters, "till"), config)
    text: str = yaml.dump(edge, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True)
    return text


def host_and_port(address: str) -> tuple[str, int]:
    """Splits `host:port`, or `[host]:port` for IPv6. Raises ValueError when it is neither."""
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 65536):
        raise ValueError(f"{address!r} is not an address; write host:port, like 127.0.0.1:8080")
    return host.removeprefix("[").removesuffix("]"), int(port)


def hold(address: str) -> socket.socket:
    """Listens on an address, which proves it free. Raises OSError or ValueError when it is not."""
    if address.startswith("unix:"):
        return socket.socket(socket.AF_UNIX)  # the server replaces the file of one that has ended
    host, port = host_and_port(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def _address(address: str) -> dict[str, Any]:
    if address.startswith("unix:"):
        return {"pipe": {"path": address.removeprefix("unix:")}}
    host, port = host_and_port(address)
    # Envoy listens on and connects to numbers only; `localhost` is looked up here.
    number = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0]
    return {"socket_address": {"address": number, "port_value": port}}


def _put_limits(listeners: list[dict[str, Any]], config: Config) -> None:
    tokens = config.edge_rate_per_second
    for listener in listeners:
        flood = _filter(listener, "envoy.filters.http.local_ratelimit")
        flood["token_bucket"] |= {"max_tokens": tokens, "tokens_per_fill": tokens}
        told = [added["header"] for added in flood["response_headers_to_add"]]
        next(h for h in told if h["key"] == "x-ratelimit-limit")["value"] = str(tokens)


def _put_issuer(
    listeners: list[dict[str, Any]], clusters: list[dict[str, Any]], config: Config
) -> None:
    keys = development.keys_source(config)
    remote = keys.startswith(("https://", "http://"))
    if remote:
        clusters.append(_keys_cluster(keys))
    for listener in listeners:
        issuer = _filter(listener, "envoy.filters.http.jwt_authn")["providers"]["issuer"]
        issuer.pop("local_jwks")
        issuer["issuer"] = config.issuer
        issuer |= _remote_keys(keys) if remote else {"local_jwks": {"filename": str(ROOT / keys)}}


def _remote_keys(url: str) -> dict[str, Any]:
    fetch = {"uri": url, "cluster": "jwks", "timeout": "5s"}
    cache = {"seconds": KEYS_SECONDS}
    return {"remote_jwks": {"http_uri": fetch, "cache_duration": cache, "async_fetch": {}}}


def _keys_cluster(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    address = {"socket_address": {"address": parts.hostname, "port_value": port}}
    cluster: dict[str, Any] = {
        "name": "jwks",
        "type": "STRICT_DNS",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": "jwks",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    if secure:
        trusted = {"validation_context": {"trusted_ca": {"filename": AUTHORITIES}}}
        context = {
            "sni": parts.hostname,
            "common_tls_context": trusted,
            "auto_sni_san_validation": True,
        }
        cluster["transport_socket"] = _socket("UpstreamTlsContext", context)
    return cluster


def _put_certificates(
    listeners: list[dict[str, Any]], till: dict[str, Any], config: Config
) -> None:
    if config.edge_tls:
        own = _certificate(ROOT / config.edge_tls, "tls") | {"alpn_protocols": ["h2", "http/1.1"]}
        for listener in listeners:
            context = {"common_tls_context": own}
            listener["filter_chains"][0]["transport_socket"] = _socket(
                "DownstreamTlsContext", context
            )
    if config.server_tls:
        folder = ROOT / config.server_tls
        authority = {"trusted_ca": {"filename": str(folder / "ca.crt")}}
        # gRPC takes nobody who does not offer h2, which health checks do only when told.
        h2 = {"validation_context": authority, "alpn_protocols": ["h2"]}
        both = _certificate(folder, "client") | h2
        till["transport_socket"] = _socket("UpstreamTlsContext", {"common_tls_context": both})


def _certificate(folder: Path, name: str) -> dict[str, Any]:
    files = {
        "certificate_chain": {"filename": str(folder / f"{name}.crt")},
        "private_key": {"filename": str(folder / f"{name}.key")},
    }
    return {"tls_certificates": [files], "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"}}


def _socket(kind: str, context: dict[str, Any]) -> dict[str, Any]:
    return {"name": "envoy.transport_sockets.tls", "typed_config": {"@type": TLS + kind, **context}}


def _filter(listener: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns the configuration of an HTTP filter of a listener."""
    [network] = listener["filter_chains"][0]["filters"]
    configuration: dict[str, Any] = _named(network["typed_config"]["http_filters"], name)
    typed: dict[str, Any] = configuration["typed_config"]
    return typed


def _absolute(value: Any) -> Any:
    """Returns a copy with absolute paths; anchors of the YAML become things of their own."""
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
