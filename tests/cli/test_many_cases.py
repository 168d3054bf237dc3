"""Many cases at once: found by what they are about, counted, and decided alike once somebody has seen how many."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import make_hostile_shop, remit, remit_json, start

from project import Shop

RULE = "autonomy:payments.refund"


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    return make_hostile_shop(tmp_path, database_url)


def asked(shop: Shop, times: int) -> list[str]:
    return [start(shop, "ask", f"DE{number}")["case"] for number in range(times)]


def open_cases(shop: Shop) -> set[str]:
    return {case["case"] for case in remit_json(shop, "cases")}


def test_a_list_that_is_cut_says_how_long_it_is(shop: Shop) -> None:
    cases = asked(shop, 3)
    said = remit(shop, "cases", "--limit", "2")
    assert "2 of 3 shown; --limit and --offset show others" in said
    rest = remit(shop, "cases", "--limit", "2", "--offset", "2")
    assert sum(case in said for case in cases) == 2
    assert [case for case in cases if case not in said] == [case for case in cases if case in rest]
    assert "shown" not in remit(shop, "cases")


def test_a_long_list_ends_with_what_holds_how_many(shop: Shop) -> None:
    asked(shop, 20)
    assert "by the rule" not in remit(shop, "cases")
    start(shop, "escalate", "why")
    # What is counted is all of them, not those that are shown.
    said = remit(shop, "cases", "--limit", "1").splitlines()
    assert said[-3:] == ["by the rule that holds them, or their kind:", f"  20  {RULE}", "   1  escalation"]


def test_cases_are_listed_by_what_they_are_about(shop: Shop) -> None:
    (approval,), escalation = asked(shop, 1), start(shop, "escalate", "why")
    for filters, found in (
        (["--rule", RULE], {approval}),
        (["--kind", "escalation"], {escalation["case"]}),
        (["--contract", "acts"], {approval, escalation["case"]}),
        (["--contract", "away"], set[str]()),
        (["--queue", "care"], {approval, escalation["case"]}),
        (["--run", escalation["run"][:12]], {escalation["case"]}),
    ):
        assert {case["case"] for case in remit_json(shop, "cases", *filters)} == found, filters
    assert remit(shop, "cases", "--contract", "away") == "there is no such case\n"


def test_deciding_many_shows_how_many_and_does_nothing_before_it_is_confirmed(shop: Shop) -> None:
    cases = asked(shop, 3)
    start(shop, "escalate", "why")
    said = remit(shop, "deny", "--all", "--as", "lee", "--rule", RULE)
    assert said.splitlines()[:2] == ["3 cases would be denied by person/lee", f"  3  {RULE}"]
    assert "--yes" in said
    assert open_cases(shop) >= set(cases)


def test_many_are_decided_alike_and_the_rest_is_left(shop: Shop) -> None:
    cases, escalated = asked(shop, 3), start(shop, "escalate", "why")["case"]
    said = remit(shop, "deny", "--all", "--rule", RULE, "--as", "lee", "--reason", "a bad batch", "--yes")
    assert "3 of 3 cases denied by person/lee" in said
    assert "`remit worker` goes on with their runs" in said
    assert open_cases(shop) == {escalated}
    assert remit(shop, "worker", "--once").count(": a bad batch\n") == 3
    assert "1 of 1 case resolved" in remit(shop, "resolve", "--all", "--as", "lee", "--yes")
    assert open_cases(shop) == set[str]()
    assert len(remit_json(shop, "cases", "--status", "denied")) == len(cases)


def test_many_are_approved_by_run_and_contract(shop: Shop) -> None:
    first, second = start(shop, "ask", "DE1"), start(shop, "ask", "DE2")
    assert "0 cases" in remit(shop, "approve", "--all", "--contract", "away", "--as", "lee", "--yes")
    remit(shop, "approve", "--all", "--run", first["run"][:12], "--as", "lee", "--yes")
    assert open_cases(shop) == {second["case"]}
    assert f"{first['run']} completed" in remit(shop, "worker", "--once")


def test_what_can_not_be_decided_is_said_once_with_its_reason(shop: Shop) -> None:
    asked(shop, 3)
    said = remit(shop, "deny", "--all", "--as", "anna", "--yes", code=1)
    assert "0 of 3 cases denied" in said
    assert said.count("role_missing") == 1
    assert "  3 not: " in said


@pytest.mark.parametrize("arguments", [[], ["9428", "--all"], ["9428", "--contract", "acts"], ["--contract", "acts"]])
def test_one_case_or_all_of_some_but_not_both(shop: Shop, arguments: list[str]) -> None:
    assert "--all" in remit(shop, "deny", *arguments, "--as", "lee", code=2)


def test_escalations_are_not_approved_with_the_rest(shop: Shop) -> None:
    start(shop, "escalate", "why")
    for command in ("approve", "deny"):
        assert "0 cases" in remit(shop, command, "--all", "--as", "lee", "--yes")
        assert "0 cases" in remit(shop, command, "--all", "--kind", "escalation", "--as", "lee", "--yes")
    assert "0 cases" in remit(shop, "resolve", "--all", "--kind", "approval", "--as", "lee", "--yes")
