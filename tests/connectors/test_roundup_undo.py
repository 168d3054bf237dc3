"""Fifty runs on the live tracker, done and undone: every field is as it was, except where the plan said otherwise."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from test_roundup_crashes import PROJECT, file_issue

from remit import Remit
from remit.connectors.roundup.client import RoundupClient
from remit.connectors.roundup.server import RoundupServer

CONTRACT = """
contract: sorting
owner: {team: desk, contact: desk@northwind.example}
purpose: Sort an issue, note that, and close it as a duplicate.
style: workflow
input: request.json
output: result.json
actions:
  - tool: tracker.update
    only: {fields: [category, priority, assignee]}
    limits: {per_run: 2}
  - tool: tracker.note
    limits: {per_run: 1}
  - tool: tracker.close
    limits: {per_run: 1}
budget: {calls: 6, writes: 5}
escalate: {to: queue:desk, sla: 1h}
success: {metric: sorted}
slo: {success: 99%}
"""

WORKFLOW = """
async def sorting(run, request):
    issue, original = request["issue"], request.get("original")
    await run.call("tracker.update", issue=issue, changes={"category": "network", "priority": "high"})
    await run.call("tracker.update", issue=issue, changes={"category": "email", "assignee": "email-team"})
    await run.call("tracker.note", issue=issue, text="sorted")
    if original is not None:
        await run.call("tracker.close", issue=issue, duplicate_of=original)
    return {}
"""
FIELDS = ("category", "priority", "assignedto", "status", "superseder", "title", "body", "requester", "region")


@pytest.fixture
def desk(tmp_path: Path, database_url: str, tracker: RoundupServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRACKER_PASSWORD", tracker.accounts.agent.password)
    folder = tmp_path / "desk"
    contract = folder / "contracts" / "sorting"
    contract.mkdir(parents=True)
    database = "sqlite:remit.db" if database_url.startswith("sqlite") else database_url
    user = tracker.accounts.agent.username
    (folder / "remit.toml").write_text(PROJECT.format(database=database, url=tracker.url, user=user))
    (contract / "contract.yaml").write_text(CONTRACT)
    (contract / "policy.cedar").write_text("")
    (contract / "workflow.py").write_text(WORKFLOW)
    (folder / "record.cedar").write_text('@id("leads-undo") permit (principal in Role::"lead", action == Action::"undo", resource);')
    numbers = {name: {"type": "integer"} for name in ("issue", "original")}
    (contract / "request.json").write_text(json.dumps({"type": "object", "properties": numbers}))
    (contract / "result.json").write_text('{"type": "object"}')
    return folder


async def fields_of(client: RoundupClient, issue: int) -> dict[str, Any]:
    found = await client.read(issue)
    return {name: getattr(found, name) for name in FIELDS}


@pytest.mark.anyio
async def test_fifty_runs_are_undone(desk: Path, agent: RoundupClient, intake: RoundupClient) -> None:
    original = await file_issue(intake)
    issues = [await file_issue(intake) for _ in range(50)]
    before = {issue: await fields_of(agent, issue) for issue in issues}
    async with Remit(desk) as remit:
        lee = remit.person_token("lee")
        requests = [{"issue": i, "original": original} if i % 3 == 0 else {"issue": i} for i in issues]
        runs = [await remit.run("sorting", request) for request in requests]
        assert {run.outcome for run in runs} == {"completed"}
        # Somebody takes up every tenth of them meanwhile.
        taken = {issue for issue in issues[::10] if issue % 3}
        for issue in taken:
            found = await agent.read(issue)
            await agent.update(issue, {"priority": "low"}, found.etag or "")
        outlooks = [await remit.undoing.outlook(run.run, token=lee) for run in runs]
        for outlook in outlooks:
            assert [(each.tool, each.why) for each in outlook.remaining] == [
                ("tracker.note", "the tool declares no compensation")
            ]
        undone = await asyncio.gather(*(remit.undoing.undo(run.run, token=lee) for run in runs))
    assert {result.outcome for result in undone} == {"completed"}
    for issue, outlook, result in zip(issues, outlooks, undone, strict=True):
        left = [each.call.step for each in outlook.foreseen if each.why]
        assert [each["step"] for each in result.output["remaining"] if each["tool"] != "tracker.note"] == left
        after = await fields_of(agent, issue)
        if issue in taken:
            # The step that set the priority is left alone, as the plan said; what it set beside that stays as well.
            assert left == ["1"]
            assert after == {**before[issue], "category": "network", "priority": "low"}
        else:
            assert left == []
            assert after == before[issue]
