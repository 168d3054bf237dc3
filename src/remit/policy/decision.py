"""The policy decision point: one call's facts in, a decision out. Pure: the same facts give the same decision.

In meaning there are two sets: holds are asked only about what grants and hard forbids allow, because a forbid that
fires hides whether any permit applied, so that *ask a person* could not be told from *never granted*. In one pass over
one set the same is found out by giving Cedar each hold as a permit that grants nothing: it hides no grant, every hard
forbid hides it, and a call is allowed only if a grant of the contract is among the policies that applied. Cedar skips a
policy that it can't evaluate; here its error leaves the call undecided, and that is a deny.

A call is first put to a form of the policies that costs less (see `remit.policy.screen`).

Policies are parsed once and sliced by action. A slice is given those parts of the context and of the object that its
policies read, and the journal keeps just these, so that the record suffices to decide again.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import cedarpy
import msgspec

from remit.contracts.model import Contract
from remit.contracts.problems import listed, quoted
from remit.contracts.quantities import duration_ms
from remit.errors import ConfigError
from remit.policy.annotations import PolicyProblem, Rule
from remit.policy.cedar_schema import AGENT, Record
from remit.policy.compile import USUAL_WITHIN_MS, Compiled, Granted, check, principal_of
from remit.policy.facts import ContextShape, Facts, Reads, joined, record_converter
from remit.policy.screen import Screen, as_asked, policies, screen
from remit.policy.session import FactValue, PastCall, SessionFacts, tool_of
from remit.tools.spec import Resource, ToolSpec
from remit.values import Json, Path, ValueRefused, decode, digest, encode


class Permitted(msgspec.Struct, frozen=True, kw_only=True):
    """A grant applies and nothing stands against it. `rules` are the grants."""

    rules: tuple[str, ...]


class Forbidden(msgspec.Struct, frozen=True, kw_only=True):
    """No: `rules` are the forbids that fired, each with its reason. Without rules no grant applies; see `reasons`."""

    rules: tuple[str, ...]
    reasons: tuple[str, ...]


class MustHold(msgspec.Struct, frozen=True, kw_only=True):
    """It would be permitted, but a person must be asked first.

    `rules`, `reasons` and `roles` are of one length: each hold that fired, why, and the role that must approve it.
    Where the roles differ, each of them must. `expires_ms`: the shortest time that one of the holds gives.
    """

    rules: tuple[str, ...]
    reasons: tuple[str, ...]
    roles: tuple[str, ...]
    expires_ms: int


class Undecided(msgspec.Struct, frozen=True, kw_only=True):
    """The policies can't be evaluated over these facts, which is a deny. `errors` say why."""

    errors: tuple[str, ...]


PolicyDecision = Permitted | Forbidden | MustHold | Undecided


class PolicyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A decision and `read`, the exact context that it was made from, as JSON."""

    decision: PolicyDecision
    read: bytes


def problems(contract: Contract, tools: Mapping[str, ToolSpec], policy_text: str) -> list[PolicyProblem]:
    """What keeps a decision point from being built, by line of `policy.cedar`; 0 is the contract itself."""
    return list(check(contract, tools, policy_text).problems)


class PolicyDecisionPoint:
    """Decides the calls of one contract by its compiled actions and its `policy.cedar`. Immutable; see `build`."""

    def __init__(self, contract: Contract, compiled: Compiled, rules: Sequence[Rule], policy_text: str) -> None:
        self.text = f"{compiled.text}\n{policy_text}"
        """The whole policy in Cedar, for people."""
        self.types = compiled.types
        self.digest = digest({"policy": self.text, "schema": compiled.types.schema})
        """Content hash of all that decisions depend on."""
        self.contract = contract
        self._principal = principal_of(contract)
        self._slices = {
            tool: _slice(
                contract, granted, compiled.root(tool, "resource"), [rule for rule in rules if rule.is_about(tool)]
            )
            for tool, granted in compiled.actions.items()
        }

    @classmethod
    def build(cls, contract: Contract, tools: Mapping[str, ToolSpec], policy_text: str) -> PolicyDecisionPoint:
        """Compile, type-check, parse and slice. `tools`: by name, all that the contract grants, or more.

        Raises `ConfigError` with every problem, one a line.
        """
        checked = check(contract, tools, policy_text)
        if checked.problems or checked.compiled is None:
            said = (f"policy.cedar:{p.line}: {p.message}" if p.line else p.message for p in checked.problems)
            raise ConfigError("\n".join(said))
        return cls(contract, checked.compiled, checked.rules, policy_text)

    def rules(self, tool: str) -> tuple[str, ...]:
        """The ids of all rules that can fire on a call of `tool`."""
        found = self._slices.get(tool)
        return tuple(found.rules) if found else ()

    def reads(self, tool: str) -> Reads:
        """What the policies of a tool read of the context: what `PolicyAnswer.read` holds, if it was there."""
        found = self._slices.get(tool)
        return found.context if found else {}

    def session(self, tool: str, past: Sequence[PastCall], args: Mapping[str, Json], at_us: int) -> dict[str, FactValue]:
        """Those of the contract's facts that the policies of a tool read (see `SessionFacts.of`)."""
        found = self._slices.get(tool)
        return found.session.of(past, args, at_us) if found else {}

    def depends_on(self, tool: str) -> Container[str]:
        """The tools whose calls within the run the policies of a tool are about, by facts or by what budget they leave."""
        found = self._slices.get(tool)
        return found.depends_on if found else ()

    def decide(self, facts: Facts) -> PolicyAnswer:
        """Decide a call over as much of its context as policies read. Raises `ValueRefused` (see `ContextShape.of`)."""
        found = self._slices.get(facts.tool)
        try:
            read = encode(found.shape.of(facts) if found else {})
        except UnicodeEncodeError as error:
            return PolicyAnswer(decision=Undecided(errors=(f"the facts are no valid text: {error.reason}",)), read=b"")
        decision = self.decide_recorded(facts.tool, facts.principal, facts.resource, read)
        return PolicyAnswer(decision=decision, read=read)

    def decide_recorded(self, tool: str, principal: str, resource: Resource, read: bytes) -> PolicyDecision:
        """Decide from what the journal keeps of a call.

        `read` suffices for the policy that recorded it; for another one, ask `facts.unrecorded` first.
        """
        found = self._slices.get(tool)
        if found is None:
            return _ungranted(f"contract `{self.contract.contract}` does not grant tool {quoted(tool)}")
        if principal != self._principal:
            return _ungranted(
                f"contract `{self.contract.contract}` is for {quoted(self._principal)}, not {quoted(principal)}"
            )
        kind = found.granted.spec.resource_kind
        if resource.kind != kind:
            return _ungranted(f"`{tool}` acts on objects of kind `{kind}`, not {quoted(resource.kind)}")
        try:
            return found.decide(resource, read)
        except (ValueError, ValueRefused) as error:
            return Undecided(errors=(str(error),))


