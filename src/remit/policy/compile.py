"""A contract's actions as Cedar: what it grants, where a person is asked; and its whole policy, type-checked.

Each action becomes one `permit`, and one `forbid` beside it where it does not go by itself: hard at autonomy
`observe`, a hold at `suggest` and `approve`. An approval that is written down is asked for at `auto` too: never
with less care than what stands there. Each demand of a grant is one expression with its meaning in words, so
that a denial can say which of them failed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from remit.contracts.model import Action, Approval, Autonomy, Contract
from remit.contracts.problems import did_you_mean, listed, quoted
from remit.contracts.quantities import amount, duration_ms, units_text
from remit.errors import ConfigError
from remit.policy.annotations import VARIABLES, PolicyProblem, Rule, read_rules, user_problems
from remit.policy.cedar_schema import (
    AGENT,
    ATTRIBUTE_WORDS,
    BOOL,
    LONG,
    MONEY,
    STRING,
    ActionType,
    CedarType,
    ContractTypes,
    Record,
    contract_types,
    validated,
)
from remit.policy.facts import Reads
from remit.tools.spec import ToolSpec

USUAL_WITHIN_MS = 4 * 3_600_000
"""How long the question of a hold stands where neither the rule nor the contract says it."""

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_Path = tuple[str, ...]
_KEYWORDS = frozenset({"if", "then", "else", "in", "is", "like", "has", "true", "false", "__cedar"})
_VALUES: Mapping[type, CedarType] = {str: STRING, int: LONG, bool: BOOL}


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One condition of a grant: as Cedar, in words that complete "only where …", and what it is about.

    `subject` is a path such as `("resource", "region")`, for saying how it is instead.
    """

    cedar: str
    words: str
    subject: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Granted:
    """One action with its tool and types; `text` is its policies in Cedar, each with a comment."""

    action: Action
    spec: ToolSpec
    type: ActionType
    demands: tuple[Condition, ...]
    text: str


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """A contract in Cedar, by tool."""

    types: ContractTypes
    actions: Mapping[str, Granted]

    def acting_on(self, kind: str) -> list[str]:
        """The tools whose calls have an object, or a principal, of that kind."""
        return [tool for tool, granted in self.actions.items() if kind in (AGENT, granted.spec.resource_kind)]

    def root(self, tool: str, variable: str) -> Record:
        """What `context`, `resource` or `principal` is in a call of `tool`."""
        granted = self.actions[tool]
        if variable == "context":
            return granted.type.context
        return self.types.entities[AGENT if variable == "principal" else granted.spec.resource_kind]

    @property
    def text(self) -> str:
        """All of it, as `remit policy show` prints it."""
        return "\n".join(granted.text for granted in self.actions.values())


