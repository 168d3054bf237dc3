"""L2: every recorded decision that policy had a say in, made again by the policy that made it then; no I/O.

This is the self-check that a backtest begins with: who can't reproduce the past has nothing to say of what would have
been. A decision that was made from facts which are not on record, or only as pseudonyms, is undetermined.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, assert_never, cast

import msgspec

from remit.journal.events import Event, EventType
from remit.journal.pseudonyms import PSEUDONYM
from remit.policy.decision import Forbidden, MustHold, Permitted, PolicyDecision, PolicyDecisionPoint, Undecided
from remit.replay.recorded import RecordedRun, body_of, originals_of
from remit.replay.report import Redecided
from remit.tools.spec import Resource
from remit.values import encode

_AFTER_POLICY = frozenset(
    {"limit_exhausted", "not_verified", "approval_denied", "approval_expired", "approval_stale", "principal_disabled"}
)
"""Codes of denials that come after policy has let the call pass, or asked a person about it."""


def redecide(recorded: RecordedRun, policy: PolicyDecisionPoint) -> list[Redecided]:
    """Each decision of a run that policy had a say in, made again. What other checks refused before it is left out."""
    return list(_redecided(recorded, policy))


class _Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What policy must have said, as far as the verdict tells: one of `kinds`, by just these `rules` if they are known."""

    kinds: tuple[type[PolicyDecision], ...]
    rules: frozenset[str] | None = None


def _redecided(recorded: RecordedRun, policy: PolicyDecisionPoint) -> Iterator[Redecided]:
    asked: dict[str, tuple[str, str]] = {}
    approved: set[tuple[str, str]] = set()
    for event in recorded.events:
        body, step = body_of(event), event.header.span
        if event.type is EventType.APPROVAL_REQUESTED:
            asked[str(body["case"])] = (step, str(body["args_digest"]))
        if event.type is EventType.APPROVAL_DECIDED and body.get("decision") == "approved" and body.get("case") in asked:
            approved.add(asked[body["case"]])
        if event.type is not EventType.CALL_DECIDED:
            continue
        expected = _expected(event, body, (step, str(body["args_digest"])) in approved)
        if expected is not None:
            yield _again(event, body, policy, expected)


def _again(event: Event, body: dict[str, Any], policy: PolicyDecisionPoint, expected: _Expected) -> Redecided:
    step, tool = event.header.span, str(body["tool"])
    was = f"{event.header.verdict} {' '.join(body['verdict'].get('rules') or ())}".rstrip()
    why = _not_decidable(event, body, policy, tool)
    if why:
        return Redecided(step=step, tool=tool, recorded=was, why=why)
    original = originals_of(event)
    resource = Resource(**cast("dict[str, Any]", original["resource"]))
    decision = policy.decide_recorded(tool, event.header.actor, resource, encode(original["facts"]))
    now, rules = _said(decision)
    same = isinstance(decision, expected.kinds) and expected.rules in (None, rules)
    return Redecided(step=step, tool=tool, recorded=was, now=f"{now} {' '.join(sorted(rules))}".rstrip(), reproduced=same)


def _expected(event: Event, body: dict[str, Any], approved: bool) -> _Expected | None:
    """`None` where policy was not asked, or where it isn't told what it said."""
    verdict: dict[str, Any] = body["verdict"]
    named = frozenset(str(rule) for rule in verdict.get("rules") or ())
    # What a verifier objected to stands beside what policy asked; where it stands alone, policy had let the call pass.
    rules = frozenset(rule for rule in named if not rule.startswith("verify:"))
    code = str(verdict.get("code", ""))
    match event.header.verdict:
        case "allow" if approved:
            return _Expected(kinds=(MustHold,), rules=rules) if rules else _Expected(kinds=(Permitted,))
        case "allow":
            return _Expected(kinds=(Permitted,), rules=rules)
        case "hold":
            return _Expected(kinds=(MustHold,), rules=rules) if rules else _Expected(kinds=(Permitted,))
        case "deny" if code == "forbidden":
            return _Expected(kinds=(Forbidden,), rules=rules)
        case "deny" if code == "policy_ambiguous":
            return _Expected(kinds=(Undecided,))
        case "deny" if code in _AFTER_POLICY and body.get("facts"):
            return _Expected(kinds=(Permitted, MustHold))
        case _:
            return None


def _not_decidable(event: Event, body: dict[str, Any], policy: PolicyDecisionPoint, tool: str) -> str:
    """Why a decision can't be made again from the record; empty where it can."""
    if event.header.refs.get("policy") != policy.digest:
        return "the policy at hand is not the one that decided"
    if event.header.sealed and event.sealed is None and PSEUDONYM.search(encode([body["facts"], body["resource"]]).decode()):
        return "what it was decided from is on record only as pseudonyms; the originals were dropped"
    if body.get("resource") is None:
        return "the object that it was about is not on record"
    if not body.get("facts") and policy.reads(tool):
        return "the facts that it was decided from are not on record"
    return ""


def _said(decision: PolicyDecision) -> tuple[str, frozenset[str]]:
    match decision:
        case Permitted(rules=rules):
            return "let pass", frozenset(rules)
        case MustHold(rules=rules):
            return "hold", frozenset(rules)
        case Forbidden(rules=rules):
            return "deny", frozenset(rules)
        case Undecided():
            return "undecided", frozenset()
        case never:
            assert_never(never)
