"""What stock, holds and orders mean, in plain Python; the order book must agree at every step."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

Units = Mapping[str, int]


class Refused(Exception):
    """The model would not do it."""


@dataclass
class Held:
    """Units of some rows, and until when."""

    units: Units
    until: int
    state: str = "ACTIVE"


@dataclass
class Reference:
    """Counters are never kept: they follow from the orders and holds there are."""

    top: dict[str, int]
    now: int
    holds: dict[str, Held] = field(default_factory=dict)
    orders: dict[int, Units] = field(default_factory=dict)
    sold: Counter[str] = field(default_factory=Counter)

    def state(self, name: str) -> str:
        """Returns how far a hold is, at this instant."""
        hold = self.holds[name]
        late = hold.state == "ACTIVE" and hold.until <= self.now
        return "EXPIRED" if late else hold.state

    def counters(self, row: str) -> tuple[int, int, int]:
        """Returns (max, ordered, held) of a row, at this instant."""
        ordered = self.sold[row] + sum(units.get(row, 0) for units in self.orders.values())
        active = [hold for name, hold in self.holds.items() if self.state(name) == "ACTIVE"]
        return self.top[row], ordered, sum(hold.units.get(row, 0) for hold in active)

    def need(self, units: Units, freed: Units | None = None) -> None:
        """Refuses what is not left, the units that a hold gives back counted as left."""
        for row, asked in units.items():
            top, ordered, held = self.counters(row)
            if asked > top - ordered - held + (freed or {}).get(row, 0):
                raise Refused(row)

    def need_active(self, name: str) -> Held:
        """Refuses a hold that ended."""
        if self.state(name) != "ACTIVE":
            raise Refused(name)
        return self.holds[name]
