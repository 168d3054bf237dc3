"""The one thing that a counterfactual changes: a prompt, a model, the policy, or what a tool answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec

from remit.contracts.load import LoadedContract
from remit.contracts.project import Project
from remit.errors import ConfigError
from remit.replay.answers import ToolSource, read_fixture

Vary = Callable[[LoadedContract], LoadedContract]
_KINDS = ("prompt", "model", "policy", "tool")


class WhatIf(msgspec.Struct, frozen=True, kw_only=True):
    """One change: of which kind, of what by name, and how the contract's files are with it.

    `digest` is of the file that it brings; `source`: for a tool, where its answers come from instead.
    """

    kind: str
    name: str
    digest: str = ""
    vary: Vary | None = None
    source: ToolSource | None = None

    @property
    def text(self) -> str:
        return f"{self.kind} `{self.name}`" if self.name else self.kind


def parse_change(text: str, project: Project) -> WhatIf:
    """`prompt=FILE`, `model=NAME`, `policy=FILE` or `tool=NAME:FIXTURE.json`. Raises `ConfigError`."""
    kind, given, value = text.partition("=")
    if kind not in _KINDS or not given or not value:
        raise ConfigError(
            f"change `{text}` is none; one of `prompt=FILE`, `model=NAME`, `policy=FILE`, `tool=NAME:FIXTURE.json`"
        )
    match kind:
        case "policy":
            policy = _read(Path(value))
            return WhatIf(kind=kind, name="", digest=_sha256(policy), vary=lambda loaded: replace(loaded, policy=policy))
        case "prompt":
            name, named, path = value.rpartition(":")
            prompt = _read(Path(path))
            wanted = name if named else ""
            vary = _prompt(wanted, Path(path).name, prompt)
            return WhatIf(kind=kind, name=wanted or Path(path).name, digest=_sha256(prompt), vary=vary)
        case "model":
            binding, named, model = value.rpartition(":")
            return WhatIf(kind=kind, name=value, vary=_model(binding if named else "", model, project))
        case _:
            tool, named, path = value.partition(":")
            if not named:
                raise ConfigError(f"change `{text}` names no fixture; write `tool={tool}:FIXTURE.json`")
            return WhatIf(kind=kind, name=tool, digest=_sha256(_read(Path(path))), source=read_fixture(Path(path)))


def _prompt(name: str, file: str, text: str) -> Vary:
    def vary(loaded: LoadedContract) -> LoadedContract:
        asked = sorted({binding.prompt for binding in loaded.contract.models.values() if binding.prompt})
        if name or file in loaded.prompts:
            chosen = name or file
        elif len(asked) == 1:
            chosen = asked[0]
        else:
            known = ", ".join(f"`{each}`" for each in sorted(loaded.prompts)) or "none"
            raise ConfigError(f"which prompt is meant is not clear; write `prompt=NAME:FILE`; there are {known}")
        if chosen not in loaded.prompts:
            raise ConfigError(f"contract `{loaded.name}` has no prompt `{chosen}`; see its `prompts/`")
        return replace(loaded, prompts={**loaded.prompts, chosen: text})

    return vary


def _model(binding: str, model: str, project: Project) -> Vary:
    section = project.models.get(model)
    if section is None:
        known = ", ".join(f"`{name}`" for name in sorted(project.models)) or "none"
        raise ConfigError(f"model `{model}` is not declared in remit.toml; there are {known}")

    def vary(loaded: LoadedContract) -> LoadedContract:
        bound = loaded.contract.models
        chosen = binding or (next(iter(bound)) if len(bound) == 1 else "")
        if chosen not in bound:
            known = ", ".join(f"`{name}`" for name in bound) or "none"
            raise ConfigError(f"which model is meant is not clear; write `model=BINDING:NAME`; bindings here: {known}")
        uses = msgspec.structs.replace(bound[chosen], use=model)
        contract = msgspec.structs.replace(loaded.contract, models={**bound, chosen: uses})
        training = {name: digest for name, digest in loaded.training.items() if name != chosen}
        if section.training:
            training[chosen] = hashlib.sha256(project.path(section.training).read_bytes()).hexdigest()
        # Whoever asks what another model would say wants to hear that one, and no stand-in.
        stand_ins = {name: others for name, others in loaded.stand_ins.items() if name != chosen}
        models = {**loaded.models, chosen: section}
        return replace(loaded, contract=contract, models=models, training=training, stand_ins=stand_ins)

    return vary


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"`{path}` can't be read: {error}") from error


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def parse_tool(text: str) -> tuple[str, ToolSource]:
    """`NAME=record`, `NAME=live` or `NAME=fixture:FILE`. Raises `ConfigError`."""
    name, given, source = text.partition("=")
    kind, _, path = source.partition(":")
    if given and kind == "fixture" and path:
        return name, read_fixture(Path(path))
    if given and source == "record":
        return name, ToolSource(kind="record")
    if given and source == "live":
        return name, ToolSource(kind="live")
    raise ConfigError(f"tool source `{text}` is none; one of `NAME=record`, `NAME=live`, `NAME=fixture:FILE.json`")
