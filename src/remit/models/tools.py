"""Models as tools: a model request is a call of `model:<name>` and passes the same gate as every other call."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from msgspec.structs import replace

from remit.contracts.answers import ANSWER_SUFFIX, SCHEMA_SUFFIX, answer_kind, beside
from remit.contracts.load import LoadedContract
from remit.contracts.model import AnswerKind, ModelBinding
from remit.contracts.project import Project
from remit.contracts.project_file import ModelSection
from remit.contracts.quantities import MICROUSD_PER_UNIT, amount, duration_ms
from remit.errors import ConfigError
from remit.identity.secrets import SecretStore
from remit.models.chain import FallbackChain, Link, Spent, Timing
from remit.models.circuit import Circuit
from remit.models.classifier import Example, TextClassifier
from remit.models.forms import AnswerForm, LabelsForm, TextForm, ToolsForm, ValueForm, input_schema, request_of
from remit.models.in_process import LocalClassifier, PythonModel
from remit.models.interface import AnyModel, ModelFailed, OfferedTool
from remit.models.recorded import RecordedModel
from remit.models.templates import version_of
from remit.tools.spec import Effect, Idempotency, Tool, ToolContext, ToolSpec
from remit.values import Json

_NOT_LABELS = frozenset({"title", "body", "text", "language"})
_GRACE_MS = 2_000
"""What the gate waits longer than the models' own time-out, so that it is they who say what took so long."""

_circuits: dict[tuple[Path, str], Circuit] = {}
"""Of this process, by project and the model's name in it: a model that is away is so for all contracts."""


@dataclass(frozen=True, kw_only=True)
class ModelParts:
    """What the models of a contract are made of. `tools`: every tool of the project, by name."""

    loaded: LoadedContract
    project: Project
    secrets: SecretStore
    tools: Mapping[str, Tool]
    pace: Timing = field(default_factory=Timing)

    def model(self, section: ModelSection) -> AnyModel:
        """One model of `remit.toml`. Raises `ConfigError`."""
        match section.kind:
            case "classifier":
                return LocalClassifier(trained(self.project.path(section.training or "")))
            case "recorded":
                return RecordedModel(self.project.path(section.recording or ""))
            case "python":
                return PythonModel(section.function or "", self.project.folder)
            case "llm":
                from remit.models.llm import LanguageModel

                return LanguageModel(section, self.secrets)

    def link(self, name: str, section: ModelSection) -> Link:
        """The same as part of a chain, with the circuit that all contracts share. Raises `ConfigError`."""
        circuit = _circuits.setdefault((self.project.folder, name), Circuit(name, self.pace.now))
        return Link(
            name=name,
            model=self.model(section),
            circuit=circuit,
            attempts=section.attempts,
            attempt_s=None if section.attempt_timeout is None else duration_ms(section.attempt_timeout) / 1000,
        )


def model_tools(
    loaded: LoadedContract, project: Project, secrets: SecretStore, tools: Mapping[str, Tool]
) -> dict[str, Tool]:
    """The tools `model:<name>` of a contract's bindings. Raises `ConfigError`."""
    parts = ModelParts(loaded=loaded, project=project, secrets=secrets, tools=tools)
    return {f"model:{name}": model_tool(name, parts) for name in loaded.contract.models}


def model_tool(name: str, parts: ModelParts) -> Tool:
    """The tool of one binding. Raises `ConfigError` for a prompt, a provider or an answer's form that is missing."""
    loaded = parts.loaded
    binding, section = loaded.contract.models[name], loaded.models[name]
    sections = {binding.use: section, **loaded.stand_ins.get(name, {})}
    links = [parts.link(each, one) for each, one in sections.items()]
    kind = answer_kind(binding, section.kind, loaded.prompts)
    form = _form(name, kind, parts, links)
    template = loaded.prompts.get(binding.prompt or "", "")
    if not template and any(one.kind == "llm" for one in sections.values()):
        raise ConfigError(f"a language model needs a prompt; name a file of `prompts/` in contract `{loaded.name}`")
    timeout_ms = duration_ms(binding.timeout)
    spec = ToolSpec(
        name=f"model:{name}",
        description=_description(binding, section, links),
        input_schema=input_schema(kind, template, [action.tool for action in loaded.contract.actions]),
        output_schema=form.output_schema,
        effects=frozenset({Effect.READ, *([Effect.EGRESS] if any(s.kind == "llm" for s in sections.values()) else [])}),
        timeout_ms=timeout_ms + _GRACE_MS,
        idempotency=Idempotency.SAFE,
        usage="usage",
    )
    question = PreparedQuestion(
        name=name, kind=kind, form=form, template=template, prompt=binding.prompt or "", parameters=_parameters(section),
        reserved_microusd=amount(binding.spend_per_call).units * MICROUSD_PER_UNIT,
    )
    chain = FallbackChain(links, timeout_s=timeout_ms / 1000, pace=parts.pace)

    async def ask(context: ToolContext, args: Mapping[str, Json]) -> Json:
        return await question.put(chain, context, args, parts.pace)

    python = next((link.model for link in links if isinstance(link.model, PythonModel)), None)
    if python is None:
        return Tool(spec=spec, function=ask)
    return Tool(spec=spec, function=ask, module=python.module.__name__, source=python.source)


