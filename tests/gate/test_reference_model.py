"""The gate against an obvious reference, over random contracts, policies, calls, limits, tokens and approvals."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from project import Shop, make_shop
from remit import Completed, Denied, Failed, Held, Outcome, Rejected, Remit
from remit.cases.cases import Decision
from remit.gate.call import Proposal

MODEST = settings(
    deadline=None,
    # An example costs a contract, a project and a run; shrinking hundreds of them would take minutes.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    max_examples=80,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
ACCOUNT = {"user": "DE1111", "tool": "DE0933", "untrusted": "XX4711", "model": "QQ9999"}
"""An account by where it comes from: the request, an order's own field, its note, nowhere."""

RULES = {
    "checked": 'forbid (principal, action == Action::"payments.refund", resource) unless { context.facts.checked };',
    "large": """forbid (principal, action == Action::"payments.refund", resource)
when { context.args.amount.amount.greaterThan(decimal("70.00")) };""",
    "outside": """forbid (principal, action == Action::"payments.refund", resource)
when { context.from.account.contains("untrusted") };""",
    "ask": """@hold("role:care-lead") forbid (principal, action == Action::"payments.refund", resource)
when { context.args.amount.amount.greaterThan(decimal("20.00")) };""",
    "never": "forbid (principal, action, resource);",
}


