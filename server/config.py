"""The settings: read once from the environment, written down once here and once in README's
table.
"""

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Config:
    """Each field is the environment variable of the same name, upper case, after `TILL_`."""

    database: str = "sqlite:///data/till.db"
    """Where the order book is kept; a relative path is taken from the project's root."""
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
