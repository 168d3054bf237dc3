"""The files beside `contract.yaml`: schemas, policy, prompts and code; read and looked at, never executed."""

from __future__ import annotations

import ast
import hashlib
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from json import JSONDecodeError
from pathlib import Path
from typing import Final, cast

import jsonschema_rs

from remit import values
from remit.contracts.document import Document, Unreadable, places, read_text
from remit.contracts.model import JsonSchema
from remit.contracts.paths import inside
from remit.contracts.problems import Problem, quoted
from remit.contracts.schema import DIALECT
from remit.contracts.yaml_lines import parse_yaml
from remit.errors import ConfigError
from remit.values import Json, ValueRefused, show_path

CONTRACT_FILE: Final = "contract.yaml"
POLICY_FILE: Final = "policy.cedar"
POLICY_TESTS_FILE: Final = "policy_tests.yaml"
WORKFLOW_FILE: Final = "workflow.py"
PROMPTS: Final = "prompts"
_NOT_CODE: Final = frozenset({"evals", "__pycache__"})
_REFERENCES: Final = ("$ref", "$dynamicRef")


@dataclass(frozen=True, kw_only=True)
class Code:
    """A Python file, parsed: the functions that stand at its top, by name, and the line of each."""

    path: Path
    functions: Mapping[str, ast.FunctionDef | ast.AsyncFunctionDef]


@dataclass(frozen=True, kw_only=True)
class ContractFiles:
    """What lies beside a `contract.yaml`. What is missing or wrong is `None` or left out, and a problem.

    `prompts`: file name → text. `digests`: path of each Python file in the folder → SHA-256, lower-case hex.
    """

    policy: str | None
    prompts: Mapping[str, str]
    workflow: Code | None
    digests: Mapping[str, str]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ContractFolder:
    """A contract's folder in its project; names files as problems show them, relative to the project."""

    project: Path
    folder: Path
    problems: list[Problem] = field(default_factory=list[Problem])

    def name(self, path: Path) -> str:
        """`contracts/it-tickets/policy.cedar`."""
        return path.relative_to(self.project).as_posix() if path.is_relative_to(self.project) else path.name

    def text(self, path: Path) -> str | None:
        """The text of a file of the contract; `None`, and a problem, where it can't be read."""
        name = self.name(path)
        try:
            return read_text(inside(self.project, path.parent, path.name), name)
        except Unreadable as error:
            self.problems.append(error.problem)
        except ConfigError as error:
            self.problems.append(Problem(file=name, line=1, message=error.message))
        return None


def read_files(project: Path, folder: Path) -> ContractFiles:
    """Read what lies beside the `contract.yaml` of `folder`, a folder of the project at `project`."""
    home = ContractFolder(project=project, folder=folder)
    policy_path = folder / POLICY_FILE
    if policy_path.exists():
        policy = home.text(policy_path)
    else:
        policy = None
        # A policy that got lost must not read as one that forbids nothing.
        hint = "create it; leave it empty if the grants say everything"
        name = home.name(policy_path)
        home.problems.append(Problem(file=name, line=1, message="the policy does not exist", suggestion=hint))
    prompts = dict(_prompts(home))
    digests, workflow = _code(home)
    return ContractFiles(
        policy=policy, prompts=prompts, workflow=workflow, digests=digests, problems=tuple(home.problems)
    )


def _prompts(home: ContractFolder) -> Iterator[tuple[str, str]]:
    folder = home.folder / PROMPTS
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(".") or not path.is_file():
            continue
        text = home.text(path)
        if text is not None:
            yield path.name, text


def _code(home: ContractFolder) -> tuple[dict[str, str], Code | None]:
    digests: dict[str, str] = {}
    workflow: Code | None = None
    for path in sorted(home.folder.rglob("*.py")):
        parts = path.relative_to(home.folder).parts
        if not path.is_file() or any(part in _NOT_CODE or part.startswith(".") for part in parts[:-1]):
            continue
        text = home.text(path)
        if text is None:
            continue
        digests["/".join(parts)] = hashlib.sha256(text.encode()).hexdigest()
        if parts == (WORKFLOW_FILE,):
            workflow = _parsed(home, path, text)
    return digests, workflow


