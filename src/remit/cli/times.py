"""Times as people type them."""

from __future__ import annotations

from datetime import UTC, datetime

from remit.contracts.quantities import duration_ms
from remit.errors import ConfigError


def since_us(text: str | None, now_us: int) -> int:
    """`7d`, `12h` before now, or `2026-11-01` or `2026-11-01T08:00Z`, in microseconds since the epoch; 0 for `None`.

    Raises `ConfigError`.
    """
    if text is None:
        return 0
    try:
        return max(0, moment_us(text, now_us))
    except ValueError as error:
        raise ConfigError(f"`{text}` is no time; write `7d`, `12h`, `2026-11-01` or `2026-11-01T08:00Z`") from error


def moment_us(text: str, now_us: int) -> int:
    """How long ago, a date or a time, in microseconds since the epoch. Raises `ValueError` for what is none of them."""
    try:
        return now_us - duration_ms(text) * 1_000
    except ValueError:
        pass
    found = datetime.fromisoformat(text)
    # Without a zone it is UTC, as everything that is shown.
    aware = found if found.tzinfo else found.replace(tzinfo=UTC)
    return int(aware.timestamp() * 1_000_000)
