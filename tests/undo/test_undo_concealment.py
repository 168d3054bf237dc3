"""What a run has concealed its undo conceals as well, from its first event to its last."""

from __future__ import annotations

from pathlib import Path

import pytest
from shelf import SHELF, WORKFLOW, Shelf, actions, make_shelf, tidied

from remit import Remit
from remit.cases.cases import Decision
from remit.journal.events import EventType
from remit.replay.recorded import Choice

pytestmark = pytest.mark.anyio

OWNED = ("box.paint", {"box": "a", "changes": {"owner": "Bob Rayleigh"}})
NAMES = ("Quillfeather", "Rayleigh", "Carla Third")


@pytest.fixture
def shelf(tmp_path: Path, database_url: str) -> Shelf:
    """A shelf on which the owners of boxes are declared to be personal."""
    made = make_shelf(tmp_path, database_url)
    tools = made.shop.folder / "tools" / "shelf.py"
    text = SHELF.replace('written="changes",', 'written="changes", field_classes={"changes.owner": FieldClass.PERSONAL},')
    tools.write_text(text.replace("import Compensation,", "import Compensation, FieldClass,"))
    made.by_hand("a", owner="Ann Quillfeather")
    return made


def told(remit: Remit, run: str) -> list[str]:
    record = repr([(event.header, event.body) for event in remit.journal.reader.events(run)])
    return [name for name in NAMES if name in record]


async def undone(remit: Remit, run: str) -> str:
    reason = "Ann Quillfeather asked for it"
    return (await remit.undoing.undo(run, token=remit.person_token("lee"), reason=reason)).run


async def test_an_undo_tells_nothing_of_what_its_run_has_concealed(remit: Remit, shelf: Shelf) -> None:
    run = await tidied(remit, OWNED)
    undo = await undone(remit, run)
    assert shelf.boxes()["a"]["owner"] == "Ann Quillfeather"
    assert told(remit, undo) == []
    request = remit.journal.reader.events(undo)[0].body["request"]
    assert request["calls"][0]["args"]["changes"]["owner"].startswith("<personal:")
    assert request["reason"].startswith("<personal:")


async def test_an_undo_that_leaves_something_alone_says_so_without_the_names(remit: Remit, shelf: Shelf) -> None:
    run = await tidied(remit, OWNED)
    shelf.by_hand("a", owner="Carla Third")
    (foreseen,) = (await remit.undoing.outlook(run, token=remit.person_token("lee"), reason="wrong box")).foreseen
    assert "owner is `<personal:" in foreseen.why
    assert "was left as `<personal:" in foreseen.why
    result = await remit.undoing.undo(run, token=remit.person_token("lee"), reason="wrong box")
    assert "was left as `<personal:" in result.output["remaining"][0]["why"]
    assert told(remit, result.run) == []
    assert [found.result for found in (await remit.replays.replay(Choice(run=result.run), 1)).runs] == ["identical"]


async def test_who_approves_a_step_of_an_undo_may_quote_what_the_run_has_left(remit: Remit, shelf: Shelf) -> None:
    policy = """
    @id("ask") @hold("role:care-lead") @reason("owners are for care")
    forbid (principal, action == Action::"box.paint", resource) when { resource.owner == "Bob Rayleigh" };
    """
    shelf.shop.contract("tidy", actions(), workflow=WORKFLOW, policy=policy)
    run = await tidied(remit, OWNED)
    held = await remit.undoing.undo(run, token=remit.person_token("lee"), reason="wrong box")
    assert held.case is not None
    said = "Bob Rayleigh is gone"
    await remit.cases.decide(held.case, Decision.APPROVED, token=remit.person_token("kim"), reason=said)
    await remit.undoing.undo(run, token=remit.person_token("lee"), reason="wrong box")
    assert shelf.boxes()["a"]["owner"] == "Ann Quillfeather"
    assert [e.type for e in remit.journal.reader.events(held.run)][-1] is EventType.RUN_CLOSED
    assert told(remit, held.run) == []
