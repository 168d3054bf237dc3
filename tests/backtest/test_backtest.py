"""The past judged by other terms: what changes, what it would have meant, and what can't be told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backtest.recorded_shop import ACTIONS, FACTS, RULES, Clock, record_runs, refund, shop_with, with_remit
from project import Shop, write_action
from remit import Held, Remit
from remit.backtest.backtest import Result
from remit.backtest.judging import Judging, judge, judge_on_record
from remit.backtest.proposals import Alternative, proposed_terms
from remit.backtest.tally import Compared
from remit.cases.cases import Decision
from remit.errors import ConfigError, RunError
from remit.gate.call import Proposal
from remit.journal.events import Draft, EventType


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return shop_with(tmp_path)


def propose(shop: Shop, *calls: tuple[str, Any], key: str | None = None, **options: Any) -> str:
    async def use(remit: Remit) -> str:
        async with remit.gate("refunds").run({}, request_key=key) as run:
            for tool, args in calls:
                await run.propose(tool, args)
        return run.id

    return with_remit(shop, use, **options)


def by_policy(shop: Shop, text: str, **how: Any) -> Result:
    """What the runs come to under another policy.cedar."""
    file = shop.folder / "other.cedar"
    file.write_text(text)
    return by(shop, Alternative(policy=file), **how)


def by(shop: Shop, alternative: Alternative, **how: Any) -> Result:
    async def use(remit: Remit) -> Result:
        return judge(remit, proposed_terms(remit, alternative), Judging(**how))

    return with_remit(shop, use)


def by_contract(shop: Shop, actions: list[dict[str, Any]], **more: Any) -> Result:
    """What they come to under another contract, written beside the present one."""
    present = json.loads((shop.folder / "contracts" / "refunds" / "contract.yaml").read_text())
    file = shop.folder / "proposed.yaml"
    file.write_text(json.dumps({**present, "actions": actions, **more}))
    return by(shop, Alternative(contract=file))


FORBID_WRITES = '@id("no-writes") @reason("not today") forbid (principal, action == Action::"put.none", resource);'
HOLD_WRITES = FORBID_WRITES.replace('@id("no-writes")', '@id("ask") @hold("role:care-lead")')


def test_the_recorded_terms_come_to_the_recorded_decisions_whatever_these_were(tmp_path: Path, database_url: str) -> None:
    shop = shop_with(tmp_path, database=database_url)
    record_runs(shop, 30)
    result = by(shop, Alternative())
    assert result.decisions > 150
    assert result.reproduced == result.decisions == result.firm.changes["same"]
    assert result.hypothetical.decisions == 0
    assert by(shop, Alternative(), since_us=1).decisions == result.decisions
    assert by(shop, Alternative(), last_runs=3).runs <= 3


def test_a_new_forbid_denies_what_was_allowed_and_says_what_it_stops(shop: Shop) -> None:
    run = propose(shop, ("put.none", {"value": 1}), ("orders.read", {"order": 1}))
    found = by_policy(shop, RULES + FORBID_WRITES).as_json()
    assert (found["tightened"], found["hypothetical"]["same"], found["decisions"]) == (1, 1, 2)
    assert found["stopped"] == {"writes": 1, "money": {}}
    (row,) = found["by"]["rule"]
    assert (row["rule"], row["examples"]) == ("no-writes", [f"{run} 1"])


def test_a_new_hold_asks_and_money_that_it_stops_is_counted_by_currency(shop: Shop) -> None:
    propose(shop, refund(1, "20.00"), refund(2, "21.50"))
    ask = '@id("ask") @hold("role:care-lead") forbid (principal, action == Action::"payments.refund", resource);'
    result = by_policy(shop, ask)
    assert (result.firm.changes["held"], result.hypothetical.changes["held"]) == (1, 1)
    assert result.firm.as_json()["stopped"] == {"writes": 1, "money": {"EUR": "20.0000"}}
    assert result.firm.as_json()["approvals"] == {"role:care-lead": 1}


def test_a_call_that_failed_moved_nothing_that_could_be_stopped(shop: Shop) -> None:
    propose(shop, refund(1, "20.00", "CLOSED"))
    ask = '@id("ask") @hold("role:care-lead") forbid (principal, action == Action::"payments.refund", resource);'
    assert by_policy(shop, ask).as_json()["stopped"] == {"writes": 0, "money": {}}


def test_a_forbid_that_is_taken_out_lets_money_through(shop: Shop) -> None:
    propose(shop, refund(1, "20.00", "XX1"))
    found = by_policy(shop, "").as_json()
    assert (found["loosened"], found["let_through"]) == (1, {"writes": 1, "money": {"EUR": "20.0000"}})
    assert found["by"]["rule"][0]["rule"] == "no-xx"


def held_and_approved(shop: Shop) -> None:
    async def use(remit: Remit) -> None:
        for _ in range(2):
            async with remit.gate("refunds").run({}, request_key="one") as run:
                outcome = await run.propose(*refund(1, "60.00"))
            if isinstance(outcome, Held):
                await remit.cases.decide(outcome.case, Decision.APPROVED, token=remit.person_token("lee"))

    with_remit(shop, use)


def test_an_approval_still_answers_the_question_that_it_answered(shop: Shop) -> None:
    held_and_approved(shop)
    result = by_policy(shop, RULES + FORBID_WRITES)
    assert (result.decisions, result.firm.changes["same"]) == (2, 2)


@pytest.mark.parametrize(
    "rule",
    [
        '@id("second") @hold("role:care-lead") forbid (principal, action == Action::"payments.refund", resource);',
        '@id("second") @reason("other") @hold("role:finance") forbid (principal, action == Action::"payments.refund", resource);',
    ],
)
def test_an_approval_never_answers_a_question_that_was_not_asked(shop: Shop, rule: str) -> None:
    held_and_approved(shop)
    result = by_policy(shop, RULES + rule)
    assert (result.firm.changes["same"], result.firm.changes["held"]) == (1, 1)


def test_a_step_that_is_proposed_anew_with_another_call_is_another_call(shop: Shop) -> None:
    async def use(remit: Remit) -> None:
        run = await remit.engine.open("refunds", {})
        async with remit.engine.session(run) as (_, folded):
            for tool, args in (("orders.read", {"order": 1}), refund(1, "60.00"), ("put.none", {"value": 1})):
                token = remit.issuer.issue(folded.state.authority.token_request(run, None), remit.clock())
                await remit.pipeline.propose(folded.state, Proposal(tool=tool, args=args, step="1", token=token))

    with_remit(shop, use)
    result = by_policy(shop, RULES + FORBID_WRITES)
    assert (result.reproduced, result.firm.changes["same"], result.firm.changes["tightened"]) == (3, 2, 1)


def test_a_tighter_rate_changes_what_later_calls_of_other_runs_meet(shop: Shop) -> None:
    for _ in range(5):
        propose(shop, ("put.none", {"value": 1}))
    tighter = [each if each["tool"] != "put.none" else write_action("put.none", limits={"per_hour": 2}) for each in ACTIONS]
    found = by_contract(shop, tighter).as_json()
    assert (found["same"], found["tightened"], found["hypothetical"]["decisions"]) == (2, 3, 0)
    assert found["by"]["rule"][0]["rule"] == "limit: 2 calls per hour of `put.none`"


def test_what_is_denied_now_is_no_part_of_later_facts(shop: Shop) -> None:
    propose(shop, ("risk.check", {"order": 1}), refund(1, "45.00"))
    result = by_policy(shop, RULES + FORBID_WRITES.replace("put.none", "risk.check"))
    assert result.firm.changes["tightened"] == 1
    # Without the check a person would be asked about the refund.
    assert result.hypothetical.changes["held"] == 1


def test_a_budget_that_was_not_used_up_lets_more_calls_through(shop: Shop) -> None:
    shop.contract("refunds", ACTIONS, policy=RULES, facts=FACTS, budget={"calls": 9, "writes": 1, "time": "60s"})
    propose(shop, ("put.none", {"value": 1}), ("put.none", {"value": 2}))
    found = by_policy(shop, RULES + FORBID_WRITES.replace("resource);", "resource) when { context.args.value == 1 };")).as_json()
    assert (found["tightened"], found["hypothetical"]["loosened"]) == (1, 1)


def test_arguments_that_were_not_kept_leave_a_new_grant_undetermined(shop: Shop) -> None:
    propose(shop, ("put.safe", {"value": 1}))
    found = by_contract(shop, [*ACTIONS, write_action("put.safe")]).as_json()
    assert found["undetermined"] == 1
    assert "arguments were not kept" in found["undetermined_because"][0]["reason"]


def test_a_verifier_that_was_never_asked_is_undetermined(shop: Shop) -> None:
    rule = "def agrees(shown):\n    return True\n\n\nasync def refunds(run, request):\n    return {}\n"
    (shop.folder / "contracts" / "refunds" / "workflow.py").write_text(rule)
    propose(shop, ("put.none", {"value": 1}))
    verified = [
        each if each["tool"] != "put.none" else write_action("put.none", verify=["rule:agrees"]) for each in ACTIONS
    ]
    found = by_contract(shop, verified).as_json()
    assert (found["undetermined"], found["undetermined_because"][0]["reason"]) == (1, "verifier `rule:agrees` was not asked")


def test_decisions_are_refused_when_the_recorded_terms_do_not_come_to_them(shop: Shop) -> None:
    run = propose(shop, refund(1, "60.00"), key="one")

    async def use(remit: Remit) -> None:
        # What no gate has ever decided under this policy.
        log, events = remit.journal.reopen(run)
        decided = next(event for event in events if event.type is EventType.CALL_DECIDED)
        verdict = {"kind": "deny", "code": "forbidden", "message": "no", "rules": ["no-xx"]}
        draft = Draft(
            type=EventType.CALL_DECIDED,
            actor=decided.header.actor,
            span="2",
            refs=decided.header.refs,
            verdict="deny",
            body={**decided.body, "verdict": verdict},
        )
        await remit.journal.append(log, draft)
        with pytest.raises(RunError) as refused:
            judge(remit, proposed_terms(remit, Alternative()))
        assert refused.value.code == "not_reproduced"
        assert "1 of 2 recorded decisions can't be made again" in refused.value.message
        assert f"{run} step 2: on record `deny forbidden no-xx`, now `hold autonomy:payments.refund" in refused.value.message

    with_remit(shop, use)


def test_runs_of_a_release_that_was_not_kept_are_refused_with_its_name(shop: Shop) -> None:
    propose(shop, ("put.none", {"value": 1}))

    async def use(remit: Remit) -> None:
        with remit.database.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM releases")
        (shop.folder / "contracts" / "refunds" / "policy.cedar").write_text("")

    with_remit(shop, use)
    with pytest.raises(RunError, match="was not kept, and the project's folder is at another one"):
        by(shop, Alternative())


def test_runs_of_earlier_releases_are_judged_by_what_was_kept_of_these(shop: Shop) -> None:
    propose(shop, ("put.none", {"value": 1}))
    shop.contract("refunds", [{"tool": "orders.read"}], policy="")
    propose(shop, ("put.none", {"value": 1}))
    result = by(shop, Alternative())
    assert (result.reproduced, result.firm.changes["tightened"], result.firm.changes["same"]) == (2, 1, 1)


def test_a_release_is_named_by_the_beginning_of_its_digest(shop: Shop) -> None:
    propose(shop, ("put.none", {"value": 1}))

    async def release(remit: Remit) -> str:
        return remit.program("refunds").authority.release

    first = with_remit(shop, release)
    shop.contract("refunds", [{"tool": "orders.read"}], policy="")
    assert by(shop, Alternative(release=first[:8])).firm.changes["same"] == 1
    with pytest.raises(RunError, match="there is no release `abc`"):
        by(shop, Alternative(release="abc"))


def test_an_erased_run_is_undetermined_and_no_failure(shop: Shop) -> None:
    run = propose(shop, ("put.none", {"value": 1}))
    propose(shop, ("put.none", {"value": 2}))

    async def erase(remit: Remit) -> None:
        with remit.database.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE run_keys SET body_key = NULL, sealed_key = NULL WHERE run = ?", (run,))

    with_remit(shop, erase)
    found = by_policy(shop, RULES + FORBID_WRITES).as_json()
    assert (found["undetermined"], found["tightened"]) == (1, 1)
    assert found["undetermined_because"][0] == {
        "reason": "the run was erased",
        "undetermined": 1,
        "tools": ["erased"],
        "examples": [f"{run} 1"],
    }


def test_what_was_decided_before_a_time_is_taken_as_it_was_and_counts_for_limits(shop: Shop) -> None:
    clock = Clock()
    for minutes in (0, 1, 2):
        clock.now_us += minutes * 60_000_000
        propose(shop, ("put.none", {"value": minutes}), clock=clock)
    tighter = [each if each["tool"] != "put.none" else write_action("put.none", limits={"per_hour": 2}) for each in ACTIONS]
    present = json.loads((shop.folder / "contracts" / "refunds" / "contract.yaml").read_text())
    (shop.folder / "proposed.yaml").write_text(json.dumps({**present, "actions": tighter}))
    since = clock.now_us - 90_000_000
    result = by(shop, Alternative(contract=shop.folder / "proposed.yaml"), since_us=since)
    assert (result.decisions, result.firm.changes["tightened"]) == (1, 1)


def test_only_the_last_runs_are_judged_if_one_asks_for_them(shop: Shop) -> None:
    seen: list[Compared] = []
    runs = [propose(shop, ("put.none", {"value": value})) for value in range(4)]
    by_policy(shop, RULES + FORBID_WRITES, last_runs=2, on_compared=seen.append)
    assert [(each.run, each.now) for each in seen] == [(run, "deny") for run in runs[2:]]


def test_a_backtest_changes_nothing_but_the_register(shop: Shop) -> None:
    propose(shop, ("put.none", {"value": 1}))

    async def use(remit: Remit) -> None:
        def rows(table: str) -> int:
            with remit.database.engine.connect() as connection:
                return connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar() or 0

        before = [rows(table) for table in ("runs", "cases", "meters", "events")]
        result = await judge_on_record(remit, proposed_terms(remit, Alternative()))
        assert [rows(table) for table in ("runs", "cases", "meters", "events")] == [*before[:3], before[3] + 1]
        replayed = remit.register.events()[-1]
        assert replayed.type is EventType.RUN_REPLAYED
        assert replayed.body["counts"] == result.counts()

    with_remit(shop, use)


def test_a_policy_that_does_not_fit_the_contract_is_refused_with_its_lines(shop: Shop) -> None:
    propose(shop, ("put.none", {"value": 1}))
    with pytest.raises(ConfigError, match=r"other.cedar:1: .*`no.such` is not granted"):
        by_policy(shop, '@id("x") forbid (principal, action == Action::"no.such", resource);')
