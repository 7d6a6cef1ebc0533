"""`till run`: the server and Envoy as one foreground program, started, watched and stopped."""

import contextlib
import ctypes
import http.client
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from server import development, edge
from server.config import ROOT, Config

BIN = Path(sys.executable).parent
TICK_SECONDS = 0.1
READY_SECONDS_MAX = 30.0
START_CRASHES_MAX = 3
PAUSE_FIRST_SECONDS = 0.25
PAUSE_SECONDS_MAX = 8.0
# Who lives this long has recovered, so the next pause is short again.
STEADY_SECONDS = 60.0
PR_SET_PDEATHSIG = 1
# Loaded here because the child of a fork must not load libraries.
LIBC = ctypes.CDLL(None)
WELCOME = """\
Till is ready; Ctrl-C stops it.
  REST  {scheme}://{rest}
  gRPC  {grpc}
Try:
  curl {insecure}{scheme}://{rest}/new-order --data '{order}'
  {grpcurl} {plain} {grpc} list"""


def main(config: Config) -> None:
    """Serves until a signal says stop; exits with 1 and one sentence when it cannot."""
    if problem := unusable_address(config):
        sys.exit(problem)
    if config.development:
        development.ensure(config)  # Envoy reads the issuer's keys when it starts
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Under nohup a closed terminal is no reason to stop.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda received, _: signals.append(received))
    with tempfile.TemporaryDirectory(prefix="till-") as folder:
        server = Child("the server", [sys.executable, "-m", "server.cli", "serve"], config)
        envoy = Child("Envoy", envoy_command(config, Path(folder)), config)
        try:
            problem = watch(config, server, envoy, signals)
        finally:
            stop(config, server, envoy)
    if problem:
        sys.exit(problem)


class Child:
    """A process that is started again, ever more patiently, whenever it ends by itself."""

    def __init__(self, name: str, command: Sequence[str], config: Config) -> None:
        self.crashes = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._name = name
        self._command = command
        settings = asdict(config).items()
        self._environment = os.environ | {
            f"TILL_{key.upper()}": str(value) for key, value in settings
        }
        self._pause = PAUSE_FIRST_SECONDS
        self._started = 0.0
        self._due = 0.0

    def tend(self) -> None:
        """Starts the process if it is due, or notes that it has ended; call it every tick."""
        if self.process is None:
            if time.monotonic() >= self._due:
                self._start()
        elif (code := self.process.poll()) is not None:
            self._plan_restart(code)

    def stop(self, seconds: float) -> None:
        """Asks the process to end, waits that long, then insists."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            say(f"{self._name} did not stop within {seconds:g} s and is killed")
            self.process.kill()
            self.process.wait()

    def renew(self) -> None:
        """Ends the process and starts it again at the next tick, which is no crash."""
        self.stop(2)
        self.process, self._due = None, 0.0

    def _start(self) -> None:
        self._started = time.monotonic()
        self.process = subprocess.Popen(
            self._command, cwd=ROOT, env=self._environment, preexec_fn=tied_to(os.getpid())
        )

    def _plan_restart(self, code: int) -> None:
        self.process = None
        self.crashes += 1
        if time.monotonic() - self._started > STEADY_SECONDS:
            self._pause = PAUSE_FIRST_SECONDS
        say(f"{self._name} ended with {code}; it starts again in {self._pause:g} s")
        self._due = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, PAUSE_SECONDS_MAX)


def watch(config: Config, server: Child, envoy: Child, signals: Sequence[int]) -> str | None:
    """Keeps the children alive until a signal. Returns why, if they never became ready."""
    ready, deadline = False, time.monotonic() + READY_SECONDS_MAX
    children, keys = (server, envoy), keys_changed(config)
    while not signals:
        if keys != (keys := keys_changed(config)):
            # Envoy reads a file of keys once; a URL of keys it reads again by itself.
            say("the issuer's keys changed; Envoy starts again to read them")
            ask(config.admin_address, "POST", "/drain_listeners?graceful")
            envoy.renew()
        for child in children:
            child.tend()
        if not ready:
            # Crash after crash at the start is a mistake to read, not an accident to sit out.
            if any(child.crashes >= START_CRASHES_MAX for child in children):
                return "Till could not start; the reason is above."
            if time.monotonic() > deadline:
                return f"Till was not ready after {READY_SECONDS_MAX:g} s."
            if ready := serving(config):
                print(welcome(config), flush=True)
        time.sleep(TICK_SECONDS)
    return None


def keys_changed(config: Config) -> float | None:
    """Returns when the file of the issuer's keys was changed, or None if there is none now."""
    keys = ROOT / development.keys_source(config)
    return keys.stat().st_mtime if keys.is_file() else None


