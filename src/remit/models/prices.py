"""What an answer costs: by the price that `remit.toml` gives, else by the list of `genai-prices`, else nobody knows.

Amounts are rounded up to whole microdollars, so that a budget is never undercut by rounding.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal
from typing import Any

from remit.contracts.project_file import PriceSection
from remit.contracts.quantities import MICROUSD_PER_UNIT, amount

_MILLION = 1_000_000


def cost_by_section(price: PriceSection, *, tokens_in: int, tokens_out: int, tokens_cached: int) -> int:
    """Microdollars by a price of `remit.toml`; `tokens_cached` are part of `tokens_in`."""
    cached = min(tokens_cached, tokens_in)
    counted = (
        (tokens_in - cached, price.input),
        (cached, price.input if price.cached is None else price.cached),
        (tokens_out, price.output),
    )
    total = sum(tokens * amount(text).units * MICROUSD_PER_UNIT for tokens, text in counted)
    return -(-total // _MILLION)


def cost_by_list(response: Any) -> int | None:
    """Microdollars of a Pydantic AI response by the list of known prices; `None` where it has none for the model."""
    try:
        dollars: Decimal = response.cost().total_price
    except (LookupError, ValueError, AssertionError):
        return None
    return int((dollars * _MILLION).to_integral_value(ROUND_CEILING))
