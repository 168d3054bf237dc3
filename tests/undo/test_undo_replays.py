"""An undo is a run: it is replayed like one, over its record and the record of the run that it undid."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest
from commands import remit as command
from shelf import PAINT, REPAINT, SEAL, WORKFLOW, Shelf, actions, tidied, undo
from sqlalchemy import update

from project import write_action
from remit import Remit
from remit.cases.cases import Decision
from remit.replay.changes import parse_change
from remit.replay.recorded import Choice
from remit.replay.report import Replayed
from remit.storage import schema

pytestmark = pytest.mark.anyio


async def replayed(remit: Remit, run: str, level: int = 1, code: Literal["present", "recorded"] = "present") -> Replayed:
    (found,) = (await remit.replays.replay(Choice(run=run), level, code)).runs
    return found


def change_tool(shelf: Shelf, old: str, new: str) -> None:
    tools = shelf.shop.folder / "tools" / "shelf.py"
    text = tools.read_text()
    assert old in text
    tools.write_text(text.replace(old, new))


def destroy(remit: Remit, run: str, *names: str) -> None:
    keys = schema.run_keys
    with remit.database.engine.begin() as connection:
        connection.execute(update(keys).where(keys.c.run == run).values(dict.fromkeys(names)))


@pytest.mark.parametrize("code", ["present", "recorded"])
async def test_an_undo_comes_out_the_same_and_touches_nothing(
    remit: Remit, shelf: Shelf, code: Literal["present", "recorded"]
) -> None:
    undone = (await undo(remit, await tidied(remit, PAINT, REPAINT, SEAL))).run
    left = shelf.file.read_text()
    found = await replayed(remit, undone, 1, code)
    assert (found.result, found.why, found.note, len(found.lines)) == ("identical", "", "", 3)
    assert shelf.file.read_text() == left


async def test_an_undo_that_left_something_alone_or_overwrote_it_comes_out_the_same(remit: Remit, shelf: Shelf) -> None:
    run = await tidied(remit, PAINT, SEAL, ("box.burn", {"box": "b"}))
    shelf.by_hand("a", owner="bob")
    left_alone = await undo(remit, run)
    assert [each["step"] for each in left_alone.output["remaining"]] == ["3", "1"]
    overwritten = await undo(remit, run, "1")
    assert [each["step"] for each in overwritten.output["undone"]] == ["1"]
    for each in (left_alone, overwritten):
        assert (await replayed(remit, each.run)).result == "identical"


async def test_an_undo_that_waited_for_a_person_comes_out_the_same(remit: Remit, shelf: Shelf) -> None:
    policy = """
    @id("ask") @hold("role:care-lead") @reason("sealed boxes are for care")
    forbid (principal, action == Action::"box.unseal", resource);
    """
    shelf.shop.contract("tidy", [*actions(), write_action("box.unseal")], workflow=WORKFLOW, policy=policy)
    run = await tidied(remit, SEAL)
    held = await undo(remit, run)
    assert (await replayed(remit, held.run)).result == "undetermined"
    await remit.cases.decide(held.case, Decision.APPROVED, token=remit.person_token("kim"))
    await undo(remit, run)
    assert (await replayed(remit, held.run)).result == "identical"


async def test_the_decisions_of_an_undo_are_reproduced(remit: Remit, shelf: Shelf) -> None:
    undone = (await undo(remit, await tidied(remit, PAINT, SEAL))).run
    found = await replayed(remit, undone, 2)
    assert (found.result, [one.reproduced for one in found.decisions]) == ("identical", [True, True])


async def test_a_compensation_that_was_changed_since_is_named_as_the_cause(remit: Remit, shelf: Shelf) -> None:
    run = await tidied(remit, PAINT)
    undone = (await undo(remit, run)).run
    change_tool(shelf, "{name: before.attributes[name] for name in args[\"changes\"]}", '{"colour": "white"}')
    async with Remit(shelf.shop.folder) as later:
        found = await replayed(later, undone)
        assert (found.result, found.divergence and found.divergence.step) == ("diverged", "1")
        assert f"`{run}` is planned otherwise now: the compensation of a tool has changed" in found.cause
        for level in (1, 2):
            again = await replayed(later, undone, level, "recorded")
            assert (again.result, again.why.startswith("it was planned under files")) == ("undetermined", True)


@pytest.mark.parametrize(
    ("keys", "said"),
    [(["sealed_key"], "whose originals were dropped"), (["body_key", "sealed_key"], "does not say any more")],
)
async def test_what_there_was_to_undo_is_not_guessed_where_the_record_does_not_say_it_any_more(
    remit: Remit, keys: list[str], said: str
) -> None:
    mail = ("box.paint", {"box": "a", "changes": {"owner": "ann@shop.example"}})
    run = await tidied(remit, mail)
    undone = (await undo(remit, run)).run
    assert (await replayed(remit, undone)).result == "identical"
    destroy(remit, run, *keys)
    found = await replayed(remit, undone)
    assert found.result == "undetermined"
    assert f"it undoes `{run}`, whose" in found.why
    assert said in found.why


async def test_an_undo_over_pseudonyms_says_so(remit: Remit) -> None:
    owned = ("box.paint", {"box": "a", "changes": {"owner": "ann@shop.example"}})
    owned_again = ("box.paint", {"box": "a", "changes": {"owner": "bob@shop.example"}})
    run = await tidied(remit, owned, owned_again)
    undone = (await undo(remit, run)).run
    destroy(remit, undone, "sealed_key")
    found = await replayed(remit, undone)
    assert (found.result, found.note) == ("identical", "over pseudonyms, because its originals were dropped")


async def test_a_plan_speaks_of_what_would_be_and_a_replay_says_what_an_undo_undid(shelf: Shelf) -> None:
    async with Remit(shelf.shop.folder) as remit:
        run = await tidied(remit, PAINT, SEAL)
        shelf.by_hand("a", owner="bob")
    asked = ("undo", run, "--as", "lee", "--reason", "wrong box")
    planned = await asyncio.to_thread(command, shelf.shop, *asked, "--plan")
    assert (planned.count("would be undone"), planned.count("would be left: it was changed since")) == (1, 1)
    done = await asyncio.to_thread(command, shelf.shop, *asked, code=3)
    assert "would be" not in done
    shown = await asyncio.to_thread(command, shelf.shop, "replay", "--last", "1")
    assert f" · for lee · undoes {run.removeprefix('run-')[:8]} · completed   identical" in shown


async def test_an_undo_is_not_tried_with_a_change(remit: Remit, shelf: Shelf) -> None:
    run = await tidied(remit, PAINT)
    undone = (await undo(remit, run)).run
    policy = shelf.shop.folder / "other.cedar"
    policy.write_text("// says nothing\n")
    cohort = await remit.counterfactuals.compare(Choice(last=9), parse_change(f"policy={policy}", remit.project), {})
    assert {each.recorded.run: each.why for each in cohort.runs if each.why} == {
        undone: f"it undoes `{run}`; nothing of what is tried here has a say in that"
    }
