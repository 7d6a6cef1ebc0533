"""Money: exact millionths in the store, whatever the doubles on the wire."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import InvalidField
from storage.money import LIMIT, MICROS, amount, micros

MICRO_AMOUNTS = st.integers(-LIMIT, LIMIT)
# A double holds about sixteen digits: up to here each millionth is a double of its own.
EXACT = st.integers(-(10**15), 10**15)


@given(EXACT)
def test_an_amount_of_six_decimals_comes_back(value: int) -> None:
    assert micros("price", amount(value)) == value


@given(EXACT)
def test_a_client_reads_the_decimal_that_another_client_meant(value: int) -> None:
    meant = Decimal(value) / MICROS

    assert amount(micros("price", float(meant))) == float(meant)


@given(MICRO_AMOUNTS)
def test_what_was_stored_is_stored_as_the_same_again(value: int) -> None:
    once = micros("price", amount(value))

    assert micros("price", amount(once)) == once
    assert abs(once - value) <= abs(value) / 2**52


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=10))
def test_the_noise_of_adding_doubles_is_rounded_away(cents: list[int]) -> None:
    assert micros("total", sum(each / 100 for each in cents)) == sum(cents) * 10_000


@given(st.integers(1, 9), st.integers(0, 10**6))
def test_a_seventh_decimal_that_was_meant_is_refused(digit: int, units: int) -> None:
    with pytest.raises(InvalidField, match="price must have at most six decimals"):
        micros("price", float(f"{units}.000000{digit}"))


@pytest.mark.parametrize("value", [1e12 + 1, -1e12 - 1, 1e300])
def test_an_absurd_amount_is_refused(value: float) -> None:
    with pytest.raises(InvalidField, match="price is too large"):
        micros("price", value)


@pytest.mark.parametrize(
    ("given_amount", "stored"),
    [(110.00, 110_000_000), (0.1 + 0.2, 300_000), (1e-6, 1), (-0.0, 0), (1e12, LIMIT)],
)
def test_some_amounts(given_amount: float, stored: int) -> None:
    assert micros("price", given_amount) == stored


def test_whole_amounts_read_as_they_were_written() -> None:
    assert [amount(micros("price", each)) for each in (110.0, 19.9, 0.01)] == [110, 19.9, 0.01]
