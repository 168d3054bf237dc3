"""`examples/ticket-intake` over a live tracker: one ticket of one request, corrections, holds, denials, undo, replay."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from as_is import copy_of, problems_of

from parts import unavailable
from remit import Remit, RunResult
from remit.cases.cases import Decision
from remit.connectors.roundup.client import RoundupClient
from remit.connectors.roundup.installation import remove
from remit.connectors.roundup.model import Issue
from remit.connectors.roundup.server import RoundupServer
from remit.connectors.roundup.transport import Credentials
from remit.journal.events import Event, EventType
from remit.replay.recorded import Choice
from remit.tools.registry import load_module

pytestmark = pytest.mark.anyio

ANA = "ana@northwind-mills.example"
SOCKET = "Hi team, the network socket in 2.14 is dead. There is no link on the cable either."
STANDSTILL = "The printer in the label room is down. Nobody can print."


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoundupServer]:
    if importlib.util.find_spec("roundup") is None:
        unavailable("`roundup` is not installed; `pip install '.[demo]'`")
    home = tmp_path_factory.mktemp("intake") / "tracker"
    started = asyncio.run(RoundupServer.start(home))
    yield started
    asyncio.run(started.stop())
    remove(home)


@pytest.fixture
def folder(tmp_path: Path, server: RoundupServer) -> Path:
    made = copy_of("ticket-intake", tmp_path / "intake")
    toml = made / "remit.toml"
    toml.write_text(toml.read_text().replace("http://127.0.0.1:8091/tracker/", server.url))
    desk: Any = load_module("desk.py", made)
    desk.connect(made, server)
    return made


@pytest.fixture
async def remit(folder: Path) -> AsyncIterator[Remit]:
    async with Remit(folder) as opened:
        yield opened


async def take_in(remit: Remit, text: str) -> RunResult:
    return await remit.run("ticket-intake", {"from": ANA, "text": text})


async def issues(server: RoundupServer) -> list[Issue]:
    account = server.accounts.admin
    async with RoundupClient(server.url, Credentials(username=account.username, password=account.password)) as client:
        return list(await client.snapshot())


def decided(remit: Remit, run: str) -> list[Event]:
    return [e for e in remit.journal.reader.events(run) if e.type is EventType.CALL_DECIDED]


def asked(remit: Remit, run: str) -> int:
    return sum(e.body["tool"] == "model:reader" for e in decided(remit, run))


async def test_a_request_becomes_one_sorted_ticket(remit: Remit, server: RoundupServer) -> None:
    result = await take_in(remit, SOCKET)
    assert result.outcome == "completed", result.reason
    [made] = [each for each in await issues(server) if each.id == result.output["issue"]]
    assert (made.title, made.requester, made.category, made.priority) == (
        "the network socket in 2.14 is dead.",
        ANA,
        "network",
        "normal",
    )
    assert (await remit.replays.replay(Choice(last=1), 1)).runs[0].result == "identical"


async def test_an_undo_says_that_the_account_which_files_may_not_close(remit: Remit, server: RoundupServer) -> None:
    result = await take_in(remit, SOCKET)
    undone = await remit.undoing.undo(result.run, token=remit.person_token("sam"), reason="not ours")
    assert [each["tool"] for each in undone.output["remaining"]] == ["tracker.create"]
    assert [each.status for each in await issues(server) if each.id == result.output["issue"]] == ["open"]


async def test_a_title_that_is_too_long_is_rejected_and_corrected_once(remit: Remit, server: RoundupServer) -> None:
    result = await take_in(remit, "Subject: the mailbox " + "and the mailbox of the colleague " * 8)
    assert result.outcome == "completed", result.reason
    assert asked(remit, result.run) == 2
    assert [e.header.verdict for e in decided(remit, result.run) if e.body["tool"] == "tracker.create"] == ["reject", "allow"]
    [made] = [each for each in await issues(server) if each.id == result.output["issue"]]
    assert len(made.title) <= 80
    assert (await remit.replays.replay(Choice(last=1), 1)).runs[0].result == "identical"


async def test_a_model_that_does_not_correct_itself_is_asked_no_more_than_twice(folder: Path) -> None:
    reader = folder / "models" / "reader.py"
    told = "title = shortened(title)"
    assert told in reader.read_text()
    reader.write_text(reader.read_text().replace(told, "title = title"))
    async with Remit(folder) as remit:
        result = await take_in(remit, "Subject: the mailbox " + "and the mailbox of the colleague " * 8)
        assert (result.outcome, result.reason.split(":")[0], asked(remit, result.run)) == ("escalated", "rejected", 2)


async def test_an_urgent_ticket_waits_for_a_person_who_may_also_say_no(remit: Remit, server: RoundupServer) -> None:
    before = len(await issues(server))
    held, refused = await take_in(remit, STANDSTILL), await take_in(remit, STANDSTILL)
    assert (held.outcome, len(await issues(server))) == ("held", before)
    await remit.cases.decide(str(held.case), Decision.APPROVED, token=remit.person_token("sam"))
    assert (await remit.engine.drive(held.run)).outcome == "completed"
    await remit.cases.decide(str(refused.case), Decision.DENIED, token=remit.person_token("sam"), reason="once is enough")
    assert (await remit.engine.drive(refused.run)).outcome == "denied"
    assert len(await issues(server)) == before + 1


@pytest.mark.parametrize("text", ["My coffee is cold.", "The printer, the phone and the password, please."])
async def test_what_it_is_less_than_half_sure_of_is_escalated_with_the_draft(remit: Remit, text: str) -> None:
    result = await take_in(remit, text)
    assert (result.outcome, "confidence" in result.reason) == ("escalated", True)


async def test_a_card_number_is_denied_and_never_reaches_the_tracker(remit: Remit, server: RoundupServer) -> None:
    result = await take_in(remit, "The toner of the printer is empty, order it with card 4111 1111 1111 1111.")
    assert (result.outcome, "no place in it" in result.reason) == ("denied", True)
    assert not any("4111" in each.body for each in await issues(server))


async def test_a_model_that_takes_the_requester_from_the_text_is_denied(folder: Path) -> None:
    reader = folder / "models" / "reader.py"
    told = '"requester": request.args["requester"]'
    assert told in reader.read_text()
    reader.write_text(reader.read_text().replace(told, '"requester": text.split()[-1]'))
    async with Remit(folder) as remit:
        result = await take_in(remit, "Unlock my account and the login password of my boss, boss@northwind-mills.example")
    assert (result.outcome, "for whoever asks" in result.reason) == ("denied", True)


async def test_the_example_has_no_problems_and_decides_as_its_table_says(remit: Remit) -> None:
    assert problems_of(remit, "ticket-intake") == []
