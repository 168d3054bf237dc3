"""Security events as OCSF has them, whatever the record says."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ocsf_rules import problems
from stories import Story, erase, tell

from cli.commands import remit as command
from remit import Remit
from remit.export.ocsf import Ocsf
from remit.journal.events import OF_REGISTER, Draft, EventType
from remit.journal.leaves import Selection

pytestmark = pytest.mark.anyio


@pytest.fixture
async def story(tmp_path: Path, database_url: str) -> Story:
    return await tell(tmp_path / "shop", database_url)


async def events(story: Story, *arguments: str) -> list[dict[str, Any]]:
    text = await asyncio.to_thread(command, story.shop, "export", "--format", "ocsf", *arguments)
    return [json.loads(line) for line in text.splitlines()]


def of(found: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in found if event["metadata"]["event_code"] == kind]


async def fill_register(remit: Remit, run: str) -> None:
    """An event of each type that stands on the register."""
    for kind in sorted(OF_REGISTER):
        body = {"principal": "agent/shop/tells", "enabled": False, "release": "abc", "reason": "asked"}
        await remit.register.append(Draft(type=kind, actor="operator", body=body, refs={"run": run}))


async def test_every_event_of_every_type_is_one_that_ocsf_knows(story: Story) -> None:
    async with Remit(story.shop.folder) as remit:
        await fill_register(remit, "run-other")
        held = await remit.run("tells", {"text": "again"})
        await remit.cases.reveal(held.case or "", token=remit.person_token("lee"))
        await remit.close_run(held.run, token=remit.person_token("lee"), reason="enough")
        await erase(remit, story.escalated)
    found = await events(story)
    assert [(event["metadata"]["event_code"], said) for event in found if (said := problems(event))] == []
    assert {event["metadata"]["event_code"] for event in found} == set(EventType)
    assert set(Counter(event["class_uid"] for event in found)) == {6003, 6002, 2004, 3003, 3004}


async def test_the_rules_of_the_test_find_what_is_wrong(story: Story) -> None:
    (event, *_) = of(await events(story), "call.decided")
    assert problems(event) == []
    wrongs: list[dict[str, Any]] = [
        {"type_uid": 1},
        {"severity": "High"},
        {"more": 1},
        {"action_id": None},
        {"time": event["time"] * 1000},
        {"actor": {}},
        {"disposition_id": 3},
        {"class_uid": 1001},
        {"metadata": {**event["metadata"], "profiles": []}},
    ]
    for wrong in wrongs:
        assert problems({**event, **wrong}), wrong


async def test_decisions_say_what_was_blocked_and_by_which_rule(story: Story) -> None:
    found = await events(story, "--run", story.told)
    decided = of(found, "call.decided")
    denied = [event for event in decided if event["is_alert"]]
    assert [(event["status_code"], event["disposition"], event["severity"]) for event in denied] == [
        ("forbidden", "Blocked", "Medium"),
        ("not_granted", "Blocked", "Medium"),
    ]
    assert denied[0]["authorizations"] == [{"decision": "deny", "policy": {"uid": "never-13"}}]
    assert Counter(event["disposition"] for event in decided) == {"Allowed": 6, "Blocked": 2, "Rejected": 1, "Delayed": 1}
    kinds = {event["api"]["operation"]: event["activity_name"] for event in decided if event["action"] == "Allowed"}
    assert (kinds["orders.read"], kinds["payments.refund"]) == ("Read", "Write")


async def test_an_outcome_is_of_the_activity_that_was_decided(story: Story) -> None:
    found = await events(story, "--run", story.told)
    ended = of(found, "call.completed") + of(found, "call.failed") + of(found, "call.unknown")
    activities = {event["api"]["operation"]: event["activity_name"] for event in ended}
    assert (activities["orders.read"], activities["payments.refund"], activities["odd.write"]) == ("Read", "Write", "Write")
    (unknown,) = of(found, "call.unknown")
    assert (unknown["status"], unknown["severity"]) == ("Unknown", "High")
    (failed,) = of(found, "call.failed")
    assert (failed["status"], failed["api"]["response"]["error"]) == ("Failure", failed["status_code"])


async def test_an_approval_gives_the_agent_leave_for_one_tool(story: Story) -> None:
    found = await events(story, "--run", story.told)
    (asked,) = of(found, "approval.requested")
    (approved,) = of(found, "approval.decided")
    assert (asked["status"], asked["is_alert"]) == ("New", True)
    assert approved["user"]["uid"] == "agent/shop/tells"
    assert approved["privileges"] == ["payments.refund"]
    assert approved["actor"]["user"]["uid"].startswith("<person:")
    assert approved["session"]["uid"] == approved["metadata"]["correlation_uid"] == story.told


async def test_a_case_is_a_finding_that_is_closed_under_its_own_id(story: Story) -> None:
    found = await events(story, "--run", story.escalated)
    (opened,), (closed,) = of(found, "case.opened"), of(found, "case.decided")
    assert opened["finding_info"]["uid"] == closed["finding_info"]["uid"]
    assert (opened["activity_name"], closed["activity_name"], closed["status"]) == ("Create", "Close", "Resolved")


async def test_it_remembers_nothing_of_runs_that_have_ended(story: Story) -> None:
    async with Remit(story.shop.folder) as remit:
        head = await remit.sequencer.integrate()
        ocsf = Ocsf("1")
        for leaf in remit.leaves.leaves(Selection(), upto=head.seq):
            ocsf.event(leaf)
    assert ocsf.remembered == 0


async def test_each_event_can_be_told_from_every_other_one(story: Story) -> None:
    found = await events(story)
    assert len({event["metadata"]["uid"] for event in found}) == len(found)
    assert [event["metadata"]["sequence"] for event in found] == sorted(event["metadata"]["sequence"] for event in found)
