"""What a run has done is taken back: newest first, through the gate, and never over what somebody changed since."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from crashing import LATER_US, POINTS, apart, killed_at, let_pass

from project import Shop, make_shop, write_action
from remit import Remit
from remit.cases.cases import Decision
from remit.errors import ConfigError, RecordError, RunError
from remit.export.metrics import JournalFold
from remit.journal.events import EventType

pytestmark = pytest.mark.anyio

SHELF = '''
"""A shelf whose boxes stand in a file, each with a version that every change counts up."""

import json
import os
from pathlib import Path
from typing import Annotated, TypedDict, NotRequired

from msgspec import Meta

from remit import Effect, Idempotency, Resource, ToolContext, tool
from remit.errors import ToolFailed
from remit.tools.spec import Compensation, Happened, Reconciled

FILE = Path(__file__).parent.parent / "boxes.json"


def boxes():
    return json.loads(FILE.read_text())


def keep(all_boxes):
    temporary = FILE.with_suffix(".new")
    temporary.write_text(json.dumps(all_boxes))
    os.replace(temporary, FILE)


async def locate(ctx, args):
    box = boxes().get(args["box"])
    if box is None:
        raise ToolFailed("there is no such box", code="not_found")
    attributes = {name: box[name] for name in ("colour", "owner", "sealed")}
    return Resource(
        kind="Box", id=args["box"], tenant=ctx.tenant, region="eu", attributes=attributes, version=str(box["version"])
    )


ON_BOXES = {
    "resource_kind": "Box",
    "resource_attributes": {"colour": "String", "owner": "String", "sealed": "Bool"},
    "locate": locate,
    "idempotency": Idempotency.SAFE,
}


def change(ctx, name, values):
    found = boxes()
    if str(found[name]["version"]) != ctx.resource.version:
        raise ToolFailed("somebody was faster", code="conflict")
    found[name].update(values, version=found[name]["version"] + 1)
    keep(found)


def found_as(values):
    async def reconcile(ctx, args):
        box = boxes()[args["box"]]
        if all(box[name] == value for name, value in values(args).items()):
            return Reconciled(happened=Happened.YES, result=True)
        return Reconciled(happened=Happened.NO if str(box["version"]) == ctx.resource.version else Happened.UNCLEAR)

    return reconcile


class Changes(TypedDict):
    colour: NotRequired[str]
    owner: NotRequired[str]


def restore(args, result, before):
    return {"box": args["box"], "changes": {name: before.attributes[name] for name in args["changes"]}}


@tool(
    "box.paint",
    effects={Effect.WRITE},
    **ON_BOXES,
    reconcile=found_as(lambda args: args["changes"]),
    written="changes",
    compensation=Compensation(tool="box.paint", arguments=restore, left=lambda args, result, before: args["changes"]),
)
async def paint(ctx: ToolContext, box: str, changes: Annotated[Changes, Meta(extra_json_schema={"minProperties": 1})]) -> bool:
    """Change a box."""
    change(ctx, box, changes)
    return True


def same_box(args, result, before):
    return {"box": args["box"]}


@tool(
    "box.seal",
    effects={Effect.WRITE},
    **ON_BOXES,
    compensation=Compensation(tool="box.unseal", arguments=same_box, left=lambda args, result, before: {"sealed": True}),
)
async def seal(ctx: ToolContext, box: str) -> bool:
    """Seal a box."""
    change(ctx, box, {"sealed": True})
    return True


@tool("box.unseal", effects={Effect.WRITE}, **ON_BOXES, reconcile=found_as(lambda args: {"sealed": False}))
async def unseal(ctx: ToolContext, box: str) -> bool:
    """Open a sealed box."""
    change(ctx, box, {"sealed": False})
    return True


@tool(
    "box.shake",
    effects={Effect.WRITE},
    **ON_BOXES,
    compensation=Compensation(tool="box.shake", arguments=same_box),
)
async def shake(ctx: ToolContext, box: str) -> bool:
    """Shake a box; shaken again it is as before, or so they say."""
    change(ctx, box, {})
    return True


@tool("box.burn", effects={Effect.IRREVERSIBLE}, **ON_BOXES)
async def burn(ctx: ToolContext, box: str) -> bool:
    """Burn a box."""
    change(ctx, box, {"colour": "ash"})
    return True


@tool("box.tell", effects={Effect.WRITE}, **ON_BOXES)
async def tell(ctx: ToolContext, box: str) -> bool:
    """Tell everybody about a box."""
    return True
'''
WORKFLOW = """
async def tidy(run, request):
    for tool, args in request["calls"]:
        await run.call(tool, **args)
    return {}
"""
RECORD = """
@id("care-leads-undo")
permit (principal in Role::"care-lead", action == Action::"undo", resource) when { context.reason_given };
"""
BOX = {"colour": "red", "owner": "", "sealed": False, "version": 1}


@dataclass(frozen=True, kw_only=True)
class Shelf:
    shop: Shop

    @property
    def file(self) -> Path:
        return self.shop.folder / "boxes.json"

    def boxes(self) -> dict[str, Any]:
        found: dict[str, dict[str, Any]] = json.loads(self.file.read_text())
        return {name: {key: box[key] for key in ("colour", "owner", "sealed")} for name, box in found.items()}

    def by_hand(self, box: str, **values: Any) -> None:
        found = json.loads(self.file.read_text())
        found[box].update(values, version=found[box]["version"] + 1)
        self.file.write_text(json.dumps(found))


def actions() -> list[dict[str, Any]]:
    paint = write_action("box.paint", only={"fields": ["colour", "owner"]})
    return [paint, *(write_action(f"box.{name}") for name in ("seal", "shake", "tell")), burn()]


def burn() -> dict[str, Any]:
    return write_action("box.burn")


@pytest.fixture
def shelf(tmp_path: Path, database_url: str) -> Shelf:
    shop = make_shop(tmp_path, database_url)
    (shop.folder / "tools" / "shelf.py").write_text(SHELF)
    config = shop.folder / "remit.toml"
    config.write_text(config.read_text().replace('"tools/shop.py"', '"tools/shop.py", "tools/shelf.py"'))
    shop.contract("tidy", actions(), workflow=WORKFLOW)
    (shop.folder / "record.cedar").write_text(RECORD)
    (shop.folder / "boxes.json").write_text(json.dumps(dict.fromkeys("abc", BOX)))
    return Shelf(shop=shop)


@pytest.fixture
async def remit(shelf: Shelf) -> AsyncIterator[Remit]:
    async with Remit(shelf.shop.folder) as opened:
        yield opened


async def tidied(remit: Remit, *calls: tuple[str, dict[str, Any]]) -> str:
    result = await remit.run("tidy", {"calls": [list(call) for call in calls]})
    assert result.outcome == "completed", result
    return result.run


async def undo(remit: Remit, run: str, *overwrite: str) -> Any:
    return await remit.undoing.undo(run, token=remit.person_token("lee"), reason="wrong box", overwrite=overwrite)


PAINT = ("box.paint", {"box": "a", "changes": {"colour": "blue", "owner": "ann"}})
REPAINT = ("box.paint", {"box": "a", "changes": {"colour": "green"}})
SEAL = ("box.seal", {"box": "a"})


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
    again = await undo(remit, run)
    assert again.output["undone"] == []
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
