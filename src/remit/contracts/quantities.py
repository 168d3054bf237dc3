"""Durations, shares and amounts as contracts write them, as exact integers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

MICROUSD_PER_UNIT = 100
"""Microdollars in a ten-thousandth of a dollar."""

_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"([0-9]+)(ms|s|m|h|d)", re.ASCII)
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]{1,4})?) ([A-Z]{3})", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Sum:
    """An exact amount of money in ten-thousandths of the currency's unit, the resolution that Cedar's decimals have."""

    units: int
    currency: str


@lru_cache(maxsize=1024)
def duration_ms(text: str) -> int:
    """`15m` → 900000. Raises `ValueError`."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f"`{text}` is not a duration such as `30s`, `15m`, `4h` or `1d`")
    return int(found[1]) * _UNIT_MS[found[2]]


@lru_cache(maxsize=1024)
def amount(text: str) -> Sum:
    """`50.00 EUR` → 500000 ten-thousandths of EUR. Raises `ValueError`."""
    found = _AMOUNT.fullmatch(text)
    if found is None:
        raise ValueError(f"`{text}` is not an amount such as `50.00 EUR`")
    return Sum(units=decimal_units(Decimal(found[1])), currency=found[2])


def decimal_units(value: Decimal) -> int:
    """A decimal as exact ten-thousandths. Raises `ValueError` for more decimals, or a value out of Cedar's range."""
    if not value.is_finite():
        raise ValueError(f"{value} is not a finite number")
    if abs(value) >= Decimal(10) ** 14:
        raise ValueError(f"{value} is outside the range of exact decimals")
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    # By whole numbers, because arithmetic on decimals rounds to the precision of its context.
    whole = int("".join(map(str, digits)))
    surplus = -4 - exponent
    if surplus > len(digits) or (surplus > 0 and whole % 10**surplus):
        if whole:
            raise ValueError(f"{value} has more than four decimals")
        return 0
    units = whole // 10**surplus if surplus > 0 else whole * 10**-surplus
    return -units if sign else units


def units_text(units: int) -> str:
    """Ten-thousandths as a decimal with four places, the form that Cedar reads: 500000 → `50.0000`."""
    sign = "-" if units < 0 else ""
    return f"{sign}{abs(units) // 10_000}.{abs(units) % 10_000:04d}"


def per_mille(text: str) -> int:
    """`98%` → 980; `0.8` → 800. Raises `ValueError`."""
    value = Decimal(text.removesuffix("%")) * (10 if text.endswith("%") else 1000)
    if value != value.to_integral_value() or not 0 <= value <= 1000:
        raise ValueError(f"`{text}` is not a share in steps of a tenth of a percent")
    return int(value)