@dataclass(frozen=True, kw_only=True)
class PreparedQuestion:
    """What a binding asks, whoever answers."""

    name: str
    kind: AnswerKind
    form: AnswerForm
    template: str
    prompt: str
    parameters: dict[str, Json]
    reserved_microusd: int

    async def put(self, chain: FallbackChain, context: ToolContext, args: Mapping[str, Json], pace: Timing) -> Json:
        """Ask for a call's arguments; the call's result. Raises `ModelFailed` with what was used all the same."""
        asked = request_of(
            self.form, self.kind, binding=self.name, run=context.run, template=self.template, args=args
        )
        request = replace(asked, recorded_as=context.args_digest)
        spent, begun = Spent(), pace.now()
        try:
            result = await chain.ask(request, lambda answer: self.form.read(answer, args), context.on_text, spent)
        except ModelFailed as failed:
            failed.usage = self._usage(spent, pace.now() - begun)
            raise
        return {**result, "usage": self._usage(spent, pace.now() - begun)}

    def _usage(self, spent: Spent, took_s: float) -> dict[str, Json]:
        # Without a known price nobody can say what is left of what was reserved.
        cost = max(spent.cost_microusd, self.reserved_microusd) if spent.unpriced else spent.cost_microusd
        said: dict[str, Json] = {
            "cost_microusd": cost,
            "tokens_in": spent.tokens_in,
            "tokens_out": spent.tokens_out,
            "tokens_cached": spent.tokens_cached,
            "latency_ms": max(0, round(took_s * 1000)),
            "attempts": spent.attempts,
            "template": version_of(self.template, self.form.described),
        }
        if spent.unpriced:
            said["priced"] = False
        named = {"model": spent.model, "finish": spent.finish, "prompt": self.prompt, "parameters": self.parameters}
        return {**said, **{name: value for name, value in named.items() if value}}


def _parameters(section: ModelSection) -> dict[str, Json]:
    said: dict[str, Json] = {}
    if section.temperature is not None:
        said["temperature"] = str(section.temperature)
    if section.max_tokens is not None:
        said["max_tokens"] = section.max_tokens
    return said


def _description(binding: ModelBinding, section: ModelSection, links: Iterable[Link]) -> str:
    first, *others = [link.model.name for link in links]
    if section.kind == "classifier":
        digest = first.removeprefix("classifier:")
        said = f"A local text classifier, trained on {section.training}; {digest}"
    else:
        said = f"{first}, asked with prompt `{binding.prompt}`" if binding.prompt else first
    return f"{said}; in its place: {', '.join(others)}" if others else said


def _form(name: str, kind: AnswerKind, parts: ModelParts, links: Iterable[Link]) -> AnswerForm:
    """The form of a binding's answers. Raises `ConfigError`."""
    prompts, prompt = parts.loaded.prompts, parts.loaded.contract.models[name].prompt or ""
    classifiers = [link.model for link in links if isinstance(link.model, LocalClassifier)]
    if classifiers and kind is not AnswerKind.LABELS:
        raise ConfigError(f"model `{name}` is asked for `{kind}`, and a classifier, which it may fall back on, has labels alone")
    match kind:
        case AnswerKind.LABELS:
            listed = prompts.get(beside(prompt, ANSWER_SUFFIX)) if prompt else None
            labels: dict[str, list[str]] | None = None if listed is None else json.loads(listed)
            if classifiers and (labels is None or classifiers[0] is next(iter(links)).model):
                return LabelsForm(classifiers[0].heads, None)
            if labels is None:
                raise _missing(prompt, ANSWER_SUFFIX, "lists the labels that the model may answer", parts)
            return LabelsForm(list(labels), labels)
        case AnswerKind.VALUE:
            schema = prompts.get(beside(prompt, SCHEMA_SUFFIX))
            if schema is None:
                raise _missing(prompt, SCHEMA_SUFFIX, "says what the model may answer", parts)
            return ValueForm(json.loads(schema))
        case AnswerKind.TEXT:
            return TextForm()
        case AnswerKind.TOOLS:
            granted = {action.tool: parts.tools[action.tool].spec for action in parts.loaded.contract.actions}
            return ToolsForm(
                {
                    tool: OfferedTool(name=tool, description=spec.description, input_schema=spec.input_schema)
                    for tool, spec in granted.items()
                }
            )


def _missing(prompt: str, suffix: str, what: str, parts: ModelParts) -> ConfigError:
    name = beside(prompt, suffix) if prompt else f"<prompt>{suffix}"
    return ConfigError(f"`prompts/{name}` {what}; add it to contract `{parts.loaded.name}`")


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
