"""An undo is no doing of the contract's agent: it is not judged and teaches nothing, and what it used stays used."""

from __future__ import annotations

from typing import Any

import pytest
from shelf import PAINT, SEAL, WORKFLOW, Shelf, actions, tidied, undo

from remit import Remit
from remit.backtest.judging import Judging, judge
from remit.backtest.learning import learn, tighten
from remit.backtest.proposals import at_hand

pytestmark = pytest.mark.anyio


def judged(remit: Remit, **more: Any) -> dict[str, Any]:
    return judge(remit, at_hand(remit, "tidy"), Judging(**more)).as_json()


async def test_a_record_with_an_undo_in_it_is_judged_as_without(remit: Remit) -> None:
    run = await tidied(remit, PAINT, SEAL)
    before = judged(remit)
    assert (before["decisions"], before["reproduced"], before["runs"]) == (2, 2, 1)
    await undo(remit, run)
    assert judged(remit) == before
    # The last run is the last that the agent made.
    assert judged(remit, last_runs=1) == before


async def test_what_people_undid_is_nothing_that_the_agent_needs(remit: Remit) -> None:
    run = await tidied(remit, PAINT)
    learnt = learn(remit, "tidy").evidence
    await undo(remit, run)
    again = learn(remit, "tidy").evidence
    assert (again.runs, again.calls, again.tools["box.paint"].calls) == (learnt.runs, learnt.calls, 1)
    assert tighten(remit, "tidy").runs == 1


async def test_what_an_undo_used_of_a_limit_is_counted_as_it_was(shelf: Shelf) -> None:
    painting = {**actions()[0], "limits": {"per_run": 9, "per_hour": 3}}
    shelf.shop.contract("tidy", [painting, *actions()[1:]], workflow=WORKFLOW)
    async with Remit(shelf.shop.folder) as remit:
        await undo(remit, await tidied(remit, PAINT))
        await tidied(remit, PAINT)
        result = await remit.run("tidy", {"calls": [list(PAINT)]})
        assert (result.outcome, "3 calls per hour" in result.reason) == ("denied", True), result
        found = judged(remit)
    assert (found["decisions"], found["reproduced"], found["same"]) == (3, 3, 3)
