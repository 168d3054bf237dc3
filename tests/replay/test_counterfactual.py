"""Level 3: one thing is changed, models are live, tools are answered, and a write is never sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from desk import change_code, destroy_keys, make_desk, run, with_remit
from hypothesis import given
from hypothesis import strategies as st

from project import Shop
from remit import Remit
from remit.cases.cases import Decision
from remit.errors import ConfigError
from remit.replay.answers import plainest
from remit.replay.chance import SignTest, sign_test
from remit.replay.changes import parse_change, parse_tool
from remit.replay.counterfactual import Cohort, TriedRun
from remit.replay.recorded import Choice
from remit.replay.trial import TrialResult

NO_REFUNDS = '@id("no-refunds") @reason("no")\nforbid (principal, action == Action::"payments.refund", resource);\n'


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    return make_desk(tmp_path / "shop", database_url)


def written(shop: Shop, name: str, text: str) -> Path:
    path = shop.folder / name
    path.write_text(text)
    return path


def what_if(shop: Shop, change: str, *tools: str, samples: int = 1) -> Cohort:
    async def use(remit: Remit) -> Cohort:
        parsed = parse_change(change, remit.project)
        return await remit.counterfactuals.compare(
            Choice(last=50), parsed, dict(map(parse_tool, tools)), samples=samples
        )

    return with_remit(shop, use)


def policy(shop: Shop, text: str = NO_REFUNDS) -> str:
    return f"policy={written(shop, 'other.cedar', text)}"


def ends(tried: TriedRun) -> tuple[list[str], list[str]]:
    return [trial.outcome for trial in tried.baseline], [trial.outcome for trial in tried.changed]


def sources(trial: TrialResult) -> dict[str, str]:
    return {line.step: line.answered for line in trial.lines if line.answered}


def test_a_stricter_policy_denies_what_was_paid_and_nothing_is_paid_again(shop: Shop) -> None:
    run(shop)
    run(shop, do="nothing")
    tried = shop.tries()
    cohort = what_if(shop, policy(shop), samples=2)
    assert [ends(each) for each in cohort.runs] == [
        (["completed"] * 2, ["denied"] * 2),
        (["completed"] * 2, ["completed"] * 2),
    ]
    assert [each.is_otherwise for each in cohort.runs] == [True, False]
    assert cohort.tests["ends otherwise than on record"] == SignTest(up=1, down=0, same=1)
    assert cohort.counts["otherwise"] == 1
    assert shop.tries() == tried


def test_a_call_that_was_approved_stays_so_where_the_same_rules_ask_about_the_same_call(shop: Shop) -> None:
    run(shop, Decision.APPROVED, amount="60.00")
    run(shop, Decision.DENIED, amount="70.00")
    run(shop, amount="80.00")
    cohort = what_if(shop, policy(shop, "// says nothing\n"))
    assert [ends(each)[1] for each in cohort.runs] == [["completed"], ["denied"], ["held"]]


def test_an_old_approval_does_not_satisfy_a_new_requirement(shop: Shop) -> None:
    run(shop, Decision.APPROVED, amount="60.00")
    hold = '@id("lead-too") @hold("role:care-lead") @reason("new")\nforbid (principal, action == Action::"payments.refund", resource);\n'
    (tried,) = what_if(shop, policy(shop, hold)).runs
    assert ends(tried) == (["completed"], ["held"])


def test_a_fixture_answers_in_place_of_the_record(shop: Shop) -> None:
    run(shop)
    fixture = written(shop, "orders.json", json.dumps([{"args": {"order": 4}, "result": {"account": "CLOSED", "note": ""}}]))
    (tried,) = what_if(shop, f"tool=orders.read:{fixture}").runs
    (baseline,), (changed,) = tried.baseline, tried.changed
    assert (sources(baseline)["1"], sources(changed)["1"]) == ("record", "fixture")
    # The refund has other arguments now, so nothing on record answers it.
    assert (sources(baseline)["3"], sources(changed)["3"]) == ("record", "simulated")
    assert (changed.outcome, changed.simulated) == ("completed", 1)
    assert "CLOSED" not in " ".join(shop.ledger())


def test_a_fixture_can_fail(shop: Shop) -> None:
    run(shop)
    fixture = written(shop, "orders.json", json.dumps([{"error": {"code": "gone", "message": "no such order"}}]))
    (tried,) = what_if(shop, f"tool=orders.read:{fixture}").runs
    assert (tried.changed[0].outcome, tried.changed[0].reason) == ("failed", "`orders.read` did not complete: no such order")


def test_a_read_that_the_record_does_not_answer_ends_the_trial_and_says_why(shop: Shop) -> None:
    run(shop)
    change_code(shop, "    at = ", '    await run.propose("risk.check", {"order": 9})\n    at = ')
    (tried,) = what_if(shop, policy(shop)).runs
    assert ends(tried) == (["missed"], ["missed"])
    assert tried.changed[0].reason == "`risk.check` was never asked this on record, and its answer is not known"


def test_a_workflow_that_catches_everything_does_not_go_on_behind_a_miss(shop: Shop) -> None:
    run(shop)
    change_code(
        shop, "    at = ", '    try:\n        await run.call("risk.check", order=9)\n    except Exception:\n        pass\n    at = '
    )
    (tried,) = what_if(shop, policy(shop)).runs
    assert ends(tried)[1] == ["missed"]


def test_a_tool_that_only_reads_may_be_asked_live(shop: Shop) -> None:
    run(shop)
    change_code(shop, "    at = ", '    await run.call("risk.check", order=9)\n    at = ')
    (tried,) = what_if(shop, policy(shop), "risk.check=live").runs
    assert sources(tried.changed[0]) == {"1": "record", "2": "live"}
    assert ends(tried) == (["completed"], ["denied"])


def test_a_tool_that_writes_is_never_asked_live(shop: Shop) -> None:
    run(shop)
    with pytest.raises(ConfigError, match="does more than read"):
        what_if(shop, policy(shop), "payments.refund=live")


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ("policy", "is none; one of"),
        ("weather=rain", "is none; one of"),
        ("policy=missing.cedar", "can't be read"),
        ("model=gpt", "model `gpt` is not declared"),
        ("tool=orders.read", "names no fixture"),
    ],
)
def test_a_change_that_is_none_is_refused(shop: Shop, change: str, wrong: str) -> None:
    run(shop)
    with pytest.raises(ConfigError, match=wrong):
        what_if(shop, change)


def test_a_change_that_changes_nothing_is_refused(shop: Shop) -> None:
    run(shop)
    with pytest.raises(ConfigError, match="changes nothing"):
        what_if(shop, policy(shop, ""))


def test_a_policy_that_is_wrong_is_refused(shop: Shop) -> None:
    run(shop)
    with pytest.raises(ConfigError, match=r"policy.cedar:1"):
        what_if(shop, policy(shop, "permit"))


def test_runs_that_can_not_be_tried_are_said_to_be_so(shop: Shop) -> None:
    run(shop, mail="ann@shop.example")
    destroy_keys(shop, "sealed_key")
    cohort = what_if(shop, policy(shop))
    assert cohort.counts["undetermined"] == 1
    assert "originals were dropped" in cohort.runs[0].why


MODEL_WORKFLOW = """
async def desk(run, request):
    answer = await run.model("sort", text=request["text"])
    return {"topic": answer["topic"]["label"]}
