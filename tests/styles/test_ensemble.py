"""The style `ensemble`: votes, the kinds of disagreement, and what is on record, replayed and asked of people."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from project import Shop, make_shop, write_action
from remit import Remit, RunResult
from remit.errors import RunError
from remit.journal.events import Event, EventType
from remit.replay.recorded import Choice
from remit.styles.ensemble import Consensus, Disagreement, Opinion, ensemble, judge

pytestmark = pytest.mark.anyio


def label(said: str, confidence: int | None = None) -> Opinion:
    sure = {} if confidence is None else {"kind": confidence}
    return Opinion(labels={"kind": said}, confidence_per_mille=sure)


def value(said: str) -> Opinion:
    return Opinion(values={"kind": Decimal(said)})


def judged(*opinions: Opinion, quorum: int = 2, floor: int | None = 500) -> Consensus:
    return judge({f"m{n}": each for n, each in enumerate(opinions)}, decide=["kind"], quorum=quorum, floor=floor)


@pytest.mark.parametrize(
    ("opinions", "kinds", "answer"),
    [
        ([label("a"), label("a")], {Disagreement.AGREE}, "a"),
        ([label("a"), label("b")], {Disagreement.CATEGORY_DIFFERS}, None),
        ([label("a"), label("b"), label("a")], {Disagreement.CATEGORY_DIFFERS}, "a"),
        ([value("1.50"), value("1.5")], {Disagreement.AGREE}, "1.5"),
        ([value("1.50"), value("1.51")], {Disagreement.VALUE_DIFFERS}, None),
        ([value("0.00"), value("-0")], {Disagreement.AGREE}, "0"),
        ([label("a", 499), label("a", 500)], {Disagreement.AGREE, Disagreement.LOW_CONFIDENCE}, None),
        ([label("a", 500), label("a", 999)], {Disagreement.AGREE}, "a"),
        ([label("a"), Opinion(why="out of reach")], {Disagreement.ABSTAINED}, None),
        ([label("a"), label("a"), Opinion()], {Disagreement.AGREE, Disagreement.ABSTAINED}, "a"),
        ([Opinion(), Opinion()], {Disagreement.ABSTAINED}, None),
        ([label("a"), label("a"), Opinion(objections=["no"])], {Disagreement.AGREE, Disagreement.RULE_CONTRADICTS}, "a"),
    ],
)
def test_each_kind_of_disagreement_is_named(opinions: list[Opinion], kinds: set[Disagreement], answer: str | None) -> None:
    found = judged(*opinions)
    assert (found.kinds, found.answer.get("kind")) == (kinds, answer)
    assert found.settled == (answer is not None and Disagreement.RULE_CONTRADICTS not in kinds)


def test_two_equal_camps_settle_nothing_however_low_the_quorum() -> None:
    found = judged(label("a"), label("a"), label("b"), label("b"))
    assert (found.answer, found.open) == ({}, ["kind"])


def test_no_majority_outvotes_an_objection() -> None:
    found = judged(*[label("a")] * 9, Opinion(labels={"kind": "a"}, objections=["a duplicate"]))
    assert (found.settled, "a duplicate" in found.reason) == (False, True)


def opinion(said: str, confidence: int, objections: list[str]) -> Opinion:
    if not said:
        return Opinion(objections=objections)
    return Opinion(labels={"kind": said}, confidence_per_mille={"kind": confidence}, objections=objections)


OPINIONS = st.builds(
    opinion, st.sampled_from(["", "a", "b", "c"]), st.integers(0, 1000), st.lists(st.just("no"), max_size=1)
)


@given(st.lists(OPINIONS, min_size=1, max_size=7), st.integers(1, 7), st.integers(0, 1000))
def test_the_answer_is_what_a_quorum_of_the_sure_says_and_more_than_say_anything_else(
    opinions: list[Opinion], quorum: int, floor: int
) -> None:
    found = judged(*opinions, quorum=quorum, floor=floor)
    votes = Counter(o.labels["kind"] for o in opinions if o.labels and o.confidence_per_mille["kind"] >= floor)
    leading = [said for said, count in votes.items() if count == max(votes.values()) and count >= quorum]
    assert found.answer == ({"kind": leading[0]} if len(leading) == 1 else {})
    assert found.settled == (bool(found.answer) and not any(o.objections for o in opinions))
    assert (Disagreement.CATEGORY_DIFFERS in found.kinds) == (len(votes) > 1)


@given(st.permutations([label("a"), label("b", 100), label("a", 700), Opinion(), value("2")]))
def test_the_order_in_which_they_are_heard_changes_nothing(opinions: list[Opinion]) -> None:
    found, other = judged(*opinions), judged(label("a"), label("b", 100), label("a", 700), Opinion(), value("2"))
    assert (found.answer, found.kinds) == (other.answer, other.kinds)


# Runs

WORKFLOW = '''
from decimal import Decimal

from remit.styles.ensemble import AskPerson, Disagreement, Opinion, ensemble


def says(run, number, request):
    async def propose():
        order = await run.call("orders.read", order=number)
        said = request["say"][number]
        return Opinion(labels={"kind": said} if said else {}, objections=request.get("objections", []), why=request.get("why", ""))
    return propose


async def voting(run, request):
    asks = AskPerson(of="role:care-lead", about=frozenset([Disagreement.CATEGORY_DIFFERS]), choices={"kind": ["a", "b"]})
    members = {f"m{n}": says(run, n, request) for n in range(len(request["say"]))}
    found = await ensemble(run, decide=["kind"], proposals=members, quorum=request.get("quorum", 2), asks=asks)
    done = await run.call("put.safe", value=len(found.answer["kind"]))
    return {"answer": dict(found.answer), "by": found.by}
'''


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    actions = [{"tool": "orders.read"}, write_action("put.safe")]
    made.contract("voting", actions, workflow=WORKFLOW, style="ensemble")
    return made


@pytest.fixture
async def remit(shop: Shop) -> AsyncIterator[Remit]:
    async with Remit(shop.folder) as opened:
        yield opened


async def vote(remit: Remit, *said: str, **more: Any) -> RunResult:
    return await remit.run("voting", {"say": list(said), **more})


def recorded(remit: Remit, run: str) -> Event:
    [event] = [e for e in remit.journal.reader.events(run) if e.type is EventType.VALUE_RECORDED]
    return event


async def test_what_each_has_said_and_how_they_voted_is_on_record(remit: Remit) -> None:
    result = await vote(remit, "a", "b", "a")
    assert (result.outcome, result.output) == ("completed", {"answer": {"kind": "a"}, "by": "quorum"})
    body: Mapping[str, Any] = recorded(remit, result.run).body
    assert (body["kind"], body["value"]["answer"]) == ("ensemble", {"kind": "a"})
    said = {"m0": "a", "m1": "b", "m2": "a"}
    assert body["value"]["differences"] == [{"about": "kind", "kind": "category_differs", "said": said}]
    assert {name: each["labels"] for name, each in body["value"]["opinions"].items()} == {n: {"kind": s} for n, s in said.items()}


async def test_a_disagreement_that_may_be_asked_about_is_answered_by_a_person(remit: Remit, shop: Shop) -> None:
    held = await vote(remit, "a", "b")
    assert (held.outcome, shop.ledger()) == ("held", [])
    case = remit.cases.get(str(held.case))
    assert (case.kind, "category_differs" in case.reason) == ("question", True)
    await remit.cases.answer(case.case, {"kind": "b"}, token=remit.person_token("lee"))
    result = await remit.engine.drive(held.run)
    assert (result.outcome, result.output) == ("completed", {"answer": {"kind": "b"}, "by": "person"})


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        ({"say": ["a", "a"], "objections": ["it is a duplicate"]}, "rule_contradicts"),
        ({"say": ["a", "b"], "objections": ["it is a duplicate"]}, "rule_contradicts"),
        ({"say": ["a", ""], "why": "the model is out of reach"}, "abstained"),
    ],
)
async def test_what_may_not_be_asked_about_is_escalated_with_what_each_said(
    remit: Remit, request_: dict[str, Any], kind: str
) -> None:
    result = await remit.run("voting", request_)
    assert (result.outcome, kind in result.reason) == ("escalated", True)
    [opened] = [e for e in remit.journal.reader.events(result.run) if e.type is EventType.CASE_OPENED]
    assert set(opened.body["draft"]["opinions"]) == {"m0", "m1"}


async def test_what_was_said_is_redacted_and_the_run_goes_on_with_the_original(remit: Remit) -> None:
    held = await vote(remit, "ann@shop.example", "b")
    assert "ann@shop.example" not in json.dumps(recorded(remit, held.run).body)
    await remit.cases.answer(str(held.case), {"kind": "b"}, token=remit.person_token("lee"))
    assert (await remit.engine.drive(held.run)).outcome == "completed"


async def test_a_quorum_that_can_never_come_about_is_said(remit: Remit) -> None:
    result = await vote(remit, "a", quorum=2)
    assert (result.outcome, "a quorum of 2" in result.reason) == ("failed", True)
    with pytest.raises(RunError):
        await ensemble(None, decide=["kind"], proposals={}, quorum=0)  # type: ignore[arg-type]


def change(shop: Shop, old: str, new: str) -> None:
    path = shop.folder / "contracts" / "voting" / "workflow.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


async def test_a_replay_comes_to_the_same_and_code_that_concludes_something_else_is_found(remit: Remit, shop: Shop) -> None:
    await vote(remit, "a", "ann@shop.example", "a")
    [same] = (await remit.replays.replay(Choice(last=5), 1)).runs
    assert (same.result, same.why) == ("identical", "")
    change(shop, 'said = request["say"][number]', 'said = request["say"][number].upper()')
    async with Remit(shop.folder) as changed:
        [other] = (await changed.replays.replay(Choice(last=5), 1)).runs
    assert other.result == "diverged"
    assert other.divergence is not None
    assert (other.divergence.step, other.divergence.came.what) == ("2", "`ensemble`")
    assert "ann@shop.example" not in repr(other.divergence)


TURNING = '''
from pathlib import Path


async def turning(run, request):
    turned = (Path(__file__).parents[2] / "turned").exists()
    await run.record("conclusion", {"turned": turned})
    return {"said": await run.ask("well?", of="role:care-lead")}
'''


async def test_code_that_concludes_something_else_when_it_is_taken_up_again_is_diverged(remit: Remit, shop: Shop) -> None:
    shop.contract("turning", [{"tool": "orders.read"}], workflow=TURNING)
    held = await remit.run("turning", {})
    await remit.cases.answer(str(held.case), "fine", token=remit.person_token("lee"))
    (shop.folder / "turned").touch()
    result = await remit.engine.drive(held.run)
    assert (result.outcome, "concludes something else" in result.reason) == ("diverged", True)
