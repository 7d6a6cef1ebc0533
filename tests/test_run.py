"""The supervisor behind `make run`: what it refuses, restarts and leaves behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from server import edge, run
from server.config import ROOT, Config

ELSEWHERE = Config(
    grpc_address="127.0.0.2:1",
    rest_address="127.0.0.3:2",
    edge_grpc_address="[::1]:3",
    admin_address="localhost:4",
)
SETTINGS = [name for name in asdict(ELSEWHERE) if name.endswith("_address")]


def test_rendering_puts_every_address_in_its_place() -> None:
    rendered = yaml.safe_load(edge.render(ELSEWHERE))
    resources = rendered["static_resources"]
    listeners = {listener["name"]: listener["address"] for listener in resources["listeners"]}
    [till] = [cluster for cluster in resources["clusters"] if cluster["name"] == "till"]
    [locality] = till["load_assignment"]["endpoints"]
    [member] = locality["lb_endpoints"]
    assert listeners["rest"] == _socket_address("127.0.0.3", 2)
    assert listeners["grpc"] == _socket_address("::1", 3)
    assert member["endpoint"]["address"] == _socket_address("127.0.0.2", 1)
    assert rendered["admin"]["address"]["socket_address"]["port_value"] == 4


def test_rendering_keeps_no_default_address() -> None:
    rendered = edge.render(ELSEWHERE)
    defaults = asdict(Config())
    for setting in SETTINGS:
        assert f"port_value: {defaults[setting].rpartition(':')[2]}\n" not in rendered


def test_rendered_paths_hold_from_any_folder() -> None:
    rendered = edge.render(Config())
    for name in edge.FILES:
        assert (ROOT / name).is_file()
        assert rendered.count(name) == rendered.count(str(ROOT / name)) == 1


def test_envoy_accepts_the_rendered_configuration(tmp_path: Path) -> None:
    command = run.envoy_command(_free_config(), tmp_path)
    checked = subprocess.run(
        [*command, "--mode", "validate"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("address", ["8080", ":8080", "127.0.0.1", "127.0.0.1:http", "h:65536"])
def test_what_is_no_address_is_refused_with_an_example(address: str) -> None:
    with pytest.raises(ValueError, match=r"write host:port, like 127\.0\.0\.1:8080"):
        edge.host_and_port(address)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_port_in_use_is_one_sentence_before_anything_starts(
    setting: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SystemExit) as refused:
            run.main(replace(_free_config(), **{setting: address}))
    assert refused.value.code == (
        f"Till cannot listen on {address}: Address already in use; "
        f"free it or set TILL_{setting.upper()} to another."
    )
    assert capfd.readouterr() == ("", "")


def test_two_settings_cannot_share_an_address() -> None:
    config = _free_config()
    problem = run.unusable_address(replace(config, rest_address=config.admin_address))
    assert problem is not None
    assert "already in use" in problem


def test_a_crashed_child_is_restarted_ever_more_patiently(
    capfd: pytest.CaptureFixture[str],
) -> None:
    child = run.Child("a crasher", [sys.executable, "-c", "raise SystemExit(3)"], Config())
    _tend_until(child, lambda: child.crashes == 3)
    child.stop(1)
    assert capfd.readouterr().err.splitlines() == [
        f"till: a crasher ended with 3; it starts again in {pause} s" for pause in (0.25, 0.5, 1)
    ]


def test_a_child_that_will_not_stop_is_killed(capfd: pytest.CaptureFixture[str]) -> None:
    deaf = "import signal; signal.signal(15, signal.SIG_IGN); print(1, flush=True); signal.pause()"
    child = run.Child("a deaf child", [sys.executable, "-c", deaf], Config())
    _tend_until(child, lambda: "1" in capfd.readouterr().out)
    child.stop(0.1)
    assert child.process is not None
    assert child.process.returncode == -signal.SIGKILL
    assert "did not stop within 0.1 s and is killed" in capfd.readouterr().err


def test_children_read_the_settings_of_their_supervisor(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import server.config; print(server.config.load())"
    child = run.Child("a reader", [sys.executable, "-c", code], ELSEWHERE)
    _tend_until(child, lambda: child.crashes == 1)
    assert str(ELSEWHERE) in capfd.readouterr().out


def test_sigterm_leaves_no_process_behind(till: subprocess.Popen[str]) -> None:
    children = _children(till)
    till.terminate()
    assert till.wait(10) == 0
    assert not any(_alive(child) for child in children)


def test_ctrl_c_reaches_the_whole_group_and_still_stops_in_order(
    till: subprocess.Popen[str],
) -> None:
    children = _children(till)
    os.killpg(till.pid, signal.SIGINT)
    assert till.wait(10) == 0
    assert not any(_alive(child) for child in children)


def test_children_do_not_outlive_a_killed_supervisor(till: subprocess.Popen[str]) -> None:
    children = _children(till)
    till.kill()
    till.wait(10)
    _eventually(lambda: not any(_alive(child) for child in children))


def test_a_server_that_is_killed_serves_again(till: subprocess.Popen[str]) -> None:
    before = _children(till)
    os.kill(before[0], signal.SIGKILL)
    _eventually(lambda: len(after := _children(till)) == 2 and before[0] not in after)
    assert _children(till)[0] == before[1], "Envoy must not have restarted"


@pytest.fixture
def till(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A ready `till run` in a process group of its own."""
    config = replace(_free_config(), database=f"sqlite:///{tmp_path / 'till.db'}")
    settings = {f"TILL_{name.upper()}": str(value) for name, value in asdict(config).items()}
    command = [sys.executable, "-m", "server.cli", "run"]
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | settings | {"TMPDIR": str(tmp_path)},
            stdout=log,
            stderr=log,
            text=True,
            process_group=0,
            # A shell that runs the tests in the background has them ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            _eventually(lambda: run.serving(config))
            yield process
        finally:
            process.kill()
            process.wait()


def _socket_address(host: str, port: int) -> dict[str, object]:
    return {"socket_address": {"address": host, "port_value": port}}


def _free_config() -> Config:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in SETTINGS]
    addresses = [f"127.0.0.1:{taken.getsockname()[1]}" for taken in sockets]
    for taken in sockets:
        taken.close()
    return replace(Config(), **dict(zip(SETTINGS, addresses, strict=True)))


def _tend_until(child: run.Child, done: Callable[[], bool]) -> None:
    def tended() -> bool:
        child.tend()
        return done()

    _eventually(tended)


def _eventually(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline, "it did not happen within 30 s"
        time.sleep(0.02)


def _children(process: subprocess.Popen[str]) -> list[int]:
    """Returns the process ids in order of start."""
    task = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(child) for child in task.read_text().split()]


def _alive(pid: int) -> bool:
    """Says whether a process runs; an orphan that nobody reaps is dead all the same."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