def compile_contract(contract: Contract, tools: Mapping[str, ToolSpec]) -> Compiled:
    """Compile a contract over the tools that it may name. Raises `ConfigError`, one problem a line."""
    problems: list[str] = []
    actions: dict[str, Action] = {}
    for action in _actions(contract, tools):
        if action.tool not in tools:
            hint = did_you_mean(action.tool, tools, "tools in reach")
            problems.append(f"tool {quoted(action.tool)} is not known; {hint}")
        elif action.tool in actions:
            problems.append(f"tool `{action.tool}` is granted twice; make it one action")
        else:
            actions[action.tool] = action
    types = contract_types(contract, [tools[name] for name in actions], tools)
    granted: dict[str, Granted] = {}
    for name, action in actions.items():
        try:
            granted[name] = _compile(contract, action, tools[name], types.actions[name])
        except (ConfigError, ValueError) as error:
            problems.append(f"action `{name}`: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    return Compiled(types=types, actions=granted)


def _actions(contract: Contract, tools: Mapping[str, ToolSpec]) -> Iterator[Action]:
    """The actions of a contract and its models: asking one is a call of `model:<name>`."""
    yield from contract.actions
    yield from (Action(tool=f"model:{name}") for name in contract.models if f"model:{name}" in tools)


def principal_of(contract: Contract) -> str:
    """The id of the contract's service principal, `agent/<tenant>/<contract>`. Raises `ConfigError`."""
    if not contract.tenant:
        raise ConfigError(f"contract `{contract.contract}` has no tenant; load it with its project")
    return f"agent/{contract.tenant}/{contract.contract}"


def _compile(contract: Contract, action: Action, spec: ToolSpec, type_: ActionType) -> Granted:
    demands = _demands(contract, action, spec)
    origin = f"contract {contract.contract}, action {action.tool}"
    head = f"""permit (
  principal == {_entity(AGENT, principal_of(contract))},
  action == {_entity("Action", action.tool)},
  resource is {spec.resource_kind}
)
when"""
    grant = _policy(
        f"{origin}: granted only where {' and '.join(demand.words for demand in demands)}",
        {"id": f"grant:{action.tool}"},
        head,
        [demand.cedar for demand in demands],
    )
    texts = [grant, *_autonomy(origin, action, spec, type_)]
    return Granted(action=action, spec=spec, type=type_, demands=demands, text="\n".join(texts))


# The grant


def _demands(contract: Contract, action: Action, spec: ToolSpec) -> tuple[Condition, ...]:
    only, tenant = action.only, contract.tenant or ""
    if only.tenant not in (None, tenant):
        raise ConfigError(f"tenant {quoted(only.tenant)} is not the contract's own, {quoted(tenant)}")
    demands = [
        Condition(
            cedar=f"resource.tenant == {literal(tenant)}",
            words=f"the object's tenant is {quoted(tenant)}",
            subject=("resource", "tenant"),
        )
    ]
    if only.region:
        demands.append(
            Condition(
                cedar=f"resource has region && {_texts(only.region)}.contains(resource.region)",
                words=f"the object's region is one of {listed(only.region)}",
                subject=("resource", "region"),
            )
        )
    demands += [_attribute(name, value, spec) for name, value in only.attributes.items()]
    if bool(only.fields) != (spec.written is not None):
        raise ConfigError("`only.fields` goes with tools that write fields, and these can't do without it")
    if only.fields:
        demands.append(
            Condition(
                cedar=f"{_texts(only.fields)}.containsAll(context.fields)",
                words=f"the fields written are among {listed(only.fields)}",
                subject=("context", "fields"),
            )
        )
    return tuple(demands)


def _attribute(name: str, value: str | int, spec: ToolSpec) -> Condition:
    type_ = ATTRIBUTE_WORDS.get(spec.resource_attributes.get(name, ""))
    if type_ is None or type_ != _VALUES[type(value)]:
        hint = did_you_mean(name, spec.resource_attributes, "attributes")
        raise ConfigError(f"`only.attributes` asks {quoted(name)} to be {quoted(value)}, which can't be; {hint}")
    asked, read = _has("resource", name), _member("resource", name)
    written = literal(value) if isinstance(value, str) else str(value).lower()
    return Condition(
        cedar=f"{asked} && {read} == {written}",
        words=f"the object's {name} is {quoted(value if isinstance(value, str) else written)}",
        subject=("resource", name),
    )


# Where a person is asked


def _autonomy(origin: str, action: Action, spec: ToolSpec, type_: ActionType) -> list[str]:
    level, approval = action.autonomy, action.approval
    comment = f"{origin}: autonomy {level}"
    noted = {"id": f"autonomy:{action.tool}"}
    head = f"forbid (principal, action == {_entity('Action', action.tool)}, resource)"
    if level is Autonomy.OBSERVE:
        reason = "the action is only observed: decided and recorded, never carried out"
        return [_policy(comment, {**noted, "reason": reason}, head)]
    if approval is None and level is Autonomy.AUTO:
        return []
    if approval is None:
        raise ConfigError(f"autonomy `{level}` needs `approval`; say who approves and within what time")
    if duration_ms(approval.within) == 0:
        raise ConfigError("`approval.within` leaves no time to answer")
    by = approval.by.removeprefix("role:")
    noted |= {"hold": approval.by, "within": approval.within}
    comment += f", approval by {by} within {approval.within}"
    if level is Autonomy.SUGGEST or approval.above is None:
        what = "a suggestion" if level is Autonomy.SUGGEST else "each call"
        return [_policy(comment, {**noted, "reason": f"{what} needs approval by {by}"}, head)]
    noted["reason"] = f"all but amounts up to {approval.above} need approval by {by}"
    conditions = _within_threshold(approval, spec, type_)
    return [_policy(f"{comment}, above {approval.above}", noted, f"{head}\nunless", conditions)]


def _within_threshold(approval: Approval, spec: ToolSpec, type_: ActionType) -> list[str]:
    """What lets the money pass unasked: it is there, of that currency, from zero to the threshold."""
    if spec.money is None or approval.above is None:
        raise ConfigError(f"`approval.above` goes with tools that move money, which `{spec.name}` does not")
    threshold = amount(approval.above)
    guards: list[str] = []
    place: str = "context.args"
    found: CedarType = type_.args
    for name in spec.money.split("."):
        if not isinstance(found, Record) or name not in found.attributes:
            break
        if not found.attributes[name].required:
            guards.append(_has(place, name))
        place, found = _member(place, name), found.attributes[name].type
    if found != MONEY:
        raise ConfigError(f"`{spec.money}` of `{spec.name}` is not an amount with its currency")
    return [
        *guards,
        f"{place}.currency == {literal(threshold.currency)}",
        f'{place}.amount.greaterThanOrEqual(decimal("{units_text(0)}"))',
        f'{place}.amount.lessThanOrEqual(decimal("{units_text(threshold.units)}"))',
    ]


# Cedar's notation


def _policy(comment: str, annotations: Mapping[str, str], head: str, conditions: Sequence[str] = ()) -> str:
    said = "".join(c if c.isprintable() else " " for c in comment)
    noted = "\n".join(f"@{name}({literal(value)})" for name, value in annotations.items())
    body = " {\n  " + " &&\n  ".join(conditions) + "\n}" if conditions else ""
    return f"// {said}\n{noted}\n{head}{body};\n"


def literal(value: str) -> str:
    """A string literal of Cedar; whatever is not plainly printable is escaped, so that nothing can leave it."""
    plain = (c if c.isprintable() and c not in '"\\' else f"\\u{{{ord(c):x}}}" for c in value)
    return f'"{"".join(plain)}"'


def _texts(values: Sequence[str]) -> str:
    return f"[{', '.join(literal(value) for value in values)}]"


def _entity(type_: str, id_: str) -> str:
    return f"{type_}::{literal(id_)}"


def _is_word(name: str) -> bool:
    return _IDENTIFIER.fullmatch(name) is not None and name not in _KEYWORDS


def _member(base: str, name: str) -> str:
    return f"{base}.{name}" if _is_word(name) else f"{base}[{literal(name)}]"


def _has(base: str, name: str) -> str:
    return f"{base} has {name if _is_word(name) else literal(name)}"


# Everything that is wrong


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A contract's policy: its actions compiled, all of its rules, those of its own file, and what is wrong with them."""

    compiled: Compiled | None
    rules: tuple[Rule, ...]
    own: tuple[Rule, ...]
    problems: tuple[PolicyProblem, ...]


def check(contract: Contract, tools: Mapping[str, ToolSpec], policy_text: str) -> Checked:
    """Compile and type-check a contract with its `policy.cedar`. Raises nothing: see `problems`."""
    own, unread = read_rules(policy_text)
    found = [*unread, *user_problems(own)]
    try:
        compiled = compile_contract(contract, tools)
        made, unmade = read_rules(compiled.text)
        found += _type_problems(own, compiled)
        found += [replace(problem, line=0) for problem in (*unmade, *_type_problems(made, compiled))]
    except ConfigError as error:
        found += [PolicyProblem(line=0, message=line) for line in error.message.splitlines()]
        compiled, made = None, ()
    return Checked(compiled=compiled, rules=(*made, *own), own=own, problems=tuple(sorted(dict.fromkeys(found))))


def _type_problems(rules: Sequence[Rule], compiled: Compiled) -> Iterator[PolicyProblem]:
    for rule in rules:
        lacking = {tool: _lacking(rule, tool, compiled) for tool in compiled.actions if rule.is_about(tool)}
        lost = frozenset[_Path].intersection(*lacking.values()) if lacking else frozenset[_Path]()
        yield from (_no_such(rule, path, list(lacking), compiled) for path in lost)
        yield from _invalid(rule, lost, compiled)


def _lacking(rule: Rule, tool: str, compiled: Compiled) -> frozenset[_Path]:
    """What a rule reads that a call of `tool` can't have. Cedar lets it ask with `has` for that, in vain."""
    return frozenset(
        path
        for variable in VARIABLES
        for path in _missing(rule.reads(variable), compiled.root(tool, variable), (variable,))
    )


def _missing(reads: Reads, type_: CedarType, path: _Path) -> Iterator[_Path]:
    if isinstance(reads, str) or not isinstance(type_, Record):
        return
    for name, inner in reads.items():
        if name in type_.attributes:
            yield from _missing(inner, type_.attributes[name].type, (*path, name))
        else:
            yield (*path, name)


def _no_such(rule: Rule, path: _Path, lacking: Sequence[str], compiled: Compiled) -> PolicyProblem:
    """The problem that `path` leads nowhere in the calls of the tools `lacking`."""
    line, shown = rule.statement.line_of(path), _spelled(path)
    having = [tool for tool in compiled.actions if rule.is_about(tool) and tool not in lacking]
    is_argument = path[:2] == ("context", "args")
    if is_argument and ".".join(path[2:]) in compiled.actions[lacking[0]].type.left_out:
        message = f"{shown} is of a type that Cedar lacks, so no policy can read it"
        return PolicyProblem(line=line, message=message)
    message = f"{shown} does not exist for {' or '.join(quoted(tool) for tool in lacking[:3])}"
    if having:
        hint = f"name the actions that have it, as in `action in [{_entity('Action', having[0])}]`"
        return PolicyProblem(line=line, message=message, suggestion=hint)
    place: CedarType = compiled.root(lacking[0], path[0])
    for name in path[1:-1]:
        place = place.attributes[name].type if isinstance(place, Record) else place
    known = place.attributes.keys() if isinstance(place, Record) else ()
    what = "declared facts" if path[:2] == ("context", "facts") else "arguments" if is_argument else "there are"
    return PolicyProblem(line=line, message=message, suggestion=did_you_mean(path[-1], known, what))


_IN_CONTEXT = re.compile(r'attribute `(.+)` in context for Action::"(.+)"')
_ON_ENTITY = re.compile(r"attribute `(.+)` on entity type `(.+)`")
_NO_ACTION = re.compile(r'unrecognized action `Action::"(.+)"`')
_NO_KIND = re.compile(r"unrecognized entity type `(.+)`")
_NOWHERE = "unable to find an applicable action"
_PART = re.compile(r'\["((?:[^"\\]|\\.)*)"\]|([^.\[]+)')


def _invalid(rule: Rule, lost: Collection[_Path], compiled: Compiled) -> Iterator[PolicyProblem]:
    """What Cedar's validator says of a rule, in terms of the contract; what is not recognised is passed on."""
    found = [error.error for error in validated(rule.statement.text, compiled.types.handle)]
    # Of an unknown name Cedar also says that it leads nowhere, which is worth saying only where it stands alone.
    errors = [error for error in found if _NOWHERE not in error] or found
    for error in errors:
        if lost_in := _IN_CONTEXT.search(error):
            path, tools = ("context", *_parts(lost_in[1])), [lost_in[2]]
        elif lost_on := _ON_ENTITY.search(error):
            variable = "principal" if lost_on[2] == AGENT else "resource"
            path, tools = (variable, *_parts(lost_on[1])), compiled.acting_on(lost_on[2])
        else:
            yield _other(rule, error, compiled)
            continue
        if "optional" in error:
            yield _unsure(rule, path)
        elif path not in lost:
            yield _no_such(rule, path, tools, compiled)


def _parts(shown: str) -> Iterator[str]:
    """`args["odd name"].x`, as Cedar shows a path, in parts."""
    return (quote or plain for quote, plain in _PART.findall(shown))


def _unsure(rule: Rule, path: _Path) -> PolicyProblem:
    return PolicyProblem(
        line=rule.statement.line_of(path),
        message=f"{_spelled(path)} may be absent, and reading it then is an error",
        suggestion=f"ask first: `{_has(_spelled(path[:-1]).strip('`'), path[-1])} && …`",
    )


def _spelled(path: _Path) -> str:
    text = path[0]
    for name in path[1:]:
        text = _member(text, name)
    return quoted(text)


def _other(rule: Rule, error: str, compiled: Compiled) -> PolicyProblem:
    line, message, suggestion = rule.line, f"rule {quoted(rule.id)}: {error.partition('`, ')[2] or error}", ""
    if action := _NO_ACTION.search(error):
        line = rule.statement.line_of((action[1],))
        message = f"action {quoted(action[1])} is not granted by the contract"
        suggestion = did_you_mean(action[1], compiled.actions, "granted")
    elif kind := _NO_KIND.search(error):
        line = rule.statement.line_of((kind[1],))
        message = f"entity type {quoted(kind[1])} is not known"
        suggestion = did_you_mean(kind[1], compiled.types.entities, "there are")
    elif _NOWHERE in error:
        message = f"rule {quoted(rule.id)} never applies: no granted action has such a principal or object"
    elif "decimal" in error:
        suggestion = 'decimals are exact and compared as in `….lessThan(decimal("50.00"))`'
    return PolicyProblem(line=line, message=message, suggestion=suggestion)
