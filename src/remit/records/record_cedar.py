"""The text of `record.cedar`: its rules, and what is wrong with them by line, as `remit check` says it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from functools import cache
from typing import Any, Final

import cedarpy

from remit.contracts.problems import did_you_mean, quoted
from remit.contracts.subject import Known
from remit.policy.annotations import VARIABLES, PolicyProblem, Rule, read_rules
from remit.policy.cedar_schema import validated

FILE: Final = "record.cedar"
PERSON: Final = "Person"
ROLE: Final = "Role"
RUN: Final = "Run"
DUTIES: Final = "duties:"
"""How the ids of the rules begin that are always there."""


class Deed(StrEnum):
    """What can be done to the record."""

    REVEAL = "reveal"
    """See originals of what is redacted."""
    ERASE = "erase"
    """Destroy what a run said."""
    HOLD = "hold"
    """Keep runs from being erased, or let them go again."""
    EXPORT = "export"
    """Copy the record out."""
    UNDO = "undo"
    """Take back what a run did."""
    REPLAY = "replay"
    """Replay runs, or judge them by another policy."""


ALWAYS: Final = """
@id("duties:not-for-oneself")
@reason("the run acts for this person, so somebody else must do it")
forbid (principal, action in [Action::"reveal", Action::"erase"], resource)
when { resource has on_behalf_of && resource.on_behalf_of == principal };
"""
"""Separation of duties, whatever the file says."""

_TEXT: dict[str, Any] = {"type": "String"}
_RUN: dict[str, Any] = {
    "contract": _TEXT,
    "tenant": _TEXT,
    "region": _TEXT,
    "status": _TEXT,
    "on_behalf_of": {"type": "Entity", "name": PERSON, "required": False},
}
_CONTEXT: dict[str, Any] = {
    "classes": {"type": "Set", "element": _TEXT},
    "reason_given": {"type": "Boolean"},
}
_ATTRIBUTES = {"principal": (), "resource": tuple(_RUN), "context": tuple(_CONTEXT)}

_NO_ACTION = re.compile(r'unrecognized action `Action::"(.+)"`')
_NO_KIND = re.compile(r"unrecognized entity type `(.+)`")
_NOWHERE = "unable to find an applicable action"


@cache
def record_schema() -> cedarpy.Schema:
    """The types of people, runs and deeds."""
    applies: dict[str, Any] = {
        "principalTypes": [PERSON],
        "resourceTypes": [RUN],
        "context": {"type": "Record", "attributes": _CONTEXT},
    }
    types: dict[str, Any] = {
        ROLE: {},
        PERSON: {"memberOfTypes": [ROLE]},
        RUN: {"shape": {"type": "Record", "attributes": _RUN}},
    }
    actions: dict[str, Any] = {deed: {"appliesTo": applies} for deed in Deed}
    return cedarpy.Schema.from_json_str(json.dumps({"": {"entityTypes": types, "actions": actions}}))


def read_record_rules(text: str, known: Known) -> tuple[tuple[Rule, ...], tuple[PolicyProblem, ...]]:
    """The rules of a `record.cedar`, and everything that is wrong with it. `known`: who is declared in the project."""
    rules, unread = read_rules(text)
    problems = [*unread, *(problem for rule in rules for problem in _problems(rule, known))]
    return rules, tuple(sorted(dict.fromkeys(problems)))


def example(roles: Sequence[str]) -> str:
    """Two lines that let somebody do something, with a role that the project has."""
    role = roles[0] if roles else "records"
    return (
        f'@id("{role}-keeps-the-record")\n'
        f'permit (principal in Role::"{role}", action in [Action::"reveal", Action::"erase", Action::"hold"], resource);'
    )


def _problems(rule: Rule, known: Known) -> Iterator[PolicyProblem]:
    if rule.hold is not None:
        message = f"`@hold` asks a person about a call, and rule {quoted(rule.id)} is about the record; take it out"
        yield PolicyProblem(line=rule.line, message=message)
    if rule.id.startswith(DUTIES):
        message = f"id {quoted(rule.id)} begins like a rule that is always there; choose another"
        yield PolicyProblem(line=rule.line, message=message)
    yield from _unknown_attributes(rule)
    yield from _invalid(rule)
    yield from _unknown_names(rule, known)


def _unknown_attributes(rule: Rule) -> Iterator[PolicyProblem]:
    """What it reads that isn't there; Cedar lets it ask for that with `has`, in vain."""
    for variable in VARIABLES:
        reads = rule.reads(variable)
        for name in () if isinstance(reads, str) else reads:
            if name not in _ATTRIBUTES[variable]:
                yield PolicyProblem(
                    line=rule.statement.line_of((variable, name)),
                    message=f"{quoted(f'{variable}.{name}')} does not exist",
                    suggestion=did_you_mean(name, _ATTRIBUTES[variable], "there are"),
                )


def _invalid(rule: Rule) -> Iterator[PolicyProblem]:
    found = [error.error for error in validated(rule.statement.text, record_schema())]
    # Of an unknown name Cedar also says that it leads nowhere, which is worth saying only where it stands alone.
    for error in [error for error in found if _NOWHERE not in error] or found:
        if action := _NO_ACTION.search(error):
            yield PolicyProblem(
                line=rule.statement.line_of((action[1],)),
                message=f"action {quoted(action[1])} is not known",
                suggestion=did_you_mean(action[1], Deed, "actions"),
            )
        elif kind := _NO_KIND.search(error):
            yield PolicyProblem(
                line=rule.statement.line_of((kind[1],)),
                message=f"entity type {quoted(kind[1])} is not known",
                suggestion=did_you_mean(kind[1], (PERSON, ROLE, RUN), "there are"),
            )
        elif _NOWHERE in error:
            hint = f'write `principal in {ROLE}::"…"` or `principal == {PERSON}::"…"`, and `resource` for every run'
            message = f"rule {quoted(rule.id)} never applies: nobody is such a principal, or nothing such an object"
            yield PolicyProblem(line=rule.line, message=message, suggestion=hint)
        elif "optional attribute" in error:
            yield PolicyProblem(
                line=rule.statement.line_of(("resource", "on_behalf_of")),
                message="`resource.on_behalf_of` may be absent, and reading it then is an error",
                suggestion="ask first: `resource has on_behalf_of && …`",
            )
        elif "not found" not in error:
            yield PolicyProblem(line=rule.line, message=f"rule {quoted(rule.id)}: {error.partition('`, ')[2] or error}")


def _unknown_names(rule: Rule, known: Known) -> Iterator[PolicyProblem]:
    """People who are not declared, and roles that nobody holds."""
    tokens = rule.statement.tokens
    for kind, joint, name in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if joint.text != "::" or name.text[:1] != '"':
            continue
        text = name.text[1:-1]
        if kind.text == ROLE and known.roles is not None and text not in known.roles:
            hint = f"give it to somebody under `[people]` in `remit.toml`; {did_you_mean(text, known.roles, 'roles held')}"
            yield PolicyProblem(line=name.line, message=f"no person holds the role {quoted(text)}", suggestion=hint)
        elif kind.text == PERSON and known.people is not None and text not in known.people:
            hint = did_you_mean(text, known.people, "people there")
            message = f"person {quoted(text)} is not declared in `remit.toml`"
            yield PolicyProblem(line=name.line, message=message, suggestion=hint)
