"""How runs stand that are not over: what waits for a system, what can't go on and why, and how a person ends it."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import remit, remit_json, with_remit

from project import Shop, make_shop, write_action
from remit import Remit
from remit.cli.story import Story
from remit.journal.events import Event

LEND = '''

async def locate_in_store(ctx, args):
    if (HOME / "store-is-away").exists():
        raise ToolFailed("connection refused", code="unreachable", retryable=True)
    return Resource(kind="Item", id="1", tenant=ctx.tenant, region="eu", attributes={})


@tool("items.lend", effects={Effect.WRITE}, resource_kind="Item", locate=locate_in_store)
async def lend(ctx: ToolContext, to: str) -> str:
    """Lend an item."""
    effect("keyed", ctx.idempotency_key, to)
    return to
'''
WORKFLOW = "async def lending(run, request):\n    return {'lent': await run.call('items.lend', to='ann')}\n"
ACTIONS = [write_action("items.lend")]


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    """A shop whose store is away."""
    made = make_shop(tmp_path, database_url)
    with (made.folder / "tools" / "shop.py").open("a") as tools:
        tools.write(LEND)
    made.contract("lending", ACTIONS, workflow=WORKFLOW)
    (made.folder / "store-is-away").touch()
    return made


def wait(shop: Shop) -> str:
    """A run that waits for the store."""
    return remit_json(shop, "run", "lending", "{}")["run"]


def change_contract(shop: Shop) -> None:
    shop.contract("lending", ACTIONS, workflow=WORKFLOW, policy="// another text\n")


def test_a_run_whose_system_is_away_waits_and_says_that_it_goes_on_by_itself(shop: Shop) -> None:
    said = remit(shop, "run", "lending", "{}")
    assert "waiting the system of record could not be reached" in said
    assert "`remit worker` goes on with it by itself" in said
    assert "waiting the system of record" in remit(shop, "worker", "--once")
    (shop.folder / "store-is-away").unlink()
    assert " completed" in remit(shop, "worker", "--once")
    assert remit(shop, "worker", "--once") == "no run waits for a worker\n"


def test_a_put_off_decision_is_no_denial(shop: Shop) -> None:
    run = wait(shop)
    shown = remit(shop, "show", run)
    assert "· waiting ·" in shown.splitlines()[0]
    assert "not decided: the system of record could not be reached, and nothing was done" in shown
    assert "; tried again later" in shown
    assert "waiting  `remit worker` goes on with it by itself" in shown
    assert "deny" not in shown


def test_a_story_tells_once_what_was_tried_again_and_again(shop: Shop) -> None:
    run = wait(shop)
    for _ in range(3):
        remit(shop, "worker", "--once")
    shown = remit(shop, "show", run)
    assert shown.count("not decided") == 1
    assert "tried 4 times, and again later" in shown
    assert "the run went on" not in shown
    (shop.folder / "store-is-away").unlink()
    remit(shop, "worker", "--once")
    shown = remit(shop, "show", run)
    assert shown.index("tried 4 times") < shown.index("the run went on") < shown.index("allow")


def test_a_waiting_run_is_as_bright_as_whatever_waits(shop: Shop) -> None:
    from remit.terminal import style_of

    run = wait(shop)

    async def use(opened: Remit) -> list[Event]:
        return opened.journal.reader.events(run)

    told = Story(events=with_remit(shop, use), now=0, width=None).lines()
    [put_off] = [text for text in told if "not decided" in text.plain]
    assert {str(span.style) for span in put_off.spans} == {style_of("held")}


def test_runs_that_can_not_go_on_are_listed_with_why_and_work_ends_in_an_error(shop: Shop) -> None:
    run = wait(shop)
    change_contract(shop)
    said = remit(shop, "worker", "--once", code=3)
    assert f"{run} stuck the run began under release" in said
    assert "1 run can't go on" in said
    [row] = remit_json(shop, "runs", "--outcome", "stuck")
    assert (row["run"], row["state"]) == (run, "stuck")
    assert "the run began under release" in row["trouble"]
    assert remit_json(shop, "runs", "--outcome", "waiting") == remit_json(shop, "runs", "--outcome", "running") == []
    assert "put the earlier files back" in remit(shop, "runs")
    shown = remit(shop, "show", run)
    assert "· stuck ·" in shown.splitlines()[0]
    assert f"`remit close {run[:12]} --as PERSON` ends it" in shown


def test_runs_that_wait_for_a_system_are_listed_as_such(shop: Shop) -> None:
    run = wait(shop)
    (shop.folder / "store-is-away").unlink()
    remit(shop, "run", "lending", "{}")
    [row] = remit_json(shop, "runs", "--outcome", "waiting")
    assert (row["run"], row["state"]) == (run, "waiting")
    assert remit_json(shop, "runs", "--outcome", "stuck") == []
    assert [row["run"] == run for row in remit_json(shop, "runs", "--last", "1")] == [False]


def test_a_person_ends_a_run_that_can_not_go_on(shop: Shop) -> None:
    run = wait(shop)
    change_contract(shop)
    assert "role_missing" in remit(shop, "close", run[:12], "--as", "anna", code=1)
    said = remit(shop, "close", run.removeprefix("run-")[:8], "--as", "kim", "--reason", "done by hand")
    assert said == f"{run} stopped ended by person/kim: done by hand\n"
    assert "run_closed" in remit(shop, "close", run, "--as", "kim", code=1)
    assert "run_not_found" in remit(shop, "close", "zzz", "--as", "kim", code=1)
    shown = remit(shop, "show", run)
    assert "stopped  ended by person/kim: done by hand" in shown
    assert "; tried once" in shown
    assert [row["run"] for row in remit_json(shop, "runs", "--outcome", "stopped")] == [run]
    assert remit_json(shop, "runs", "--outcome", "stuck") == []
