"""Rules about the actions that a contract grants."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from remit.contracts.files import WORKFLOW_FILE
from remit.contracts.model import Action, Autonomy
from remit.contracts.problems import Problem, did_you_mean, listed, quoted
from remit.contracts.quantities import amount
from remit.contracts.subject import Subject
from remit.tools.schemas import nodes_at
from remit.tools.spec import Effect, ToolSpec
from remit.values import Path

_ASKS: Final = frozenset({Autonomy.SUGGEST, Autonomy.APPROVE})
_CEDAR: Final[dict[type, str]] = {str: "String", int: "Long", bool: "Bool"}
_SPOKEN: Final = {"String": "text", "Long": "a whole number", "Bool": "`true` or `false`"}


def _each(subject: Subject) -> Iterator[tuple[Path, Action, ToolSpec | None]]:
    for at, action in enumerate(subject.actions):
        yield ("actions", at), action, subject.tool(action.tool)


def tool_is_known(subject: Subject) -> Iterator[Problem]:
    for path, action, spec in _each(subject):
        if subject.tools is not None and spec is None:
            hint = did_you_mean(action.tool, subject.tools, "tools in reach")
            if action.tool.startswith("model:"):
                hint = "models are granted under `models`, not under `actions`"
            yield subject.error((*path, "tool"), f"tool {quoted(action.tool)} is not known", hint)


def tool_is_granted_once(subject: Subject) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for path, action, _ in _each(subject):
        if action.tool in first:
            hint = f"the first one is on line {first[action.tool]}; keep one of them"
            yield subject.error((*path, "tool"), f"tool {quoted(action.tool)} is granted twice", hint)
        else:
            first[action.tool] = subject.document.line(subject.typed.origin((*path, "tool")))


def write_has_a_limit(subject: Subject) -> Iterator[Problem]:
    for path, action, spec in _each(subject):
        if spec is None or not spec.is_write or not subject.is_absent((*path, "limits")):
            continue
        yield subject.error(
            (*path, "tool"),
            f"tool {quoted(action.tool)} writes, and nothing limits it",
            "add `limits: {per_run: 1, per_hour: 40}` or what fits; also rows_per_…, money_per_…",
        )


def money_is_guarded(subject: Subject) -> Iterator[Problem]:
    for path, action, spec in _each(subject):
        if spec is None or Effect.MONEY not in spec.effects:
            continue
        if subject.is_absent((*path, "approval")) and subject.is_absent((*path, "verify")):
            yield subject.error(
                (*path, "tool"),
                f"tool {quoted(action.tool)} moves money, and nobody approves or verifies it",
                "add `approval: {by: role:…, within: 4h}` with `autonomy: approve`, or `verify: [rule:…]`",
            )


def limits_fit_the_tool(subject: Subject) -> Iterator[Problem]:
    """Amounts need a tool that moves money, and one currency for each action."""
    for path, action, spec in _each(subject):
        amounts = dict(_amounts(action))
        if amounts and spec is not None and spec.money is None:
            place = next(iter(amounts))
            hint = "take the amount out, or declare `money=…` at the tool"
            yield subject.error(
                (*path, *place), f"tool {quoted(action.tool)} moves no money that could be counted", hint
            )
        currencies = {place: amount(text).currency for place, text in amounts.items() if len(text) < 22}
        wanted = next(iter(currencies.values()), "")
        for place, currency in currencies.items():
            if currency != wanted:
                first = ".".join(next(iter(currencies)))
                yield subject.error(
                    (*path, *place),
                    f"{quoted('.'.join(place))} is in {currency}, {quoted(first)} in {wanted}",
                    "use one currency for one action",
                )


def _amounts(action: Action) -> Iterator[tuple[tuple[str, str], str]]:
    if action.approval is not None and action.approval.above is not None:
        yield ("approval", "above"), action.approval.above
    for name in action.limits.__struct_fields__:
        value = getattr(action.limits, name)
        if isinstance(value, str):
            yield ("limits", name), value


def autonomy_and_approval_agree(subject: Subject) -> Iterator[Problem]:
    """Whoever is asked is named; and `auto` beside an approval of every call says two things at once."""
    for path, action, _ in _each(subject):
        if action.autonomy in _ASKS and subject.is_absent((*path, "approval")):
            yield subject.error(
                (*path, "autonomy"),
                f"autonomy {quoted(action.autonomy.value)} asks a person, but nobody is named",
                "add `approval: {by: role:…, within: 4h}`",
            )
        says_auto = subject.raw((*subject.typed.origin(path), "autonomy")) == Autonomy.AUTO
        if says_auto and action.approval is not None and subject.is_absent((*path, "approval", "above")):
            yield subject.warning(
                (*path, "autonomy"),
                "autonomy `auto` has an approval, so every call waits for a person",
                "write `autonomy: approve`, or say from which amount on with `approval.above`",
            )


def approver_exists(subject: Subject) -> Iterator[Problem]:
    roles = subject.known.roles
    for path, action, _ in _each(subject):
        role = action.approval.by.removeprefix("role:") if action.approval else None
        if role is not None and roles is not None and role not in roles:
            hint = f"give it to somebody under `[people]` in `remit.toml`; {did_you_mean(role, roles, 'roles held')}"
            yield subject.error((*path, "approval", "by"), f"no person holds the role {quoted(role)}", hint)


def fields_are_named(subject: Subject) -> Iterator[Problem]:
    """A tool that writes fields is granted for fields, one by one."""
    for path, action, spec in _each(subject):
        if spec is None:
            continue
        given = action.only.fields
        if spec.written is None:
            if given:
                hint = "take `fields` out, or declare `written=…` at the tool"
                yield subject.error((*path, "only", "fields"), f"tool {quoted(action.tool)} writes no fields", hint)
            continue
        known = _written_fields(spec)
        if subject.is_absent((*path, "only", "fields")):
            hint = f"add `only: {{fields: […]}}`; fields: {listed(known)}"
            yield subject.error((*path, "tool"), f"tool {quoted(action.tool)} writes fields, and none is named", hint)
        for at, name in enumerate(given):
            if name not in known:
                yield subject.error(
                    (*path, "only", "fields", at),
                    f"tool {quoted(action.tool)} has no field {quoted(name)}",
                    did_you_mean(name, known, "fields"),
                )
            elif name in given[:at]:
                yield subject.error((*path, "only", "fields", at), f"field {quoted(name)} is named twice", "keep one")


def _written_fields(spec: ToolSpec) -> list[str]:
    nodes: list[Mapping[str, Any]] = [*nodes_at(spec.input_schema, spec.written or "")]
    return [name for node in nodes for name in node.get("properties", {})]


def attributes_exist(subject: Subject) -> Iterator[Problem]:
    for path, action, spec in _each(subject):
        for name, value in action.only.attributes.items() if spec is not None else ():
            assert spec is not None
            kind = spec.resource_attributes.get(name)
            place = (*path, "only", "attributes", name)
            if kind is None:
                what = f"what {quoted(action.tool)} acts upon has no attribute {quoted(name)}"
                yield subject.error(place, what, did_you_mean(name, spec.resource_attributes, "attributes"))
            elif _CEDAR[type(value)] != kind:
                shown = msgspec.json.encode(value).decode()
                what = f"attribute {quoted(name)} is {quoted(shown)}; it should be {_SPOKEN.get(kind, kind)}"
                yield subject.error(place, what, "write it without quotes" if kind != "String" else "put it in quotes")


def verifiers_exist(subject: Subject) -> Iterator[Problem]:
    workflow = subject.files.workflow
    unreadable = workflow is None and WORKFLOW_FILE in subject.files.digests
    functions = [name for name in workflow.functions if not name.startswith("__")] if workflow else []
    for path, action, _ in _each(subject):
        for at, verifier in enumerate(action.verify):
            kind, _, name = verifier.partition(":")
            place = (*path, "verify", at)
            if kind == "rule" and name:
                if name not in functions and not unreadable:
                    hint = did_you_mean(name, functions, f"functions of `{WORKFLOW_FILE}`")
                    yield subject.error(place, f"there is no function {quoted(name)} in `{WORKFLOW_FILE}`", hint)
            elif kind == "model" and name:
                if subject.is_absent(("models", name)):
                    hint = did_you_mean(name, subject.models, "models of this contract")
                    yield subject.error(place, f"model {quoted(name)} is not among this contract's models", hint)
            else:
                hint = "write it like `rule:amount_matches_order` or `model:second-opinion`"
                yield subject.error(place, f"verifier {quoted(verifier)} is neither a rule nor a model", hint)


ACTION_RULES: Final[tuple[Callable[[Subject], Iterable[Problem]], ...]] = (
    tool_is_known,
    tool_is_granted_once,
    write_has_a_limit,
    money_is_guarded,
    limits_fit_the_tool,
    autonomy_and_approval_agree,
    approver_exists,
    fields_are_named,
    attributes_exist,
    verifiers_exist,
)
