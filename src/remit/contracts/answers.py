"""What kind of answer a binding asks of its model, and the file that says what may be answered."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import PurePosixPath
from typing import Final

from remit.contracts.model import AnswerKind, ModelBinding

ANSWER_SUFFIX: Final = ".answer.json"
"""Beside the prompt `assess.md` stands `assess.answer.json`: head → the labels that it may have."""
SCHEMA_SUFFIX: Final = ".schema.json"
"""Or `assess.schema.json`: the JSON Schema of the value that is answered."""
_NAME: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)


def beside(prompt: str, suffix: str) -> str:
    """The file that belongs to a prompt: `assess.md` → `assess.schema.json`."""
    return f"{PurePosixPath(prompt).stem}{suffix}"


def answer_kind(binding: ModelBinding, kind: str, prompts: Collection[str]) -> AnswerKind:
    """The kind of answer of a binding to a model of `kind`, where files of these names stand in `prompts/`."""
    if binding.answer is not None:
        return binding.answer
    has_schema = binding.prompt is not None and beside(binding.prompt, SCHEMA_SUFFIX) in prompts
    return AnswerKind.VALUE if has_schema and kind != "classifier" else AnswerKind.LABELS


def names_in(template: str) -> list[str]:
    """What a prompt is filled with, by name, in the order in which it stands there."""
    return list(dict.fromkeys(_NAME.findall(template)))
