"""The client against a server that refuses, lies, stalls and breaks off."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from faulty_http import (
    ETAG,
    PASSWORD,
    Reply,
    answer,
    connect,
    cut,
    cut_in_the_middle,
    drip,
    failing,
    faulty,
    flood,
    reading,
    silence,
    writing,
)

from remit.connectors.roundup.transport import parse_retry_after
from remit.errors import OutcomeUnknown, ToolFailed
from remit.tools.spec import ANSWERED

ISSUE = '{"data": {"id": "1", "attributes": {"messages": []}, "@etag": "\\"0123456789abcdef0123456789abcdef\\""}}'
NO_MESSAGES = '{"data": {"collection": [], "@total_size": 0}}'
NEW_ITEM = '{"data": {"id": "5", "link": "x"}}'
TOKEN = '{"data": {"link": "http://elsewhere.example/rest/data/issue/@poe/abcdefghijklmnopqrst", "expires": 1.5}}'


def refusal(status: int, message: str) -> str:
    return f'{{"error": {{"status": {status}, "msg": "{message}"}}}}'


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
async def test_a_fault_that_the_tracker_tells_itself_ends_the_request_and_any_other_may_not() -> None:
    exception = refusal(400, "Tue: An error occurred. Please check the server log for more information.")
    own = [answer(500, refusal(500, "boom")), answer(400, exception)]
    others = [answer(502, refusal(502, "boom")), answer(500, "<html>sorry</html>"), answer(408, "{}"), cut]
    async with faulty(*own, *others) as server, connect(server.url) as client:
        told = [await failing(client, writing) for _ in (*own, *others)]
    assert all(isinstance(failure, OutcomeUnknown) for failure in told)
    assert [failure.code for failure in told] == [ANSWERED] * 2 + ["outcome_unknown"] * 4
    assert told[0].message == "`PATCH issue/1` was answered with 500: boom"


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
