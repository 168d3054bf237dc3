"""What a Cedar file says: its rules one by one, each with its line, its terms, and what it reads.

    @id("…")        names a rule; every rule has one and no two share it
    @reason("…")    what the agent and the operator read when it fires
    @hold("role:…") on a `forbid`: a person of that role must approve, instead of no
    @within("4h")   how long that question stands

Cedar's parser reports an error without its place. So the text is cut into statements, each parsed for itself, and
the place is found by asking for how many tokens a statement is still the beginning of something valid.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import cedarpy
from cedarpy import pst

from remit.contracts.problems import did_you_mean, quoted
from remit.contracts.quantities import duration_ms
from remit.policy.facts import WHOLE, Reads, joined

VARIABLES: tuple[pst.VarName, ...] = ("context", "principal", "resource")
"""What has attributes that a policy may read."""

RESERVED = ("grant:", "autonomy:")
"""Beginnings of the ids that compiled rules have."""

_KNOWN = ("id", "reason", "hold", "within")
_ROLE = re.compile(r"role:[a-z][a-z0-9-]*", re.ASCII)
_TOKEN = re.compile(r'\s+|//[^\n\r]*|"(?:[^"\\]|\\.)*"|[A-Za-z_]\w*|[0-9]+|::|&&|\|\||[=!<>]=|.', re.DOTALL)
_NAMED = re.compile(r"[`'](.+?)[`']|: (\w+)$")
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
_MAX_DEPTH, _MAX_CHAINED = 64, 2_000
_UNFINISHED = "unexpected end of input"


@dataclass(frozen=True, kw_only=True, order=True)
class PolicyProblem:
    """One thing that is wrong with `policy.cedar`; `line` counts from 1 and is 0 where the contract is at fault."""

    line: int
    message: str
    suggestion: str = ""


@dataclass(frozen=True, kw_only=True)
class Token:
    """A word of Cedar; `start` and `end` are positions in the file."""

    text: str
    start: int
    end: int
    line: int


@dataclass(frozen=True, kw_only=True)
class PolicyText:
    """One policy as it is written, up to and with its semicolon."""

    text: str
    tokens: tuple[Token, ...]

    @property
    def line(self) -> int:
        return self.tokens[0].line

    @property
    def is_bounded(self) -> bool:
        """Whether Cedar's parser can take it: it recurses, and where its stack ends the whole process does."""
        depth = deepest = 0
        for token in self.tokens:
            depth += (token.text in _OPENING) - (token.text in _CLOSING)
            deepest = max(deepest, depth)
        chained = sum(token.text != "," and token.text[0] != '"' for token in self.tokens)
        return deepest <= _MAX_DEPTH and chained <= _MAX_CHAINED

    def line_of(self, path: Sequence[str]) -> int:
        """Where a path such as `("context", "args", "amount")` stands first; the first line if it does not."""
        words = [token for token in self.tokens if token.text not in (".", "[", "]", "has")]
        for at in range(len(words) - len(path) + 1):
            if all(w.text in (p, f'"{p}"') for w, p in zip(words[at:], path, strict=False)):
                return words[at + len(path) - 1].line
        return self.line


@dataclass(frozen=True, kw_only=True)
class HoldTerms:
    """Who is asked, and for how long; `None` where the contract says that."""

    role: str
    within_ms: int | None


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One policy, parsed. `reason` may be empty."""

    id: str
    statement: PolicyText
    template: pst.Template
    hold: HoldTerms | None
    reason: str

    @property
    def line(self) -> int:
        return self.statement.line

    @property
    def is_permit(self) -> bool:
        return self.template.effect == "permit"

    @cached_property
    def actions(self) -> frozenset[str] | None:
        """The tools whose calls the rule is about; `None` for all. There are no groups of actions."""
        match self.template.action:
            case pst.ScopeAny():
                return None
            case pst.ActionEq(entity):
                return frozenset({entity.id})
            case pst.ActionIn(entities):
                return frozenset(entity.id for entity in entities)

    def is_about(self, tool: str) -> bool:
        """Whether the rule can fire on a call of `tool`."""
        return self.actions is None or tool in self.actions

    def reads(self, variable: pst.VarName) -> Reads:
        """What it reads of `context`, `resource` or `principal`; more rather than less where it can't be told."""
        found: Reads = {}
        for clause in self.template.clauses:
            found = joined(found, _reads(clause.expr, variable))
        return found

    @cached_property
    def needs(self) -> frozenset[str]:
        """The facts that must stay so: a rule that needs one can come to fire when it is no longer told.

        Facts themselves are followed, whether they are there, and whether they are large enough; what else a rule makes
        of a fact is left out.
        """
        clauses = self.template.clauses
        found = [_needed(clause.expr, wanted=isinstance(clause, pst.Unless)) for clause in clauses]
        return frozenset[str]().union(*found)


