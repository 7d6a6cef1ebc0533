"""What is measured: systems, kinds of work, and how long. Times are seconds."""

from dataclasses import dataclass

MIXED = "create=50,recent=50"
WORK = {
    "mixed": MIXED,
    "creates": "create=1",
    "reads": "recent=1",
    "lines": "lines=1",
    "accepts": "accept=1",
    "spread": "spread=1",
    "hot": "hot=1",
}
"""Kinds of work, as the load's -mix. One create in fifty is sent twice, to be replayed."""
TITLES = {
    "mixed": "half creates, half latest five",
    "creates": "creates only",
    "reads": "latest five only",
    "lines": "POST /orders, three lines of stock",
    "accepts": "202 accepts",
    "spread": "POST /orders, one line, 1,000 stock rows",
    "hot": "POST /orders, one line, one stock row",
}
STORED = 100_000
"""Orders in every store before anything is measured."""
STOCK_ROWS = 1000
CALLERS = 64
COLD_SECONDS = 3.0
"""How much longer a system is warmed up the first time: it opens its connections and fills its
caches; SQLAlchemy opens forty to MariaDB for two seconds.
"""
IN_TURNS = " in turns"
"""Ends the name of a case that was measured in turns."""


@dataclass(frozen=True)
class Case:
    """One system doing one kind of work; `stored` is set where the store has another size."""

    system: str
    work: str
    stored: int = STORED
    in_turns: bool = False
    """Whether it is one of a pair that takes many short turns."""

    @property
    def name(self) -> str:
        """Returns what the results call it."""
        grown = f" at {self.stored:,}" if self.system == GROWN else ""
        return f"{self.system} {self.work}{grown}{IN_TURNS if self.in_turns else ''}"


@dataclass(frozen=True)
class Plan:
    """How often and how long each case is measured."""

    rounds: int
    warmup: float
    measure: float
    sizes: tuple[int, ...]
    """Stored orders of the growth curve."""
    turns: int = 0
    """How often each of a pair has its turn."""

    def span(self, case: Case) -> tuple[float, float]:
        """Returns how long a case is warmed up and then measured, each time."""
        return (0.2, 0.5) if case.in_turns else (self.warmup, self.measure)

    def seconds(self, order: list[Case]) -> float:
        """Returns about how long all of this takes, with half a second to settle after each; what
        is cold comes on top.
        """
        return sum(sum(self.span(case)) + 0.5 for case in order)


FULL = Plan(rounds=5, warmup=0.5, measure=2.0, sizes=(10_000, 100_000, 1_000_000), turns=30)
QUICK = Plan(rounds=2, warmup=0.5, measure=1.0, sizes=(10_000, 100_000), turns=3)
GROWTH = Plan(rounds=5, warmup=2.0, measure=5.0, sizes=(10_000, 100_000, 1_000_000, 10_000_000))

TILL = "Till, gRPC"
TILL_EDGE = "Till, gRPC through Envoy"
TILL_REST = "Till, REST through Envoy"
TILL_MARIADB = "Till on MariaDB, gRPC"
FASTAPI = "FastAPI + SQLAlchemy"
FASTAPI_PEEWEE = "FastAPI + Peewee"
FLASK = "Flask + gunicorn"
DJANGO = "Django REST + gunicorn"
FASTAPI_MARIADB = "FastAPI + SQLAlchemy on MariaDB"
GO = "Go gRPC"
GO_GROUP = "Go gRPC, group commit"
ECHO = "bare grpc.aio echo"
RAW_GROUP = "raw sqlite3, 64 creates a commit"
RAW_SINGLE = "raw sqlite3, one create a commit"
RAW_INNODB = "raw InnoDB, one create a commit"
GROWN = "Till, gRPC, grown"

PYTHON_PEERS = (FLASK, FASTAPI, FASTAPI_PEEWEE, DJANGO)
ON_MARIADB = (TILL_MARIADB, FASTAPI_MARIADB, RAW_INNODB)
RAW = (RAW_GROUP, RAW_SINGLE, RAW_INNODB)
SIDE_BY_SIDE = (
    GO,
    ECHO,
    TILL,
    TILL_REST,
    TILL_EDGE,
    *PYTHON_PEERS,
    GO_GROUP,
    TILL_MARIADB,
    FASTAPI_MARIADB,
)
CREATES, ACCEPTS = (Case(TILL, work, in_turns=True) for work in ("creates", "accepts"))
PAIRS = (
    (Case(TILL_REST, "mixed", in_turns=True), Case(TILL, "mixed", in_turns=True)),
    (ACCEPTS, CREATES),
)
"""What lies so close to its bar that a few rounds of a shared machine cannot tell."""
ALONE = (CREATES, ACCEPTS, *(Case(TILL, work) for work in ("reads", "lines", "spread", "hot")))
"""Till's other kinds of work."""


def cases(mariadb: bool) -> list[Case]:
    """Returns what every round measures, those on MariaDB only where there is one. What is compared
    stands side by side, because a shared machine is faster in one minute than in the next.
    """
    found = [Case(system, "mixed") for system in SIDE_BY_SIDE]
    found += [case for case in ALONE if not case.in_turns]
    found += [Case(system, "creates") for system in RAW]
    return [case for case in found if mariadb or case.system not in ON_MARIADB]


def growth(sizes: tuple[int, ...]) -> list[Case]:
    """Returns the cases of the growth curve."""
    return [Case(GROWN, work, size) for work in ("creates", "reads") for size in sizes]


def interleaved(cases: list[Case], rounds: int) -> list[Case]:
    """Returns the cases round by round, each round starting elsewhere and every other one going
    backwards, so that what drifts or warms hits all of them, and both of a pair, alike.
    """
    order: list[Case] = []
    for number in range(rounds):
        start = number * len(cases) // rounds
        forwards = cases[start:] + cases[:start]
        order += forwards[::-1] if number % 2 else forwards
    return order


def turn_by_turn(times: int) -> list[Case]:
    """Returns the pairs, each so many times in a row, who is first changing each time."""
    return [
        case
        for pair in PAIRS
        for number in range(times)
        for case in (pair[::-1] if number % 2 else pair)
    ]
