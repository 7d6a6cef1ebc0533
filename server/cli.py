"""The console script `till`."""

import argparse
import asyncio
import contextlib
import os
import sys

import orjson

from server import config as settings


def main() -> None:
    """Runs the command that was asked for."""
    parser = argparse.ArgumentParser(
        prog="till", description="Orders, checkouts, drafts and stock."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (_, text) in _COMMANDS.items():
        commands.add_parser(name, help=text, description=text)
    asked = parser.parse_args()
    os.chdir(settings.ROOT)  # relative paths in settings start here, wherever the command was typed
    try:
        _COMMANDS[asked.command][0](settings.load())
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"till {asked.command}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _run(config: settings.Config) -> None:
    from server.run import main as supervise

    supervise(config)


def _serve(config: settings.Config) -> None:
    import uvloop

    from server import app, log

    log.configure()
    _let_threads_finish()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(app.run(config))


def _let_threads_finish() -> None:
    """Keeps the server's threads from interrupting each other: gRPC's poller wakes six times a
    call, and each time would take the core from the event loop, only to wait for its interpreter.

    Threads started later inherit it. Where the system refuses, all is well but a quarter slower.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _demo(config: settings.Config) -> None:
    from server.demo import main as play

    play(config)


def _check_config(config: settings.Config) -> None:
    config.options()
    values = config.shown()
    if not sys.stdout.isatty():
        print(orjson.dumps(values).decode())
        return
    for name, value in values.items():
        print(f"TILL_{name.upper():<20} {value}")


_COMMANDS = {
    "run": (_run, "serve REST and gRPC: the server and Envoy in one foreground process group"),
    "serve": (_serve, "serve gRPC only, without Envoy"),
    "check-config": (_check_config, "print the settings as they are understood"),
    "demo": (_demo, "load samples and play the five documents against the running stack"),
}

if __name__ == "__main__":
    main()
