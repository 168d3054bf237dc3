"""AgentDojo's recorded runs (Debenedetti et al., 2024) as foreign recordings.

A file holds one run a line, gzipped or not, with at least `id`, `suite`, `user_prompt`, `steps` of `{tool, args, result,
error}` and `final_output`. The suite's tools are those of a contract `agentdojo-<suite>`, named `<suite>.<tool>`. A result is the text that the
model was given: where the tool's output schema has `items`, it is read as the YAML that it is, with every scalar as text.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from remit.errors import ConfigError
from remit.runs.importing import ForeignRecording, ForeignStep
from remit.tools.spec import ToolSpec
from remit.values import Json

_Loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_ABOUT = (
    "id",
    "source",
    "model",
    "defence",
    "user_task",
    "injection_task",
    "attack",
    "utility",
    "security",
    "injected_step_indices",
    "attacker_call_indices",
    "prompt_versions",
)
NO_REPLY = "no tool reply recorded"


def read_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The runs of a file, as they stand in it. Raises `ConfigError` naming the line that is none."""
    opener = gzip.open if file.suffix == ".gz" else open
    try:
        with opener(file, "rt", encoding="utf-8") as lines:
            for number, text in enumerate(lines, start=1):
                yield _run(text, f"{file}:{number}")
    except OSError as error:
        raise ConfigError(f"`{file}` can't be read: {(error.strerror or 'not what it seems').lower()}") from error


def _run(text: str, place: str) -> dict[str, Any]:
    try:
        run: Any = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{place}: not a run of AgentDojo: {error}") from error
    if not isinstance(run, dict) or not {"id", "suite", "user_prompt", "steps"} <= run.keys():
        raise ConfigError(f"{place}: not a run of AgentDojo; it has no `id`, `suite`, `user_prompt` or `steps`")
    return cast("dict[str, Any]", run)


def contract_of(run: Mapping[str, Any]) -> str:
    """The contract that a run belongs to."""
    return f"agentdojo-{run['suite']}"


def recording_of(run: Mapping[str, Any], specs: Mapping[str, ToolSpec]) -> ForeignRecording:
    """A run as it is brought in. `specs`: the tools of its contract."""
    steps = [_step(step, run["suite"], specs) for step in run["steps"]]
    return ForeignRecording(
        key=f"agentdojo/{run['suite']}/{run['id']}",
        importer="agentdojo",
        request={"prompt": run["user_prompt"]},
        steps=steps,
        output={"answer": run.get("final_output")},
        about={"from": "agentdojo", **{name: run.get(name) for name in _ABOUT}},
    )


def _step(step: Mapping[str, Any], suite: str, specs: Mapping[str, ToolSpec]) -> ForeignStep:
    tool, args, error = f"{suite}.{step['tool']}", step["args"], step.get("error")
    if error is not None:
        outcome = "unknown" if error == NO_REPLY else "failed"
        return ForeignStep(tool=tool, args=args, outcome=outcome, message=error)
    spec = specs.get(tool)
    result = step["result"] if spec is None else shaped(step["result"], spec)
    return ForeignStep(tool=tool, args=args, result=result, outcome="completed")


def shaped(text: str, spec: ToolSpec) -> Json:
    """A result in the form of the tool's output schema; what does not fit it stays the text that it was."""
    if "items" not in spec.output_schema.get("properties", {}):
        return text
    try:
        read: Any = yaml.load(text, Loader=_Loader)  # noqa: S506 - the base loader makes texts, lists and mappings only
    except (yaml.YAMLError, ValueError):
        read = None
    items: list[Any] = []
    if isinstance(read, list):
        items = cast("list[Any]", read)
    elif isinstance(read, dict):
        items = [cast("dict[str, Any]", read)]
    result: dict[str, Any] = {"items": items, "text": "" if items else text}
    return result if spec.output_validator.is_valid(result) else {"items": [], "text": text}