@dataclass(frozen=True, kw_only=True)
class Proposed:
    tool: str
    order: int = 1
    amount: str = "10.00"
    origin: str = "user"
    token: str = "good"
    broken: bool = False

    @property
    def args(self) -> Any:
        if self.broken:
            return {"order": "one"}
        if self.tool != "payments.refund":
            return {"order": self.order}
        money = {"amount": self.amount, "currency": "EUR"}
        return {"order": self.order, "amount": money, "account": ACCOUNT[self.origin]}


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a contract says, as far as the reference knows."""

    granted: frozenset[str]
    rules: frozenset[str] = frozenset()
    autonomy: str = "auto"
    above: str | None = "1000.00"
    calls: int = 20
    writes: int = 20
    per_run: int = 20
    money_per_hour: str = "5000.00"
    disabled: bool = False


@dataclass(kw_only=True)
class Reference:
    """What must become of each call of one run: kind and, for a denial, code."""

    terms: Terms
    proposed: int = 0
    writes: int = 0
    moved: Decimal = Decimal(0)
    checked: set[int] = field(default_factory=set[int])
    seen: set[str] = field(default_factory=lambda: {"user"})
    malformed: dict[str, int] = field(default_factory=dict[str, int])

    def decide(self, call: Proposed, answer: bool | None = None, *, again: bool = False) -> tuple[str, str]:
        """`answer` is what a person said of exactly this call; `again`, that its step was proposed before."""
        self.proposed += not again
        verdict = self._judge(call, answer)
        if self.terms.disabled:
            return "deny", "principal_disabled"
        if verdict == ("allow", ""):
            verdict = self._reserve(call)
        if verdict == ("reject", ""):
            self.malformed[call.tool] = self.malformed.get(call.tool, 0) + 1
        if verdict == ("allow", ""):
            self._done(call)
        return verdict

    def _judge(self, call: Proposed, answer: bool | None) -> tuple[str, str]:
        terms = self.terms
        if call.token != "good":
            return "deny", "token"
        if call.tool not in terms.granted:
            return "deny", "not_granted"
        if self.proposed > terms.calls:
            return "deny", "limit_exhausted"
        if self.malformed.get(call.tool, 0) >= 3:
            return "deny", "retries_exhausted"
        if call.broken:
            return "reject", ""
        if "never" in terms.rules:
            return "deny", "forbidden"
        if call.tool != "payments.refund":
            return "allow", ""
        if terms.autonomy == "observe" or self._is_forbidden(call):
            return "deny", "forbidden"
        if not self._must_ask(call) or answer is True:
            return "allow", ""
        return ("hold", "") if answer is None else ("deny", "approval_denied")

    def _is_forbidden(self, call: Proposed) -> bool:
        # Text from outside is the only place where that account stands, once the order has been read.
        outside = call.origin == "untrusted" and "order" in self.seen
        return bool(
            ("checked" in self.terms.rules and call.order not in self.checked)
            or ("large" in self.terms.rules and Decimal(call.amount) > 70)
            or ("outside" in self.terms.rules and outside)
        )

    def _must_ask(self, call: Proposed) -> bool:
        terms = self.terms
        by_level = terms.autonomy == "suggest" or terms.above is None or Decimal(call.amount) > Decimal(terms.above)
        return by_level or ("ask" in terms.rules and Decimal(call.amount) > 20)

    def _reserve(self, call: Proposed) -> tuple[str, str]:
        if call.tool == "payments.refund":
            used_up = self.writes >= min(self.terms.writes, self.terms.per_run)
            if used_up or self.moved + Decimal(call.amount) > Decimal(self.terms.money_per_hour):
                return "deny", "limit_exhausted"
        return "allow", ""

    def _done(self, call: Proposed) -> None:
        self.malformed.pop(call.tool, None)
        match call.tool:
            case "payments.refund":
                self.writes += 1
                self.moved += Decimal(call.amount)
            case "risk.check":
                self.checked.add(call.order)
            case _:
                self.seen.add("order")


def write_contract(shop: Shop, name: str, terms: Terms) -> None:
    actions: list[dict[str, Any]] = []
    for tool in sorted(terms.granted):
        action: dict[str, Any] = {"tool": tool}
        if tool == "payments.refund":
            approval = {"by": "role:care-lead", "within": "4h"}
            approval |= {} if terms.above is None else {"above": f"{terms.above} EUR"}
            limits = {"per_run": terms.per_run, "money_per_hour": f"{terms.money_per_hour} EUR"}
            action |= {"autonomy": terms.autonomy, "approval": approval, "limits": limits}
        actions.append(action)
    fact = {"seen": "risk.check", "where": {"order": "args.order"}, "within": "1h"}
    facts = {"checked": fact} if "checked" in terms.rules else {}
    policy = "\n".join(f'@id("{rule}") {RULES[rule]}' for rule in sorted(terms.rules))
    budget = {"calls": terms.calls, "writes": terms.writes, "time": "10m"}
    shop.contract(name, actions, policy=policy, facts=facts, budget=budget)


def told(outcome: Outcome) -> tuple[str, str]:
    match outcome:
        case Completed():
            return "allow", ""
        case Rejected():
            return "reject", ""
        case Held():
            return "hold", ""
        case Denied(code=code):
            return "deny", "token" if code.startswith("token_") else code
        case _:
            return "failed", outcome.code


def token_for(remit: Remit, contract: str, run: str, kind: str) -> str:
    if kind == "none":
        return ""
    request = remit.program(contract).authority.token_request(run if kind != "other run" else "run-0123456789abcdef")
    return remit.issuer.issue(request, remit.clock() - (3_600_000_000 if kind == "expired" else 0))


_numbers = itertools.count(1)


class Trial:
    """One run under its own contract in a project that all examples share."""

    def __init__(self, shop: Shop, terms: Terms) -> None:
        self.name = f"trial-{next(_numbers)}"
        self.shop = shop
        write_contract(shop, self.name, terms)
        self.remit = Remit(shop.folder)
        self.disabled = terms.disabled

    async def propose(self, calls: Sequence[tuple[int, Proposed]], run: str | None = None) -> tuple[str, list[Outcome]]:
        """Propose calls, each with the number of its step, in a new run or in one that goes on."""
        if self.disabled:
            self.remit.program(self.name)
            await self.remit.administration.disable(f"agent/shop/{self.name}")
        run = run or await self.remit.engine.open(self.name, {"account": ACCOUNT["user"]})
        async with self.remit.engine.session(run) as (_, folded):
            outcomes: list[Outcome] = []
            for step, call in calls:
                token = token_for(self.remit, self.name, run, call.token)
                proposal = Proposal(tool=call.tool, args=call.args, step=str(step), token=token)
                outcomes.append(await self.remit.pipeline.propose(folded.state, proposal))
        return run, outcomes

    async def close(self) -> None:
        await self.remit.close()
        shutil.rmtree(self.shop.folder / "contracts" / self.name)


def sane(terms: Terms) -> Terms:
    """Terms that make a contract: its rules are about what it grants."""
    rules = terms.rules if "payments.refund" in terms.granted else terms.rules & {"never"}
    if "risk.check" not in terms.granted:
        rules -= {"checked"}
    return replace(terms, rules=rules)


TOOLS = ("orders.read", "risk.check", "payments.refund")
CALLS = st.builds(
    Proposed,
    tool=st.sampled_from((*TOOLS, "payments.refund", "payments.refund", "put.none", "no.such")),
    order=st.integers(1, 2),
    amount=st.sampled_from(("0.00", "10.00", "20.00", "20.01", "50.00", "50.0001", "70.00", "70.01", "500.00")),
    origin=st.sampled_from(sorted(ACCOUNT)),
    token=st.sampled_from(("good",) * 12 + ("none", "other run", "expired")),
    broken=st.sampled_from((False,) * 5 + (True,)),
)
TERMS = st.builds(
    Terms,
    granted=st.one_of(st.just(frozenset(TOOLS)), st.sets(st.sampled_from(TOOLS), min_size=1).map(frozenset)),
    rules=st.sets(st.sampled_from(("checked", "large", "outside", "ask", "never", "ask")), max_size=3).map(frozenset),
    autonomy=st.sampled_from(("auto", "approve", "approve", "suggest", "observe")),
    above=st.sampled_from((None, "20.00", "50.00", "1000.00")),
    calls=st.integers(2, 12),
    writes=st.integers(1, 4),
    per_run=st.integers(0, 4),
    money_per_hour=st.sampled_from(("60.00", "100.00", "5000.00")),
    disabled=st.sampled_from((False,) * 9 + (True,)),
).map(sane)


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    return make_shop(tmp_path, database_url)


@given(
    terms=TERMS,
    calls=st.lists(CALLS, min_size=1, max_size=9),
    answers=st.lists(st.sampled_from((True, True, False, None)), min_size=9, max_size=9),
)
@MODEST
def test_the_gate_decides_as_the_reference_does(
    shop: Shop, terms: Terms, calls: list[Proposed], answers: list[bool | None]
) -> None:
    asyncio.run(_compare(shop, terms, calls, answers))


async def _compare(shop: Shop, terms: Terms, calls: list[Proposed], answers: list[bool | None]) -> None:
    reference, trial, before = Reference(terms=terms), Trial(shop, terms), len(shop.tries())
    try:
        run, outcomes = await trial.propose(list(enumerate(calls, start=1)))
        expected = [reference.decide(call) for call in calls]
        assert [told(outcome) for outcome in outcomes] == expected
        held: list[tuple[int, Proposed, bool | None]] = []
        for step, outcome in enumerate(outcomes, start=1):
            if isinstance(outcome, Held):
                answer = answers[step - 1]
                held.append((step, calls[step - 1], answer))
                if answer is not None:
                    decision = Decision.APPROVED if answer else Decision.DENIED
                    token = trial.remit.person_token("lee")
                    await trial.remit.cases.decide(outcome.case, decision, token=token)
        # The run is taken up again, and its held calls are judged anew: the present counts, not the past.
        _, later = await trial.propose([(step, call) for step, call, _ in held], run)
        again = [reference.decide(call, answer, again=True) for _, call, answer in held]
        assert [told(outcome) for outcome in later] == again
    finally:
        await trial.close()
    assert len(shop.tries()) - before == reference.writes


ORDER = {"allow": 2, "hold": 1}


@given(terms=TERMS, call=CALLS, rule=st.sampled_from(sorted(RULES)), tool=st.sampled_from(TOOLS))
@settings(parent=MODEST, max_examples=25)
def test_taking_a_grant_away_or_adding_a_forbid_never_allows_more(
    shop: Shop, terms: Terms, call: Proposed, rule: str, tool: str
) -> None:
    tighter = (
        sane(replace(terms, rules=terms.rules | {rule})),
        sane(replace(terms, granted=terms.granted - {tool})),
    )

    async def decide(terms: Terms) -> int:
        if not terms.granted:
            return 0
        trial = Trial(shop, terms)
        try:
            _, (outcome,) = await trial.propose([(1, call)])
            return ORDER.get(told(outcome)[0], 0)
        finally:
            await trial.close()

    async def compare() -> None:
        before = await decide(terms)
        forbidden, ungranted = [await decide(each) for each in tighter]
        # A rule about the fraud check can't stand in a contract that does not grant it, so it goes with the grant.
        assert ungranted <= before or (tool == "risk.check" and "checked" in terms.rules)
        # Limits come last, so a person may be asked about what a limit will refuse all the same.
        assert forbidden <= before or (rule == "ask" and forbidden == ORDER["hold"])

    asyncio.run(compare())


@given(
    per_hour=st.integers(0, 6),
    money=st.sampled_from(("30.00", "60.00", "1000.00")),
    amounts=st.lists(
        st.lists(st.sampled_from(("10.00", "20.00", "30.00")), min_size=1, max_size=4), min_size=1, max_size=4
    ),
    closed=st.sets(st.integers(0, 15), max_size=4),
    per_run=st.integers(1, 4),
)
@settings(parent=MODEST, max_examples=25)
def test_limits_hold_however_calls_are_interleaved(
    shop: Shop, per_hour: int, money: str, amounts: list[list[str]], closed: set[int], per_run: int
) -> None:
    name = f"trial-{next(_numbers)}"
    limits = {"per_hour": per_hour, "per_run": per_run, "money_per_hour": f"{money} EUR"}
    approval = {"by": "role:care-lead", "within": "4h", "above": "1000.00 EUR"}
    shop.contract(name, [{"tool": "payments.refund", "approval": approval, "limits": limits}])
    before = len(shop.ledger())

    async def one_run(remit: Remit, number: int, wanted: list[str]) -> list[tuple[str, Outcome]]:
        async with remit.gate(name).run({}) as run:
            proposals = [
                run.propose(
                    "payments.refund",
                    {
                        "order": number + place,
                        "amount": {"amount": amount, "currency": "EUR"},
                        "account": "CLOSED" if 4 * number + place in closed else "DE1",
                    },
                )
                for place, amount in enumerate(wanted)
            ]
            return list(zip(wanted, await asyncio.gather(*proposals), strict=True))

    async def all_runs() -> list[list[tuple[str, Outcome]]]:
        # Two of them, so that what one reserves the other must read from the database.
        async with Remit(shop.folder) as one, Remit(shop.folder) as other:
            runs = [one_run((one, other)[number % 2], number, wanted) for number, wanted in enumerate(amounts)]
            return await asyncio.gather(*runs)

    ended = asyncio.run(all_runs())
    shutil.rmtree(shop.folder / "contracts" / name)
    effects = [line.split()[2] for line in shop.ledger()[before:]]
    flat = [item for run in ended for item in run]
    assert sorted(effects) == sorted(amount for amount, outcome in flat if isinstance(outcome, Completed))
    assert len(effects) <= per_hour
    assert sum(map(Decimal, effects)) <= Decimal(money)
    for run in ended:
        assert sum(isinstance(outcome, Completed | Failed) for _, outcome in run) <= per_run
    for _, outcome in flat:
        assert isinstance(outcome, Completed | Failed) or told(outcome) == ("deny", "limit_exhausted")
    if per_hour >= len(flat) and Decimal(money) == 1000 and per_run == 4:
        assert not any(isinstance(outcome, Denied) for _, outcome in flat)
