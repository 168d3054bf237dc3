"""The client against a live tracker, and what it refuses before it makes a request."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta

import pytest
from faulty_http import ETAG, PASSWORD, Call, connect, failing, reading
from hypothesis import given
from hypothesis import strategies as st

from remit.connectors.roundup.client import RoundupClient
from remit.connectors.roundup.model import WRITABLE, Issue, Value, canonical
from remit.connectors.roundup.server import RoundupServer
from remit.connectors.roundup.transport import Credentials
from remit.errors import ConfigError, ToolFailed

_numbers = itertools.count(1)


def new_key() -> str:
    """A key that no other test of the session uses."""
    return f"K-{next(_numbers):04d}"


async def filed(intake: RoundupClient, **fields: Value) -> int:
    return (await intake.create({"title": "printer on fire", "status": "open", **fields}, new_key())).issue


async def current(client: RoundupClient, issue: int) -> tuple[Issue, str]:
    found = await client.read(issue)
    assert found.etag is not None
    return found, found.etag


# Against the live tracker


@pytest.mark.anyio
async def test_an_issue_is_read_as_it_was_filed_with_names_instead_of_ids(
    intake: RoundupClient, agent: RoundupClient
) -> None:
    key = new_key()
    fields: dict[str, Value] = {
        "title": "  Größe: 100 % \U0001f600 ",
        "body": "first line\r\nsecond\rthird\n",
        "category": "network",
        "priority": "low",
        "status": "open",
        "assignedto": "network-team",
        "requester": "ana@northwind.example",
        "requester_vip": True,
        "tenant": "northwind",
        "region": "eu",
        "language": "de",
    }
    created = await intake.create(fields, key)
    issue, _ = await current(agent, created.issue)
    assert not created.existed
    assert (issue.title, issue.body) == ("Größe: 100 % \U0001f600", "first line\nsecond\nthird")
    for name in set(fields) - {"title", "body"}:
        assert getattr(issue, name) == fields[name], name
    assert (issue.extkey, issue.creator, issue.superseder, issue.notes) == (key, "remit-intake", (), ())
    assert datetime.now(UTC) - datetime.fromisoformat(issue.creation) < timedelta(minutes=5)


@pytest.mark.anyio
async def test_an_update_says_what_changed_and_needs_the_present_entity_tag(
    intake: RoundupClient, agent: RoundupClient
) -> None:
    number = await filed(intake, priority="low")
    _, etag = await current(agent, number)
    changed = await agent.update(number, {"priority": "high", "assignedto": "email-team"}, etag)
    assert changed.properties == ("assignedto", "priority")
    with pytest.raises(ToolFailed) as caught:
        await agent.update(number, {"priority": "urgent"}, etag)
    assert (caught.value.code, caught.value.retryable) == ("conflict", False)
    issue, etag = await current(agent, number)
    assert (issue.priority, issue.assignedto) == ("high", "email-team")
    assert (await agent.update(number, {"priority": "high"}, etag)).properties == ()


@pytest.mark.anyio
async def test_none_clears_a_property(intake: RoundupClient, agent: RoundupClient) -> None:
    number = await filed(intake, category="email", assignedto="email-team")
    _, etag = await current(agent, number)
    await agent.update(number, {"category": None, "assignedto": None}, etag)
    issue, _ = await current(agent, number)
    assert (issue.category, issue.assignedto) == (None, None)


@pytest.mark.anyio
async def test_of_parallel_updates_with_one_entity_tag_exactly_one_is_made(
    intake: RoundupClient, agent: RoundupClient
) -> None:
    for _ in range(5):
        number = await filed(intake, priority="low")
        _, etag = await current(agent, number)
        names = ("access", "email", "hardware", "network", "software", "security")
        results = await asyncio.gather(
            *(agent.update(number, {"category": name}, etag) for name in names), return_exceptions=True
        )
        assert sum(not isinstance(result, BaseException) for result in results) == 1
        assert {r.code for r in results if isinstance(r, ToolFailed)} == {"conflict"}


@pytest.mark.anyio
async def test_a_note_is_put_once_for_each_key_however_often_it_is_asked_for(
    intake: RoundupClient, agent: RoundupClient
) -> None:
    number, key = await filed(intake), new_key()
    assert await agent.find_note(number, key) is None
    first = await agent.note(number, "passed on\r\nto the team ", key)
    again = await agent.note(number, "passed on\nto the team", key)
    other = await agent.note(number, "another", new_key())
    assert (first.existed, again.existed, again.note, other.existed) == (False, True, first.note, False)
    issue, _ = await current(agent, number)
    assert [(note.text, note.author, note.key) for note in issue.notes][:1] == [
        ("passed on\nto the team", "remit-agent", key)
    ]
    assert [note.id for note in issue.notes] == [first.note, other.note]
    assert await agent.find_note(number, key) == issue.notes[0]


@pytest.mark.anyio
async def test_a_note_of_one_issue_is_not_taken_for_one_of_another_with_the_same_key(
    intake: RoundupClient, agent: RoundupClient
) -> None:
    one, other, key = await filed(intake), await filed(intake), new_key()
    await agent.note(one, "text", key)
    assert await agent.find_note(other, key) is None
    assert not (await agent.note(other, "text", key)).existed


@pytest.mark.anyio
async def test_a_key_used_for_another_text_is_a_conflict(intake: RoundupClient, agent: RoundupClient) -> None:
    number, key = await filed(intake), new_key()
    await agent.note(number, "one text", key)
    with pytest.raises(ToolFailed, match="used for another note") as caught:
        await agent.note(number, "another text", key)
    assert caught.value.code == "conflict"


@pytest.mark.anyio
async def test_notes_that_arrive_together_are_all_kept(intake: RoundupClient, agent: RoundupClient) -> None:
    number = await filed(intake)
    await asyncio.gather(*(agent.note(number, f"note {n}", new_key()) for n in range(3)))
    issue, _ = await current(agent, number)
    assert sorted(note.text for note in issue.notes) == ["note 0", "note 1", "note 2"]


@pytest.mark.anyio
async def test_a_duplicate_is_closed_with_what_it_duplicates_and_reopened_without(
    intake: RoundupClient, agent: RoundupClient
) -> None:
    original, number = await filed(intake), await filed(intake)
    _, etag = await current(agent, number)
    await agent.close(number, etag, superseder=original)
    issue, etag = await current(agent, number)
    assert (issue.status, issue.superseder) == ("duplicate", (original,))
    await agent.reopen(number, etag)
    issue, etag = await current(agent, number)
    assert (issue.status, issue.superseder) == ("open", ())
    await agent.close(number, etag)
    assert (await agent.read(number)).status == "closed"


@pytest.mark.anyio
async def test_what_the_tracker_does_not_accept_is_invalid_and_changes_nothing(
    intake: RoundupClient, agent: RoundupClient
) -> None:
    number = await filed(intake)
    before, etag = await current(agent, number)
    refused: list[dict[str, Value]] = [
        {"priority": "extremely"},
        {"superseder": (2_000_000_000,)},
        {"priority": "high", "status": "no such status"},
    ]
    for changes in refused:
        with pytest.raises(ToolFailed) as caught:
            await agent.update(number, changes, etag)
        assert (caught.value.code, caught.value.retryable) == ("invalid", False)
    assert await agent.read(number) == before


@pytest.mark.anyio
async def test_a_creation_is_made_once_for_each_key(intake: RoundupClient, admin: RoundupClient) -> None:
    key = new_key()
    assert await admin.find_issue(key) is None
    first = await intake.create({"title": "one"}, key)
    again = await admin.create({"title": "one"}, key)
    assert (again.issue, again.existed) == (first.issue, True)
    assert await admin.find_issue(key) == first.issue


@pytest.mark.anyio
async def test_a_search_pages_through_what_matches_every_filter(intake: RoundupClient, agent: RoundupClient) -> None:
    word = f"search{new_key()}"
    numbers = [await filed(intake, title=f"{word} {n}", tenant="seaforth", requester_vip=n == 4) for n in range(5)]
    await filed(intake, title=word, tenant="northwind")
    filters: dict[str, Value | list[Value]] = {"title": word.upper(), "tenant": "seaforth"}
    first = await agent.search(filters, fields=("title", "tenant", "requester_vip"), limit=2)
    last = await agent.search(filters, fields=("tenant",), limit=2, offset=4)
    assert (first.total, [item["id"] for item in first.items]) == (5, numbers[:2])
    assert first.items[0] == {"id": numbers[0], "title": f"{word} 0", "tenant": "seaforth", "requester_vip": False}
    assert last.items == ({"id": numbers[4], "tenant": "seaforth"},)
    assert [item["id"] for item in (await agent.search(filters | {"requester_vip": True})).items] == [numbers[4]]
    assert (await agent.search(filters | {"tenant": ["northwind", "seaforth"]})).total == 6
    assert (await agent.search(filters | {"category": None})).total == 5
    assert (await agent.search({"title": "100%_no"})).total == 0


@pytest.mark.anyio
async def test_the_trackers_own_journal_tells_each_change_with_both_values(
    intake: RoundupClient, agent: RoundupClient
) -> None:
    original, number = await filed(intake), await filed(intake, priority="low")
    _, etag = await current(agent, number)
    await agent.update(number, {"priority": "high"}, etag)
    noted = await agent.note(number, "see there", new_key())
    _, etag = await current(agent, number)
    await agent.close(number, etag, superseder=original)
    entries = await agent.history(number)
    assert [(entry.action, entry.author) for entry in entries] == [
        ("create", "remit-intake"),
        ("set", "remit-agent"),
        ("set", "remit-agent"),
        ("set", "remit-agent"),
    ]
    assert entries[1].changes == {"priority": {"from": "low", "to": "high"}}
    assert entries[2].changes == {"messages": {"added": (noted.note,), "removed": ()}}
    assert entries[3].changes == {
        "status": {"from": "open", "to": "duplicate"},
        "superseder": {"added": (original,), "removed": ()},
    }


@pytest.mark.anyio
async def test_a_snapshot_holds_what_reading_each_issue_gives(intake: RoundupClient, agent: RoundupClient) -> None:
    number = await filed(intake, body="text", category="access")
    await agent.note(number, "a note", new_key())
    await intake.create({"title": "bare"}, new_key())
    issues = await agent.snapshot()
    assert [issue.id for issue in issues] == sorted(issue.id for issue in issues)
    for issue in issues[-2:]:
        read = await agent.read(issue.id)
        assert {**_members(read), "etag": None} == _members(issue)


def _members(issue: Issue) -> dict[str, object]:
    return {name: getattr(issue, name) for name in issue.__struct_fields__}


@pytest.mark.anyio
async def test_the_service_accounts_may_do_only_what_they_are_for(intake: RoundupClient, agent: RoundupClient) -> None:
    number = await filed(intake)
    _, etag = await current(agent, number)
    calls: list[Awaitable[object]] = [agent.create({"title": "mine"}, new_key())]
    fields: list[dict[str, Value]] = [{"title": "other"}, {"tenant": "seaforth"}, {"requester_vip": True}]
    calls += [agent.update(number, changes, etag) for changes in fields]
    calls += [intake.update(number, {"priority": "low"}, etag), intake.note(number, "text", new_key())]
    for call in calls:
        with pytest.raises(ToolFailed) as caught:
            await call
        assert (caught.value.code, caught.value.retryable) == ("forbidden", False)


@pytest.mark.anyio
async def test_a_wrong_password_is_rejected_and_does_not_shut_the_account_out(
    tracker: RoundupServer, agent: RoundupClient, intake: RoundupClient
) -> None:
    number = await filed(intake)
    async with connect(tracker.url) as impostor:
        for _ in range(8):
            failure = await failing(impostor, reading)
            assert (failure.code, isinstance(failure, ToolFailed)) == ("credentials_rejected", True)
    await agent.read(number)


@pytest.mark.anyio
async def test_an_issue_that_is_not_there_is_not_found(agent: RoundupClient) -> None:
    for call in (agent.read(999_999), agent.update(999_999, {"status": "open"}, ETAG), agent.history(999_999)):
        with pytest.raises(ToolFailed) as caught:
            await call
        assert caught.value.code == "not_found"


@pytest.mark.anyio
async def test_the_tracker_goes_on_after_values_that_leave_a_stock_roundup_locked(
    tracker: RoundupServer, intake: RoundupClient
) -> None:
    import httpx

    account = tracker.accounts.intake
    origin = tracker.url.removesuffix("/tracker/")
    headers = {"X-Requested-With": "test", "Origin": origin, "Content-Type": "application/json"}
    async with httpx.AsyncClient(auth=(account.username, account.password), headers=headers, trust_env=False) as http:
        for body in (b'{"title": "a\\ud800b"}', b'{"title": "a", "superseder": ["99999999999999999999999999"]}'):
            response = await http.post(f"{tracker.url}rest/data/issue", content=body)
            assert response.status_code == 409
    async with asyncio.timeout(5):
        await filed(intake)


# Refused before a request is made


def nowhere() -> RoundupClient:
    """A client of an address where nobody answers: whatever gets past the checks fails as `unreachable`."""
    return connect("http://127.0.0.1:9/tracker/")


@pytest.mark.anyio
@pytest.mark.parametrize("number", [0, -1, 2**31, True, "1/../../user/1", 1.0, None])
async def test_a_number_that_is_no_issue_never_reaches_a_path(number: int) -> None:
    async with nowhere() as client:
        calls: list[Call] = [
            lambda c: c.read(number),
            lambda c: c.update(number, {"status": "open"}, ETAG),
            lambda c: c.note(number, "text", "key"),
            lambda c: c.close(number, ETAG),
            lambda c: c.reopen(number, ETAG),
            lambda c: c.find_note(number, "key"),
            lambda c: c.history(number),
        ]
        for call in calls:
            assert (await failing(client, call)).code == "invalid"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"messages": "1"},
        {"creator": "admin"},
        {"@op": "remove"},
        {"nosy": "admin"},
        {"status": "1"},
        {"status": "-1"},
        {"status": "open,closed"},
        {"status": True},
        {"assignedto": ""},
        {"requester_vip": "yes"},
        {"superseder": ("2",)},
        {"superseder": (0,)},
        {"title": " \n"},
        {"title": None},
        {"title": "a\x00b"},
        {"body": "\ud800"},
        {"body": "x" * 100_001},
    ],
)
async def test_changes_out_of_bounds_are_refused_before_a_request_is_made(changes: dict[str, Value]) -> None:
    async with nowhere() as client:
        failure = await failing(client, lambda c: c.update(1, changes, ETAG))
        assert (failure.code, isinstance(failure, ToolFailed)) == ("invalid", True)


@pytest.mark.anyio
async def test_other_arguments_out_of_bounds_are_refused_before_a_request_is_made() -> None:
    calls: list[Call] = [
        lambda c: c.update(1, {"status": "open"}, "*"),
        lambda c: c.update(1, {"status": "open"}, 'W/"abc"'),
        lambda c: c.update(1, {"status": "open"}, '"a"\r\nX: "'),
        lambda c: c.close(1, ETAG, superseder=1),
        lambda c: c.note(1, "  ", "key"),
        lambda c: c.note(1, "text", "<key>@elsewhere"),
        lambda c: c.note(1, "text", ""),
        lambda c: c.create({"body": "no title"}, "key"),
        lambda c: c.create({"title": "one", "extkey": "other"}, "key"),
        lambda c: c.search({"password": "x"}),
        lambda c: c.search({"assignedto.password": "x"}),
        lambda c: c.search({"status": "1,2"}),
        lambda c: c.search({"title": ""}),
        lambda c: c.search({}, fields=("creator.password",)),
        lambda c: c.search({}, limit=0),
        lambda c: c.search({}, limit=501),
        lambda c: c.search({}, limit=10, offset=5),
    ]
    async with nowhere() as client:
        for call in calls:
            assert (await failing(client, call)).code == "invalid"


@pytest.mark.parametrize(
    "url",
    [
        "http://desk.example/tracker/",
        "ftp://127.0.0.1/tracker/",
        "https:///tracker/",
        "https://user:secret@desk.example/tracker/",
        "https://desk.example/tracker/?x=1",
        "http://127.0.0.1.desk.example/tracker/",
    ],
)
def test_an_address_that_credentials_must_not_be_sent_to_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        connect(url)
    assert "secret" not in caught.value.message


def test_a_password_is_not_in_the_text_form_of_credentials() -> None:
    assert PASSWORD not in repr(Credentials(username="remit-agent", password=PASSWORD))


@given(st.text(max_size=200))
def test_a_canonical_text_stays_as_it_is(text: str) -> None:
    try:
        once = canonical(text)
    except ToolFailed:
        return
    assert canonical(once) == once


def test_what_may_be_written_is_a_closed_list() -> None:
    assert sorted(WRITABLE) == [
        "assignedto", "body", "category", "extkey", "language", "priority", "region", "requester", "requester_vip",
        "status", "superseder", "tenant", "title",
    ]  # fmt: skip