def stop(config: Config, server: Child, envoy: Child) -> None:
    """Lets the calls in flight end, then the server, then Envoy, whose SIGTERM would cut them."""
    ask(config.admin_address, "POST", "/drain_listeners?graceful")
    server.stop(config.shutdown_seconds + config.drain_seconds + 2)
    envoy.stop(2)


def serving(config: Config) -> bool:
    """Asks Envoy, which asks the server's gRPC health, so that yes means the whole way works."""
    return ask(config.rest_address, "GET", "/healthz", tls=bool(config.edge_tls)) == 200


def ask(address: str, method: str, path: str, *, tls: bool = False) -> int | None:
    """Returns the status of Envoy's answer, or None from an Envoy that is not there."""
    host, port = edge.host_and_port(address)
    # Whether Envoy lives is the question here, not whether its certificate is good.
    unverified = ssl._create_unverified_context()
    connection = (
        http.client.HTTPSConnection(host, port, timeout=1, context=unverified)
        if tls
        else http.client.HTTPConnection(host, port, timeout=1)
    )
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request(method, path)
        return connection.getresponse().status
    return None


def unusable_address(config: Config) -> str | None:
    """Returns a sentence on the first address that cannot be had, before anything starts."""
    with contextlib.ExitStack() as stack:
        for setting, address in asdict(config).items():
            if setting.endswith("_address"):
                try:
                    stack.enter_context(edge.hold(address))
                except (OSError, ValueError) as error:
                    reason = str(getattr(error, "strerror", error)).partition(" (")[0]
                    advice = f"free it or set TILL_{setting.upper()} to another"
                    return f"Till cannot listen on {address}: {reason}; {advice}."
    return None


def envoy_command(config: Config, folder: Path) -> list[str]:
    """Returns the command of an Envoy that shares nothing with others on this machine."""
    path = edge.write(config, folder / "envoy.yaml")
    seconds = int(config.shutdown_seconds + config.drain_seconds) + 2
    command = [str(BIN / "envoy"), "--config-path", str(path), "--log-level", "warn"]
    command += ["--drain-strategy", "immediate", "--drain-time-s", str(seconds)]
    # Access lines would otherwise wait ten seconds in a buffer.
    return [*command, "--file-flush-interval-msec", "500", "--disable-hot-restart"]


def tied_to(parent: int) -> Callable[[], None]:
    """Returns what a child does between fork and exec, so that it never outlives its parent."""

    def tie() -> None:
        # Ctrl-C and a closed terminal reach the whole group; only the parent acts on them.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
        # A parent that is killed -9 stops nobody, and Envoy watches no pipe: the kernel does it.
        if sys.platform == "linux":
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

    return tie


def welcome(config: Config) -> str:
    """Returns where Till serves, and two lines to paste."""
    return WELCOME.format(
        rest=config.rest_address,
        grpc=config.edge_grpc_address,
        order='{"store_id":"store01","order_id":"order01","user_id":"user01","grand_total":110.00}',
        grpcurl=BIN / "grpcurl",
        scheme="https" if config.edge_tls else "http",
        insecure="--insecure " if config.edge_tls else "",
        plain="-insecure" if config.edge_tls else "-plaintext",
    )


def say(sentence: str) -> None:
    """Prints a line of the supervisor's own beside its children's."""
    print(f"till: {sentence}", file=sys.stderr, flush=True)
