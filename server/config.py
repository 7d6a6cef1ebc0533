"""The settings: read once from the environment, written down once here and once in README."""

import os
from dataclasses import asdict, dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from storage.database import Options, redacted

ROOT = Path(__file__).parent.parent
MODES = ("development", "production")


@dataclass(frozen=True)
class Config:
    """Each field is the environment variable of the same name, upper case, after `TILL_`."""

    database: str = field(default="sqlite:///data/till.db", repr=False)
    """Where the order book is kept: sqlite:///path, relative to the project's root, or
    mysql://user:password@host:port/name.
    """
    database_password_file: str = ""
    """A file whose first line is the database's password; it takes precedence over the password in
    the URL."""
    database_connections: int = 8
    """How many connections to a database server may write at once; as many again read, and as many
    scan."""
    durability: str = "full"
    """`full` refuses a database server that may lose commits; `relaxed` warns and goes on."""
    grpc_address: str = "127.0.0.1:50051"
    """Where the server listens; loopback or unix:path, or anything with server_tls."""
    rest_address: str = "127.0.0.1:8080"
    """Where Envoy serves JSON REST."""
    edge_grpc_address: str = "127.0.0.1:8081"
    """Where Envoy serves gRPC and grpc-web."""
    admin_address: str = "127.0.0.1:9901"
    """Where Envoy serves its admin page and Prometheus statistics; keep it on loopback."""
    mode: str = "development"
    """`development` has an issuer and credentials of its own; `production` refuses them."""
    development_folder: str = "data/development"
    """Where the development issuer's key and credentials are kept."""
    jwks: str = ""
    """The token issuer's keys: a file or an https URL; empty means the development issuer's."""
    issuer: str = "https://till.invalid/development"
    """The `iss` of access tokens."""
    scope_prefix: str = "till/"
    """What stands before `customer:read`, `customer:write`, `operator`, `platform` in tokens."""
    default_tenant: int = 1
    """The tenant of calls whose document knows no credentials."""
    require_key: bool = False
    """Whether those calls need an `x-api-key` all the same."""
    default_store: str = "default"
    """The store of an order whose door and client name none."""
    rate_per_second: float = 20000.0
    """Calls a client may make per second, in each server process."""
    rate_burst: int = 0
    """Calls a client may make at once after a rest; 0 means those of two seconds."""
    edge_rate_per_second: int = 50000
    """Calls each of Envoy's two listeners lets through per second, whoever makes them."""
    calls_max: int = 2048
    """Calls the server works on at once; one more is refused with UNAVAILABLE."""
    queue_max: int = 4096
    """How many writes may wait at once; one more is refused with UNAVAILABLE."""
    edge_tls: str = ""
    """A folder with tls.crt and tls.key for both of Envoy's listeners; empty means plain text."""
    server_tls: str = ""
    """A folder with ca.crt, server.crt, server.key, client.crt, client.key: mTLS to the server."""
    shutdown_seconds: float = 5.0
    """How long calls in flight may take to end after SIGTERM."""
    drain_seconds: float = 0.0
    """How long the server stays up, NOT_SERVING, before it stops; for balancers to see it."""

    @property
    def development(self) -> bool:
        """Whether the development issuer may be used."""
        return self.mode == "development"

    def options(self) -> Options:
        """Returns what the engine must know beside the URL.

        Raises ValueError for a value that is not possible.
        """
        if self.durability not in ("full", "relaxed"):
            raise ValueError(f"TILL_DURABILITY must be full or relaxed, not {self.durability!r}")
        if self.database_connections < 1:
            raise ValueError("TILL_DATABASE_CONNECTIONS must be at least 1")
        return Options(
            self.database_password_file, self.database_connections, self.durability == "relaxed"
        )

    def shown(self) -> dict[str, Any]:
        """Returns the settings as they may be printed: without the passwords of URLs."""
        return {
            name: redacted(value) if isinstance(value, str) else value
            for name, value in asdict(self).items()
        }


def load(environment: dict[str, str] | None = None) -> Config:
    """Returns the settings of an environment, by default the process's own.

    Raises ValueError naming the variable that cannot be read, is not known, or is not allowed.
    """
    environment = dict(os.environ) if environment is None else environment
    given = {name: value for name, value in environment.items() if name.startswith("TILL_")}
    known = {f"TILL_{field.name.upper()}": field for field in fields(Config)}
    values: dict[str, Any] = {}
    for name, text in given.items():
        if name not in known:
            raise ValueError(f"{name} is no setting; the settings are {', '.join(sorted(known))}")
        values[known[name].name] = _parse(name, text, type(known[name].default))
    config = Config(**values)
    _refuse_unsafe(config)
    config.options()
    return config


def _parse(name: str, text: str, kind: type) -> object:
    try:
        return _flag(text) if kind is bool else kind(text)
    except ValueError:
        raise ValueError(f"{name} must be a {kind.__name__}, not {text!r}") from None


def _flag(text: str) -> bool:
    flags = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in flags:
        raise ValueError(text)
    return flags[text.lower()]


def _refuse_unsafe(config: Config) -> None:
    """A setting that would open the house by accident is refused before anything starts."""
    if config.mode not in MODES:
        raise ValueError(f"TILL_MODE must be one of {', '.join(MODES)}, not {config.mode!r}")
    if not config.development and (_trusts_development(config) or config.issuer == Config.issuer):
        raise ValueError(
            "TILL_MODE=production needs TILL_JWKS and TILL_ISSUER, not the development issuer"
        )
    if config.jwks.startswith("http://") and not _is_local(f"{urlsplit(config.jwks).hostname}:0"):
        raise ValueError(
            "TILL_JWKS must be a file or an https URL: whoever forges it forges tokens"
        )
    if not _is_local(config.grpc_address) and not config.server_tls:
        raise ValueError(
            "TILL_GRPC_ADDRESS must be loopback or unix:path unless TILL_SERVER_TLS is set"
        )
    for name in ("rate_per_second", "edge_rate_per_second", "calls_max", "queue_max"):
        if not 0 < getattr(config, name) < float("inf"):
            raise ValueError(f"TILL_{name.upper()} must be above 0")


def _trusts_development(config: Config) -> bool:
    """Whether tokens of the development issuer would be accepted."""
    folder = (ROOT / config.development_folder).resolve()
    return not config.jwks or folder in (ROOT / config.jwks).resolve().parents


def _is_local(address: str) -> bool:
    """Whether only this machine can reach an address."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return address.startswith("unix:") or host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
