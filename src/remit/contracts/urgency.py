"""How urgent a run is to the workers."""

from __future__ import annotations

from enum import StrEnum


class Urgency(StrEnum):
    """Which runs workers take first."""

    URGENT = "urgent"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def rank(self) -> int:
        """Its place: the lower comes first."""
        return list(Urgency).index(self)
