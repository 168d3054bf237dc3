"""Whether a difference between paired runs may be chance: the exact sign test, which is McNemar's for yes and no."""

from __future__ import annotations

from collections.abc import Iterable
from math import comb

import msgspec


class SignTest(msgspec.Struct, frozen=True, kw_only=True):
    """Of pairs, how many went up, how many down, and how many stayed; `p_value`: two-sided, exact.

    The p-value is the chance of a split at least so uneven if up and down were equally likely (Conover, *Practical
    Nonparametric Statistics*, section 3.4). Ties say nothing and are left out.
    """

    up: int
    down: int
    same: int

    @property
    def p_value(self) -> float:
        pairs, fewer = self.up + self.down, min(self.up, self.down)
        tail = sum(comb(pairs, k) for k in range(fewer + 1)) / 2**pairs
        return min(1.0, 2 * tail)


def sign_test(differences: Iterable[float]) -> SignTest:
    """The test of these differences, one for each pair."""
    found = list(differences)
    up, down = sum(d > 0 for d in found), sum(d < 0 for d in found)
    return SignTest(up=up, down=down, same=len(found) - up - down)
