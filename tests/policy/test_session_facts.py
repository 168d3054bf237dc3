from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.contracts.model import Fact
from remit.policy.session import FactValue, PastCall, SessionFacts

NOW_US = 1_767_614_400_000_000
MINUTE_US = 60_000_000


def call(
    tool: str = "a.b", *, ago_us: int = 0, outcome: str = "completed", result: Any = None, **args: Any
) -> PastCall:
    return PastCall(tool=tool, outcome=outcome, args=args, result=result, at_us=NOW_US - ago_us)


def told(fact: Fact, past: Sequence[PastCall], **args: Any) -> FactValue | None:
    return SessionFacts({"told": fact}).of(past, args, NOW_US).get("told")


def eur(amount: str, currency: str = "EUR") -> dict[str, str]:
    return {"amount": amount, "currency": currency}


def test_without_earlier_calls_nothing_is_seen_counted_or_summed() -> None:
    facts = {
        "seen": Fact(seen="a.b"),
        "count": Fact(count="a.b"),
        "sum": Fact(sum="a.b", of="args.n"),
        "last": Fact(last="a.b", of="args.n"),
    }
    assert SessionFacts(facts).of([], {}, NOW_US) == {"seen": False, "count": 0, "sum": 0}


def test_only_calls_of_the_named_tool_count() -> None:
    past = [call(), call("a.c"), call()]
    assert told(Fact(seen="a.c"), past) is True
    assert told(Fact(seen="a.d"), past) is False
    assert told(Fact(count="a.b"), past) == 2


def test_only_completed_calls_count_unless_another_outcome_is_asked_for() -> None:
    past = [call(outcome="denied"), call(outcome="unknown"), call()]
    assert told(Fact(count="a.b"), past) == 1
    assert told(Fact(count="a.b", outcome="denied"), past) == 1
    assert told(Fact(count="a.b", outcome="any"), past) == 3
    assert told(Fact(seen="a.b", outcome="failed"), past) is False


def test_a_window_reaches_back_exactly_as_far_as_it_says() -> None:
    fact = Fact(seen="a.b", within="1m")
    assert told(fact, [call(ago_us=MINUTE_US)]) is True
    assert told(fact, [call(ago_us=MINUTE_US + 1)]) is False


@pytest.mark.parametrize(
    ("then", "now", "same"),
    [
        (1182, 1182, True),
        (1182, 1182.0, True),
        (1182, 1183, False),
        (1, True, False),
        (0, False, False),
        (True, True, True),
        ("1", 1, False),
        ("a", "A", False),
        (2**53 + 1, float(2**53), False),
        ([1, {"a": 2}], [1.0, {"a": 2}], True),
        ([1], [True], False),
        ([1, 2], [1], False),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ({"a": None}, {"a": None}, True),
        (None, None, False),
    ],
)
def test_calls_correlate_where_values_are_equal_as_json(then: Any, now: Any, same: bool) -> None:
    assert told(Fact(seen="a.b", where={"order": "args.id"}), [call(order=then)], id=now) is same


def test_a_path_that_leads_nowhere_correlates_with_nothing() -> None:
    fact = Fact(count="a.b", where={"order.id": "args.order.id"})
    assert told(fact, [call(order={"id": 1}), call(order=1), call()], order={"id": 1}) == 1
    assert told(fact, [call(order={"id": 1}), call()]) == 0


def test_every_condition_of_a_correlation_must_hold() -> None:
    fact = Fact(count="a.b", where={"a": "args.a", "b": "args.b"})
    assert told(fact, [call(a=1, b=1), call(a=1, b=2), call(a=2, b=2)], a=1, b=2) == 1


def test_a_sum_is_exact() -> None:
    assert told(Fact(sum="a.b", of="args.n"), [call(n=0.1)] * 3) == Decimal("0.3")
    assert told(Fact(sum="a.b", of="args.n"), [call(n=2**53), call(n=1)]) == 2**53 + 1
    assert told(Fact(sum="a.b", of="args.n"), [call(n=1), call(n=0.5)]) == Decimal("1.5")
    assert told(Fact(sum="a.b", of="args.n"), [call(n="1.0001"), call(n="-0.0001")]) == Decimal(1)
    assert told(Fact(sum="a.b", of="result.m"), [call(result={"m": eur("99999999999999.9999")})] * 5) == Decimal(
        "499999999999999.9995"
    )


