"""The bench, without timing anything: its plan, its statistics, its report, its messages."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench import judge, plan, report, stores
from google.protobuf.message import Message
from till.v1 import draft_item_pb2, order_pb2

from storage import ids, once
from storage.sqlite import PRAGMAS

ROOT = Path(__file__).parent.parent
PROTO = (ROOT / "tests/bench/go/till.proto").read_text()


def sample(rate: float, **kinds: float) -> dict[str, Any]:
    """Returns a round of a case whose kinds have these p99."""
    return {
        "rate": rate,
        "kinds": {
            kind: {"calls": 1, "failed": 0, "p50_ms": 1.0, "p99_ms": p99, "p999_ms": 2 * p99}
            for kind, p99 in kinds.items()
        },
        "foreign": 0.01,
        "server_us": 1e6 / rate,
        "envoy_us": 0.0,
        "load_us": 40.0,
        "memory_mib": 100.0,
    }


def three(rate: float, **kinds: float) -> list[dict[str, Any]]:
    """Returns three rounds that lie a little apart."""
    return [sample(rate * wobble, **kinds) for wobble in (0.98, 1.0, 1.02)]


def recorded() -> dict[str, Any]:
    """Returns the results of a quiet run in which Till does what it promises, except for
    MariaDB.
    """
    rates = {
        plan.TILL: 4000,
        plan.TILL_EDGE: 3600,
        plan.TILL_REST: 3500,
        plan.FASTAPI: 400,
        plan.FASTAPI_PEEWEE: 600,
        plan.FLASK: 500,
        plan.DJANGO: 300,
        plan.GO: 3000,
        plan.GO_GROUP: 9000,
        plan.ECHO: 6000,
    }
    samples = {}
    for system, rate in rates.items():
        samples[f"{system} mixed"] = three(rate, create=20.0, recent=10.0)
    for case in plan.ALONE:
        kind = plan.WORK[case.work].partition("=")[0]
        samples[case.name] = three(3000, **{kind: 25.0})
    for system, rate in ((plan.TILL, 4000), (plan.TILL_REST, 3500)):
        samples[plan.Case(system, "mixed", in_turns=True).name] = three(rate, create=20.0)
    for case in plan.growth(plan.FULL.sizes):
        samples[case.name] = three(2000, create=25.0, recent=5.0)
    return {
        "when": "2026-01-01T00:00+00:00",
        "machine": {"cores": 2, "model": "a machine", "pinned": True},
        "rounds": 3,
        "measure": 3.0,
        "turns": 3,
        "sizes": list(plan.FULL.sizes),
        "noise": judge.noise(samples),
        "absent": {"MariaDB": "mariadb-server is not installed"},
        "bytes_an_order": {plan.TILL: 600.0},
        "samples": samples,
    }


def messages() -> Iterator[tuple[str, str]]:
    """Yields the messages of the Go programs' proto: name and body."""
    for found in re.finditer(r"^message (\w+) \{\n(.*?)^\}", PROTO, re.MULTILINE | re.DOTALL):
        yield found[1], found[2]


def test_the_plan_keeps_to_its_time() -> None:
    def seconds(how: plan.Plan) -> float:
        cases = plan.cases(mariadb=True) + plan.growth(how.sizes)
        return how.seconds(plan.interleaved(cases, how.rounds) + plan.turn_by_turn(how.turns))

    assert seconds(plan.FULL) < 9.5 * 60
    assert seconds(plan.QUICK) < 2 * 60


def test_rounds_are_interleaved() -> None:
    cases = plan.cases(mariadb=False)

    order = plan.interleaved(cases, rounds=3)

    assert len(order) == 3 * len(cases)
    for start in range(0, len(order), len(cases)):
        assert set(order[start : start + len(cases)]) == set(cases)
    assert len({order[start] for start in range(0, len(order), len(cases))}) == 3
    assert order.index(cases[0]) < order.index(cases[1])
    assert order.index(cases[0], len(cases)) > order.index(cases[1], len(cases))


