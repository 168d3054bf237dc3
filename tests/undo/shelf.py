"""A shelf of boxes on which runs do things that can be undone, and a fresh project around it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from project import Shop, make_shop, write_action
from remit import Remit

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


def make_shelf(folder: Path, database: str) -> Shelf:
    shop = make_shop(folder, database)
    (shop.folder / "tools" / "shelf.py").write_text(SHELF)
    config = shop.folder / "remit.toml"
    config.write_text(config.read_text().replace('"tools/shop.py"', '"tools/shop.py", "tools/shelf.py"'))
    shop.contract("tidy", actions(), workflow=WORKFLOW)
    (shop.folder / "record.cedar").write_text(RECORD)
    (shop.folder / "boxes.json").write_text(json.dumps(dict.fromkeys("abc", BOX)))
    return Shelf(shop=shop)


async def tidied(remit: Remit, *calls: tuple[str, dict[str, Any]]) -> str:
    result = await remit.run("tidy", {"calls": [list(call) for call in calls]})
    assert result.outcome == "completed", result
    return result.run


async def undo(remit: Remit, run: str, *overwrite: str) -> Any:
    return await remit.undoing.undo(run, token=remit.person_token("lee"), reason="wrong box", overwrite=overwrite)


PAINT = ("box.paint", {"box": "a", "changes": {"colour": "blue", "owner": "ann"}})
REPAINT = ("box.paint", {"box": "a", "changes": {"colour": "green"}})
SEAL = ("box.seal", {"box": "a"})
