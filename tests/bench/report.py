"""The results as tables, and README's part of them."""

import re
from pathlib import Path
from typing import Any

from bench import judge, plan

Results = dict[str, Any]
HEAD = 2
"""Lines of a table that has no rows."""
MARKS = re.compile(r"(<!-- bench -->\n).*?(<!-- /bench -->)", re.DOTALL)


def lines(results: Results) -> list[str]:
    """Returns the whole report."""
    tables = [side_by_side(results), till_alone(results), growth(results), bars(results)]
    return [
        *_heading(results),
        *[line for table in tables if len(table) > HEAD for line in ("", *table)],
        *[f"Not measured: {name} ({why})." for name, why in results["absent"].items()],
    ]


def side_by_side(results: Results) -> list[str]:
    """Returns the table of the mixed work: every system, Till's gRPC as 1."""
    samples = results["samples"]
    rows = ["| mixed work | rate | calls/s | create p50 / p99 / p99.9 ms | latest five p99 ms |"]
    rows[0] += " server µs a call | Envoy µs | load µs | MiB | bytes an order | spread |"
    rows.append("|---|" + "--:|" * 10)
    names = [f"{system} mixed" for system in plan.SIDE_BY_SIDE]
    for name in sorted(filter(samples.get, names), key=lambda n: -judge.rate(samples[n])):
        rows.append(_row(results, name))
    for system in plan.RAW:
        if rounds := samples.get(f"{system} creates"):
            rows.append(f"| *{system}* | | {judge.rate(rounds):,.0f} |" + " |" * 7 + _apart(rounds))
    return rows


def till_alone(results: Results) -> list[str]:
    """Returns the table of Till's other kinds of work, over gRPC."""
    samples = results["samples"]
    rows = ["| Till, gRPC | calls/s | p50 / p99 / p99.9 ms | server µs a call | spread |"]
    rows.append("|---|--:|--:|--:|--:|")
    for case in plan.ALONE:
        if rounds := samples.get(case.name):
            kind = plan.WORK[case.work].partition("=")[0]
            cpu = judge.middle(rounds, lambda sample: sample["server_us"])
            rows.append(
                f"| {plan.TITLES[case.work]} | {judge.rate(rounds):,.0f} |"
                f" {_latencies(samples, case.name, kind)} | {cpu:.0f} |{_apart(rounds)}"
            )
    return rows


def growth(results: Results) -> list[str]:
    """Returns the table of the growth curve."""
    samples = results["samples"]
    rows = ["| stored orders | creates/s | latest five/s |", "|--:|--:|--:|"]
    for size in results["sizes"]:
        names = [f"{plan.GROWN} {work} at {size:,}" for work in ("creates", "reads")]
        rates = [f"{judge.rate(samples[name]):,.0f}" if name in samples else "" for name in names]
        rows.append(f"| {size:,} | {rates[0]} | {rates[1]} |")
    return rows


def bars(results: Results) -> list[str]:
    """Returns the table of the bars."""
    rows = ["| bar | bound | found | |", "|---|--:|--:|---|"]
    words = {True: "pass", False: "**miss**", None: "not measured"}
    for bar in judge.bars(results["samples"]):
        bound = f"{'≤' if bar.at_most else '≥'} {bar.bound:g}"
        found = "" if bar.value is None else f"{bar.value:.2f}"
        verdict = words[bar.passed] if results["noise"] is None else "not judged"
        rows.append(f"| {bar.title} | {bound} | {found} | {verdict} |")
    return rows


def publish(readme: Path, results: Results) -> None:
    """Puts the tables between the marks of a README."""
    inside = "\n".join(in_readme(results))
    text = readme.read_text(encoding="utf-8")
    readme.write_text(MARKS.sub(lambda m: f"{m[1]}{inside}\n{m[2]}", text), encoding="utf-8")


def in_readme(results: Results) -> list[str]:
    """Returns README's part: who is how fast, and which bars hold."""
    samples, base = results["samples"], f"{plan.TILL} mixed"
    rows = [" ".join(_heading(results)), ""]
    rows += [
        "| half creates, half latest five | rate (Till, gRPC = 1) | create p99 | server µs a call |"
    ]
    rows.append("|---|--:|--:|--:|")
    names = [f"{system} mixed" for system in plan.SIDE_BY_SIDE]
    for name in sorted(filter(samples.get, names), key=lambda n: -judge.rate(samples[n])):
        share = judge.ratio(samples, name, base)
        late = judge.percentile(samples, name, "create", "p99_ms")
        cpu = judge.middle(samples[name], lambda sample: sample["server_us"])
        called = name.removesuffix(" mixed")
        rows.append(f"| {called} | {share:.2f} | {late:.0f} ms | {cpu:.0f} |")
    return [*rows, "", *bars(results)]


def _heading(results: Results) -> list[str]:
    machine = results["machine"]
    where = (
        "servers on one core, Envoy and the load on the other" if machine["pinned"] else "unpinned"
    )
    lines = [f"{results['when']}, {machine['cores']} cores ({machine['model']}), {where}."]
    turns = f"; REST by gRPC and 202 by creates of {results['turns']} pairs of short turns"
    lines.append(
        f"{plan.CALLERS} calls in flight, {plan.STORED:,} orders stored, medians of"
        f" {results['rounds']} interleaved rounds of {results['measure']:g} s"
        f"{turns if results['turns'] else ''}."
    )
    if results["noise"]:
        lines.append(f"NOT JUDGED, the machine is too noisy: {results['noise']}.")
    return lines


def _row(results: Results, name: str) -> str:
    samples = results["samples"]
    rounds = samples[name]

    def find(field: str) -> float:
        return judge.middle(rounds, lambda sample: sample[field])

    share = judge.ratio(samples, name, f"{plan.TILL} mixed")
    envoy = f"{find('envoy_us'):.0f}" if find("envoy_us") else ""
    size = results["bytes_an_order"].get(name.removesuffix(" mixed"))
    cells = [
        name.removesuffix(" mixed"),
        f"{share:.2f}",
        f"{find('rate'):,.0f}",
        _latencies(samples, name, "create"),
        f"{judge.percentile(samples, name, 'recent', 'p99_ms'):.1f}",
        f"{find('server_us'):.0f}",
        envoy,
        f"{find('load_us'):.0f}",
        f"{find('memory_mib'):.0f}",
        f"{size:.0f}" if size else "",
    ]
    failed = sum(kind["failed"] for sample in rounds for kind in sample["kinds"].values())
    cells[0] += f" ({failed:.0f} calls failed)" if failed else ""
    return "| " + " | ".join(cells) + " |" + _apart(rounds)


def _latencies(samples: judge.Samples, name: str, kind: str) -> str:
    found = [judge.percentile(samples, name, kind, f"{p}_ms") for p in ("p50", "p99", "p999")]
    return " / ".join(f"{value:.1f}" for value in found if value is not None)


def _apart(rounds: list[dict[str, Any]]) -> str:
    return f" {judge.spread(rounds):.0%} |"
