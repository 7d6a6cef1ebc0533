"""Money is a whole number of millionths in the store: exact, and the same on every database."""

from decimal import Decimal

from storage.errors import InvalidField

MICROS = 1_000_000
LIMIT = 10**12 * MICROS
_PLAIN = 10**12
"""Below this a double's own product is within a ten-thousandth: exact enough to see a whole number
at a third of a Decimal's price."""


def micros(field: str, amount: float) -> int:
    """Returns the millionths of an amount as JSON carried it; at most six decimals.

    The distance a double may lie from the decimal that was meant (0.1 + 0.2) is rounded away.
    Raises InvalidField when digits beyond the sixth decimal were meant, or the amount is absurd.
    """
    near = amount * MICROS
    if abs(near) < _PLAIN and abs(near - round(near)) < 0.0005:
        return round(near)
    exact = Decimal(repr(amount)) * MICROS
    nearest = int(exact.to_integral_value())
    if abs(exact - nearest) > max(Decimal("0.001"), abs(exact) / 10**15):
        raise InvalidField(field, "must have at most six decimals")
    if abs(nearest) > LIMIT:
        raise InvalidField(field, "is too large")
    return nearest


def amount(value: int) -> float:
    """Returns the amount of so many millionths, as JSON prints it."""
    return value / MICROS
