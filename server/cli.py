"""The console script `till`."""

import argparse
import asyncio
import contextlib
import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import orjson

from server import config as settings
from server.config import Config
from storage.errors import Refusal

SWITCH_SECONDS = 0.001
"""How long a thread with a commit to tell of waits at most for the interpreter; Python's own 5 ms
are a quarter of a call.
"""
_TYPED_IN = os.getcwd()
_LOAD = "put the rows of a CSV file up for sale: all of them, or none"


def main() -> None:
    """Runs the command that was asked for."""
    os.chdir(settings.ROOT)  # relative paths in settings start here, wherever it was typed
    asked = _parser().parse_args()
    try:
        asked.run(settings.load(), asked)
    except (ValueError, RuntimeError, OSError, Refusal) as error:
        sys.exit(f"till {asked.command}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def show(value: Any, *, as_json: bool = False) -> None:
    """Prints a dictionary or a list of them: a line per field for people, JSON for machines."""
    if as_json or not sys.stdout.isatty():
        print(orjson.dumps(value).decode())
        return
    for row in value if isinstance(value, list) else [value]:
        width = max(len(name) for name in row)
        print("\n".join(f"{name:<{width}}  {text}" for name, text in row.items()), end="\n\n")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="till", description="Orders, checkouts, drafts and stock.")
    commands = parser.add_subparsers(dest="command", required=True)
    _command(commands, "run", _run, "serve REST and gRPC: the server and Envoy in one group")
    _command(commands, "serve", _serve, "serve gRPC only, without Envoy")
    _command(commands, "check-config", _check_config, "print the settings as they are understood")
    _command(commands, "demo", _demo, "play the five documents against the running stack")
    credentials = _command(commands, "credentials", _credentials, "print development credentials")
    credentials.add_argument("--scope", action="append", help="customer:read, …; may be repeated")
    credentials.add_argument("--json", action="store_true", help="JSON, also at a terminal")
    credentials.add_argument("--shell", action="store_true", help="lines for eval")
    _book_commands(commands)
    _tenant_commands(commands)
    _client_commands(commands)
    _inventory_commands(commands)
    return parser


def _command(commands: Any, name: str, run: Any, text: str) -> ArgumentParser:
    parser: ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser


def _book_commands(commands: Any) -> None:
    _command(commands, "migrate", _keep, "bring the database's schema up to date")
    for name, text in (
        ("backup", "copy the order book to a file, while serving or not"),
        ("restore", "fill an empty database from a backup"),
        ("export", "write the order book as JSON lines, the same from every database"),
        ("import", "add the rows of an export that are not there yet; may be repeated"),
    ):
        _command(commands, name, _keep, text).add_argument("file", type=_path)


def _tenant_commands(commands: Any) -> None:
    text = "the tenants (legal entities) of the order book"
    verbs = commands.add_parser("tenant", help=text).add_subparsers(dest="verb", required=True)
    create = _command(verbs, "create", _admin, "add a tenant")
    create.add_argument("name")
    create.add_argument("--entity-number", default="")
    _command(verbs, "list", _admin, "print every tenant")


def _client_commands(commands: Any) -> None:
    text = "the API clients of a tenant and their keys"
    verbs = commands.add_parser("client", help=text).add_subparsers(dest="verb", required=True)
    create = _command(verbs, "create", _admin, "add a client; its key is shown once")
    create.add_argument("client_id", nargs="?", default="", help="as its tokens carry it")
    create.add_argument("--name", default="")
    create.add_argument("--scope", action="append", default=[], help="customer:write, operator, …")
    create.add_argument("--default-store", default="")
    listing = _command(verbs, "list", _admin, "print a tenant's clients")
    rotate = _command(verbs, "rotate", _admin, "add a second key; it is shown once")
    revoke = _command(verbs, "revoke", _admin, "end a client, or one of its keys")
    revoke.add_argument("--key", default="", help="the key's id; all of the client without it")
    for verb in (rotate, revoke):
        verb.add_argument("client_id")
    for verb in (create, listing, rotate, revoke):
        verb.add_argument("--tenant", type=int, default=1)


def _inventory_commands(commands: Any) -> None:
    verbs = commands.add_parser("inventory", help="dated stock")
    load = _command(verbs.add_subparsers(dest="verb", required=True), "import", _load, _LOAD)
    load.add_argument("file", type=_path, help="a CSV file, or - for standard input")
    load.add_argument("--tenant", type=int, default=1)


def _path(text: str) -> str:
    """Takes a path from where the command was typed; main has gone to the project's root."""
    return text if text == "-" else str(Path(_TYPED_IN) / text)


def _run(config: Config, _: Namespace) -> None:
    from server import keep
    from server.run import main as supervise

    keep.bring_up(config)
    supervise(config)


def _serve(config: Config, _: Namespace) -> None:
    import uvloop

    from server import app, log

    log.configure()
    _let_threads_finish()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(app.run(config))


def _let_threads_finish() -> None:
    """Keeps the server's threads from interrupting each other: gRPC's poller wakes six times a
    call, and each time would take the core from the event loop, only to wait for its interpreter.

    Threads started later inherit it, but those that write go first. Where the system refuses, all
    is well but slower.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _demo(config: Config, _: Namespace) -> None:
    from server.demo import main as play

    play(config)


def _check_config(config: Config, _: Namespace) -> None:
    show({f"TILL_{name.upper()}": value for name, value in config.shown().items()})


def _credentials(config: Config, asked: argparse.Namespace) -> None:
    from server import development

    if not config.development:
        raise ValueError("there are no development credentials in production")
    scopes = [s.removeprefix(config.scope_prefix) for s in asked.scope or development.SCOPES]
    known = development.credentials(config, " ".join(scopes).split())
    if asked.shell:
        print("\n".join(f"{name.upper()}={text}" for name, text in known.items()))
    else:
        show(known, as_json=asked.json)


def _admin(config: Config, asked: Namespace) -> None:
    from server import admin

    show(asyncio.run(admin.run(config, asked)))


def _keep(config: Config, asked: Namespace) -> None:
    from server import keep

    show(asyncio.run(keep.run(config, asked)))


def _load(config: Config, asked: Namespace) -> None:
    from server import load

    show(asyncio.run(load.run(config, asked)))


if __name__ == "__main__":
    main()
