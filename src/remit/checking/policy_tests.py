"""`policy_tests.yaml`: cases that a contract's policy must decide in a certain way, and how it decides them.

- name: no refund without a fraud check
  tool: payments.refund
  args: {order: 1182, amount: {amount: "84.00", currency: EUR}, account: DE02}
  resource: {id: "1182", attributes: {vip: false}}     # tenant and region are the contract's unless said otherwise
  labels: {account: [untrusted:mail.read]}             # an argument without labels is the model's own
  facts: {fraud_checked: false}                        # as after a run without calls unless said otherwise
  at: 2026-01-05T12:00:00Z
  on_behalf_of: person/anna
  expect: deny                                         # allow, deny, hold, undecided
  rule: refund-after-fraud-check                       # must be among those that decided it
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

import msgspec
from msgspec import field

from remit.contracts.document import Document, Unreadable, read_text
from remit.contracts.model import Base, Contract
from remit.contracts.problems import Problem, ProjectInvalid, did_you_mean, quoted
from remit.contracts.quantities import MICROUSD_PER_UNIT, amount
from remit.contracts.wording import check_shape
from remit.contracts.yaml_lines import parse_yaml
from remit.journal.redaction import Redactor
from remit.policy.compile import principal_of
from remit.policy.decision import (
    Forbidden,
    MustHold,
    Permitted,
    PolicyDecision,
    PolicyDecisionPoint,
    Undecided,
)
from remit.policy.facts import Facts
from remit.tools.schemas import nodes_at
from remit.tools.spec import Resource, ToolSpec
from remit.values import Json, ValueRefused, show_path

Expected = Literal["allow", "deny", "hold", "undecided"]

_NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
"""When a case happens that does not say it: a Monday."""
_WORDS: Mapping[type, Expected] = {Permitted: "allow", Forbidden: "deny", MustHold: "hold", Undecided: "undecided"}


class PolicyTestResource(Base, frozen=True, kw_only=True):
    """The object of a case."""

    id: str = "test"
    tenant: str | None = None
    region: str | None = None
    attributes: dict[str, str | int | bool] = field(default_factory=dict[str, "str | int | bool"])


class PolicyTest(Base, frozen=True, kw_only=True):
    """One case of the table."""

    name: str
    tool: str
    args: dict[str, Any] = field(default_factory=dict[str, Any])
    resource: PolicyTestResource = PolicyTestResource()
    labels: dict[str, str | list[str]] = field(default_factory=dict[str, "str | list[str]"])
    facts: dict[str, bool | int | str] = field(default_factory=dict[str, "bool | int | str"])
    at: str | None = None
    on_behalf_of: str | None = None
    expect: Expected
    rule: str | None = None


@dataclass(frozen=True, kw_only=True)
class PolicyTestResult:
    """How a case came out. `message` says what differs; it is empty where `passed`. `decided` is empty where nothing was."""

    name: str
    line: int
    passed: bool
    decided: Expected | Literal[""]
    rules: tuple[str, ...]
    message: str


def run_policy_tests(path: Path, policy: PolicyDecisionPoint, tools: Mapping[str, ToolSpec]) -> list[PolicyTestResult]:
    """Decide every case of the file. Raises `ProjectInvalid` where the file itself is wrong."""
    cases, problems = _load(path, path.name)
    if problems:
        raise ProjectInvalid(problems)
    return [_run(case, line, policy, tools) for case, line in cases]


def policy_test_problems(path: Path, file: str, contract: Contract, tools: Mapping[str, ToolSpec]) -> list[Problem]:
    """What is wrong with the file and with cases that can't be decided; `file` is what problems call it.

    Whether a case comes out as it should is for `run_policy_tests` to say.
    """
    cases, problems = _load(path, file)
    for case, line in cases:
        message = _malformed(case, contract, tools)
        if message:
            what, _, hint = message.partition("; ")
            message = f"case {quoted(case.name)}: {what}"
            problems.append(Problem(file=file, line=line, message=message, suggestion=hint))
    return problems


def _load(path: Path, file: str) -> tuple[list[tuple[PolicyTest, int]], list[Problem]]:
    """The cases of the file, each with its line; none where the file itself is wrong."""
    try:
        document = parse_yaml(read_text(path, file), file)
    except Unreadable as error:
        return [], [error.problem]
    cases, problems = _read(document)
    return [(case, document.line((number,))) for number, case in enumerate(cases)], problems


def _read(document: Document) -> tuple[list[PolicyTest], list[Problem]]:
    problems, value = list(document.problems), document.value
    if problems or not isinstance(value, list):
        return [], problems or [document.problem((), "the file is not a list of cases", "begin each with `- name: …`")]
    items = cast("list[Json]", value)
    parts = [_part(document, number, item) for number, item in enumerate(items)]
    problems = [problem for part in parts for problem in (*check_shape(part, PolicyTest), *_time_problems(part))]
    return ([] if problems else [msgspec.convert(item, PolicyTest) for item in items]), problems


def _part(document: Document, number: int, item: Json) -> Document:
    lines = {path[1:]: line for path, line in document.lines.items() if path[:1] == (number,)}
    return Document(file=document.file, value=item, lines=lines)


def _time_problems(part: Document) -> Iterator[Problem]:
    value = part.value
    at = cast("Mapping[str, Json]", value).get("at") if isinstance(value, dict) else None
    try:
        _at_us(at if isinstance(at, str) else None)
    except ValueError:
        yield part.problem(("at",), f"{quoted(at)} is not a time", "write it as in `2026-01-05T12:00:00Z`")


def _at_us(at: str | None) -> int:
    moment = _NOON if at is None else datetime.fromisoformat(at)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * 10**6 + moment.microsecond


def _malformed(case: PolicyTest, contract: Contract, tools: Mapping[str, ToolSpec]) -> str:
    """Why no such call can be decided; empty where it can."""
    spec = tools.get(case.tool)
    if spec is None:
        return f"tool {quoted(case.tool)} is not known; {did_you_mean(case.tool, tools, 'tools')}"
    error = next(iter(spec.input_validator.iter_errors(_numbers(case.args, spec))), None)
    if error is not None:
        place = quoted(show_path(tuple(error.instance_path)))
        return f"no such call gets as far as policy: {place}: {error.message}"
    unknown = [name for name in case.facts if name not in contract.facts]
    if unknown:
        hint = did_you_mean(unknown[0], contract.facts, "declared facts")
        return f"fact {quoted(unknown[0])} is not declared; {hint}"
    return ""


def _run(case: PolicyTest, line: int, policy: PolicyDecisionPoint, tools: Mapping[str, ToolSpec]) -> PolicyTestResult:
    malformed = _malformed(case, policy.contract, tools)
    if malformed:
        return _undone(case, line, malformed)
    spec = tools[case.tool]
    args = cast("dict[str, Json]", _numbers(case.args, spec))
    facts = _facts(case, spec, args, policy)
    try:
        decision = policy.decide(facts).decision
    except ValueRefused as refused:
        return _undone(case, line, f"no such call gets as far as a decision: {refused.message}")
    word, rules = _WORDS[type(decision)], () if isinstance(decision, Undecided) else decision.rules
    message = _difference(case, decision, rules, policy)
    return PolicyTestResult(name=case.name, line=line, passed=not message, decided=word, rules=rules, message=message)


def _undone(case: PolicyTest, line: int, message: str) -> PolicyTestResult:
    return PolicyTestResult(name=case.name, line=line, passed=False, decided="", rules=(), message=message)


def _difference(case: PolicyTest, decision: PolicyDecision, rules: Sequence[str], policy: PolicyDecisionPoint) -> str:
    word = _WORDS[type(decision)]
    match decision:
        case Permitted():
            why: Sequence[str] = ()
        case Undecided(errors=errors):
            why = errors
        case Forbidden(reasons=reasons) | MustHold(reasons=reasons):
            why = reasons
    by = f" by {', '.join(map(quoted, rules))}" if rules else ""
    because = f": {'; '.join(why)}" if why else ""
    if word != case.expect:
        return f"expected {case.expect}, decided {word}{by}{because}"
    if case.rule is None or case.rule in rules:
        return ""
    known = policy.rules(case.tool)
    hint = "" if case.rule in known else f"; {did_you_mean(case.rule, known, 'rules about this tool')}"
    return f"expected {word} by {quoted(case.rule)}, decided {word}{by}{because}{hint}"


def _facts(case: PolicyTest, spec: ToolSpec, args: Mapping[str, Json], policy: PolicyDecisionPoint) -> Facts:
    contract, at_us = policy.contract, _at_us(case.at)
    budget = contract.budget
    levels = [action.autonomy for action in contract.actions if action.tool == case.tool]
    labels = {path: (found,) if isinstance(found, str) else tuple(found) for path, found in case.labels.items()}
    return Facts(
        principal=principal_of(contract),
        tenant=contract.tenant or "",
        region=contract.region,
        contract=contract.contract,
        on_behalf_of=case.on_behalf_of,
        tool=case.tool,
        resource=Resource(
            kind=spec.resource_kind,
            id=case.resource.id,
            tenant=case.resource.tenant or contract.tenant or "",
            region=case.resource.region or contract.region,
            attributes=case.resource.attributes,
        ),
        args=args,
        fields=_written(spec, args),
        labels=labels,
        classes=tuple(sorted(Redactor(key=b"").redact(dict(args), spec.classes).kinds)),
        autonomy=levels[0] if levels else "auto",
        session={**policy.session(case.tool, (), args, at_us), **case.facts},
        budget_left={
            "calls": budget.calls,
            "writes": budget.writes,
            "spend_microusd": amount(budget.spend).units * MICROUSD_PER_UNIT,
        },
        attempt=1,
        run_calls=1,
        at_us=at_us,
    )


def _written(spec: ToolSpec, args: Mapping[str, Json]) -> tuple[str, ...]:
    found: Json = args if spec.written else {}
    for name in (spec.written or "").split("."):
        found = cast("Mapping[str, Json]", found).get(name) if isinstance(found, Mapping) else None
    return tuple(sorted(cast("Mapping[str, Json]", found))) if isinstance(found, Mapping) else ()


def _numbers(value: Json, spec: ToolSpec, path: str = "") -> Json:
    """The arguments with decimals as the numbers that the schema wants; the file reads `0.8` as text."""
    match value:
        case dict():
            items = cast("dict[str, Json]", value).items()
            return {name: _numbers(item, spec, f"{path}.{name}" if path else name) for name, item in items}
        case list():
            return [_numbers(item, spec, f"{path}.*") for item in cast("list[Json]", value)]
        case str():
            kinds = {node.get("type") for node in nodes_at(spec.input_schema, path)}
            try:
                return float(value) if "number" in kinds and "string" not in kinds else value
            except ValueError:
                return value
        case _:
            return value
