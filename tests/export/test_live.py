"""Runs are sent as they end; nothing about that reaches a run, and what is not sent is said once."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest
from stories import MAIL, TRACEPARENT, Receiver, attributes, live_through, make_story_shop, receiving

from cli.commands import remit as command
from project import Shop
from remit import Remit
from remit.cases.cases import Decision
from remit.export.live import LiveTraces
from remit.export.otlp import Sender
from remit.journal.events import EventType
from remit.records.holds import HoldScope

pytestmark = pytest.mark.anyio


def live_shop(folder: Path, database: str, url: str) -> Shop:
    return make_story_shop(folder, database, f'\n[record]\notlp = "{url}"\n')


def roots(receiver: Receiver) -> list[str]:
    found = (attributes(span.attributes) for span in receiver.spans())
    return [one["remit.run.id"] for one in found if one.get("gen_ai.operation.name") == "invoke_agent"]


async def passing(remit: Remit) -> str:
    """A run in which nothing happens."""
    async with remit.gate("away").run({}) as run:
        return run.id


async def test_a_run_is_sent_once_when_it_has_ended(tmp_path: Path, database_url: str) -> None:
    with receiving() as receiver:
        shop = live_shop(tmp_path / "shop", database_url, receiver.url)
        async with Remit(shop.folder) as remit:
            held = await remit.run("tells", {"text": "one"})
            assert held.outcome == "held"
            told = await live_through(remit, "two")
            await remit.close_run(held.run, token=remit.person_token("lee"), reason="nobody wants it")
        assert sorted(roots(receiver)) == sorted([*told, held.run])
        async with Remit(shop.folder) as remit, remit.gate("away").run({}) as run:
            assert roots(receiver).count(run.id) == 0
        assert run.id in roots(receiver)
        async with Remit(shop.folder) as remit:
            events = remit.register.events()
    (announced,) = [event for event in events if event.type is EventType.RECORD_EXPORTED]
    assert (announced.body["live"], announced.body["to"]) == (True, f"{receiver.url}/v1/traces")


async def test_it_is_sent_while_the_process_goes_on(tmp_path: Path, database_url: str) -> None:
    with receiving() as receiver:
        shop = live_shop(tmp_path / "shop", database_url, receiver.url)
        async with Remit(shop.folder) as remit:
            async with remit.gate("away").run({}) as run:
                pass
            assert await asyncio.to_thread(receiver.came.wait, 20)
            assert roots(receiver) == [run.id]


async def test_a_receiver_that_is_away_harms_no_run_and_is_told_of_once(
    tmp_path: Path, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with receiving() as receiver:
        pass
    shop = live_shop(tmp_path / "shop", database_url, receiver.url)
    with caplog.at_level(logging.WARNING, "remit"):
        async with Remit(shop.folder) as remit:
            runs = [await passing(remit) for _ in range(3)]
    (said,) = [record.getMessage() for record in caplog.records if "finished runs were not sent" in record.getMessage()]
    assert said.startswith("3 finished runs were not sent to")
    assert runs[-1] in said
    assert "remit export --format otlp --to" in said
    assert len(caplog.records) <= 2
    with receiving() as receiver:
        text = await asyncio.to_thread(command, shop, "export", "--format", "otlp", "--to", receiver.url)
    assert text.startswith("sent 3 runs as 3 spans")
    assert roots(receiver) == runs


async def test_a_receiver_that_comes_back_gets_what_it_missed(
    tmp_path: Path, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    shop = make_story_shop(tmp_path / "shop", database_url)
    with receiving() as receiver, caplog.at_level(logging.WARNING, "remit"):
        receiver.answers = [(503, {}, b""), (503, {}, b"")]
        async with Remit(shop.folder) as remit:
            runs = [await passing(remit) for _ in range(3)]
            encoder = remit.exporting.encoder()
            live = LiveTraces(
                leaves=remit.leaves,
                encoder=encoder,
                sender=Sender(receiver.url, encoder, attempts=1),
                announce=remit.exporting.announce,
            )
            for run_id in runs:
                live.closed(run_id)
            while len(roots(receiver)) < 3:
                receiver.came.clear()
                assert await asyncio.to_thread(receiver.came.wait, 20)
            await live.close()
    assert roots(receiver) == runs
    said = [record.getMessage() for record in caplog.records]
    assert ["503" in said[0], "are sent to" in said[1]] == [True, True]
    assert len(said) == 2


async def test_what_is_broken_in_a_copy_reaches_no_run(
    tmp_path: Path, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    from sqlalchemy import update

    from remit.storage import schema

    with receiving() as receiver:
        shop = live_shop(tmp_path / "shop", database_url, receiver.url)
        async with Remit(shop.folder) as remit:
            async with remit.gate("away").run({}) as run:
                pass
            with remit.database.engine.begin() as connection:
                damaged = update(schema.events).where(schema.events.c.run == run.id, schema.events.c.n == 1)
                connection.execute(damaged.values(body=b"damaged"))
        assert receiver.requests == []
    assert any("damaged, moved" in record.getMessage() for record in caplog.records)


def later(receiver: Receiver) -> list[str]:
    """What came as spans of their own, by the type of the event; each below the run that it is about, in its trace."""
    spans = receiver.spans()
    found = {span.span_id: attributes(span.attributes) for span in spans}
    root_of = {
        one["remit.run.id"]: span
        for span, one in zip(spans, found.values(), strict=True)
        if one.get("gen_ai.operation.name") == "invoke_agent"
    }
    types: list[str] = []
    for span in spans:
        told = found[span.span_id]
        if "remit.event.type" not in told:
            continue
        root = root_of[told["remit.run.id"]]
        assert (span.trace_id, span.parent_span_id) == (root.trace_id, root.span_id)
        types.append(told["remit.event.type"])
    return types


async def test_what_is_done_to_a_run_after_its_end_follows_it_in_its_trace(tmp_path: Path, database_url: str) -> None:
    with receiving() as receiver:
        shop = live_shop(tmp_path / "shop", database_url, receiver.url)
        async with Remit(shop.folder) as remit:
            lee = remit.person_token("lee")
            told, escalated = await live_through(remit, f"text for {MAIL}")
            hold = await remit.holds.place(HoldScope.RUN, told, token=lee, reason="a claim")
            await remit.holds.lift(hold.hold, token=lee, reason="it is settled")
            await remit.reveals.reveal(told, token=lee, reason="a claim")
            done = await remit.erasure.erase([remit.archive.run(told)], token=lee, reason="asked")
            assert [each.refused for each in done.runs] == [""]
        assert sorted(later(receiver)) == [
            "case.decided",
            "hold.lifted",
            "hold.placed",
            "run.erased",
            "value.revealed",
        ]
        by_run = {attributes(span.attributes)["remit.run.id"]: span.trace_id.hex() for span in receiver.spans()}
        # Also of a run that was erased it is known below whose span it stood.
        assert by_run[told] == TRACEPARENT.split("-")[1]
        assert by_run.keys() == {told, escalated}


async def test_what_another_process_does_afterwards_is_sent_without_the_run(tmp_path: Path, database_url: str) -> None:
    with receiving() as first:
        shop = live_shop(tmp_path / "shop", database_url, first.url)
        async with Remit(shop.folder) as remit, remit.gate("away").run({"text": "help"}) as run:
            await run.escalate("somebody should look")
    case = ""
    settings = shop.folder / "remit.toml"
    with receiving() as second:
        settings.write_text(settings.read_text().replace(first.url, second.url))
        async with Remit(shop.folder) as remit:
            (found,) = remit.cases.list("shop")
            case = found.case
            await remit.cases.decide(case, Decision.RESOLVED, token=remit.person_token("lee"), reason="done by hand")
        assert roots(second) == []
        (span,) = second.spans()
    (root,) = [span for span in first.spans() if span.name == "invoke_agent away"]
    assert (span.trace_id, span.parent_span_id) == (root.trace_id, root.span_id)
    assert attributes(span.attributes)["remit.event.type"] == "case.decided"
    body = json.loads(attributes(span.events[0].attributes)["remit.event.body"])
    assert (body["case"], body["reason"]) == (case, "done by hand")


async def test_what_is_done_to_an_open_run_goes_with_it_when_it_ends(tmp_path: Path, database_url: str) -> None:
    with receiving() as receiver:
        shop = live_shop(tmp_path / "shop", database_url, receiver.url)
        async with Remit(shop.folder) as remit:
            held = await remit.run("tells", {"text": "one"})
            await remit.cases.reveal(held.case or "", token=remit.person_token("lee"))
        assert receiver.spans() == []
        async with Remit(shop.folder) as remit:
            await remit.close_run(held.run, token=remit.person_token("lee"), reason="nobody wants it")
        assert later(receiver) == []
        names = [event.name for span in receiver.spans() for event in span.events]
        assert names.count("remit.case.revealed") == 1


async def test_what_is_done_to_the_record_of_an_open_run_is_sent_as_it_happens(tmp_path: Path, database_url: str) -> None:
    with receiving() as receiver:
        shop = live_shop(tmp_path / "shop", database_url, receiver.url)
        async with Remit(shop.folder) as remit:
            held = await remit.run("tells", {"text": "one"})
            await remit.holds.place(HoldScope.RUN, held.run, token=remit.person_token("lee"), reason="a claim")
        assert [span.name for span in receiver.spans()] == ["remit.hold.placed"]
        async with Remit(shop.folder) as remit:
            await remit.close_run(held.run, token=remit.person_token("lee"), reason="nobody wants it")
        assert later(receiver) == ["hold.placed"]


async def test_what_is_sent_as_it_happens_is_what_an_export_sends_later(tmp_path: Path, database_url: str) -> None:
    with receiving() as receiver:
        shop = live_shop(tmp_path / "shop", database_url, receiver.url)
        async with Remit(shop.folder) as remit:
            _, escalated = await live_through(remit, "one")
            await remit.holds.place(HoldScope.RUN, escalated, token=remit.person_token("lee"), reason="a claim")
        live = {(span.trace_id, span.span_id): attributes(span.attributes) for span in receiver.spans()}
        assert len(live) == len(receiver.spans())
        receiver.requests.clear()
        await asyncio.to_thread(command, shop, "export", "--format", "otlp")
        exported = {(span.trace_id, span.span_id): attributes(span.attributes) for span in receiver.spans()}
    assert exported == live


async def test_the_address_is_checked_with_the_project(tmp_path: Path, database_url: str) -> None:
    shop = live_shop(tmp_path / "shop", database_url, "ftp://nowhere")
    assert "is no address to send traces to" in await asyncio.to_thread(command, shop, "check", code=1)
    shop = live_shop(tmp_path / "other", database_url, "http://me:hunter2@otel.example")
    said = await asyncio.to_thread(command, shop, "check", code=1)
    assert "OTEL_EXPORTER_OTLP_HEADERS" in said
    assert "hunter2" not in said


async def test_traces_need_a_receiver(tmp_path: Path, database_url: str) -> None:
    shop = make_story_shop(tmp_path / "shop", database_url)
    assert "name it with `--to URL`" in await asyncio.to_thread(command, shop, "export", "--format", "otlp", code=1)
    wrong = await asyncio.to_thread(command, shop, "export", "--format", "ocsf", "--to", "http://a", code=1)
    assert "write ocsf to a file" in wrong
