"""One measurement: the load runs, and the processors are read when it begins and when it ends."""

import json
import sqlite3
import subprocess
import time
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import credentials, plan, processes, stores
from bench.systems import BENCH_BIN, GO_BIN, ROOT, System

MICRO = 1_000_000


@dataclass
class Sample:
    """What one measurement found."""

    case: str
    rate: float
    """Answered calls a second."""
    kinds: dict[str, dict[str, float]] = field(default_factory=dict)
    """Per kind of call: calls, replayed, failed, p50_ms, p99_ms, p999_ms, max_ms."""
    failures: list[str] = field(default_factory=list)
    server_us: float = 0.0
    """Processor time of the server, a call."""
    envoy_us: float = 0.0
    load_us: float = 0.0
    memory_mib: float = 0.0
    foreign: float = 0.0
    """Share of the machine that was busy with something else."""

    def as_json(self) -> dict[str, Any]:
        """Returns the sample as JSON keeps it."""
        return asdict(self)


def load(system: System, case: plan.Case, how: plan.Plan) -> Sample:
    """Puts one kind of work on one system."""
    if system.database is not None:
        stores.into_memory(system.database)
    process = processes.popen(
        _command(system, case, how), processes.OTHER_CORES, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    if process.stdout.readline().strip() != "measuring":
        raise RuntimeError(f"the load on {system.name} failed with {process.wait()}")
    servers, envoys = system.servers, system.envoys
    before = _counters(servers, envoys, process.pid)
    found = json.loads(process.stdout.readline())
    after = _counters(servers, envoys, process.pid)
    process.wait()
    sample = _sample(case, found, [new - old for new, old in zip(after, before, strict=True)])
    system.warm = True
    sample.memory_mib = processes.resident_mib(servers)
    processes.rest([*servers, *envoys])
    return sample


def raw(case: plan.Case, how: plan.Plan, target: str) -> Sample:
    """Measures what the driver alone can write."""
    kind = {plan.RAW_GROUP: "group", plan.RAW_SINGLE: "single"}.get(case.system, "innodb")
    if kind != "innodb":
        stores.into_memory(Path(target))
    environment = processes.clean_environment() | {"PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"}
    command = [str(BENCH_BIN / "python"), "-m", "bench.limits", kind, target, str(how.measure)]
    process = processes.popen(
        command,
        processes.SERVER_CORES,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{case.name} failed with {process.returncode}")
    found = json.loads(out)
    return Sample(case.name, found["calls"] / found["seconds"])


def bytes_an_order(database: Path, begun_bytes: int, stored: int) -> float | None:
    """Returns by how much a store, that nobody has open any more, grew with each new order."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (now,) = connection.execute("SELECT count(*) FROM orders").fetchone()
    grown = database.stat().st_size - begun_bytes
    return grown / (now - stored) if now > stored else None


def _command(system: System, case: plan.Case, how: plan.Plan) -> list[str]:
    warmup, measured = how.span(case)
    headers = json.dumps(credentials.headers(case.work))
    return [
        # It shares a core with Envoy: as SCHED_BATCH it does not interrupt Envoy at every answer.
        *("chrt", "--batch", "0"),
        str(GO_BIN / "load"),
        f"-protocol={system.protocol}",
        f"-target={system.address}",
        f"-mix={plan.WORK[case.work]}",
        f"-headers={headers}",
        f"-run=r{time.time_ns()}",
        f"-callers={plan.CALLERS}",
        f"-users={system.users}",
        f"-rows={plan.STOCK_ROWS}",
        f"-warmup={warmup if system.warm else warmup + plan.COLD_SECONDS}s",
        f"-measure={measured}s",
    ]


def _counters(servers: list[int], envoys: list[int], load: int) -> tuple[float, ...]:
    """Returns the time, and the processor time of server, Envoy, load and the whole machine."""
    ours = [processes.cpu_seconds(pids) for pids in (servers, envoys, [load])]
    return (time.monotonic(), *ours, processes.machine_busy())


def _sample(case: plan.Case, found: dict[str, Any], spent: list[float]) -> Sample:
    seconds, server, envoy, load, busy = spent
    calls = sum(kind["calls"] for kind in found["kinds"].values()) or 1
    foreign = max(0.0, busy - server - envoy - load) / (seconds * len(processes.CORES))
    return Sample(
        case=case.name,
        rate=calls / found["seconds"],
        kinds=found["kinds"],
        failures=found["failures"],
        server_us=server / calls * MICRO,
        envoy_us=envoy / calls * MICRO,
        load_us=found["cpu_seconds"] / calls * MICRO,
        foreign=foreign,
    )
