"""The picture: who is how fast, how late the slowest are, and how the store's size tells."""

from pathlib import Path
from typing import Any

from bench import judge, plan
from matplotlib import pyplot

TILL_COLOR, PEER_COLOR, LIMIT_COLOR = "#1f77b4", "#b0b0b0", "#e0c060"


def draw(results: dict[str, Any], path: Path) -> None:
    """Draws the results into a PNG."""
    samples = results["samples"]
    names = [system for system in plan.SIDE_BY_SIDE if samples.get(f"{system} mixed")]
    names.sort(key=lambda name: judge.rate(samples[f"{name} mixed"]))
    pyplot.switch_backend("agg")  # draws without a display
    figure, (rates, late, growth) = pyplot.subplots(
        1, 3, figsize=(15, 5), width_ratios=(1.3, 1, 1), layout="constrained"
    )
    _rates(rates, samples, names)
    _late(late, samples, names)
    _growth(growth, samples, results["sizes"])
    figure.suptitle(
        f"Half durable creates, half latest five; {plan.CALLERS} in flight,"
        f" {plan.STORED:,} orders stored, one core a server"
    )
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _color(name: str) -> str:
    if name.startswith("Till"):
        return TILL_COLOR
    return LIMIT_COLOR if name == plan.ECHO else PEER_COLOR


def _rates(axes: Any, samples: judge.Samples, names: list[str]) -> None:
    rounds = [samples[f"{name} mixed"] for name in names]
    middles = [judge.rate(each) for each in rounds]
    low = [m - min(s["rate"] for s in each) for m, each in zip(middles, rounds, strict=True)]
    high = [max(s["rate"] for s in each) - m for m, each in zip(middles, rounds, strict=True)]
    axes.barh(names, middles, xerr=(low, high), color=[_color(name) for name in names])
    axes.set_xlabel("calls a second (median; the line is the spread of the rounds)")


def _late(axes: Any, samples: judge.Samples, names: list[str]) -> None:
    measured = [name for name in names if name != plan.ECHO]
    for which, mark in (("p50_ms", "o"), ("p99_ms", "s"), ("p999_ms", "^")):
        values = [judge.percentile(samples, f"{name} mixed", "create", which) for name in measured]
        axes.plot(values, measured, mark, label=which.removesuffix("_ms"))
    axes.set_xscale("log")
    axes.set_xlabel("latency of a create, ms")
    axes.legend()


def _growth(axes: Any, samples: judge.Samples, sizes: list[int]) -> None:
    for work, label in (("creates", "creates"), ("reads", "latest five")):
        names = {size: f"{plan.GROWN} {work} at {size:,}" for size in sizes}
        measured = [size for size in sizes if names[size] in samples]
        rates = [judge.rate(samples[names[size]]) for size in measured]
        axes.plot(measured, rates, "o-", label=label)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("stored orders")
    axes.set_ylabel("calls a second")
    axes.legend()
