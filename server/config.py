"""The settings: read once from the environment, written down once here and once in README's
table.
"""

import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from storage.database import Options, redacted

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Config:
    """Each field is the environment variable of the same name, upper case, after `TILL_`."""

    database: str = field(default="sqlite:///data/till.db", repr=False)
    """Where the order book is kept: sqlite:///path, relative to the project's root, or
    mysql://user:password@host:port/name.
    """
    database_password_file: str = ""
    """A file whose first line is the database's password; it goes before the URL's own."""
    database_connections: int = 16
    """How many connections to a database server write at once, and as many again that read."""
    durability: str = "full"
    """`full` refuses a database server that may lose commits; `relaxed` warns and goes on."""
    grpc_address: str = "127.0.0.1:50051"
    """Where the server listens; only Envoy and this machine should reach it."""
    rest_address: str = "127.0.0.1:8080"
    """Where Envoy serves JSON REST."""
    edge_grpc_address: str = "127.0.0.1:8081"
    """Where Envoy serves gRPC and grpc-web."""
    admin_address: str = "127.0.0.1:9901"
    """Where Envoy serves its admin page and Prometheus statistics; keep it on loopback."""
    default_store: str = "default"
    """The store of an order whose door names none."""
    queue_max: int = 4096
    """How many writes may wait at once; one more is refused with UNAVAILABLE."""
    shutdown_seconds: float = 5.0
    """How long calls in flight may take to end after SIGTERM."""
    drain_seconds: float = 0.0
    """How long the server stays up, NOT_SERVING, before it stops; more than two health checks
    behind a balancer.
    """

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
        """Returns the settings by name, fit for logs and screens: without the password."""
        return asdict(self) | {"database": redacted(self.database)}


def load(environment: dict[str, str] | None = None) -> Config:
    """Returns the settings of an environment, by default the process's own.

    Raises ValueError naming the variable that cannot be read or is not known.
    """
    environment = dict(os.environ) if environment is None else environment
    given = {name: value for name, value in environment.items() if name.startswith("TILL_")}
    known = {f"TILL_{field.name.upper()}": field for field in fields(Config)}
    values: dict[str, Any] = {}
    for name, text in given.items():
        if name not in known:
            raise ValueError(
                f"{name} is not a setting; the settings are {', '.join(sorted(known))}"
            )
        values[known[name].name] = _parse(name, text, type(known[name].default))
    return Config(**values)


def _parse(name: str, text: str, kind: type) -> object:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{name} must be a {kind.__name__}, not {text!r}") from None