"""


def test_another_model_is_asked_live_and_beside_it_the_one_of_before(tmp_path: Path, database_url: str) -> None:
    pytest.importorskip("sklearn")
    shop = make_desk(
        tmp_path / "shop",
        database_url,
        MODEL_WORKFLOW,
        models={"sort": {"use": "now"}},
    )
    words = {"network": ["wifi", "cable", "router", "vpn"], "printer": ["paper", "toner", "scan", "print"]}
    for name, swapped in (("now", False), ("other", True)):
        rows = [
            {"text": f"the {word} {n} is broken", "topic": next(t for t in words if (t == topic) != swapped)}
            for topic, listed in words.items()
            for word in listed
            for n in range(8)
        ]
        written(shop, f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    sections = "".join(f'[models.{name}]\nkind = "classifier"\ntraining = "{name}.jsonl"\n' for name in ("now", "other"))
    settings = shop.folder / "remit.toml"
    settings.write_text(settings.read_text() + sections)
    run(shop, text="the router 3 is broken")
    (tried,) = what_if(shop, "model=other").runs
    assert [trial.output for trial in (*tried.baseline, *tried.changed)] == [{"topic": "network"}, {"topic": "printer"}]
    assert sources(tried.changed[0]) == {"1": "live"}


def test_the_sign_test_is_exact() -> None:
    # 1 of 8 one way: 2 * (1 + 8) / 256.
    assert sign_test([1.0] * 7 + [-2.0] + [0.0] * 5).p_value == pytest.approx(18 / 256)
    assert sign_test([]).p_value == 1.0
    assert SignTest(up=0, down=10, same=0).p_value == pytest.approx(2 / 1024)


@given(st.lists(st.integers(-3, 3), max_size=40))
def test_a_sign_test_does_not_care_which_way_round(differences: list[int]) -> None:
    one, other = sign_test(differences), sign_test([-each for each in differences])
    assert one.p_value == other.p_value
    assert 0 < one.p_value <= 1


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "object", "properties": {"a": {"type": "string"}, "b": {}}, "required": ["a"]}, {"a": ""}),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, None),
        ({"enum": ["open", "closed"]}, "open"),
        ({"type": ["integer", "null"]}, 0),
    ],
)
def test_the_plainest_value_of_a_schema_is_found(schema: Mapping[str, Any], value: Any) -> None:
    assert plainest(schema) == value
