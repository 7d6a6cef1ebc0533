"""Processes of the bench: started on their own core, read from /proc, ended by their own id."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ports import free_ports

ROOT = Path(__file__).parents[2]
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
CORES = sorted(os.sched_getaffinity(0))
PINNED = len(CORES) > 1
SERVER_CORES = {CORES[0]}
OTHER_CORES = set(CORES[1:]) or {CORES[0]}
"""Where the load and Envoy run, so that every server has one core to itself."""
PATIENCE = 60.0


def free_address() -> str:
    """Returns an address on this machine for a server."""
    return f"127.0.0.1:{free_ports(1)[0]}"


def start(
    command: Sequence[str], log: Path, environment: dict[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """Starts a program in a session of its own, on the servers' core; what it says goes to a
    file.
    """
    with log.open("wb") as out:
        return popen(
            command,
            SERVER_CORES,
            cwd=ROOT,
            env=clean_environment() | (environment or {}),
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def popen(command: Sequence[str], cores: set[int], **options: Any) -> "subprocess.Popen[Any]":
    """Starts a program on some cores; it inherits them, so that none of its threads escapes."""
    with on(cores):
        return subprocess.Popen(command, **options)


@contextmanager
def on(cores: set[int]) -> Iterator[None]:
    """Puts whatever is started within the block on some cores."""
    if PINNED:
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, CORES)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Asks a program to end, and ends by force what is left of it after a while."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(15)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def clean_environment() -> dict[str, str]:
    """Returns this process's environment without Till's settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TILL_")}


def wait_for(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Returns once somebody listens there. Raises RuntimeError with the log when nobody does."""
    host, port = address.rsplit(":", 1)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"{log.stem} does not serve:\n{log.read_text(errors='replace')[-2000:]}")


def family(root: int) -> list[int]:
    """Returns a process and all that are below it."""
    parents = {int(path.name): _parent(path) for path in Path("/proc").glob("[0-9]*")}
    found, wave = [root], {root}
    while wave := {pid for pid, parent in parents.items() if parent in wave}:
        found += wave
    return found


def is_program(pid: int, name: str) -> bool:
    """Tells whether a process runs a program of this name, the program's launcher included."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return any(Path(word.decode(errors="replace")).name == name for word in words[:3])
    return False


def pin(pid: int, cores: set[int]) -> None:
    """Keeps every thread of a process, and those it will start, on some cores."""
    if PINNED:
        for task in Path(f"/proc/{pid}/task").glob("*"):
            with suppress(OSError):
                os.sched_setaffinity(int(task.name), cores)


def cpu_seconds(pids: Sequence[int]) -> float:
    """Returns the processor time that processes have used."""
    return sum(_ticks(pid) for pid in pids) / TICKS


def resident_mib(pids: Sequence[int]) -> float:
    """Returns the memory that processes hold, shared pages counted once per process."""
    pages = 0
    for pid in pids:
        with suppress(OSError):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * PAGE / 2**20


def machine_busy() -> float:
    """Returns the processor seconds that the whole machine was busy, stolen time included."""
    user, nice, system, _, _, irq, softirq, steal = (
        int(word) for word in Path("/proc/stat").read_text().split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / TICKS


def rest(pids: Sequence[int], seconds: float = 15.0) -> None:
    """Waits until processes have nothing left to do, such as accepted operations to apply."""
    _until_idle(lambda: cpu_seconds(pids), seconds)


def settle(seconds: float = 30.0) -> None:
    """Waits until the machine rests: what the stores were filled with is on its way to the disk."""
    os.sync()
    _until_idle(machine_busy, seconds)


def _until_idle(spent: Callable[[], float], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        before = spent()
        time.sleep(0.25)
        if spent() - before <= 0.03:
            return


def _parent(path: Path) -> int:
    with suppress(OSError, ValueError):
        return int((path / "stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _ticks(pid: int) -> int:
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])
    return 0
