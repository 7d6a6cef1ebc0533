"""Medians, spread, and the bars. A run on a machine that was too busy is not judged."""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bench import plan

FOREIGN_MAX = 0.15
"""Share of the machine that something else may use while it is measured; the kernel's own work on
the disk and the loopback is part of it."""
SPREAD_MAX = 0.35
"""How far the rounds of a case may lie apart, as (most - least) / median; the median of all
cases."""
Samples = dict[str, list[dict[str, Any]]]
"""The rounds of each case, by its name."""


@dataclass(frozen=True)
class Bar:
    """Something that Till promises about its speed."""

    title: str
    bound: float
    value: float | None
    """None when this run could not measure it."""
    at_most: bool = False

    @property
    def passed(self) -> bool | None:
        """Whether the bar is held; None when it was not measured."""
        if self.value is None:
            return None
        return self.value <= self.bound if self.at_most else self.value >= self.bound


def middle(rounds: list[dict[str, Any]], read: Callable[[dict[str, Any]], float]) -> float:
    """Returns the median of what is read from each round."""
    return statistics.median(read(sample) for sample in rounds)


def rate(rounds: list[dict[str, Any]]) -> float:
    """Returns the median rate of a case."""
    return middle(rounds, lambda sample: sample["rate"])


def spread(rounds: list[dict[str, Any]]) -> float:
    """Returns how far the rounds lie apart, as a share of their median."""
    rates = [sample["rate"] for sample in rounds]
    return (max(rates) - min(rates)) / statistics.median(rates)


def ratio(samples: Samples, one: str, other: str) -> float | None:
    """Returns the median, over the rounds, of one case's rate by the other's in the same round."""
    pairs = zip(samples.get(one, []), samples.get(other, []), strict=False)
    ratios = [left["rate"] / right["rate"] for left, right in pairs]
    return statistics.median(ratios) if ratios else None


def best(samples: Samples, names: Iterable[str]) -> str | None:
    """Returns the fastest of some cases, as far as they were measured."""
    measured = [name for name in names if samples.get(name)]
    return max(measured, key=lambda name: rate(samples[name]), default=None)


def percentile(samples: Samples, name: str, kind: str, which: str) -> float | None:
    """Returns the median of a latency percentile of one kind of call, in ms."""
    rounds = samples.get(name)
    return middle(rounds, lambda sample: sample["kinds"][kind][which]) if rounds else None


def noise(samples: Samples) -> str | None:
    """Returns why the machine was too noisy to judge, if it was."""
    every = [sample for rounds in samples.values() for sample in rounds if sample["kinds"]]
    if not every:
        return None
    foreign = statistics.median(sample["foreign"] for sample in every)
    if foreign > FOREIGN_MAX:
        return f"something else used {foreign:.0%} of the machine (at most {FOREIGN_MAX:.0%})"
    whole = [spread(each) for name, each in samples.items() if not name.endswith(plan.IN_TURNS)]
    apart = statistics.median(whole) if whole else 0.0
    if apart > SPREAD_MAX:
        return f"rounds of the same case lie {apart:.0%} apart (at most {SPREAD_MAX:.0%})"
    return None


def bars(samples: Samples) -> list[Bar]:
    """Returns every bar with what this run found."""

    def mixed(name: str) -> str:
        return f"{name} mixed"

    def against(one: str, other: str | None) -> float | None:
        return ratio(samples, one, other) if other else None

    till, rest = mixed(plan.TILL), mixed(plan.TILL_REST)
    by_rest, accepts = ((one.name, other.name) for one, other in plan.PAIRS)
    framework = best(samples, [mixed(name) for name in plan.PYTHON_PEERS])
    called = framework.removesuffix(" mixed") if framework else "a Python framework"
    alone = f"{plan.TILL} "
    return [
        Bar("gRPC by bare echo", 0.6, against(till, mixed(plan.ECHO))),
        Bar(f"gRPC by the best Python framework ({called})", 4, against(till, framework)),
        Bar("REST through Envoy by gRPC", 0.8, against(*by_rest)),
        Bar(
            f"REST through Envoy by the best Python framework ({called})",
            3,
            against(rest, framework),
        ),
        Bar("gRPC by the naive Go server", 1.0, against(till, mixed(plan.GO))),
        Bar("p99 of a create, ms", 40, percentile(samples, till, "create", "p99_ms"), at_most=True),
        Bar("one hot stock row by spread rows", 0.7, against(f"{alone}hot", f"{alone}spread")),
        Bar("202 accepts by creates", 0.9, against(*accepts)),
        _flat_reads(samples),
        Bar(
            "MariaDB by FastAPI + SQLAlchemy on MariaDB",
            3,
            against(mixed(plan.TILL_MARIADB), mixed(plan.FASTAPI_MARIADB)),
        ),
    ]


def _flat_reads(samples: Samples) -> Bar:
    """The cost of a read in the largest store by that in the smallest: rates, turned over."""
    grown = [name for name in samples if name.startswith(f"{plan.GROWN} reads")]
    cost = ratio(samples, grown[0], grown[-1]) if len(grown) > 1 else None
    sizes = " by ".join(name.rpartition(" ")[2] for name in (grown[-1], grown[0])) if grown else ""
    return Bar(f"cost of a read at {sizes} stored orders", 1.3, cost, at_most=True)
