"""A real Envoy before a gRPC server that answers what each test tells it."""

import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx
from conftest import eventually
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2_grpc
from till.v1.order_pb2 import Order

from server import config, edge, run

Reply = Callable[[grpc.ServicerContext], Message]


class Backend(grpc.GenericRpcHandler):
    """A server that answers every call with `reply` and keeps what it was called with."""

    def __init__(self) -> None:
        self.reply: Reply = lambda context: Order()
        self.request = b""
        self.metadata: dict[str, str | bytes] = {}
        self.seconds_left = 0.0
        self.health = health.HealthServicer()
        self.server = grpc.server(ThreadPoolExecutor(4), handlers=[self])
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def service(self, call: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    def _answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.request, self.metadata = request, dict(context.invocation_metadata())
        self.seconds_left = context.time_remaining()
        return self.reply(context).SerializeToString()


class Envoy(NamedTuple):
    backend: Backend
    rest: httpx.Client
    grpc: str
    log: Path


@contextmanager
def running_envoy(backend: Backend, folder: Path) -> Iterator[Envoy]:
    """Runs Envoy before this server, on ports that Envoy chooses."""
    admin, log, names = folder / "admin", folder / "log", ("REST", "EDGE_GRPC", "ADMIN")
    anywhere = {f"TILL_{name}_ADDRESS": "127.0.0.1:0" for name in names}
    settings = config.load({"TILL_GRPC_ADDRESS": backend.address, **anywhere})
    command = [str(run.BIN / "envoy"), "-c", str(edge.write(settings, folder / "envoy.yaml"))]
    command += ["--file-flush-interval-msec", "50", "--admin-address-path", str(admin)]
    command += ["--disable-hot-restart"]
    with log.open("wb") as out, subprocess.Popen(command, cwd=config.ROOT, stdout=out) as process:
        try:
            found = eventually(lambda: listeners(admin))
            with httpx.Client(base_url=f"http://{found['rest']}", timeout=30) as rest:
                yield Envoy(backend, rest, found["grpc"], log)
        finally:
            process.terminate()
            backend.server.stop(None).wait()


def listeners(admin: Path) -> dict[str, str]:
    """Returns the address of each listener, from Envoy itself."""
    assert admin.exists()
    lines = httpx.get(f"http://{admin.read_text()}/listeners").text.splitlines()
    assert len(lines) == 2
    return {name: address for name, _, address in (line.partition("::") for line in lines)}
