"""`examples/invoice-triage` as it is: every file of its inbox, a person's answers and approvals, an attack, undo, replay."""

from __future__ import annotations

import importlib.util
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from as_is import copy_of, problems_of

from parts import unavailable
from remit import Completed, Denied, Remit, RunResult
from remit.cases.cases import Decision
from remit.errors import CaseError
from remit.journal.events import EventType
from remit.replay.changes import parse_change
from remit.replay.recorded import Choice

pytestmark = pytest.mark.anyio

STRANGE = "DE12500105170648489890"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if importlib.util.find_spec("sklearn") is None:
        unavailable("`sklearn` is not installed; `pip install '.[demo]'`")
    return copy_of("invoice-triage", tmp_path / "payables")


@pytest.fixture
async def remit(folder: Path) -> AsyncIterator[Remit]:
    async with Remit(folder) as opened:
        yield opened


async def triage(remit: Remit, file: str) -> RunResult:
    return await remit.run("invoice-triage", {"file": file})


async def approve(remit: Remit, held: RunResult, person: str) -> RunResult:
    assert held.outcome == "held", held.reason
    await remit.cases.decide(str(held.case), Decision.APPROVED, token=remit.person_token(person))
    return await remit.engine.drive(held.run)


def entries(folder: Path) -> list[tuple[str, str, str, str, str]]:
    with closing(sqlite3.connect(folder / ".remit" / "payables.db")) as books:
        return books.execute("SELECT number, amount, account, category, state FROM entries WHERE entry > 1").fetchall()


def voted(remit: Remit, run: str) -> dict[str, Any]:
    [event] = [e for e in remit.journal.reader.events(run) if e.type is EventType.VALUE_RECORDED]
    return event.body["value"]


async def test_an_invoice_that_all_agree_on_is_booked_to_the_account_of_the_master_and_undone(
    remit: Remit, folder: Path
) -> None:
    result = await triage(remit, "2101-office.xml")
    booked: dict[str, Any] = {"entry": 2, "supplier": "S-200", "category": "office", "payable": "178.5", "by": "quorum", "disagreements": []}
    assert (result.outcome, result.output) == ("completed", booked)
    assert entries(folder) == [("KB-2026-1101", "178.50", "DE02120300000000202051", "office", "booked")]
    undone = await remit.undoing.undo(result.run, token=remit.person_token("ron"), reason="sent back")
    assert (undone.outcome, [each["tool"] for each in undone.output["undone"]]) == ("completed", ["ledger.book"])
    assert [state for *_, state in entries(folder)] == ["reversed"]


async def test_an_entry_that_is_paid_is_not_reversed(remit: Remit, folder: Path) -> None:
    result = await triage(remit, "2101-office.xml")
    with closing(sqlite3.connect(folder / ".remit" / "payables.db")) as books, books:
        books.execute("UPDATE entries SET state = 'paid' WHERE entry = 2")
    undone = await remit.undoing.undo(result.run, token=remit.person_token("ron"), reason="sent back")
    assert "state is `paid`" in undone.output["remaining"][0]["why"]


@pytest.mark.parametrize("file", ["2102-servers.xml", "2111-over-the-order.xml"])
async def test_a_large_invoice_and_one_beyond_its_order_wait_for_a_lead(remit: Remit, folder: Path, file: str) -> None:
    held = await triage(remit, file)
    assert (held.outcome, entries(folder)) == ("held", [])
    with pytest.raises(CaseError):
        await approve(remit, held, "ida")
    assert (await approve(remit, held, "ron")).outcome == "completed"
    assert len(entries(folder)) == 1


async def test_above_10000_one_person_with_both_roles_approves(remit: Remit) -> None:
    held = await triage(remit, "2112-large.xml")
    with pytest.raises(CaseError):
        await approve(remit, held, "ron")
    assert (await approve(remit, held, "uma")).outcome == "completed"


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("2103-new-account.xml", "bank details"),
        ("2104-again.xml", "duplicate"),
        ("2105-wrong-vat.xml", "BR-CO-17"),
        ("2110-somebody-elses-order.xml", "an order of another supplier"),
    ],
)
async def test_what_the_rules_object_to_is_escalated_whatever_the_models_say(
    remit: Remit, folder: Path, file: str, said: str
) -> None:
    result = await triage(remit, file)
    assert (result.outcome, said in result.reason, entries(folder)) == ("escalated", True, [])
    kinds = [each["kind"] for each in voted(remit, result.run)["differences"]]
    assert "rule_contradicts" in kinds


async def test_a_file_with_entities_is_unreadable_and_escalated(remit: Remit) -> None:
    result = await triage(remit, "2108-entities.xml")
    assert (result.outcome, "document_type" in result.reason) == ("escalated", True)


async def test_lines_that_make_another_amount_are_shown_to_a_person_who_lets_the_stated_one_stand(
    remit: Remit, folder: Path
) -> None:
    held = await triage(remit, "2106-lines-differ.xml")
    assert "value_differs" in remit.cases.get(str(held.case)).reason
    answer = {"category": "freight", "payable": "440.30"}
    await remit.cases.answer(str(held.case), answer, token=remit.person_token("ida"))
    result = await remit.engine.drive(held.run)
    assert (result.outcome, result.output["by"], result.output["disagreements"]) == ("completed", "person", ["value_differs"])


async def test_a_person_who_finds_the_amount_wrong_sends_it_back(remit: Remit, folder: Path) -> None:
    held = await triage(remit, "2106-lines-differ.xml")
    answer = {"category": "freight", "payable": "321.30"}
    await remit.cases.answer(str(held.case), answer, token=remit.person_token("ida"))
    assert ((await remit.engine.drive(held.run)).outcome, entries(folder)) == ("escalated", [])


