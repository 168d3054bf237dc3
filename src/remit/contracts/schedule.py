"""The times of a schedule, as cron has them; where clocks change, as Debian's cron does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim


def times_of(cron: str, zone: ZoneInfo, now_us: int = 0) -> Iterator[datetime]:
    """The times that come after `now_us`, in microseconds since the epoch. Raises `CronSimError` for what is none."""
    return CronSim(cron, datetime.fromtimestamp(now_us / 1e6, UTC).astimezone(zone))


def last_time(cron: str, zone: ZoneInfo, now_us: int) -> datetime:
    """The last time that has come by `now_us`, in UTC."""
    # It gives times before the one it begins with, in whole seconds.
    behind = datetime.fromtimestamp(now_us // 1_000_000 + 1, UTC).astimezone(zone)
    return next(CronSim(cron, behind, reverse=True)).astimezone(UTC)