def _parsed(home: ContractFolder, path: Path, text: str) -> Code | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(text)
    except SyntaxError as error:
        message = f"not valid Python: {error.msg}"
        home.problems.append(Problem(file=home.name(path), line=error.lineno or 1, message=message))
        return None
    except (ValueError, RecursionError, MemoryError):
        message = "not valid Python: a null byte, or a nesting beyond all bounds"
        home.problems.append(Problem(file=home.name(path), line=1, message=message))
        return None
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    return Code(path=path, functions=functions)


def read_schema(home: ContractFolder, path: Path) -> JsonSchema | None:
    """A JSON Schema (2020-12) of type `object` that refers to nothing outside of itself; else `None` and problems."""
    text = home.text(path)
    if text is None:
        return None
    schema, found = parse_schema(text, home.name(path))
    home.problems.extend(found)
    return schema


def parse_schema(text: str, name: str) -> tuple[JsonSchema | None, list[Problem]]:
    """The schema that the text of a file of this name holds, as `read_schema` wants it, or what is wrong with it."""
    try:
        schema: Json = values.parse(text)
    except ValueRefused as error:
        return None, [Problem(file=name, line=_json_line(error, text), message=error.message)]
    found = list(_schema_problems(schema, parse_yaml(text, name)))
    return (None if found else schema), found


def _json_line(error: ValueRefused, text: str) -> int:
    cause = error.__cause__
    if isinstance(cause, JSONDecodeError):
        return cause.lineno
    # JSON is YAML enough for the line of a key that appears twice, a number too large, a lone surrogate.
    problems = parse_yaml(text, "").problems
    if problems:
        return problems[0].line
    constant = re.search(r"\b(NaN|Infinity)\b", text)
    return text.count("\n", 0, constant.start()) + 1 if constant else 1


def _schema_problems(schema: Json, document: Document) -> Iterator[Problem]:
    # JSON is YAML enough for the lines; where it is not, the first line has to do.
    outside = list(_outside(schema, document))
    yield from outside
    meta = jsonschema_rs.Draft202012Validator({"$ref": DIALECT}, validate_formats=True)
    wrong = list(meta.iter_errors(schema))
    for error in wrong:
        path = tuple(error.instance_path)
        where = quoted(show_path(path)) if path else "the schema"
        yield document.problem(path, f"{where} is not JSON Schema 2020-12: {error.message[:200]}")
    if wrong or outside:
        return
    if not isinstance(schema, dict):
        yield document.problem((), "the schema is not an object", 'write `{"type": "object", …}`')
        return
    table = cast("JsonSchema", schema)
    try:
        jsonschema_rs.Draft202012Validator(table)
    except ValueError as error:
        message = str(getattr(error, "message", error))
        yield document.problem((), f"the schema can't be used: {message[:1].lower()}{message[1:200]}")
        return
    if table.get("type") != "object":
        yield document.problem(
            ("type",),
            "the schema is not of type `object`",
            'write `"type": "object"`; requests and results have names',
        )


def _outside(schema: Json, document: Document) -> Iterator[Problem]:
    """References to other files or to the network: a contract is complete in itself, and nothing is fetched."""
    for path, value in places(schema):
        key = path[-1] if path else ""
        if not isinstance(value, str):
            continue
        if key in _REFERENCES and not value.startswith("#"):
            hint = "copy what it names into `$defs` and refer to `#/$defs/<name>`"
            yield document.problem(path, f"`{key}` leads out of the file, to {quoted(value)}", hint)
        elif key == "$schema" and value.rstrip("#") != DIALECT:
            yield document.problem(path, f"{quoted(value)} is another dialect", f"use {quoted(DIALECT)}")
