"""Rules about facts: what a contract asks of the run's own record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from remit.contracts.model import Fact
from remit.contracts.problems import Problem, did_you_mean, listed, quoted
from remit.contracts.subject import Subject
from remit.tools.schemas import nodes_at
from remit.values import Path

KINDS: Final = ("seen", "count", "sum", "last")
OUTCOMES: Final = ("completed", "denied", "rejected", "held", "failed", "unknown", "any")
_SCALARS: Final = frozenset({"string", "integer", "number", "boolean"})


def facts_refer_to_calls(subject: Subject) -> Iterator[Problem]:
    """Every fact names one tool that is there, and paths that its schemas have."""
    for name, fact in subject.facts.items():
        path: Path = ("facts", name)
        if not name.isidentifier() or not name.isascii():
            hint = "write it in letters, digits and underscores, as policies read it: `context.facts.<name>`"
            yield subject.error(path, f"{quoted(name)} can't be the name of a fact", hint)
        kinds = [kind for kind in KINDS if not subject.is_absent((*path, kind))]
        if len(kinds) != 1:
            held = f"has {' and '.join(quoted(kind) for kind in kinds)}" if kinds else "asks for nothing"
            hint = f"name the tool under exactly one of {listed(KINDS)}"
            yield subject.error(path, f"fact {quoted(name)} {held}", hint)
            continue
        yield from _outcome(subject, path, fact)
        tool = getattr(fact, kinds[0])
        if tool is not None:
            yield from _tool(subject, path, kinds[0], tool)
            yield from _of(subject, path, kinds[0], fact)
            yield from _where(subject, path, tool, fact)


def _outcome(subject: Subject, path: Path, fact: Fact) -> Iterator[Problem]:
    if fact.outcome not in OUTCOMES:
        hint = did_you_mean(fact.outcome, OUTCOMES, "outcomes")
        yield subject.error((*path, "outcome"), f"{quoted(fact.outcome)} is no outcome of a call", hint)


def _tool(subject: Subject, path: Path, kind: str, tool: str) -> Iterator[Problem]:
    is_model = tool.startswith("model:")
    known = [f"model:{name}" for name in subject.models] if is_model else subject.tools
    if known is None:
        return
    if tool not in known:
        hint = did_you_mean(tool, known, "models of this contract" if is_model else "tools in reach")
        yield subject.error((*path, kind), f"tool {quoted(tool)} is not known", hint)
    elif not is_model and all(action.tool != tool for action in subject.actions):
        hint = "grant it under `actions`, or take the fact out"
        yield subject.warning(
            (*path, kind), f"tool {quoted(tool)} is not granted, so no call of it is ever on record", hint
        )


def _of(subject: Subject, path: Path, kind: str, fact: Fact) -> Iterator[Problem]:
    if kind in ("seen", "count"):
        if fact.of is not None:
            yield subject.error((*path, "of"), f"{quoted(kind)} asks about calls, not about a value", "take `of` out")
        return
    if subject.is_absent((*path, "of")):
        yield subject.error(
            path, f"{quoted(kind)} needs a value to look at", "add `of: args.<path>` or `of: result.<path>`"
        )
        return
    root, _, inner = (fact.of or "").partition(".")
    if fact.of is None:
        return
    if root not in ("args", "result") or not inner:
        hint = "write it like `args.amount` or `result.total`"
        yield subject.error((*path, "of"), f"{quoted(fact.of)} is no path into a call", hint)
        return
    spec = subject.tool(getattr(fact, kind))
    if spec is None:
        return
    schema = spec.input_schema if root == "args" else spec.output_schema
    nodes = nodes_at(schema, inner)
    if not nodes:
        what = "arguments" if root == "args" else "results"
        known = [f"{root}.{name}" for name in _paths(schema)]
        hint = did_you_mean(fact.of, known, what)
        yield subject.error((*path, "of"), f"tool {quoted(spec.name)} has no {quoted(fact.of)}", hint)
    elif kind == "sum" and not any(_adds_up(node) for node in nodes):
        hint = "sum whole numbers, exact decimals or money"
        yield subject.error((*path, "of"), f"{quoted(fact.of)} is nothing that adds up", hint)
    elif kind == "sum" and any(_is_money(node) for node in nodes_at(schema, inner.rpartition(".")[0])):
        hint = f"sum {quoted(fact.of.rpartition('.')[0])}, so that currencies stay apart"
        yield subject.error((*path, "of"), f"{quoted(fact.of)} is a part of money", hint)
    elif kind == "last" and not any(node.get("type") in _SCALARS for node in nodes):
        yield subject.error(
            (*path, "of"), f"{quoted(fact.of)} is no single value", "name a text, a number or a truth value"
        )


def _adds_up(node: Mapping[str, Any]) -> bool:
    return _is_money(node) or node.get("type") in ("integer", "number") or node.get("format") == "decimal"


def _is_money(node: Mapping[str, Any]) -> bool:
    return {"amount", "currency"} <= set(node.get("properties", {}))


def _where(subject: Subject, path: Path, tool: str, fact: Fact) -> Iterator[Problem]:
    spec = subject.tool(tool)
    granted = [found for action in subject.actions if (found := subject.tool(action.tool)) is not None]
    for earlier, present in fact.where.items():
        place = (*path, "where", earlier)
        if spec is not None and not nodes_at(spec.input_schema, earlier):
            hint = did_you_mean(earlier, _paths(spec.input_schema), "arguments")
            yield subject.error(place, f"tool {quoted(tool)} has no argument {quoted(earlier)}", hint)
        inner = present.removeprefix("args.")
        if granted and not any(nodes_at(each.input_schema, inner) for each in granted):
            names = {f"args.{name}" for each in granted for name in _paths(each.input_schema)}
            hint = did_you_mean(present, names, "arguments of the granted tools")
            yield subject.error(place, f"no granted tool has {quoted(present)}", hint)


def _paths(schema: Mapping[str, Any], depth: int = 3) -> list[str]:
    """The dotted paths of a schema's named values, for suggestions."""
    found: list[str] = []
    for name, child in schema.get("properties", {}).items():
        found.append(name)
        if depth and isinstance(child, Mapping):
            inner = _paths(cast("Mapping[str, Any]", child), depth - 1)
            found.extend(f"{name}.{rest}" for rest in inner)
    return found