def test_a_pair_takes_turns_side_by_side_and_both_are_first_as_often() -> None:
    order = plan.turn_by_turn(4)

    turns = [tuple(order[start : start + 2]) for start in range(0, len(order), 2)]
    for pair in plan.PAIRS:
        assert turns.count(pair) == turns.count(pair[::-1]) == 2
    assert len(turns) == 4 * len(plan.PAIRS)


def test_without_mariadb_its_bar_is_not_measured_and_the_others_are_judged() -> None:
    bars = judge.bars(recorded()["samples"])

    assert [bar.title for bar in bars if bar.passed is None] == [
        "MariaDB by FastAPI + SQLAlchemy on MariaDB"
    ]
    assert [bar.title for bar in bars if bar.passed is False] == []


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    samples = {"a": [sample(10), sample(20), sample(30)], "b": [sample(5), sample(20), sample(60)]}

    assert judge.ratio(samples, "a", "b") == 1.0
    assert judge.ratio(samples, "a", "c") is None


@pytest.mark.parametrize(
    ("change", "why"),
    [({"foreign": 0.4}, "something else used 40%"), ({"rate": 40_000.0}, "rounds of the same")],
)
def test_a_noisy_machine_is_not_judged(change: dict[str, float], why: str) -> None:
    results = recorded()
    for rounds in results["samples"].values():
        for disturbed in rounds[1:]:
            disturbed.update(change)

    results["noise"] = judge.noise(results["samples"])

    assert why in (results["noise"] or "")
    assert "not judged" in "\n".join(report.lines(results))
    assert "NOT JUDGED" in "\n".join(report.lines(results))


def test_the_report_tells_everything_measured() -> None:
    text = "\n".join(report.lines(recorded()))

    for system in (*plan.PYTHON_PEERS, plan.TILL, plan.TILL_REST, plan.GO_GROUP, plan.ECHO):
        assert f"| {system} |" in text
    for case in plan.ALONE:
        assert plan.TITLES[case.work] in text
    assert "| 1,000,000 | 2,000 | 2,000 |" in text
    assert "Not measured: MariaDB (mariadb-server is not installed)." in text


def test_readme_tells_the_published_results(tmp_path: Path) -> None:
    readme = ROOT / "README.md"
    published = ROOT / "tests/bench/results.json"
    copy = tmp_path / "README.md"
    copy.write_text(readme.read_text())

    report.publish(copy, json.loads(published.read_text()))

    assert copy.read_text() == readme.read_text()
    assert (published.parent / "results.png").exists()


def test_peers_have_as_large_a_cache_of_sqlite_as_till() -> None:
    peers = [*ROOT.glob("tests/bench/peers/*.py"), ROOT / "tests/bench/go/peer/main.go"]
    sizes = [
        size for peer in peers for size in re.findall(r"cache_size\W*?(-?\d+)", peer.read_text())
    ]
    assert sizes == [f"{PRAGMAS['cache_size']}"] * 5


def test_prefilled_rows_are_the_rows_of_the_tables() -> None:
    from storage.tables import TABLES

    columns = {
        table._meta.table_name: {field.column_name for field in table._meta.sorted_fields}
        for table in TABLES
    }
    rows = stores.rows_of_create(1, 1, next(stores.orders(100)))

    for table, row in rows.items():
        assert set(row) <= columns[table]


@pytest.mark.parametrize(("name", "body"), list(messages()), ids=lambda part: part.split("\n")[0])
def test_the_load_speaks_the_contract(name: str, body: str) -> None:
    room = draft_item_pb2 if hasattr(draft_item_pb2, name) else order_pb2
    message: type[Message] = getattr(room, name)
    ours = {field.name: field.number for field in message.DESCRIPTOR.fields}

    fields = re.findall(r"^ +(?:repeated )?[\w.]+ (\w+) = (\d+);", body, re.MULTILINE)

    assert fields
    assert {field: ours.get(field) for field, _ in fields} == {
        field: int(number) for field, number in fields
    }


def test_a_store_is_too_young_for_its_keys_to_be_forgotten_while_it_is_measured() -> None:
    oldest = next(stores.orders(10**7))["at"] - 1000 * stores.FRESH_SECONDS

    assert ids.now_ms() - oldest < once.KEPT_MS
