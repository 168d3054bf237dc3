"""A contract with everything that belongs to it, read once and then fixed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, cast

import jsonschema_rs
import msgspec

from remit.contracts.document import Document, children
from remit.contracts.files import CONTRACT_FILE, ContractFiles, ContractFolder, read_files, read_schema
from remit.contracts.model import Contract, JsonSchema, ModelBinding
from remit.contracts.paths import inside
from remit.contracts.problems import Problem, ProjectInvalid, did_you_mean, errors, quoted
from remit.contracts.project import Project
from remit.contracts.project_file import ModelSection
from remit.contracts.rules import contract_problems
from remit.contracts.rules_input import untrusted_input_is_there
from remit.contracts.rules_prefetch import prefetches_ask_for_what_is_there
from remit.contracts.rules_schedule import schedules_meet_the_input
from remit.contracts.subject import Known, Subject, entry_point, rule_names
from remit.contracts.wording import check_shape
from remit.contracts.yaml_lines import parse_yaml
from remit.errors import ConfigError
from remit.tools.spec import ToolSpec
from remit.values import Json, digest

BUNDLE_VERSION: Final = 1
_PARTICULARS: Final = ("recording", "function", "price", "attempt_timeout", "temperature", "max_tokens")


@dataclass(frozen=True, kw_only=True)
class LoadedContract:
    """A contract and its files. `contract` has tenant and region filled in from the project.

    `prompts`: name of a file in `prompts/` → its text. `code`: path of each Python file in the folder → SHA-256.
    `models`: name in the contract → the project's model it is bound to; `training`: the same names → SHA-256 of what
    the model is trained on. `stand_ins`: the same names → the models asked where that one can't answer, by name in the
    project. `model_files`: path of each recording, training file and Python file behind any of them → SHA-256.
    `entry`: the function of `workflow` that a run starts with, in the style `workflow`.
    """

    folder: Path
    contract: Contract
    input_schema: JsonSchema
    output_schema: JsonSchema
    policy: str
    prompts: Mapping[str, str]
    workflow: Path | None
    entry: str | None
    code: Mapping[str, str]
    models: Mapping[str, ModelSection]
    training: Mapping[str, str]
    stand_ins: Mapping[str, Mapping[str, ModelSection]] = field(default_factory=dict[str, Mapping[str, ModelSection]])
    model_files: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def name(self) -> str:
        return self.contract.contract

    @property
    def tenant(self) -> str:
        return self.contract.tenant or ""

    @property
    def region(self) -> str:
        return self.contract.region or ""

    @property
    def principal(self) -> str:
        """The contract's service principal, `agent/<tenant>/<contract>`."""
        return f"agent/{self.tenant}/{self.name}"

    @cached_property
    def input_validator(self) -> jsonschema_rs.Draft202012Validator:
        return jsonschema_rs.Draft202012Validator(self.input_schema, validate_formats=True)

    @cached_property
    def output_validator(self) -> jsonschema_rs.Draft202012Validator:
        return jsonschema_rs.Draft202012Validator(self.output_schema, validate_formats=True)

    def bundle(self, tool_digests: Mapping[str, str]) -> dict[str, Json]:
        """All that shapes behaviour, as JSON: what a release is.

        `tool_digests`: tool name → `ToolSpec.digest`, of the granted ones or more. Raises `ConfigError` if one lacks.
        """
        granted = sorted({action.tool for action in self.contract.actions})
        missing = [name for name in granted if name not in tool_digests]
        if missing:
            raise ConfigError(f"tool `{missing[0]}` is not known; run `remit check`")
        return {
            "version": BUNDLE_VERSION,
            "contract": _plain(self.contract),
            "policy": self.policy,
            "prompts": dict(self.prompts),
            "input": self.input_schema,
            "output": self.output_schema,
            "code": dict(self.code),
            "tools": {name: tool_digests[name] for name in granted},
            "models": {name: self._model(name, section) for name, section in self.models.items()},
        }

    def digest(self, tool_digests: Mapping[str, str]) -> str:
        """SHA-256 of the bundle's canonical bytes, lower-case hex: the id of the release. See `bundle`."""
        return digest(self.bundle(tool_digests))

    def _model(self, name: str, section: ModelSection) -> Json:
        # Where the key is found shapes nothing, and is nobody's business.
        said: dict[str, Json] = {
            "kind": section.kind,
            "model": section.model,
            "base_url": section.base_url,
            "training": self.training.get(name),
            **self._particulars(section),
        }
        stand_ins = self.stand_ins.get(name)
        if stand_ins:
            said["fallback"] = [
                {"name": other, "kind": each.kind, "model": each.model, "base_url": each.base_url, **self._particulars(each)}
                for other, each in stand_ins.items()
            ]
        return said

    def _particulars(self, section: ModelSection) -> dict[str, Json]:
        """What else a section says, as far as it says it, and the digests of the files that it names."""
        named = (*files_of(section), section.training or "")
        files = {file: self.model_files[file] for file in named if file in self.model_files}
        said = {name: _plain(getattr(section, name)) for name in _PARTICULARS if getattr(section, name) is not None}
        return {**said, **({"files": files} if files else {})}


def files_of(section: ModelSection) -> tuple[str, ...]:
    """The files of the project that a model is made of, as `remit.toml` names them; its training data stands apart."""
    function = section.function.rpartition(":")[0] if section.function else None
    return tuple(name for name in (section.recording, function) if name)


