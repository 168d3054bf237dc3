"""The timeline of a run: bars in the run's own time, and the path of what it waited for."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from commands import remit

from project import Shop, make_shop
from remit import Remit
from remit.cli.timeline import timeline_of

TOOLS = '''

@tool("wait.for", effects={Effect.READ})
async def wait_for(ms: int) -> int:
    """Wait."""
    await asyncio.sleep(ms / 1000)
    return ms
'''
WORKFLOW = """
async def waits(run, request):
    await run.call("wait.for", ms=20)
    await run.gather(run.call("wait.for", ms=10), run.call("wait.for", ms=120))
    await run.sleep("2h")
    return {}
"""


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    made = make_shop(tmp_path, database_url)
    with (made.folder / "tools" / "shop.py").open("a") as tools:
        tools.write(TOOLS)
    made.contract("waits", [{"tool": "wait.for"}], workflow=WORKFLOW)
    return made


def test_the_run_waited_for_the_slower_branch_and_not_for_the_night(shop: Shop) -> None:
    async def drive() -> str:
        async with Remit(shop.folder) as now:
            run = (await now.run("waits", {})).run
        async with Remit(shop.folder, clock=lambda: now.clock() + 3 * 3_600_000_000) as later:
            assert (await later.engine.drive(run)).outcome == "completed"
        return run

    run = asyncio.run(drive())

    async def read() -> None:
        async with Remit(shop.folder) as opened:
            found = timeline_of(opened.journal.reader.events(run))
        assert {bar.step: bar.is_critical for bar in found.bars} == {"1": True, "2": False, "3": True}
        assert 140_000 <= found.active_us < 3_600_000_000
        assert found.waited_us >= 2 * 3_600_000_000
        assert all(bar.began_us <= bar.decided_us <= bar.ended_us <= found.active_us for bar in found.bars)
        assert found.gate_us + found.tools_us <= found.active_us

    asyncio.run(read())
    said = remit(shop, "show", run, "--timeline")
    assert "waited for: 1 → 3" in said
    assert all(len(each) <= 100 for each in said.splitlines() if "wait.for" in each)
    steps = json.loads(remit(shop, "show", run, "--timeline", "--json"))["steps"]
    assert [step["tool"] for step in steps] == ["wait.for"] * 3
