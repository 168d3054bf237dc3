"""The screen: the policies about one tool in the form in which Cedar answers fastest. What it allows, they allow.

Cedar takes time for each policy, each entity and each record within another one. So the hard forbids of one scope are one
policy here, and what is read of the call's object and of the records in its context lies side by side in the context.
Only what the screen does not allow, or can't evaluate, is put to the policies as they are written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import reduce
from typing import Any, cast

import cedarpy
from cedarpy import pst

from remit.policy.annotations import Rule
from remit.policy.facts import Reads
from remit.values import Json

_RECORDS = frozenset({"args", "facts", "from"})
"""Parts of the context that are records and, where they are read, always there."""
_CONTEXT = pst.Var("context")


class Screen:
    """Made of `rules`, which read `of_context`. `policies` are asked over `context`, without the object as an entity."""

    def __init__(self, rules: Sequence[Rule], of_context: Mapping[str, Reads]) -> None:
        # One that is read as a whole stays one.
        self._records = frozenset(name for name in _RECORDS if isinstance(of_context.get(name), Mapping))
        asked: dict[str, pst.Template] = {}
        hard: dict[tuple[Any, Any], list[Rule]] = {}
        for rule in rules:
            if rule.is_permit or rule.hold is not None:
                asked[rule.id] = as_asked(rule)
            else:
                hard.setdefault((rule.template.principal, rule.template.resource), []).append(rule)
        for alike in hard.values():
            # Each is about the action of the slice, whatever other ones it names. An id of theirs is nobody else's. That
            # their disjunction can be evaluated and is false says the same of each of them.
            clause = pst.When(_any_of([_condition(rule.template) for rule in alike]))
            asked[alike[0].id] = replace(alike[0].template, action=pst.ScopeAny(), clauses=(clause,))
        self.policies = policies({id_: self._laid_out(template) for id_, template in asked.items()})

    def context(self, context: Json, attributes: Mapping[str, Json]) -> dict[str, Json] | None:
        """The context with the attributes of the object; `None` if it is not of the form that the policies read."""
        parts = cast("dict[str, Json]", context) if isinstance(context, dict) else {}
        if not all(isinstance(parts.get(name), dict) for name in self._records):
            return None
        laid_out: dict[str, Json] = {f"resource.{name}": value for name, value in attributes.items()}
        for name, value in parts.items():
            if name in self._records:
                laid_out.update({f"{name}.{inner}": each for inner, each in value.items()})
            else:
                laid_out[name] = value
        return laid_out

    def _laid_out(self, node: Any) -> Any:
        """A part of a policy in which what lay in records is looked for in the context itself."""
        match node:
            case pst.GetAttr(base, name) if (record := self._record(base)) is not None:
                return pst.GetAttr(_CONTEXT, f"{record}.{name}")
            case pst.HasAttr(base, (name, *inner)) if (record := self._record(base)) is not None:
                return pst.HasAttr(_CONTEXT, (f"{record}.{name}", *inner))
            case pst.HasAttr(pst.Var("context"), (record, name, *inner)) if record in self._records:
                return pst.HasAttr(_CONTEXT, (f"{record}.{name}", *inner))
            case pst.Record(values):
                return pst.Record(pst.FrozenMap({name: self._laid_out(value) for name, value in values.items()}))
            case tuple():
                return tuple(self._laid_out(each) for each in cast("tuple[Any, ...]", node))
            case _ if is_dataclass(node) and not isinstance(node, type):
                return replace(node, **{each.name: self._laid_out(getattr(node, each.name)) for each in fields(node)})
            case _:
                return node

    def _record(self, base: pst.Expr) -> str | None:
        """The record that is laid out and that an expression stands for."""
        match base:
            case pst.Var("resource"):
                return "resource"
            case pst.GetAttr(pst.Var("context"), name) if name in self._records:
                return name
            case _:
                return None


def screen(rules: Sequence[Rule], of_context: Reads, of_resource: Reads) -> Screen | None:
    """The screen of a slice; `None` where there can be none.

    An object or a context that is read as a whole can't be laid out, and a rule that is nested as deeply as Cedar takes
    it can't be a part of another.
    """
    if isinstance(of_context, str) or isinstance(of_resource, str):
        return None
    try:
        return Screen(rules, of_context)
    except ValueError:
        return None


def as_asked(rule: Rule) -> pst.Template:
    """The rule as Cedar is given it: a hold stands beside the grants, where it can't hide them."""
    return rule.template if rule.hold is None else replace(rule.template, effect="permit")


def policies(templates: Mapping[str, pst.Template]) -> cedarpy.PolicySet:
    """A set whose policies go by their `@id`s, so that Cedar's answers name them; annotations would only be carried."""
    named = {id_: replace(template, id=id_, annotations={}) for id_, template in templates.items()}
    return cedarpy.PolicySet.from_pst(pst.PolicySet(templates={}, static_policies=named, template_links=()))


def _any_of(conditions: Sequence[pst.Expr]) -> pst.Expr:
    """`a || b || …`, nested as little as can be."""
    if len(conditions) == 1:
        return conditions[0]
    half = len(conditions) // 2
    return pst.BinaryOp("or", _any_of(conditions[:half]), _any_of(conditions[half:]))


def _condition(template: pst.Template) -> pst.Expr:
    """What must hold for a policy to fire within its scope."""
    parts: Iterable[pst.Expr] = (
        each.expr if isinstance(each, pst.When) else pst.UnaryOp("not", each.expr) for each in template.clauses
    )
    return reduce(lambda left, right: pst.BinaryOp("and", left, right), parts, pst.BoolLit(value=True))