def _plain(value: Any) -> Json:
    """A struct as JSON with its defaults written out, so that a later default changes no old digest silently."""
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in children(value)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("Sequence[Any]", value)]
    return msgspec.to_builtins(value)


@dataclass(frozen=True, kw_only=True)
class ReadContract:
    """What was found in a contract's folder, right or wrong."""

    subject: Subject
    files: ContractFiles
    schemas: Mapping[str, JsonSchema]
    problems: tuple[Problem, ...]


def load_contract(folder: Path, project: Project, tools: Mapping[str, ToolSpec] | None = None) -> LoadedContract:
    """Load the contract in `folder`, a folder of `project`.

    With `tools` every rule is applied, without them those that need none. Raises `ProjectInvalid` with every problem.
    """
    found = read_contract(folder, project.folder, Known.of(project), tools)
    contract = found.subject.contract
    files = found.files
    if errors(found.problems) or contract is None or files.policy is None:
        raise ProjectInvalid(found.problems)
    filled = msgspec.structs.replace(
        contract,
        tenant=contract.tenant or project.project.tenant,
        region=contract.region or project.project.region,
    )
    workflow = files.workflow
    entry = entry_point(contract.contract, workflow, rule_names(contract.actions)) if workflow else None
    models = {name: project.models[binding.use] for name, binding in contract.models.items()}
    stand_ins = {name: stand_ins_of(binding, project) for name, binding in contract.models.items()}
    sections = [*models.values(), *(each for others in stand_ins.values() for each in others.values())]
    named = {file for section in sections for file in files_of(section)}
    named |= {each.training for others in stand_ins.values() for each in others.values() if each.training}
    return LoadedContract(
        folder=folder.resolve(),
        contract=filled,
        input_schema=found.schemas["input"],
        output_schema=found.schemas["output"],
        policy=files.policy,
        prompts=files.prompts,
        workflow=workflow.path if workflow else None,
        entry=entry,
        code=files.digests,
        models=models,
        training={name: _file_digest(project.path(each.training)) for name, each in models.items() if each.training},
        stand_ins=stand_ins,
        model_files={file: _file_digest(project.path(file)) for file in sorted(named)},
    )


def stand_ins_of(binding: ModelBinding, project: Project) -> dict[str, ModelSection]:
    """The models that are asked where the bound one can't answer: the binding's own, else its section's."""
    named = project.models[binding.use].fallback if binding.fallback is None else binding.fallback
    return {name: project.models[name] for name in named}


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as source:
            return hashlib.file_digest(source, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"`{path}` can't be read: {(error.strerror or 'unknown error').lower()}") from error


def read_contract(folder: Path, project: Path, known: Known, tools: Mapping[str, ToolSpec] | None) -> ReadContract:
    """Read a contract's folder and apply every rule that can be; problems are returned, not raised."""
    root = project.resolve()
    home = ContractFolder(project=root, folder=_lexical(folder, root))
    document = _document(home)
    if document.is_broken(()):
        files = ContractFiles(policy=None, prompts={}, workflow=None, digests={})
        subject = Subject(document, files, known, tools)
        return ReadContract(subject=subject, files=files, schemas={}, problems=document.problems)
    files = read_files(root, home.folder)
    subject = Subject(document, files, known, tools)
    schemas = dict(_schemas(home, subject))
    problems = [
        *document.problems,
        *check_shape(document, Contract),
        *files.problems,
        *home.problems,
        *contract_problems(subject),
        *(untrusted_input_is_there(subject, schemas["input"]) if "input" in schemas else ()),
        *(prefetches_ask_for_what_is_there(subject, schemas["input"]) if "input" in schemas else ()),
        *(schedules_meet_the_input(subject, schemas["input"]) if "input" in schemas else ()),
    ]
    return ReadContract(subject=subject, files=files, schemas=schemas, problems=tuple(problems))


def _lexical(folder: Path, root: Path) -> Path:
    """The folder as it is called in its project; where it really lies is asked when files in it are read."""
    found = folder.parent.resolve() / folder.name
    if not found.is_relative_to(root):
        raise ConfigError(f"contract `{folder}` is not in the project `{root}`; move it into `contracts/`")
    return found


def _document(home: ContractFolder) -> Document:
    path = home.folder / CONTRACT_FILE
    text = home.text(path)
    if text is None:
        problems = tuple(home.problems)
        return Document(file=home.name(path), value=None, lines={}, problems=problems, broken=frozenset({()}))
    return parse_yaml(text, home.name(path))


def _schemas(home: ContractFolder, subject: Subject) -> Iterator[tuple[str, JsonSchema]]:
    for key in ("input", "output"):
        reference = subject.typed.values.get(key)
        if not isinstance(reference, str):
            continue
        try:
            path = inside(home.project, home.folder, reference)
        except ConfigError as error:
            message, _, hint = error.message.partition("; ")
            home.problems.append(subject.error((key,), message, hint))
            continue
        if not path.is_file():
            known = [each.relative_to(home.folder).as_posix() for each in home.folder.glob("schemas/*.json")]
            hint = did_you_mean(reference, known, "schemas here")
            home.problems.append(subject.error((key,), f"schema {quoted(reference)} does not exist", hint))
            continue
        schema = read_schema(home, path)
        if schema is not None:
            yield key, schema