async def test_what_no_model_is_sure_of_is_asked_and_without_an_order_approved_as_well(remit: Remit, folder: Path) -> None:
    held = await triage(remit, "2107-unclear.xml")
    case = remit.cases.get(str(held.case))
    assert (case.kind, "low_confidence" in case.reason) == ("question", True)
    with pytest.raises(CaseError):
        await remit.cases.answer(case.case, {"category": "travel", "payable": "249.90"}, token=remit.person_token("ida"))
    await remit.cases.answer(case.case, {"category": "facility", "payable": "249.90"}, token=remit.person_token("ida"))
    again = await remit.engine.drive(held.run)
    assert (await approve(remit, again, "ron")).outcome == "completed"
    assert entries(folder)[0][3] == "facility"


async def test_a_blocked_supplier_is_denied_though_all_agree(remit: Remit, folder: Path) -> None:
    result = await triage(remit, "2109-blocked.xml")
    assert (result.outcome, "blocked" in result.reason, entries(folder)) == ("denied", True, [])
    assert voted(remit, result.run)["open"] == []


async def test_the_second_model_is_shown_the_lines_and_nothing_that_the_first_one_said(remit: Remit) -> None:
    result = await triage(remit, "2101-office.xml")
    asked = {
        e.body["tool"]: e.body["args"]
        for e in remit.journal.reader.events(result.run)
        if e.type is EventType.CALL_DECIDED and str(e.body["tool"]).startswith("model:")
    }
    assert set(asked) == {"model:coding", "model:second"}
    assert asked["model:coding"] == asked["model:second"]
    assert set(asked["model:second"]) == {"text", "decide"}


async def test_an_agent_that_takes_the_account_from_the_invoice_is_denied(remit: Remit, folder: Path) -> None:
    async with remit.gate("invoice-triage").run({"file": "2103-new-account.xml"}) as run:
        received: Any = await run.propose("inbox.read", {"file": "2103-new-account.xml"})
        assert isinstance(received, Completed)
        invoice: Any = received.result["invoice"]
        supplier: Any = await run.propose("suppliers.find", {"vat": invoice["seller"]["vat"]})
        amount = {"amount": invoice["totals"]["payable"], "currency": "EUR"}
        same = {"supplier": supplier.result["supplier"], "number": invoice["number"], "amount": amount}
        await run.propose("ledger.find", {**same, "issued": invoice["issued"]})
        more = {"category": "energy", "issued": invoice["issued"], "order": invoice["order"]}
        outcome = await run.propose("ledger.book", {**same, **more, "account": STRANGE})
        assert invoice["payments"][0]["account"] == STRANGE
        assert isinstance(outcome, Denied)
        assert {"account-of-the-supplier-master", "account-not-from-the-invoice"} <= set(outcome.rules)
        right = await run.propose("ledger.book", {**same, **more, "account": supplier.result["account"]})
        assert isinstance(right, Completed)
    assert [account for _, _, account, _, _ in entries(folder)] == ["DE89370400440532013000"]


async def test_the_same_invoice_is_booked_once(remit: Remit, folder: Path) -> None:
    first, second = await triage(remit, "2101-office.xml"), await triage(remit, "2101-office.xml")
    assert (first.outcome, second.outcome, len(entries(folder))) == ("completed", "escalated", 1)


@pytest.mark.parametrize("file", ["../suppliers.json", "gone.xml", "/etc/passwd"])
async def test_only_files_of_the_inbox_are_read(remit: Remit, folder: Path, file: str) -> None:
    async with remit.gate("invoice-triage").run({"file": "a.xml"}) as run:
        outcome = await run.propose("inbox.read", {"file": file})
        assert not outcome.completed


async def test_a_symbolic_link_in_the_inbox_is_not_followed(remit: Remit, folder: Path) -> None:
    (folder / "data" / "inbox" / "link.xml").symlink_to(folder / "data" / "inbox" / "2101-office.xml")
    assert (await triage(remit, "link.xml")).outcome == "failed"


async def test_every_run_over_the_inbox_replays_to_the_same(remit: Remit, folder: Path) -> None:
    for file in sorted((folder / "data" / "inbox").glob("*.xml")):
        await triage(remit, file.name)
    report = await remit.replays.replay(Choice(last=20), 1)
    found = {each.recorded.run: each for each in report.runs}
    assert len(found) == 12
    said = [(each.result, each.why) for each in found.values()]
    # Those that wait for a person have no end yet to compare.
    assert sorted({result for result, _ in said}) == ["identical", "undetermined"]
    assert all("came out the same" in why for result, why in said if result == "undetermined")


async def test_with_another_second_model_the_votes_are_counted_anew(remit: Remit) -> None:
    held = await triage(remit, "2102-servers.xml")
    done = await approve(remit, held, "ron")
    assert done.output["disagreements"] == ["low_confidence"]
    change = parse_change("model=second:coding", remit.project)
    cohort = await remit.counterfactuals.compare(Choice(last=1), change, {}, samples=1)
    [tried] = cohort.tried
    without: Any = tried.baseline[0].output
    changed: Any = tried.changed[0].output
    assert (without["disagreements"], changed["disagreements"]) == (["low_confidence"], [])


async def test_the_example_has_no_problems_and_decides_as_its_table_says(remit: Remit) -> None:
    assert problems_of(remit, "invoice-triage") == []
