"""The forms that an export can have; without imports of its own, so that the command line can name them at once."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    """What an export can be."""

    JSONL = "jsonl"
    OCSF = "ocsf"
    RECORD = "record"
    OTLP = "otlp"
