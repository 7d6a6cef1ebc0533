"""The server put together: its health, its reflection, its end."""

import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from alone import alone
from callers import Stubs
from conftest import ROOT, environment
from databases import held
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from inside import Served, refused
from till.v1 import order_pb2

from server.app import SERVICES

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize("service", ["", *SERVICES])
def test_each_service_says_that_it_serves(served: Served, service: str) -> None:
    asked = health_pb2.HealthCheckRequest(service=service)

    assert HealthStub(served.channel).Check(asked).status == SERVING


def test_the_health_of_an_unknown_service_is_not_found(served: Served) -> None:
    asked = health_pb2.HealthCheckRequest(service="nowhere")

    code, _ = refused(lambda: HealthStub(served.channel).Check(asked))

    assert code is grpc.StatusCode.NOT_FOUND


def test_reflection_lists_the_services(served: Served) -> None:
    asked = reflection_pb2.ServerReflectionRequest(list_services="")

    answers = ServerReflectionStub(served.channel).ServerReflectionInfo(iter([asked]))

    names = {each.name for each in next(answers).list_services_response.service}
    assert names >= {*SERVICES, "grpc.health.v1.Health"}


def test_a_method_that_is_none_is_unimplemented(served: Served) -> None:
    call = served.channel.unary_unary("/till.v1.OrderService/Nowhere", None, None)

    assert refused(lambda: call(b""))[0] is grpc.StatusCode.UNIMPLEMENTED


def test_sigterm_says_not_serving_first_and_lets_calls_end(url: str, tmp_path: Path) -> None:
    request, late = (
        order_pb2.SubmitStoreOrderRequest(store_id="s", order_id=number, user_id="u", grand_total=1)
        for number in ("1", "2")
    )
    with alone(url, tmp_path, drain_seconds="0.2") as server:
        states = HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest(service=""))
        assert next(states).status == SERVING
        with held(url):
            in_flight = server.stubs.order.SubmitStoreOrder.future(request)
            refused(lambda: server.stubs.order.SubmitStoreOrder(late, timeout=0.2))
            server.process.terminate()
            assert next(states).status == NOT_SERVING
            states.cancel()
            assert not in_flight.done()
        assert in_flight.result().status_code == 201
        assert server.process.wait(60) == 0
        assert server.lines("stopped")


def serve(**settings: str) -> subprocess.CompletedProcess[str]:
    """Runs `till serve` with settings that it must refuse."""
    told = {f"TILL_{name.upper()}": value for name, value in settings.items()}
    return subprocess.run(
        [sys.executable, "-m", "server.cli", "serve"],
        cwd=ROOT,
        env=environment() | told,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"database": "postgres:///x"}, "TILL_DATABASE must be sqlite:///path"),
        ({"database": "sqlite:///:memory:"}, "journal_mode=memory"),
        ({"databse": "sqlite:///x"}, "TILL_DATABSE is no setting"),
        ({"queue_max": "many"}, "TILL_QUEUE_MAX must be a int"),
    ],
)
def test_settings_that_are_wrong_are_one_sentence(settings: dict[str, str], word: str) -> None:
    ended = serve(**settings)

    assert ended.returncode == 1
    assert word in ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout


def test_a_port_that_is_taken_is_not_shared(served: Served, tmp_path: Path) -> None:
    ended = serve(grpc_address=served.address, database=f"sqlite:///{tmp_path / 'other.db'}")

    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert Stubs.of(served.channel)
