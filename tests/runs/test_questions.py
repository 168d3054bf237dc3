"""A run asks a person: it is parked until somebody answers, and goes on with the answer wherever it is taken up again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from project import REFUND, SECRET, Shop, make_shop, write_action
from remit import Remit, RunResult
from remit.cases.cases import Case, Decision
from remit.errors import CaseError
from remit.journal.events import EventType
from remit.replay.recorded import Choice
from remit.runs.questions import differences

pytestmark = pytest.mark.anyio

HOUR_US = 3_600_000_000

WORKFLOW = '''
async def {name}(run, request):
    draft = {{"note": "written by rosalind@kings.example", "amount": 7}}
    said = await run.ask("is this right?", of={of!r}, within="4h", draft=draft, answer=SCHEMA)
    done = await run.call("put.safe", value=said["amount"])
    return {{"said": said, "done": done}}


SCHEMA = {{"type": "object", "required": ["note", "amount"], "properties": {{"amount": {{"type": "integer"}}}}}}
'''


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    for name, of in (("asking", "role:care-lead"), ("checking", "requester"), ("queueing", "")):
        made.contract(name, [write_action("put.safe"), REFUND], workflow=WORKFLOW.format(name=name, of=of))
    return made


@pytest.fixture
async def remit(shop: Shop) -> AsyncIterator[Remit]:
    async with Remit(shop.folder) as opened:
        yield opened


async def ask(remit: Remit, contract: str = "asking", **opening: Any) -> tuple[RunResult, Case]:
    held = await remit.run(contract, {}, **opening)
    assert held.outcome == "held"
    return held, remit.cases.get(held.case or "")


def events(remit: Remit, run: str, kind: EventType) -> list[Any]:
    return [event for event in remit.journal.reader.events(run) if event.type is kind]


async def test_a_run_waits_for_the_answer_and_goes_on_with_it(remit: Remit, shop: Shop) -> None:
    held, case = await ask(remit)
    assert case.kind == "question"
    assert (await remit.engine.drive(held.run)).outcome == "held"
    assert remit.engine.waiting() == []
    answered = await remit.cases.answer(case.case, {"note": "fine", "amount": 9}, token=remit.person_token("lee"))
    assert (answered.status, answered.decided_by) == ("answered", "person/lee")
    assert remit.engine.waiting() == [held.run]
    result = await remit.engine.drive(held.run)
    assert result.outcome == "completed"
    assert result.output == {"said": {"note": "fine", "amount": 9}, "done": 9}
    assert len(shop.ledger()) == 1


async def test_what_the_person_changed_of_the_draft_is_kept_as_the_difference(remit: Remit) -> None:
    held, case = await ask(remit)
    revealed = await remit.cases.reveal(case.case, token=remit.person_token("lee"))
    assert revealed.draft == {"note": "written by rosalind@kings.example", "amount": 7}
    answer = {**revealed.draft, "amount": 8}
    await remit.cases.answer(case.case, answer, token=remit.person_token("lee"))
    event = events(remit, held.run, EventType.CASE_DECIDED)[0]
    assert event.body["changes"] == [{"path": "amount", "from": 7, "to": 8}]
    assert "kings.example" not in repr(event.body)
    assert event.sealed["answer"] == answer


async def test_only_what_the_person_wrote_is_labelled_theirs(remit: Remit) -> None:
    held, case = await ask(remit)
    await remit.cases.answer(case.case, {"note": "n", "amount": 12345}, token=remit.person_token("lee"))
    await remit.engine.drive(held.run)
    decided = events(remit, held.run, EventType.CALL_DECIDED)[-1]
    assert decided.body["labels"] == {"value": ["person"]}


async def test_an_answer_that_does_not_meet_the_question_is_refused_and_the_case_stays_open(remit: Remit) -> None:
    _, case = await ask(remit)
    for wrong, code in ((["x"], "answer_invalid"), ({"note": SECRET, "amount": 1}, "answer_invalid")):
        with pytest.raises(CaseError) as caught:
            await remit.cases.answer(case.case, wrong, token=remit.person_token("lee"))
        assert caught.value.code == code
        assert SECRET not in str(caught.value)
    assert remit.cases.get(case.case).status == "open"


async def test_who_is_not_asked_can_not_answer(remit: Remit) -> None:
    _, case = await ask(remit)
    with pytest.raises(CaseError) as caught:
        await remit.cases.answer(case.case, {"note": "", "amount": 1}, token=remit.person_token("anna"))
    assert caught.value.code == "role_missing"
    with pytest.raises(CaseError) as caught:
        await remit.cases.decide(case.case, Decision.APPROVED, token=remit.person_token("lee"))
    assert caught.value.code == "case_wrong_decision"


async def test_the_person_that_a_run_acts_for_is_asked_as_the_requester(remit: Remit) -> None:
    held, case = await ask(remit, "checking", on_behalf_of="person/anna")
    with pytest.raises(CaseError):
        await remit.cases.answer(case.case, {"note": "", "amount": 1}, token=remit.person_token("lee"))
    await remit.cases.answer(case.case, {"note": "", "amount": 1}, token=remit.person_token("anna"))
    assert (await remit.engine.drive(held.run)).outcome == "completed"


async def test_nobody_can_be_asked_as_the_requester_where_there_is_none(remit: Remit) -> None:
    result = await remit.run("checking", {})
    assert result.outcome == "failed"
    assert "requester" in result.reason


async def test_a_question_that_nobody_answers_in_time_escalates(remit: Remit, shop: Shop) -> None:
    held, case = await ask(remit)
    async with Remit(shop.folder, clock=lambda: remit.clock() + 5 * HOUR_US) as later:
        assert later.engine.waiting() == [held.run]
        result = await later.engine.drive(held.run)
        assert result.outcome == "escalated"
        assert "is this right?" in result.reason
        assert later.cases.get(case.case).status in ("expired", "withdrawn")
        with pytest.raises(CaseError):
            await later.cases.answer(case.case, {"note": "", "amount": 1}, token=later.person_token("lee"))


async def test_a_replay_over_the_record_gets_the_same_answer(remit: Remit) -> None:
    held, case = await ask(remit)
    await remit.cases.answer(case.case, {"note": "fine", "amount": 9}, token=remit.person_token("lee"))
    await remit.engine.drive(held.run)
    report = await remit.replays.replay(Choice(run=held.run), 1)
    assert [one.result for one in report.runs] == ["identical"]


async def test_code_that_asks_something_else_than_on_record_diverges(remit: Remit) -> None:
    held, case = await ask(remit)
    await remit.cases.answer(case.case, {"note": "fine", "amount": 9}, token=remit.person_token("lee"))
    program = remit.program("asking")
    assert program.workflow is not None
    program.workflow.__globals__["SCHEMA"]["required"] = ["amount"]
    assert (await remit.engine.drive(held.run)).outcome == "diverged"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=2),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.sampled_from("xyz"), each, max_size=3),
    max_leaves=8,
)


@given(one=JSON, other=JSON)
def test_two_values_differ_somewhere_unless_they_are_the_same(one: Any, other: Any) -> None:
    alike = repr(one) == repr(other) if type(one) is type(other) else False
    found = list(differences(one, other))
    assert not (alike and found)
    assert list(differences(one, one)) == []
