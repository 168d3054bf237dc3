"""What a run has done is taken back: newest first, through the gate, and never over what somebody changed since."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest
from crashing import LATER_US, POINTS, apart, killed_at, let_pass
from shelf import PAINT, REPAINT, SEAL, WORKFLOW, Shelf, actions, burn, tidied, undo

from export.stories import attributes, receiving
from project import write_action
from remit import Remit
from remit.cases.cases import Decision
from remit.errors import ConfigError, RecordError, RunError
from remit.export.metrics import JournalFold
from remit.journal.events import EventType
from remit.replay.recorded import Choice

pytestmark = pytest.mark.anyio


async def test_everything_is_as_it_was_newest_first(remit: Remit, shelf: Shelf) -> None:
    was = shelf.boxes()
    run = await tidied(remit, PAINT, REPAINT, SEAL, ("box.paint", {"box": "b", "changes": {"colour": "grey"}}))
    assert shelf.boxes() != was
    result = await undo(remit, run)
    assert result.outcome == "completed"
    assert shelf.boxes() == was
    assert [each["step"] for each in result.output["undone"]] == ["4", "3", "2", "1"]
    assert result.output["remaining"] == []


async def test_the_plan_says_what_would_be_done_and_does_nothing(remit: Remit, shelf: Shelf) -> None:
    run = await tidied(remit, PAINT, REPAINT, SEAL)
    left = shelf.boxes()
    outlook = await remit.undoing.outlook(run, token=remit.person_token("lee"), reason="wrong box")
    assert [(each.call.step, each.call.tool, each.why) for each in outlook.foreseen] == [
        ("3", "box.unseal", ""),
        ("2", "box.paint", ""),
        ("1", "box.paint", ""),
    ]
    assert outlook.foreseen[2].call.args == {"box": "a", "changes": {"colour": "red", "owner": ""}}
    assert shelf.boxes() == left


async def test_what_somebody_changed_since_is_left_alone_and_said(remit: Remit, shelf: Shelf) -> None:
    run = await tidied(remit, PAINT, SEAL)
    shelf.by_hand("a", owner="bob")
    foreseen = (await remit.undoing.outlook(run, token=remit.person_token("lee"), reason="wrong box")).foreseen
    assert "owner is `bob`, was left as `ann`" in foreseen[1].why
    result = await undo(remit, run)
    assert shelf.boxes()["a"] == {"colour": "blue", "owner": "bob", "sealed": False}
    (remaining,) = result.output["remaining"]
    assert remaining["step"] == "1"
    assert "it was changed since" in remaining["why"]


async def test_it_is_overwritten_where_a_person_says_so(remit: Remit, shelf: Shelf) -> None:
    run = await tidied(remit, PAINT)
    shelf.by_hand("a", owner="bob")
    result = await undo(remit, run, "1")
    assert result.output["remaining"] == []
    assert shelf.boxes()["a"] == {"colour": "red", "owner": "", "sealed": False}


async def test_what_was_undone_is_not_undone_again_whoever_insists(remit: Remit, shelf: Shelf) -> None:
    run = await tidied(remit, ("box.shake", {"box": "c"}))
    first = await undo(remit, run, "1")
    assert [each["step"] for each in first.output["undone"]] == ["1"]
    shaken = json.loads(shelf.file.read_text())["c"]["version"]
    outlook = await remit.undoing.outlook(run, token=remit.person_token("lee"), reason="wrong box")
    assert outlook.foreseen == ()
    assert [each.why for each in outlook.remaining] == [f"it was undone already, by {first.run}"]
    for overwrite in ((), ("1",)):
        with pytest.raises(RunError) as caught:
            await undo(remit, run, *overwrite)
        assert caught.value.code in ("nothing_to_undo", "step_unknown")
    assert json.loads(shelf.file.read_text())["c"]["version"] == shaken


async def test_what_a_person_did_again_after_an_undo_is_theirs(remit: Remit, shelf: Shelf) -> None:
    run = await tidied(remit, PAINT, SEAL)
    shelf.by_hand("a", owner="bob")
    first = await undo(remit, run)
    assert [each["step"] for each in first.output["undone"]] == ["2"]
    # On purpose, and just as the run had left it.
    shelf.by_hand("a", sealed=True, owner="ann")
    second = await undo(remit, run)
    assert [each["step"] for each in second.output["undone"]] == ["1"]
    assert shelf.boxes()["a"] == {"colour": "red", "owner": "", "sealed": True}
    report = await remit.replays.replay(Choice(run=second.run), 1)
    assert [one.result for one in report.runs] == ["identical"]


async def test_what_was_put_back_by_hand_needs_nothing(remit: Remit, shelf: Shelf) -> None:
    run = await tidied(remit, PAINT)
    shelf.by_hand("a", colour="red", owner="")
    foreseen = (await remit.undoing.outlook(run, token=remit.person_token("lee"), reason="wrong box")).foreseen
    assert [each.is_done for each in foreseen] == [True]
    result = await undo(remit, run)
    assert result.output["undone"] == []
    assert "as it was before" in result.output["remaining"][0]["why"]


async def test_what_can_not_be_undone_is_said_first(remit: Remit, shelf: Shelf) -> None:
    run = await tidied(
        remit, PAINT, ("box.burn", {"box": "b"}), ("box.tell", {"box": "c"}), ("box.shake", {"box": "c"})
    )
    outlook = await remit.undoing.outlook(run, token=remit.person_token("lee"), reason="wrong box")
    assert {each.step: each.why for each in outlook.remaining} == {
        "2": "its effect is irreversible",
        "3": "the tool declares no compensation",
    }
    assert "does not say what it leaves" in outlook.foreseen[0].why
    result = await undo(remit, run)
    assert [each["step"] for each in result.output["undone"]] == ["1"]
    assert {each["step"] for each in result.output["remaining"]} == {"2", "3", "4"}


async def test_policy_still_decides(remit: Remit, shelf: Shelf) -> None:
    policy = """
    @id("blue-stays") @reason("what is blue stays blue")
    forbid (principal, action == Action::"box.paint", resource) when { resource.colour == "blue" };
    """
    shelf.shop.contract("tidy", actions(), workflow=WORKFLOW, policy=policy)
    run = await tidied(remit, PAINT, SEAL)
    assert "what is blue stays blue" in (await remit.undoing.outlook(run, token=remit.person_token("lee"), reason="wrong box")).foreseen[1].why
    result = await undo(remit, run)
    assert shelf.boxes()["a"] == {"colour": "blue", "owner": "ann", "sealed": False}
    assert "what is blue stays blue" in result.output["remaining"][0]["why"]


async def test_a_hold_asks_another_person_and_the_undo_goes_on_by_itself(remit: Remit, shelf: Shelf) -> None:
    policy = """
    @id("ask") @hold("role:care-lead") @reason("sealed boxes are for care")
    forbid (principal, action == Action::"box.unseal", resource);
    """
    shelf.shop.contract("tidy", [*actions(), write_action("box.unseal")], workflow=WORKFLOW, policy=policy)
    run = await tidied(remit, PAINT, SEAL)
    (foreseen, _) = (await remit.undoing.outlook(run, token=remit.person_token("lee"), reason="wrong box")).foreseen
    assert foreseen.held
    held = await undo(remit, run)
    assert held.outcome == "held"
    refused = await remit.cases.decide_all([held.case], Decision.APPROVED, token=remit.person_token("lee"))
    assert "is the person this run acts for" in str(refused)
    await remit.cases.decide(held.case, Decision.APPROVED, token=remit.person_token("kim"))
    assert (await undo(remit, run)).outcome == "completed"
    assert shelf.boxes()["a"] == {"colour": "red", "owner": "", "sealed": False}


async def test_only_whom_the_policy_of_the_record_lets_may_undo(remit: Remit, shelf: Shelf) -> None:
    run = await tidied(remit, PAINT)
    for person, reason in (("anna", "wrong box"), ("lee", "")):
        for ask in (remit.undoing.outlook, remit.undoing.undo):
            with pytest.raises(RecordError) as refused:
                await ask(run, token=remit.person_token(person), reason=reason)
            assert refused.value.code == "record_denied"
    (shelf.shop.folder / "record.cedar").unlink()
    with pytest.raises(ConfigError) as missing:
        await undo(remit, run)
    assert missing.value.code == "record_policy_missing"
    assert shelf.boxes()["a"]["colour"] == "blue"


async def test_who_undid_it_and_why_is_on_record(remit: Remit, shelf: Shelf) -> None:
    run = await tidied(remit, PAINT)
    result = await undo(remit, run)
    opened = remit.journal.reader.events(result.run)[0].body
    assert opened["on_behalf_of"] == "person/lee"
    assert (opened["request"]["undo"], opened["request"]["reason"]) == (run, "wrong box")


async def test_the_trace_of_an_undo_is_linked_to_the_trace_of_what_it_undid(shelf: Shelf) -> None:
    settings = shelf.shop.folder / "remit.toml"
    with receiving() as receiver:
        settings.write_text(f'{settings.read_text()}\n[record]\notlp = "{receiver.url}"\n')
        async with Remit(shelf.shop.folder) as remit:
            run = await tidied(remit, PAINT)
            undone = (await undo(remit, run)).run
    roots = {
        told["remit.run.id"]: span
        for span in receiver.spans()
        if (told := attributes(span.attributes)).get("gen_ai.operation.name") == "invoke_agent"
    }
    (link,) = roots[undone].links
    assert (link.trace_id, link.span_id) == (roots[run].trace_id, roots[run].span_id)
    assert roots[run].trace_id != roots[undone].trace_id
    assert attributes(roots[undone].attributes)["remit.run.undoes"] == run


async def test_an_undo_counts_as_one_also_when_it_was_erased(remit: Remit, shelf: Shelf) -> None:
    run = await tidied(remit, PAINT)
    undone = (await undo(remit, run)).run
    before = JournalFold(remit.leaves).catch_up(2**62)
    assert (before.runs, before.undos) == ({("tidy", "completed"): 1}, {("tidy", "completed"): 1})
    assert remit.journal.reader.events(undone)[0].header.refs["undoes"] == run
    (shelf.shop.folder / "record.cedar").write_text('@id("all") permit (principal, action == Action::"erase", resource);')
    done = await remit.erasure.erase([remit.archive.run(undone)], token=remit.person_token("kim"), reason="asked")
    assert [each.refused for each in done.runs] == [""]
    assert remit.journal.reader.events(undone)[0].body is None
    after = JournalFold(remit.leaves).catch_up(2**62)
    assert (after.runs, after.undos, after.run_s) == (before.runs, before.undos, before.run_s)


async def test_an_open_run_is_not_undone(remit: Remit, shelf: Shelf) -> None:
    shelf.shop.contract("tidy", [{**burn(), "autonomy": "approve", "approval": {"by": "role:care-lead", "within": "4h"}}], workflow=WORKFLOW)
    held = await remit.run("tidy", {"calls": [["box.burn", {"box": "a"}]]})
    with pytest.raises(RunError) as refused:
        await undo(remit, held.run)
    assert refused.value.code == "run_open"


async def test_asked_twice_it_is_undone_once(remit: Remit, shelf: Shelf) -> None:
    run = await tidied(remit, PAINT)
    await undo(remit, run)
    with pytest.raises(RunError) as caught:
        await undo(remit, run)
    assert caught.value.code == "nothing_to_undo"
    assert shelf.boxes()["a"]["colour"] == "red"


def undo_until_killed(folder: Path, run: str, point: str) -> None:
    """Undo a run in this process, which dies the second time that the crash point is reached."""

    async def main() -> None:
        async with Remit(folder, crash_point=killed_at(point, 2)) as remit:
            await undo(remit, run)

    asyncio.run(main())


@pytest.mark.parametrize("point", POINTS)
async def test_a_killed_undo_goes_on_where_it_was(shelf: Shelf, point: str) -> None:
    was = shelf.boxes()
    async with Remit(shelf.shop.folder) as remit:
        run = await tidied(remit, PAINT, REPAINT, SEAL)
    assert apart(undo_until_killed, shelf.shop.folder, run, point) == -signal.SIGKILL
    async with Remit(shelf.shop.folder) as remit:
        let_pass(remit, LATER_US)
        result = await undo(remit, run)
        assert result.outcome == "completed", result
        assert shelf.boxes() == was
        events = remit.journal.reader.events(result.run)
        assert sum(event.type is EventType.CALL_COMPLETED for event in events) == 3
