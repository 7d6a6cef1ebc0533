"""`make bench`: measures, prints, and writes build/bench/results.json and .png.

Ends with 0 when every measured bar holds, 1 when one is missed, 3 when the machine was too noisy
to judge.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import judge, mariadb, measure, plan, processes, report, stores, systems

OUT = processes.ROOT / "build" / "bench"
HERE = Path(__file__).parent
TOO_NOISY = 3


def main() -> int:
    """Runs the bench that was asked for."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("how", choices=("full", "quick", "growth"), nargs="?", default="full")
    parser.add_argument("--publish", action="store_true", help="put the results into README.md")
    parser.add_argument("--only", default="", help="measure only the cases with this in their name")
    asked = parser.parse_args()
    if asked.publish and (asked.how != "full" or asked.only):
        parser.error("README tells of the full bench alone")
    how = {"full": plan.FULL, "quick": plan.QUICK, "growth": plan.GROWTH}[asked.how]
    results = run(how, asked.only, side_by_side=asked.how != "growth")
    OUT.mkdir(parents=True, exist_ok=True)
    text = "\n".join(report.lines(results))
    print("\n" + text)
    write(results, OUT)
    if asked.publish:
        write(results, HERE)
        report.publish(processes.ROOT / "README.md", results)
    if results["noise"]:
        return TOO_NOISY
    return int(any(bar.passed is False for bar in judge.bars(results["samples"])))


def run(how: plan.Plan, only: str, side_by_side: bool) -> dict[str, Any]:
    """Measures every case in interleaved rounds, pairs in turns, and returns the results."""
    with (
        tempfile.TemporaryDirectory(prefix="run-", dir=_made(OUT)) as folder,
        mariadb.running(Path(folder)) as maria,
        systems.running(Path(folder), maria) as starter,
    ):
        say("Filling stores and starting servers …")
        found = starter.all(how.sizes, side_by_side, say)
        cases = [
            *(plan.cases(maria is not None) if side_by_side else []),
            *plan.growth(how.sizes),
        ]
        order = plan.interleaved(cases, how.rounds) + plan.turn_by_turn(how.turns)
        order = [case for case in order if only in case.name]
        samples = _measure_all(order, how, found, Path(folder), maria)
        starter.close()
        sizes = _sizes(found)
    absent = dict(starter.absent)
    if maria is None and side_by_side:
        absent["MariaDB"] = "mariadb-server is not installed"
    return _results(how, samples, sizes, absent)


def _measure_all(
    order: list[plan.Case],
    how: plan.Plan,
    found: dict[str, systems.System],
    folder: Path,
    maria: mariadb.MariaDB | None,
) -> dict[str, list[dict[str, Any]]]:
    raw = str(stores.copy(stores.till(plan.STORED), folder / "raw.db"))
    samples: dict[str, list[dict[str, Any]]] = {case.name: [] for case in order}
    processes.settle()
    say(f"Measuring {len(order)} times, about {how.seconds(order) / 60:.0f} minutes …")
    for number, case in enumerate(order, 1):
        sample = _measure(case, how, found, raw, maria)
        if sample is None:
            continue
        samples[case.name].append(sample.as_json())
        failed = f"  {sample.failures[0][:150]}" if sample.failures else ""
        say(f"  {number:>3}/{len(order)} {case.name:<45} {sample.rate:>8,.0f} calls/s{failed}")
    return {name: rounds for name, rounds in samples.items() if rounds}


def _measure(
    case: plan.Case,
    how: plan.Plan,
    found: dict[str, systems.System],
    raw: str,
    maria: mariadb.MariaDB | None,
) -> measure.Sample | None:
    if case.system == plan.RAW_INNODB:
        return measure.raw(case, how, maria.raw) if maria and maria.raw else None
    if case.system in plan.RAW:
        return measure.raw(case, how, raw)
    name = f"{case.system} {case.stored}" if case.system == plan.GROWN else case.system
    return measure.load(found[name], case, how) if name in found else None


def _sizes(found: dict[str, systems.System]) -> dict[str, float]:
    """Returns the bytes on disk per order; Till's from a store that took nothing but creates."""
    sizes = {}
    for name, system in found.items():
        if system.database is None or name in (plan.TILL, plan.TILL_EDGE, plan.TILL_REST):
            continue
        called = plan.TILL if name.startswith(plan.GROWN) else name
        grown = measure.bytes_an_order(system.database, system.begun_bytes, system.stored)
        if grown is not None:
            sizes.setdefault(called, grown)
    return sizes


def _results(
    how: plan.Plan, samples: dict[str, Any], sizes: dict[str, float], absent: dict[str, str]
) -> dict[str, Any]:
    return {
        "when": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": {"cores": len(processes.CORES), "model": _model(), "pinned": processes.PINNED},
        "rounds": how.rounds,
        "measure": how.measure,
        "turns": how.turns,
        "sizes": list(how.sizes),
        "noise": judge.noise(samples),
        "absent": absent,
        "bytes_an_order": sizes,
        "samples": samples,
    }


def write(results: dict[str, Any], folder: Path) -> None:
    """Writes the results as JSON and as a picture."""
    from bench import plot

    text = json.dumps(results, indent=1, ensure_ascii=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    plot.draw(results, folder / "results.png")


def say(line: str) -> None:
    """Shows how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def _model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return os.uname().machine


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    sys.exit(main())