def agent_entity(contract: Contract, reads: Reads) -> cedarpy.Entities:
    """The agent, where anything but its name is read: Cedar copies every entity that it is given."""
    region = {} if contract.region is None else {"region": contract.region}
    attributes = {"tenant": contract.tenant, "contract": contract.contract, **region}
    agent: Json = {"uid": {"type": AGENT, "id": principal_of(contract)}, "attrs": attributes, "parents": []}
    text = encode([agent] if reads else []).decode()
    return cedarpy.Entities.from_json_str(text)  # pyright: ignore[reportUnknownMemberType]


def _ungranted(reason: str) -> Forbidden:
    return Forbidden(rules=(), reasons=(reason,))


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Cedar's: whether it allows, the policies that decided so, and what could not be evaluated."""

    allows: bool
    rules: tuple[str, ...]
    errors: tuple[str, ...]


def reasons_of(rules: Mapping[str, Rule], fired: Sequence[str]) -> tuple[str, ...]:
    """What the rules that fired say."""
    return tuple(rules[rule].reason or f"rule `{rule}` says so" for rule in fired)


def must_hold(granted: Granted, rules: Mapping[str, Rule], fired: tuple[str, ...]) -> MustHold:
    """The question that the holds which fired put to a person. `rules`: all rules of the tool, by id."""
    terms = [hold for rule in fired if (hold := rules[rule].hold) is not None]
    approval = granted.action.approval
    usual = duration_ms(approval.within) if approval else USUAL_WITHIN_MS
    return MustHold(
        rules=fired,
        reasons=reasons_of(rules, fired),
        roles=tuple(each.role for each in terms),
        expires_ms=min(usual if each.within_ms is None else each.within_ms for each in terms),
    )


class _Question(msgspec.Struct, frozen=True, kw_only=True):
    """One call in the forms that Cedar takes it; `about` is for telling people."""

    request: dict[str, Any]
    entities: cedarpy.Entities
    about: Mapping[str, Any]

    def put_to(self, policies: cedarpy.PolicySet) -> _Answer:
        result = cedarpy.is_authorized(  # pyright: ignore[reportUnknownMemberType]
            self.request, policies, self.entities
        )
        decision, found, errors = result.decision, result.diagnostics.reasons, result.diagnostics.errors
        if decision is cedarpy.Decision.NoDecision and not errors:
            errors = ["the request can't be decided"]
        return _Answer(allows=decision is cedarpy.Decision.Allow, rules=tuple(sorted(found)), errors=tuple(sorted(errors)))


