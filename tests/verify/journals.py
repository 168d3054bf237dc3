"""Records that Remit itself has written, to be verified and tampered with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from project import Shop, make_shop, write_action
from remit import Remit
from remit.journal.events import Draft, EventType
from remit.storage.writer import Statement

WORKFLOW = """
async def run(run, request):
    for value in range(request["calls"]):
        await run.call("put.keyed", value=value)
    return {"done": True}
"""


async def write_journal(folder: Path, database: str, *, runs: int, calls: int, checkpoints: int = 6) -> Shop:
    """Closed runs and held ones, with originals; some erased, some with their originals dropped."""
    shop = make_shop(folder, database)
    budget: dict[str, Any] = {"budget": {"calls": 100, "writes": 100, "time": "60s"}}
    writing: dict[str, Any] = write_action("put.keyed", limits={"per_run": 100})
    shop.contract("writing", [writing], workflow=WORKFLOW, **budget)
    held = {**writing, "autonomy": "approve", "approval": {"by": "role:care-lead", "within": "4h"}}
    shop.contract("asking", [held], workflow=WORKFLOW, **budget)
    async with Remit(folder) as remit:
        done: list[str] = []
        for index in range(runs):
            request = {"order": index, "calls": calls, "mail": f"ann{index}@shop.example"}
            done.append((await remit.run("asking" if index % 9 == 8 else "writing", request)).run)
            if index % max(1, runs // checkpoints) == 0:
                await remit.sequencer.integrate(publish=True)
        await destroy(remit, done[0], EventType.RUN_ERASED)
        await destroy(remit, done[1], EventType.ORIGINALS_DROPPED)
    return shop


async def destroy(remit: Remit, run: str, kind: EventType) -> None:
    """Destroy keys of a run, on the register."""
    gone = "body_key = NULL, sealed_key = NULL" if kind is EventType.RUN_ERASED else "sealed_key = NULL"
    statement = Statement(sql=f"UPDATE run_keys SET {gone} WHERE run = :run", params={"run": run})
    draft = Draft(type=kind, actor="person/lee", body={"reason": "asked for"}, refs={"run": run})
    await remit.register.append(draft, statements=[statement])
