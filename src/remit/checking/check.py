"""`remit check`: every problem of `remit.toml` and of all contracts at once, with file, line and a suggestion."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from remit.contracts.answers import answer_kind
from remit.contracts.document import Document, Unreadable, read_text
from remit.contracts.files import POLICY_FILE, POLICY_TESTS_FILE
from remit.contracts.load import ReadContract, read_contract
from remit.contracts.model import Contract
from remit.contracts.paths import CONTRACTS, FILE, contract_folders
from remit.contracts.problems import Problem, Severity, errors, ordered
from remit.contracts.project import Project, convert_project, read_project
from remit.contracts.project_file import ProjectFile
from remit.contracts.project_rules import project_problems
from remit.contracts.subject import Known, Subject
from remit.contracts.wording import check_shape
from remit.errors import ConfigError
from remit.memory.project import project_tools as all_tools
from remit.tools.spec import Effect, ToolSpec

Tools = Mapping[str, ToolSpec]
ToolLoader = Callable[[Project], Tools]
"""Loads the tools of a project; raises `ConfigError`, one problem a line, where that can't be done."""

_PLACE = re.compile(r"(?P<file>[^\s:`]+)(?::(?P<line>[0-9]+))?: (?P<message>.+)", re.ASCII)


def check_project(folder: Path, tools: Tools | ToolLoader) -> list[Problem]:
    """Every problem of the project in `folder`, by file and line; empty if there is none. Never raises for bad files.

    `tools`: the specs by name, or what loads them once `remit.toml` is read. Where they can't be loaded, that is a
    problem, and rules about tools are left out.
    """
    document = read_project(folder)
    problems = [*document.problems, *check_shape(document, ProjectFile), *project_problems(document, folder)]
    project = convert_project(document, folder)
    known = Known.of_document(document) if errors(problems) or project is None else Known.of(project)
    specs: Tools | None = None
    if not callable(tools):
        specs = tools
    elif project is not None and _tools_are_named(document, problems):
        try:
            specs = tools(project)
        except ConfigError as error:
            problems.extend(_tool_problem(text, document) for text in error.message.splitlines())
    problems.extend(_record_problems(folder, known))
    folders = contract_folders(folder)
    for contract in folders:
        found = read_contract(contract, folder, known, specs)
        problems.extend([*found.problems, *_policy_problems(contract, found, specs)])
    if not folders:
        message = f"there is no contract in `{CONTRACTS}/`"
        hint = "run `remit init`, or write one: `remit schema contract` prints what may stand in it"
        problems.append(Problem(file=FILE, line=1, message=message, suggestion=hint, severity=Severity.WARNING))
    return ordered(problems)


def _record_problems(folder: Path, known: Known) -> list[Problem]:
    """What is wrong with `record.cedar`; a project may do without, and then nobody may do anything to the record."""
    from remit.records.record_cedar import FILE as RECORD_FILE
    from remit.records.record_cedar import read_record_rules

    if not (folder / RECORD_FILE).exists():
        return []
    try:
        text = read_text(folder / RECORD_FILE, RECORD_FILE)
    except Unreadable as error:
        return [error.problem]
    _, found = read_record_rules(text, known)
    return [
        Problem(file=RECORD_FILE, line=each.line, message=each.message, suggestion=each.suggestion) for each in found
    ]


def project_tools(project: Project) -> Tools:
    """The specs of the tools that a project names, loaded from their modules. Raises `ConfigError`."""
    tools = all_tools(project)
    return {name: tool.spec for name, tool in tools.items()}


def _tools_are_named(document: Document, problems: list[Problem]) -> bool:
    """Whether the section that names the tools is sound; if not, loading them would only say so again."""
    lines = {line for path, line in document.lines.items() if path[:1] == ("tools",)}
    return not any(problem.line in lines for problem in errors(problems))


def _tool_problem(text: str, document: Document) -> Problem:
    found = _PLACE.match(text)
    if found is not None and found["file"].endswith(".py"):
        file, line, message = found["file"], int(found["line"] or 1), found["message"]
    else:
        file, line, message = document.file, document.line(("tools", "modules")), text
    message, _, hint = message.partition("; ")
    return Problem(file=file, line=line, message=message, suggestion=hint)


def _models(contract: Contract, subject: Subject) -> dict[str, ToolSpec]:
    """The specs of the contract's models, as far as policies depend on them: asking one is a call as well."""
    if not contract.models:
        return {}
    from remit.models.forms import input_schema

    prompts, kinds = subject.files.prompts, subject.known.models or {}
    granted = [action.tool for action in contract.actions]
    return {
        f"model:{name}": ToolSpec(
            name=f"model:{name}",
            description="a model",
            input_schema=input_schema(
                answer_kind(binding, kinds.get(binding.use, ""), prompts), prompts.get(binding.prompt or "", ""), granted
            ),
            output_schema={"type": "object"},
            effects=frozenset({Effect.READ, Effect.EGRESS}),
        )
        for name, binding in contract.models.items()
    }


def _policy_problems(folder: Path, found: ReadContract, tools: Tools | None) -> list[Problem]:
    """What is wrong with the policy and its tests, judged against the tools' schemas; nothing where one is not known."""
    # Cedar takes a while to import, and a contract that is wrong in itself does without.
    from remit.checking.policy_tests import policy_test_problems
    from remit.checking.rules_policy import facts_outlast_approvals, holds_name_roles_that_are_held
    from remit.policy.compile import check

    subject, policy = found.subject, found.files.policy
    contract = subject.for_policy()
    if contract is None or policy is None or tools is None or not subject.tools_are_known:
        return []
    home = subject.document.file.rpartition("/")[0]
    specs = {**tools, **_models(contract, subject)}
    checked = check(contract, specs, policy)
    # What the compiler has against the contract itself, the rules have said already, with a line.
    is_sound = not errors(found.problems)
    problems = [
        Problem(
            file=f"{home}/{POLICY_FILE}" if each.line else subject.document.file,
            line=each.line or 1,
            message=each.message,
            suggestion=each.suggestion,
        )
        for each in checked.problems
        if each.line or is_sound
    ]
    problems += holds_name_roles_that_are_held(subject, checked, f"{home}/{POLICY_FILE}")
    problems += facts_outlast_approvals(subject, contract, checked)
    tests = folder / POLICY_TESTS_FILE
    if tests.exists():
        problems += policy_test_problems(tests, f"{home}/{POLICY_TESTS_FILE}", contract, specs)
    return problems