@dataclass(frozen=True, kw_only=True)
class _Slice:
    """The policies that can fire on the calls of one tool, parsed, and what they read."""

    contract: str
    granted: Granted
    rules: Mapping[str, Rule]
    asked: Mapping[str, Json]
    """What every request about the tool says alike: principal and action."""
    policies: cedarpy.PolicySet
    screen: Screen | None
    demands: cedarpy.PolicySet
    context: Reads
    resource: Reads
    agent: cedarpy.Entities
    shape: ContextShape
    attributes: Callable[[Mapping[str, Any], Path], dict[str, Json]]
    """Makes the attributes of the resource that are read."""
    session: SessionFacts
    depends_on: Container[str]

    def decide(self, resource: Resource, read: bytes) -> PolicyDecision:
        # Ids are handed over as they are: put into Cedar's text, an odd one could become something else.
        uid = {"type": resource.kind, "id": resource.id}
        values = {**resource.attributes, "tenant": resource.tenant, "region": resource.region}
        attributes = self.attributes(values, ("resource",))
        allowed = self._screened(uid, attributes, read)
        return allowed or self._decide(self._question(uid, attributes, read))

    def _screened(self, uid: Json, attributes: Mapping[str, Json], read: bytes) -> Permitted | MustHold | None:
        """What the screen allows."""
        context = self.screen and self.screen.context(decode(read), attributes)
        if self.screen is None or context is None:
            return None
        request = {**self.asked, "resource": uid, "context": encode(context).decode()}
        answer = _Question(request=request, entities=self.agent, about={}).put_to(self.screen.policies)
        return self._allowed(answer) if answer.allows and not answer.errors else None

    def _question(self, uid: Json, attributes: Mapping[str, Json], read: bytes) -> _Question:
        entities = self.agent
        if self.resource:
            entity = encode([{"uid": uid, "attrs": attributes, "parents": []}]).decode()
            entities = entities.with_added_json_str(entity)  # pyright: ignore[reportUnknownMemberType]
        return _Question(
            request={**self.asked, "resource": uid, "context": read.decode()},
            entities=entities,
            about={"resource": attributes, "contract": self.contract},
        )

    def _decide(self, question: _Question) -> PolicyDecision:
        answer = question.put_to(self.policies)
        if answer.rules and not answer.allows:
            return Forbidden(rules=answer.rules, reasons=reasons_of(self.rules, answer.rules))
        if answer.errors:
            return Undecided(errors=answer.errors)
        return self._allowed(answer) or _ungranted(self._unmet(question))

    def _allowed(self, answer: _Answer) -> Permitted | MustHold | None:
        """What an answer without errors allows, if it is by a grant; a hold alone grants nothing."""
        grants = tuple(rule for rule in answer.rules if self.rules[rule].is_permit)
        holds = tuple(rule for rule in answer.rules if self.rules[rule].hold is not None)
        if not (answer.allows and grants):
            return None
        return must_hold(self.granted, self.rules, holds) if holds else Permitted(rules=grants)

    def _unmet(self, question: _Question) -> str:
        """Which demands of the grant fail. Cedar is asked, so that this can't differ from the decision."""
        met = question.put_to(self.demands).rules
        facts = {**question.about, "context": decode(question.request["context"].encode())}
        unmet = [
            f"{demand.words} (here: {_shown(facts, demand.subject)})"
            for number, demand in enumerate(self.granted.demands)
            if str(number) not in met
        ]
        tool = self.granted.action.tool
        return f"contract `{question.about['contract']}` grants `{tool}` only where {' and '.join(unmet)}"


def _shown(facts: Mapping[str, Any], path: Sequence[str]) -> str:
    found: Any = facts
    for name in path:
        found = found.get(name)
    if isinstance(found, list):
        return listed(cast("list[str]", found)) or "none"
    return "absent" if found is None else quoted(found if isinstance(found, str) else encode(found).decode())


def _slice(contract: Contract, granted: Granted, kind: Record, rules: Sequence[Rule]) -> _Slice:
    demands = "".join(f"permit (principal, action, resource) when {{ {d.cedar} }};" for d in granted.demands)
    parsed = cedarpy.policies_to_pst(demands).static_policies.values()
    of_context: Reads = {}
    of_resource: Reads = {}
    of_agent: Reads = {}
    for rule in rules:
        of_context = joined(of_context, rule.reads("context"))
        of_resource = joined(of_resource, rule.reads("resource"))
        of_agent = joined(of_agent, rule.reads("principal"))
    told = of_context if isinstance(of_context, str) else of_context.get("facts", {})
    facts = {name: fact for name, fact in contract.facts.items() if isinstance(told, str) or name in told}
    counted = isinstance(of_context, str) or not _OF_ALL_CALLS.isdisjoint(of_context)
    return _Slice(
        contract=contract.contract,
        granted=granted,
        rules={rule.id: rule for rule in rules},
        asked={
            "principal": {"type": AGENT, "id": principal_of(contract)},
            "action": {"type": "Action", "id": granted.action.tool},
        },
        policies=policies({rule.id: as_asked(rule) for rule in rules}),
        screen=screen(rules, of_context, of_resource),
        demands=policies({str(number): template for number, template in enumerate(parsed)}),
        context=of_context,
        resource=of_resource,
        agent=agent_entity(contract, of_agent),
        shape=ContextShape(granted.type, of_context),
        attributes=record_converter(kind, of_resource),
        session=SessionFacts(facts),
        depends_on=_Everything() if counted else frozenset(tool_of(fact) for fact in facts.values()),
    )


_OF_ALL_CALLS = frozenset({"budget_left", "attempt"})
"""Parts of the context that any earlier call of the run may change."""


class _Everything:
    """Holds every name."""

    def __contains__(self, _name: object) -> bool:
        return True