def test_money_sums_within_one_currency_and_is_untold_across_several() -> None:
    fact = Fact(sum="a.b", of="args.m")
    assert told(fact, [call(m=eur("0.10")), call(m=eur("20.2"))]) == Decimal("20.3")
    assert told(fact, [call(m=eur("0.10")), call(m=eur("0.10", "USD"))]) is None
    assert told(fact, [call(m=eur("0.10")), call(m=3)]) is None


@pytest.mark.parametrize("value", [None, True, "x", [], {}, {"amount": 1}, 0.00001, float(10**15), eur("1e3")])
def test_a_sum_over_what_is_no_exact_number_is_untold(value: Any) -> None:
    found = told(Fact(sum="a.b", of="args.n"), [call(n=1), call(n=value)])
    assert found is None


def test_a_sum_beyond_what_cedar_can_hold_is_untold() -> None:
    assert told(Fact(sum="a.b", of="args.n"), [call(n=2**62)] * 2) is None
    assert told(Fact(sum="a.b", of="args.n"), [call(n=2**62)]) == 2**62
    assert told(Fact(sum="a.b", of="args.n"), [call(n=9e13)] * 11) is None


def test_the_last_value_is_the_latest_calls() -> None:
    past = [
        call(result={"state": "open"}),
        call(result={"state": "done"}),
        call(outcome="failed", result={"state": "x"}),
    ]
    assert told(Fact(last="a.b", of="result.state"), past) == "done"
    assert told(Fact(last="a.b", of="result.other"), past) is None


@pytest.mark.parametrize(
    ("value", "kept"),
    [("x", "x"), (3, 3), (True, True), (0.5, Decimal("0.5")), (0.00001, None), (None, None), ([1], None), ({}, None)],
)
def test_the_last_value_is_one_that_a_fact_can_hold(value: Any, kept: FactValue | None) -> None:
    found = told(Fact(last="a.b", of="args.v"), [call(v=value)])
    assert found == kept
    assert type(found) is type(kept)


# Against a reader that goes through the whole record once for each fact


@st.composite
def any_fact(draw: st.DrawFn) -> Fact:
    kind = draw(st.sampled_from(["seen", "count", "sum", "last"]))
    tool = draw(st.sampled_from(["a.b", "a.c"]))
    return Fact(
        seen=tool if kind == "seen" else None,
        count=tool if kind == "count" else None,
        sum=tool if kind == "sum" else None,
        last=tool if kind == "last" else None,
        of=draw(st.sampled_from(["args.n", "result.n"])),
        where=draw(st.sampled_from([{}, {"id": "args.id"}])),
        within=draw(st.sampled_from([None, "1m"])),
        outcome=draw(st.sampled_from(["completed", "denied", "any"])),
    )


@st.composite
def any_call(draw: st.DrawFn) -> PastCall:
    n = draw(st.integers(-5, 5))
    return call(
        draw(st.sampled_from(["a.b", "a.c", "a.d"])),
        ago_us=draw(st.sampled_from([0, MINUTE_US, MINUTE_US + 1])),
        outcome=draw(st.sampled_from(["completed", "denied"])),
        result={"n": -n},
        id=draw(st.integers(0, 1)),
        n=n,
    )


@given(st.dictionaries(st.sampled_from("abcd"), any_fact()), st.lists(any_call(), max_size=8), st.integers(0, 1))
def test_one_pass_tells_what_reading_the_record_for_each_fact_tells(
    facts: dict[str, Fact], past: list[PastCall], id_: int
) -> None:
    expected: dict[str, Any] = {}
    for name, fact in facts.items():
        tool = fact.seen or fact.count or fact.sum or fact.last
        counted = [
            each
            for each in past
            if each.tool == tool
            and fact.outcome in ("any", each.outcome)
            and (fact.within is None or each.at_us >= NOW_US - MINUTE_US)
            and (not fact.where or each.args["id"] == id_)
        ]
        values = [each.args["n"] if fact.of == "args.n" else each.result["n"] for each in counted]
        if fact.seen:
            expected[name] = len(counted) > 0
        elif fact.count:
            expected[name] = len(counted)
        elif fact.sum:
            expected[name] = sum(values)
        elif values:
            expected[name] = values[-1]
    assert SessionFacts(facts).of(past, {"id": id_}, NOW_US) == expected