def read_rules(text: str) -> tuple[tuple[Rule, ...], tuple[PolicyProblem, ...]]:
    """The rules of a Cedar file, and what is wrong with those that are not among them."""
    rules: list[Rule] = []
    problems: list[PolicyProblem] = []
    lines: dict[str, int] = {}
    for statement in statements(text):
        if not statement.is_bounded:
            message = "the policy is too long or nested too deeply; split it into several"
            problems.append(PolicyProblem(line=statement.line, message=message))
            continue
        try:
            parsed = cedarpy.policies_to_pst(statement.text)
        except ValueError as error:
            problems.append(_unparsed(statement, str(error)))
            continue
        rule, wrong = _rule(statement, parsed)
        if rule is not None and rule.id in lines:
            wrong.append(f"id {quoted(rule.id)} is used on line {lines[rule.id]} already; every rule has its own")
        elif rule is not None:
            lines[rule.id] = rule.line
            rules.append(rule)
        problems += [PolicyProblem(line=statement.line, message=each) for each in wrong]
    return tuple(rules), tuple(problems)


def user_problems(rules: Sequence[Rule]) -> Iterator[PolicyProblem]:
    """What a contract's own file may not say, although it is valid Cedar."""
    for rule in rules:
        if rule.is_permit:
            yield PolicyProblem(
                line=rule.line,
                message=f"rule {quoted(rule.id)} is a `permit`; only the contract grants",
                suggestion="add an action to the contract's `actions`, or make it a `forbid`",
            )
        if rule.id.startswith(RESERVED):
            yield PolicyProblem(
                line=rule.line,
                message=f"id {quoted(rule.id)} begins like one of the contract's own rules; choose another",
            )


# The text


def statements(text: str) -> Iterator[PolicyText]:
    """Cut a Cedar file into its policies. Semicolons stand nowhere else, but in texts and comments."""
    tokens: list[Token] = []
    line = 1
    for match in _TOKEN.finditer(text):
        word = match[0]
        if not word.isspace() and not word.startswith("//"):
            tokens.append(Token(text=word, start=match.start(), end=match.end(), line=line))
        line += word.count("\n")
        if word == ";":
            yield _statement(text, tokens)
            tokens = []
    if tokens:
        yield _statement(text, tokens)


def _statement(text: str, tokens: list[Token]) -> PolicyText:
    return PolicyText(text=text[tokens[0].start : tokens[-1].end], tokens=tuple(tokens))


def _unparsed(statement: PolicyText, message: str) -> PolicyProblem:
    """The problem that Cedar's parser has, at the token that it is about."""
    if message == _UNFINISHED:
        last = statement.tokens[-1]
        return PolicyProblem(
            line=last.line,
            message=f"the policy that begins on line {statement.line} is not finished",
            suggestion="a policy ends with `;`, and every bracket is closed",
        )
    tokens = statement.tokens
    # One more token than Cedar needs to know is the last that can be the culprit.
    reached = bisect_left(tokens, 1, key=lambda token: int(_is_broken(statement, token)))
    named = _NAMED.search(message)
    name = (named[1] or named[2]) if named else ""
    culprits = [token for token in tokens[: reached + 1] if token.text == name]
    place = culprits[-1] if culprits else tokens[min(reached, len(tokens) - 1)]
    is_placed = bool(culprits) or "token" in message
    return PolicyProblem(line=place.line if is_placed else statement.line, message=f"not valid Cedar: {message}")


def _is_broken(statement: PolicyText, last: Token) -> bool:
    """Whether the statement up to and with `last` can't be the beginning of a valid one."""
    try:
        cedarpy.PolicySet.from_str(statement.text[: last.end - statement.tokens[0].start])
    except ValueError as error:
        return str(error) != _UNFINISHED
    return False


# The annotations


