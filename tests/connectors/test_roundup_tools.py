"""The tracker's tools against a real Roundup, called as the gate's executor calls them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from msgspec.structs import replace

from remit.connectors.roundup.client import RoundupClient
from remit.connectors.roundup.installation import Account
from remit.connectors.roundup.model import Value
from remit.connectors.roundup.server import RoundupServer
from remit.connectors.roundup.transport import Credentials
from remit.errors import ToolFailed
from remit.tools.registry import load_tools
from remit.tools.spec import Connection, Effect, FieldClass, Happened, Reconciled, Resource, Secret, Tool, ToolContext
from remit.values import Json

TOOLS = load_tools(["remit.connectors.roundup.tools"], Path())
TENANT, OTHER_TENANT = "northwind", "seaforth"
pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoundupServer]:
    server = asyncio.run(RoundupServer.start(tmp_path_factory.mktemp("tracker")))
    yield server
    asyncio.run(server.stop())


@dataclass(frozen=True, kw_only=True)
class Desk:
    """The tools over one account, and the client that files what the tests act upon."""

    context: ToolContext
    intake: RoundupClient

    async def file(self, **fields: Value) -> int:
        """A new issue; the fields that are not given have these values."""
        usual: dict[str, Value] = {"title": "No network", "body": "Socket 12 is dead.", "tenant": TENANT}
        usual |= {"region": "eu", "status": "open", "requester": "ana@acme.example", "requester_vip": False}
        made = await self.intake.create(usual | fields, uuid4().hex)
        return made.issue

    async def locate(self, name: str, **args: Json) -> Resource:
        locate = TOOLS[name].locate
        assert locate is not None
        return await locate(self.context, args)

    async def call(self, name: str, *, key: str = "", resource: Resource | None = None, **args: Json) -> Any:
        """Validate, locate, call and validate again, as the gate does."""
        tool = TOOLS[name]
        tool.spec.input_validator.validate(args)
        if tool.locate is not None and resource is None:
            resource = await self.locate(name, **args)
        result = await tool.function(self.at(key, resource), args)
        tool.spec.output_validator.validate(result)
        return result

    async def reconcile(
        self, name: str, *, key: str = "", resource: Resource | None = None, **args: Json
    ) -> Reconciled:
        reconcile = TOOLS[name].reconcile
        assert reconcile is not None
        found = await reconcile(self.at(key, resource), args)
        if found.happened is Happened.YES:
            TOOLS[name].spec.output_validator.validate(found.result)
        return found

    async def undo(self, name: str, before: Resource, result: Json, **args: Json) -> Any:
        compensation = TOOLS[name].compensation
        assert compensation is not None
        return await self.call(compensation.tool, **compensation.arguments(args, result, before))

    async def read(self, issue: int) -> dict[str, Any]:
        return cast("dict[str, Any]", await self.call("tracker.read", issue=issue))

    def at(self, key: str, resource: Resource | None) -> ToolContext:
        return replace(self.context, idempotency_key=key or uuid4().hex, resource=resource)


@asynccontextmanager
async def desk_of(server: RoundupServer, account: Account) -> AsyncGenerator[Desk]:
    clients: dict[str, Any] = {}

    def client(name: str, connect: Callable[[Connection], Any]) -> Any:
        if name not in clients:
            secret = Secret(name=name, _text=account.password)
            clients[name] = connect(Connection(name=name, url=server.url, user=account.username, secret=secret))
        return clients[name]

    context = ToolContext(
        tenant=TENANT, run="r1", step="1", idempotency_key="", timeout_ms=10_000, resource=None, client=client
    )
    filing = server.accounts.intake
    try:
        async with RoundupClient(server.url, Credentials(username=filing.username, password=filing.password)) as intake:
            yield Desk(context=context, intake=intake)
    finally:
        for each in clients.values():
            await each.aclose()


@pytest.fixture
async def desk(tracker: RoundupServer) -> AsyncGenerator[Desk]:
    async with desk_of(tracker, tracker.accounts.agent) as opened:
        yield opened


async def code_of(call: Any) -> str:
    with pytest.raises(ToolFailed) as caught:
        await call
    assert not caught.value.retryable
    return caught.value.code


# What the tools are


def test_what_policies_rely_on_is_declared() -> None:
    update, read = TOOLS["tracker.update"].spec, TOOLS["tracker.read"].spec
    assert list(TOOLS) == [
        f"tracker.{name}" for name in ("close", "create", "note", "read", "reopen", "search", "update")
    ]
    assert {name for name, tool in TOOLS.items() if tool.spec.is_pure_read} == {"tracker.read", "tracker.search"}
    assert all(tool.spec.effects <= {Effect.READ, Effect.WRITE} for tool in TOOLS.values())
    assert (update.written, update.authority) == ("changes", ("changes.assignee",))
    assert read.untrusted == ("title", "requester", "messages.*.by", "messages.*.text")
    assert read.field_classes["result.requester"] is FieldClass.PERSONAL
    assert read.resource_kind == "Issue"


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("tracker.read", {"issue": 0}),
        ("tracker.read", {"issue": "1"}),
        ("tracker.read", {"issue": True}),
        ("tracker.read", {"issue": 2**31}),
        ("tracker.update", {"issue": 1, "changes": {}}),
        ("tracker.update", {"issue": 1, "changes": {"status": "closed"}}),
        ("tracker.update", {"issue": 1, "changes": {"assignee": "1"}}),
        ("tracker.update", {"issue": 1, "changes": {"category": "a,b"}}),
        ("tracker.update", {"issue": 1, "changes": {"category": "email"}, "force": True}),
        ("tracker.note", {"issue": 1, "text": " \n"}),
        ("tracker.note", {"issue": 1, "text": "x" * 401}),
        ("tracker.close", {"issue": 1, "duplicate_of": -1}),
        ("tracker.search", {"where": {"tenant": "seaforth"}}),
        ("tracker.create", {"draft": {"title": "x", "text": "x", "requester": "a@b", "tenant": "seaforth"}}),
    ],
)
def test_malformed_arguments_are_no_arguments(name: str, args: dict[str, Json]) -> None:
    assert not TOOLS[name].spec.input_validator.is_valid(args)


# Reading


async def test_an_issue_is_read_with_the_request_first_and_then_its_notes(desk: Desk) -> None:
    issue = await desk.file(title="Printer", body="Paper jam.\nAgain.", requester_vip=True)
    await desk.call("tracker.note", issue=issue, text="Looked at it.")
    found = await desk.read(issue)
    assert [message["text"] for message in found["messages"]] == ["Paper jam.\nAgain.", "Looked at it."]
    assert [message["by"] for message in found["messages"]] == ["ana@acme.example", "remit-agent"]
    del found["messages"]
    assert found == {
        "issue": issue,
        "title": "Printer",
        "requester": "ana@acme.example",
        "vip": True,
        "category": None,
        "priority": None,
        "status": "open",
        "assignee": None,
        "duplicate_of": None,
        "region": "eu",
    }


async def test_an_issue_of_another_tenant_is_located_as_such(desk: Desk) -> None:
    issue = await desk.file(tenant=OTHER_TENANT, region="us", requester_vip=True)
    for name, tool in TOOLS.items():
        if tool.locate is not None and name != "tracker.create":
            located = await desk.locate(name, issue=issue)
            assert (located.kind, located.id, located.tenant, located.region) == ("Issue", str(issue), "seaforth", "us")
            assert located.attributes["vip"] is True
    unowned = await desk.file(tenant=None)
    assert (await desk.locate("tracker.read", issue=unowned)).tenant == ""


async def test_an_issue_that_changed_hands_since_it_was_judged_is_not_told(desk: Desk) -> None:
    issue = await desk.file()
    located = replace(await desk.locate("tracker.read", issue=issue), tenant=OTHER_TENANT)
    with pytest.raises(ToolFailed, match="moved while it was read"):
        await desk.call("tracker.read", resource=located, issue=issue)


async def test_a_search_looks_in_titles_and_requests_of_the_own_tenant_only(desk: Desk) -> None:
    word = f"w{uuid4().hex}"
    in_title = await desk.file(title=f"About {word.upper()}")
    in_body = await desk.file(body=f"It is about {word}.", category="email")
    in_both = await desk.file(title=word, body=word, category="email")
    await desk.file(title=word, tenant=OTHER_TENANT)
    whole = await desk.call("tracker.search", text=word)
    assert [found["issue"] for found in whole["issues"]] == [in_title, in_body, in_both]
    assert whole["more"] is False
    narrow = await desk.call("tracker.search", text=word, where={"category": "email"}, limit=1)
    assert narrow["more"] is True
    assert narrow["issues"] == [
        {
            "issue": in_body,
            "title": "No network",
            "category": "email",
            "priority": None,
            "status": "open",
            "assignee": None,
        }
    ]
    assert await desk.call("tracker.search", text=uuid4().hex) == {"issues": [], "more": False}


async def test_an_issue_that_is_not_there_is_not_found(desk: Desk) -> None:
    assert await code_of(desk.call("tracker.read", issue=2**31 - 1)) == "not_found"
    assert await code_of(desk.call("tracker.update", issue=2**31 - 1, changes={"category": "email"})) == "not_found"


# Fields


async def test_an_update_tells_what_is_no_longer_what_it_was(desk: Desk) -> None:
    issue = await desk.file(priority="low")
    changes: dict[str, Json] = {"category": "network", "priority": "low", "assignee": "network-team"}
    assert await desk.call("tracker.update", issue=issue, changes=changes) == {
        "issue": issue,
        "changed": ["category", "assignee"],
    }
    found = await desk.read(issue)
    assert (found["category"], found["priority"], found["assignee"]) == ("network", "low", "network-team")


async def test_an_update_of_an_issue_that_changed_since_it_was_judged_is_a_conflict(desk: Desk) -> None:
    issue = await desk.file()
    located = await desk.locate("tracker.update", issue=issue)
    await desk.call("tracker.update", issue=issue, changes={"priority": "urgent"})
    late = desk.call("tracker.update", resource=located, issue=issue, changes={"priority": "low"})
    assert await code_of(late) == "conflict"
    assert (await desk.read(issue))["priority"] == "urgent"


async def test_an_update_is_undone_to_the_values_before_absent_ones_too(desk: Desk) -> None:
    issue = await desk.file(priority="low")
    before = await desk.locate("tracker.update", issue=issue)
    changes: dict[str, Json] = {"category": "network", "priority": "urgent"}
    result = await desk.call("tracker.update", issue=issue, changes=changes)
    await desk.undo("tracker.update", before, result, issue=issue, changes=changes)
    found = await desk.read(issue)
    assert (found["category"], found["priority"]) == (None, "low")


async def test_reading_back_tells_an_update_that_happened_from_one_that_did_not(desk: Desk) -> None:
    issue = await desk.file()
    changes: dict[str, Json] = {"category": "network", "priority": None}
    located = await desk.locate("tracker.update", issue=issue)
    lost = await desk.reconcile("tracker.update", resource=located, issue=issue, changes=changes)
    await desk.call("tracker.update", resource=located, issue=issue, changes=changes)
    done = await desk.reconcile("tracker.update", resource=located, issue=issue, changes=changes)
    await desk.call("tracker.update", issue=issue, changes={"category": "email"})
    overwritten = await desk.reconcile("tracker.update", resource=located, issue=issue, changes=changes)
    assert lost.happened is Happened.NO
    assert done == Reconciled(happened=Happened.YES, result={"issue": issue, "changed": ["category"]})
    assert overwritten.happened is Happened.UNCLEAR


async def test_a_value_that_the_tracker_does_not_know_is_refused(desk: Desk) -> None:
    issue = await desk.file()
    assert await code_of(desk.call("tracker.update", issue=issue, changes={"category": "gardening"})) == "invalid"
    assert await code_of(desk.call("tracker.update", issue=issue, changes={"assignee": "nobody-here"})) == "invalid"


# Notes


async def test_a_note_is_put_once_for_its_key_and_found_again(desk: Desk) -> None:
    issue, key = await desk.file(), uuid4().hex
    before = await desk.reconcile("tracker.note", key=key, issue=issue, text="Passed on.")
    results = [await desk.call("tracker.note", key=key, issue=issue, text="Passed on.") for _ in range(2)]
    after = await desk.reconcile("tracker.note", key=key, issue=issue, text="Passed on.")
    assert before.happened is Happened.NO
    assert results == [after.result, after.result]
    assert len((await desk.read(issue))["messages"]) == 2


async def test_notes_of_parallel_calls_with_their_own_keys_are_all_there(desk: Desk) -> None:
    issue = await desk.file()
    located = await desk.locate("tracker.note", issue=issue)
    texts = ["one", "two"]
    await asyncio.gather(*(desk.call("tracker.note", resource=located, issue=issue, text=text) for text in texts))
    assert sorted(message["text"] for message in (await desk.read(issue))["messages"][1:]) == texts


# Status


async def test_closing_names_the_original_and_reopening_undoes_both(desk: Desk) -> None:
    original, issue = await desk.file(), await desk.file()
    before = await desk.locate("tracker.close", issue=issue, duplicate_of=original)
    result = await desk.call("tracker.close", issue=issue, duplicate_of=original)
    assert result == {"issue": issue, "status": "duplicate"}
    found = await desk.read(issue)
    assert (found["status"], found["duplicate_of"]) == ("duplicate", original)
    assert (await desk.locate("tracker.read", issue=issue)).attributes["duplicate_of"] == original
    reopened = await desk.undo("tracker.close", before, result, issue=issue, duplicate_of=original)
    assert reopened == {"issue": issue, "status": "open"}
    found = await desk.read(issue)
    assert (found["status"], found["duplicate_of"]) == ("open", None)


async def test_closing_without_an_original_is_plain_closing(desk: Desk) -> None:
    issue = await desk.file()
    located = await desk.locate("tracker.close", issue=issue)
    args: Mapping[str, Json] = {"issue": issue, "duplicate_of": None}
    lost = await desk.reconcile("tracker.close", resource=located, **args)
    assert await desk.call("tracker.close", **args) == {"issue": issue, "status": "closed"}
    done = await desk.reconcile("tracker.close", resource=located, **args)
    other = await desk.reconcile("tracker.close", resource=located, issue=issue, duplicate_of=1)
    opened = await desk.reconcile("tracker.reopen", resource=located, issue=issue)
    assert (lost.happened, done.happened) == (Happened.NO, Happened.YES)
    assert done.result == {"issue": issue, "status": "closed"}
    assert other.happened is opened.happened is Happened.UNCLEAR


async def test_an_issue_is_no_duplicate_of_itself_of_nothing_or_of_another_tenants(desk: Desk) -> None:
    issue, foreign = await desk.file(), await desk.file(tenant=OTHER_TENANT)
    assert await code_of(desk.call("tracker.close", issue=issue, duplicate_of=issue)) == "invalid"
    assert await code_of(desk.call("tracker.close", issue=issue, duplicate_of=foreign)) == "not_found"
    assert await code_of(desk.call("tracker.close", issue=issue, duplicate_of=2**31 - 1)) == "not_found"
    assert (await desk.read(issue))["status"] == "open"


# Creation


async def test_an_issue_is_made_once_for_its_key_in_the_own_tenant_and_closed_by_undoing(
    tracker: RoundupServer, desk: Desk
) -> None:
    draft: dict[str, Json] = {"title": "Phone", "text": "No tone.", "requester": "bo@acme.example", "region": "us"}
    key = uuid4().hex
    async with desk_of(tracker, tracker.accounts.intake) as filing:
        before = await filing.locate("tracker.create", draft=draft)
        lost = await filing.reconcile("tracker.create", key=key, draft=draft)
        results = [await filing.call("tracker.create", key=key, draft=draft) for _ in range(2)]
        done = await filing.reconcile("tracker.create", key=key, draft=draft)
    assert (before.id, before.tenant, before.region) == ("new", TENANT, "us")
    assert lost.happened is Happened.NO
    assert results == [done.result, done.result]
    issue = results[0]["issue"]
    located = await desk.locate("tracker.read", issue=issue)
    assert (located.tenant, located.region) == (TENANT, "us")
    await desk.undo("tracker.create", before, results[0], draft=draft)
    assert (await desk.read(issue))["status"] == "closed"


async def test_what_the_account_may_not_do_fails_whatever_the_gate_allowed(desk: Desk) -> None:
    draft: dict[str, Json] = {"title": "Phone", "text": "No tone.", "requester": "bo@acme.example"}
    assert await code_of(desk.call("tracker.create", draft=draft)) == "forbidden"


@pytest.mark.parametrize("name", ["tracker.update", "tracker.close", "tracker.reopen", "tracker.read"])
async def test_a_call_that_was_not_located_does_nothing(desk: Desk, name: str) -> None:
    issue = await desk.file()
    tool: Tool = TOOLS[name]
    args: dict[str, Json] = {"issue": issue} | ({"changes": {"category": "email"}} if name == "tracker.update" else {})
    assert await code_of(tool.function(desk.context, args)) == "not_located"
    assert (await desk.read(issue))["category"] is None
