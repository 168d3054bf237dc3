"""The client against a live tracker, and against a server that refuses, lies, stalls and breaks off."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from faulty_http import Reply, answer, cut, cut_in_the_middle, drip, faulty, flood, silence
from hypothesis import given
from hypothesis import strategies as st

from remit.connectors.roundup.client import RoundupClient
from remit.connectors.roundup.model import WRITABLE, Issue, Value, canonical
from remit.connectors.roundup.server import RoundupServer
from remit.connectors.roundup.transport import Bounds, Credentials, parse_retry_after
from remit.errors import ConfigError, OutcomeUnknown, ToolFailed

ETAG = '"0123456789abcdef0123456789abcdef"'
PASSWORD = "hunter2-hunter2"
ISSUE = '{"data": {"id": "1", "attributes": {"messages": []}, "@etag": "\\"0123456789abcdef0123456789abcdef\\""}}'
NO_MESSAGES = '{"data": {"collection": [], "@total_size": 0}}'
NEW_ITEM = '{"data": {"id": "5", "link": "x"}}'
TOKEN = '{"data": {"link": "http://elsewhere.example/rest/data/issue/@poe/abcdefghijklmnopqrst", "expires": 1.5}}'

Call = Callable[[RoundupClient], Awaitable[object]]

_numbers = itertools.count(1)


def new_key() -> str:
    """A key that no other test of the session uses."""
    return f"K-{next(_numbers):04d}"


def refusal(status: int, message: str) -> str:
    return f'{{"error": {{"status": {status}, "msg": "{message}"}}}}'


def connect(url: str, **bounds: int) -> RoundupClient:
    return RoundupClient(url, Credentials(username="remit-agent", password=PASSWORD), Bounds(**bounds))


async def reading(client: RoundupClient) -> object:
    return await client.read(1)


async def writing(client: RoundupClient) -> object:
    return await client.update(1, {"priority": "high"}, ETAG)


async def failing(client: RoundupClient, call: Call) -> ToolFailed | OutcomeUnknown:
    with pytest.raises((ToolFailed, OutcomeUnknown)) as caught:
        await call(client)
    assert isinstance(caught.value, ToolFailed | OutcomeUnknown)
    assert PASSWORD not in caught.value.message
    return caught.value


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


# Against a server that misbehaves


@pytest.mark.anyio
async def test_what_could_not_be_sent_certainly_did_not_happen() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        async with connect(f"http://127.0.0.1:{taken.getsockname()[1]}/tracker/") as client:
            for call in (reading, writing):
                failure = await failing(client, call)
                assert isinstance(failure, ToolFailed)
                assert (failure.code, failure.retryable) == ("unreachable", True)


@pytest.mark.anyio
async def test_a_host_without_an_address_certainly_was_not_reached() -> None:
    async with connect("https://desk.invalid/tracker/") as client:
        failure = await failing(client, writing)
        assert isinstance(failure, ToolFailed)
        assert (failure.code, failure.retryable) == ("unreachable", True)


@pytest.mark.anyio
@pytest.mark.parametrize("reply", [cut, cut_in_the_middle, silence, drip])
async def test_a_change_that_is_not_answered_is_unknown_and_a_read_may_be_repeated(
    reply: Reply,
) -> None:
    async with (
        faulty(reply) as server,
        connect(server.url, read_timeout_ms=200, total_timeout_ms=400) as client,
    ):
        failure = await failing(client, reading)
        assert isinstance(failure, ToolFailed)
        assert failure.retryable
        assert failure.code in {"timeout", "unreachable"}
        assert isinstance(await failing(client, writing), OutcomeUnknown)
        assert server.requests == ["GET /tracker/rest/data/issue/1", "PATCH /tracker/rest/data/issue/1"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (401, "credentials_rejected", False),
        (403, "forbidden", False),
        (404, "not_found", False),
        (405, "invalid", False),
        (409, "invalid", False),
        (412, "conflict", False),
        (413, "invalid", False),
        (429, "rate_limited", True),
    ],
)
async def test_a_refusal_certainly_did_not_happen(status: int, code: str, retryable: bool) -> None:
    async with faulty(answer(status, "whatever")) as server, connect(server.url) as client:
        for call in (reading, writing):
            failure = await failing(client, call)
            assert isinstance(failure, ToolFailed)
            assert (failure.code, failure.retryable) == (code, retryable)


@pytest.mark.anyio
@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
async def test_a_fault_of_the_tracker_leaves_a_change_unknown_and_a_read_repeatable(status: int) -> None:
    async with faulty(answer(status, "<html>sorry</html>")) as server, connect(server.url) as client:
        failure = await failing(client, reading)
        assert isinstance(failure, ToolFailed)
        assert (failure.code, failure.retryable) == ("unavailable", True)
        assert isinstance(await failing(client, writing), OutcomeUnknown)


@pytest.mark.anyio
async def test_a_bad_request_counts_as_refused_only_in_roundups_own_words() -> None:
    own = answer(400, refusal(400, "Property x not found"))
    exception = answer(400, refusal(400, "Tue: An error occurred. Please check the server log for more information."))
    page = answer(400, "<body><p>An error occurred.</p></body>")
    async with faulty(own, exception, page) as server, connect(server.url) as client:
        assert (await failing(client, writing)).code == "invalid"
        assert isinstance(await failing(client, writing), OutcomeUnknown)
        assert isinstance(await failing(client, writing), OutcomeUnknown)


@pytest.mark.anyio
@pytest.mark.parametrize("status", [429, 503])
async def test_a_server_that_says_when_to_come_back_is_believed(status: int) -> None:
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(minutes=1), usegmt=True)
    async with (
        faulty(answer(status, Retry_After="7"), answer(status, Retry_After=in_a_minute)) as server,
        connect(server.url) as client,
    ):
        first = await failing(client, writing)
        assert isinstance(first, ToolFailed)
        assert (first.retryable, first.retry_after_ms) == (True, 7000)
        second = await failing(client, reading)
        assert isinstance(second, ToolFailed)
        assert second.retry_after_ms is not None
        assert 50_000 < second.retry_after_ms <= 60_000


def test_retry_after_is_read_in_both_forms_and_nonsense_is_ignored() -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()
    assert parse_retry_after("0", now) == 0
    assert parse_retry_after(" 120 ", now) == 120_000
    assert parse_retry_after("Sat, 31 Jan 2026 12:00:30 GMT", now) == 30_000
    assert parse_retry_after("Sat, 31 Jan 2026 11:00:00 GMT", now) == 0
    assert parse_retry_after("9" * 400, now) == 24 * 3_600_000
    assert [parse_retry_after(text, now) for text in (None, "", "-5", "soon", "1.5", "٣")] == [None] * 6


@pytest.mark.anyio
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"null",
        b"[]",
        b'{"data": null}',
        b'{"data": {"id": "0", "attribute": {}, "attributes": {}, "@etag": "\\"a\\""}}',
        b'{"data": {"id": ["1"], "attribute": {}, "attributes": {}}}',
        b'{"data": {"attributes": {"title": 5}, "attribute": 5}}',
        b'\xff\xfe{"data": {}}',
        b'{"data": ' + b"[" * 100_000,
    ],
)
async def test_an_answer_of_another_shape_is_not_believed(body: bytes) -> None:
    async with faulty(answer(200, body)) as server, connect(server.url) as client:
        failure = await failing(client, reading)
        assert isinstance(failure, ToolFailed)
        assert (failure.code, failure.retryable) == ("malformed_answer", False)
        assert isinstance(await failing(client, writing), OutcomeUnknown)


@pytest.mark.anyio
async def test_an_answer_that_is_too_long_or_compressed_is_not_taken() -> None:
    bomb = answer(200, b"\x1f\x8b" + b"x" * 100, Content_Encoding="gzip")
    for reply in (flood, bomb):
        async with faulty(reply) as server, connect(server.url, max_response_bytes=100_000) as client:
            failure = await failing(client, reading)
            assert isinstance(failure, ToolFailed)
            assert failure.code == "malformed_answer"
            assert isinstance(await failing(client, writing), OutcomeUnknown)


@pytest.mark.anyio
async def test_a_redirect_is_never_followed() -> None:
    async with faulty(answer(200, ISSUE)) as elsewhere:
        for status in (301, 302, 303, 307, 308):
            away = answer(status, Location=f"{elsewhere.url}rest/data/issue/1")
            async with faulty(away) as server, connect(server.url) as client:
                assert (await failing(client, reading)).code == "redirected"
                assert isinstance(await failing(client, writing), OutcomeUnknown)
        assert elsewhere.requests == []


@pytest.mark.anyio
async def test_every_request_carries_what_roundup_demands_against_forged_ones() -> None:
    async with faulty(answer(404)) as server, connect(server.url) as client:
        await failing(client, writing)
        head = server.heads[0]
        origin = server.url.removesuffix("/tracker/")
        for line in (f"Origin: {origin}", f"Referer: {server.url}", "X-Requested-With: ", f"If-Match: {ETAG}"):
            assert f"\r\n{line}" in head


@pytest.mark.anyio
async def test_a_trackers_words_are_shown_in_one_short_line_without_the_password() -> None:
    words = f"no\\n such \\u001b[31m thing {PASSWORD} " + "x" * 500
    async with faulty(answer(404, refusal(404, words))) as server, connect(server.url) as client:
        failure = await failing(client, reading)
        assert "no such [31m thing *** xxx" in failure.message
        assert len(failure.message) < 300
        assert failure.message.isprintable()


@pytest.mark.anyio
async def test_a_note_whose_link_was_not_answered_is_unknown_and_its_message_is_used_again() -> None:
    text = '{"data": {"collection": [{"id": "5", "content": "text", "messageid": "<k.issue1@remit.invalid>"}], '
    left_behind = text + '"@total_size": 1}}'
    changed = answer(200, '{"data": {"id": "1", "attribute": {"messages": ["5"]}}}')

    async with faulty(answer(200, NO_MESSAGES)) as server, connect(server.url, connections=1) as client:
        server.replies = [answer(200, NO_MESSAGES), answer(200, ISSUE), answer(201, NEW_ITEM), cut]
        assert isinstance(await failing(client, lambda c: c.note(1, "text", "k")), OutcomeUnknown)
        server.requests.clear()
        server.replies = [answer(200, left_behind), answer(200, ISSUE), changed]
        noted = await client.note(1, "text", "k")
        assert (noted.note, noted.existed) == (5, False)
        assert "POST /tracker/rest/data/msg" not in server.requests


@pytest.mark.anyio
async def test_a_creation_of_unknown_outcome_is_posted_to_the_same_address_again() -> None:
    none = answer(200, NO_MESSAGES)
    spent = answer(400, refusal(400, "POE token 'abcdefghijklmnopqrst' not valid."))
    there = answer(200, '{"data": {"collection": [{"id": "8", "extkey": "k"}], "@total_size": 1}}')
    async with faulty(none) as server, connect(server.url) as client:
        server.replies = [none, answer(200, TOKEN), cut]
        assert isinstance(await failing(client, lambda c: c.create({"title": "one"}, "k")), OutcomeUnknown)
        server.replies = [none, spent, there]
        created = await client.create({"title": "one"}, "k")
        assert (created.issue, created.existed) == (8, True)
        posts = [request for request in server.requests if "@poe/" in request]
        assert posts == ["POST /tracker/rest/data/issue/@poe/abcdefghijklmnopqrst"] * 2


@pytest.mark.anyio
async def test_a_creation_that_the_tracker_took_but_does_not_show_stays_unknown() -> None:
    none = answer(200, NO_MESSAGES)
    spent = answer(400, refusal(400, "POE token 'abcdefghijklmnopqrst' not valid."))
    async with faulty(none) as server, connect(server.url) as client:
        server.replies = [none, answer(200, TOKEN), cut]
        await failing(client, lambda c: c.create({"title": "one"}, "k"))
        server.replies = [none, spent, none]
        assert isinstance(await failing(client, lambda c: c.create({"title": "one"}, "k")), OutcomeUnknown)


@pytest.mark.anyio
async def test_a_token_that_could_not_be_had_means_that_nothing_was_created() -> None:
    async with faulty(answer(200, NO_MESSAGES), cut) as server, connect(server.url) as client:
        failure = await failing(client, lambda c: c.create({"title": "one"}, "k"))
        assert isinstance(failure, ToolFailed)
        assert failure.retryable