def _rule(statement: PolicyText, parsed: pst.PolicySet) -> tuple[Rule | None, list[str]]:
    if parsed.templates:
        return None, ["a policy with `?principal` or `?resource` is never filled in; name the entity"]
    (template,) = parsed.static_policies.values()
    noted = template.annotations
    wrong = [f"`@{n}` means nothing here; {did_you_mean(n, _KNOWN, 'annotations')}" for n in noted if n not in _KNOWN]
    if not noted.get("id"):
        wrong.append('the rule has no `@id("…")`; give it a name that a reader of a decision understands')
    hold, wrong_hold = _hold(template)
    wrong += wrong_hold
    if wrong:
        return None, wrong
    reason = noted.get("reason", "")
    return Rule(id=noted["id"], statement=statement, template=template, hold=hold, reason=reason), []


def _hold(template: pst.Template) -> tuple[HoldTerms | None, list[str]]:
    role, within = template.annotations.get("hold"), template.annotations.get("within")
    if role is None:
        return None, ["`@within` says how long a question stands; it goes with `@hold`"] if within is not None else []
    wrong: list[str] = []
    if template.effect != "forbid":
        wrong.append("`@hold` turns a `forbid` into a question; it can't stand on a `permit`")
    if not _ROLE.fullmatch(role):
        wrong.append(f'`@hold` names {quoted(role)}; write a role, as in `@hold("role:it-lead")`')
    try:
        within_ms = None if within is None else duration_ms(within)
    except ValueError:
        return None, [*wrong, f'`@within` says {quoted(within)}; write a duration, as in `@within("4h")`']
    if within_ms == 0:
        wrong.append('`@within` leaves no time to answer; write a duration, as in `@within("4h")`')
    return HoldTerms(role=role, within_ms=within_ms), wrong


# What a rule reads


def _reads(expr: pst.Expr, variable: pst.VarName) -> Reads:
    """What an expression reads of a variable: by attributes where it goes down by name, all of it otherwise."""
    path = path_of(expr, variable)
    if path is not None:
        return _branch(path)
    found: Reads = {}
    for part in parts_of(expr):
        found = joined(found, _reads(part, variable))
    return found


def _branch(path: tuple[str, ...]) -> Reads:
    return {path[0]: _branch(path[1:])} if path else WHOLE


def path_of(expr: pst.Expr, variable: pst.VarName) -> tuple[str, ...] | None:
    """`context.args.amount` as `("args", "amount")`; `None` for what is no such path of the variable."""
    match expr:
        case pst.Var(name):
            return () if name == variable else None
        case pst.GetAttr(base, attr):
            above = path_of(base, variable)
            return None if above is None else (*above, attr)
        case pst.HasAttr(base, attrs):
            above = path_of(base, variable)
            return None if above is None else (*above, *attrs)
        case _:
            return None


def parts_of(expr: pst.Expr) -> tuple[pst.Expr, ...]:
    match expr:
        case pst.UnaryOp(_, arg):
            return (arg,)
        case pst.BinaryOp(_, left, right):
            return (left, right)
        case pst.GetAttr(base, _) | pst.HasAttr(base, _) | pst.Like(base, _):
            return (base,)
        case pst.Is(base, _, inside):
            return (base,) if inside is None else (base, inside)
        case pst.IfThenElse(condition, yes, no):
            return (condition, yes, no)
        case pst.Set(elements):
            return elements
        case pst.Record(fields):
            return tuple(fields.values())
        case pst.Var() | pst.Slot() | pst.BoolLit() | pst.LongLit() | pst.StringLit() | pst.EntityLit():
            return ()


# What a rule needs

_FALLS: Mapping[str, bool] = {
    **dict.fromkeys(("greater", "greater_eq", "decimal_greater", "decimal_greater_eq"), True),
    **dict.fromkeys(("less", "less_eq", "decimal_less_than", "decimal_less_eq"), False),
}
"""Comparisons, and whether it is their left side that must not fall."""


def _needed(expr: pst.Expr, *, wanted: bool) -> frozenset[str]:
    """The facts without which an expression can't stay as it is wanted, true or false."""
    match expr:
        case pst.UnaryOp("not", arg):
            return _needed(arg, wanted=not wanted)
        case pst.BinaryOp("and" | "or", left, right) | pst.IfThenElse(_, left, right):
            return _needed(left, wanted=wanted) | _needed(right, wanted=wanted)
        case pst.BinaryOp("eq", left, pst.BoolLit(value)):
            return _needed(left, wanted=wanted is value)
        case pst.BinaryOp(op, left, right) if op in _FALLS:
            return _needed(left if _FALLS[op] is wanted else right, wanted=True)
        case _:
            path = path_of(expr, "context")
            return frozenset({path[1]}) if wanted and path and len(path) == 2 and path[0] == "facts" else frozenset()
