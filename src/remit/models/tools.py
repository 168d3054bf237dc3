"""Models as tools: a model request is a call of `model:<name>` and passes the same gate as every other call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from remit.contracts.load import LoadedContract
from remit.contracts.model import ModelBinding
from remit.contracts.project import Project
from remit.contracts.project_file import ModelSection
from remit.contracts.quantities import duration_ms
from remit.errors import ConfigError
from remit.identity.secrets import SecretStore
from remit.models.classifier import Example, TextClassifier
from remit.tools.spec import Effect, Idempotency, Tool, ToolContext, ToolSpec
from remit.values import Json

_NOT_LABELS = frozenset({"title", "body", "text", "language"})

_CHOICE = {
    "type": "object",
    "properties": {
        "label": {"type": "string"},
        "confidence_per_mille": {"type": "integer", "minimum": 0, "maximum": 1000},
    },
    "required": ["label", "confidence_per_mille"],
    "additionalProperties": False,
}
_USAGE = {
    "type": "object",
    "properties": {
        **{name: {"type": "integer", "minimum": 0} for name in ("cost_microusd", "tokens_in", "tokens_out")},
        "model": {"type": "string", "description": "who answered: `provider:model`"},
    },
    "required": ["cost_microusd"],
    "additionalProperties": False,
}
INPUT_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 500},
        "text": {"type": "string", "maxLength": 100_000},
        "decide": {
            "type": "array",
            "items": {"type": "string"},
            "uniqueItems": True,
            "maxItems": 16,
            "description": "what will be acted upon without a person; the overall confidence is the lowest of these",
        },
    },
    "required": ["text"],
    "additionalProperties": False,
}


def answer_schema(heads: list[str]) -> dict[str, Any]:
    """The output of a model that answers `heads`: a label and a confidence for each, and the lowest overall."""
    return {
        "type": "object",
        "properties": {
            **dict.fromkeys(heads, _CHOICE),
            "confidence_per_mille": {"type": "integer", "minimum": 0, "maximum": 1000},
            "usage": _USAGE,
        },
        "required": [*heads, "confidence_per_mille", "usage"],
        "additionalProperties": False,
    }


def model_tools(loaded: LoadedContract, project: Project, secrets: SecretStore) -> dict[str, Tool]:
    """The tools `model:<name>` of a contract's bindings. Raises `ConfigError`."""
    made: dict[str, Tool] = {}
    for name, binding in loaded.contract.models.items():
        section = loaded.models[name]
        if section.kind == "classifier":
            tool = _classifier(name, binding, section, project)
        else:
            from remit.models.llm import llm_tool

            tool = llm_tool(name, binding, section, loaded, secrets)
        made[tool.spec.name] = tool
    return made


def _classifier(name: str, binding: ModelBinding, section: ModelSection, project: Project) -> Tool:
    classifier = trained(project.path(section.training or ""))
    spec = ToolSpec(
        name=f"model:{name}",
        description=f"A local text classifier, trained on {section.training}; {classifier.digest[:12]}",
        input_schema=INPUT_SCHEMA,
        output_schema=answer_schema(list(classifier.heads)),
        effects=frozenset({Effect.READ}),
        timeout_ms=duration_ms(binding.timeout),
        idempotency=Idempotency.SAFE,
        usage="usage",
    )

    async def classify(_context: ToolContext, args: Mapping[str, Json]) -> Json:
        text = "\n".join([args["title"], args["text"]]) if args.get("title") else args["text"]
        predicted = classifier.predict(text)
        answer: dict[str, Json] = {
            head: {"label": found.label, "confidence_per_mille": int(found.confidence * 1000)}
            for head, found in predicted.items()
        }
        return with_overall(answer, args.get("decide")) | {
            "usage": {"cost_microusd": 0, "model": f"classifier:{classifier.digest[:12]}"}
        }

    return Tool(spec=spec, function=classify)


def with_overall(answer: dict[str, Json], decide: list[str] | None) -> dict[str, Json]:
    """The answer with its overall confidence: the lowest of what is to be decided; an unknown head counts as none."""
    heads = decide or list(answer)
    lowest = min((answer[head]["confidence_per_mille"] if head in answer else 0 for head in heads), default=0)
    return {**answer, "confidence_per_mille": lowest}


@lru_cache(maxsize=8)
def trained(path: Path) -> TextClassifier:
    """The classifier trained on a JSONL file of labelled texts: once per process.

    `title` and `body` (or `text`) are the text; every other text but `language` is a label. Raises `ConfigError`.
    """
    examples = read_examples(path)
    heads = list(dict.fromkeys(head for example in examples for head in example.labels))
    return TextClassifier.train(examples, targets=heads)


def read_examples(path: Path) -> list[Example]:
    """Labelled texts, one JSON object a line. Raises `ConfigError` with the line that is wrong."""
    examples: list[Example] = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    examples.append(_example(line, f"{path.name}:{number}"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"training data `{path.name}` can't be read: {error}") from error
    return examples


def _example(line: str, place: str) -> Example:
    try:
        parsed: Any = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{place}: not JSON: {error}") from error
    row = cast("dict[str, Any]", parsed) if isinstance(parsed, dict) else {}
    if not ("text" in row or "body" in row):
        raise ConfigError(f"{place}: a line is an object with `title` and `body` (or `text`), and labels")
    text = row.get("text") or f"{row.get('title', '')}\n{row['body']}"
    labels = {key: value for key, value in row.items() if key not in _NOT_LABELS and isinstance(value, str)}
    return Example(text=str(text), labels=labels)
