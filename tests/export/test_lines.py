"""The record as lines: it verifies where it goes, meets its schema, and never leaves unseen."""

from __future__ import annotations

import json
import os
import stat
import tracemalloc
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from stories import MAIL, Story, erase, tell

from cli.commands import remit as command
from remit import Remit
from remit.errors import RunError
from remit.export.formats import Format
from remit.export.lines import event_line, event_schema
from remit.journal.events import Draft, EventType
from remit.journal.leaves import Selection
from remit_verify import verify

pytestmark = pytest.mark.anyio


@pytest.fixture
async def story(tmp_path: Path, database_url: str) -> Story:
    return await tell(tmp_path / "shop", database_url)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


async def test_the_exported_record_verifies_without_the_database(story: Story, tmp_path: Path) -> None:
    async with Remit(story.shop.folder) as remit:
        await erase(remit, story.escalated)
    file = tmp_path / "record.jsonl"
    typed(story, "export", "--format", "record", "--out", str(file))
    report = verify(file)
    assert report.findings == ()
    assert (report.tenants[0].size, report.erased) == (report.events, 9)
    first, *_, last = lines(file.read_text())
    assert (first["record"], first["tenant"], last) == (1, "shop", {"end": True, "events": report.events})
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text()
    file.write_text(text.replace("looks right", "looks wrong"))
    assert [finding.code for finding in verify(file).findings] != []


def typed(story: Story, *arguments: str, code: int = 0) -> str:
    """The command line has a loop of its own, so it runs in a thread of its own."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(command, story.shop, *arguments, code=code).result()


async def test_every_event_meets_the_schema_that_is_published(story: Story) -> None:
    schema = json.loads(typed(story, "schema", "event"))
    assert schema == json.loads(json.dumps(event_schema()))
    validator = jsonschema_rs.Draft202012Validator(schema)
    typed(story, "export")
    async with Remit(story.shop.folder) as remit:
        await erase(remit, story.escalated)
    exported = lines(typed(story, "export"))
    for event in exported:
        validator.validate(event)
    kinds = {event["header"]["type"] for event in exported}
    assert kinds >= {"call.failed", "call.unknown", "approval.decided", "case.decided", "value.recorded", "record.exported"}
    assert any(event["body"] is None for event in exported)
    broken = exported[0]
    wrongs: list[dict[str, Any]] = [{"seq": 0}, {"more": 1}, {"body": {}}, {"header": {}}]
    for wrong in wrongs:
        assert not validator.is_valid({**broken, **wrong})


async def test_a_line_holds_header_and_body_as_they_were_hashed(story: Story) -> None:
    import hashlib

    async with Remit(story.shop.folder) as remit:
        head = await remit.sequencer.integrate()
        for leaf in remit.leaves.leaves(Selection(), upto=head.seq):
            line = event_line(leaf)
            assert hashlib.sha256(b"\x00" + leaf.header_text).hexdigest() == json.loads(line)["hash"]
            assert leaf.header_text in line
            assert leaf.text is not None
            assert leaf.text in line


async def test_every_export_is_on_the_register_before_it_leaves(story: Story, tmp_path: Path) -> None:
    permit = '@id("export") permit (principal in Role::"care-lead", action == Action::"export", resource);'
    (story.shop.folder / "record.cedar").write_text(permit)
    typed(story, "export", "--format", "ocsf", "--run", story.told, "--as", "lee")
    typed(story, "export", "--last", "1", "--out", str(tmp_path / "one.jsonl"))
    typed(story, "export", "--out", str(tmp_path / "nowhere" / "one.jsonl"), code=1)
    async with Remit(story.shop.folder) as remit:
        events = remit.register.events()
    assert [event.type for event in events] == [EventType.RECORD_EXPORTED] * 3
    first, second, third = [event.body for event in events]
    assert (first["format"], first["selection"], first["by"]) == ("ocsf", {"run": story.told}, "person/lee")
    assert events[0].header.actor.startswith("<person:")
    assert (second["selection"], second["to"], second["by"]) == ({"last": 1}, str(tmp_path / "one.jsonl"), "system")
    assert first["events"] > second["events"] > 0
    assert third["selection"] == {}


async def test_a_person_exports_what_record_cedar_lets_them(story: Story) -> None:
    rules = story.shop.folder / "record.cedar"
    rules.unlink()
    assert "record_policy_missing" in typed(story, "export", "--as", "lee", code=1)
    rules.write_text('@id("away") permit (principal, action == Action::"export", resource) when { resource.contract == "away" };')
    assert "record_denied" in typed(story, "export", "--as", "lee", code=1)
    assert "record_denied" in typed(story, "export", "--as", "lee", "--run", story.told, code=1)
    assert "record_denied" in typed(story, "export", "--format", "otlp", "--to", "http://a", "--as", "lee", code=1)
    async with Remit(story.shop.folder) as remit:
        assert {event.type for event in remit.register.events()} == {EventType.DEED_DENIED}
    assert len(lines(typed(story, "export", "--as", "lee", "--contract", "away"))) == 9
    assert len(lines(typed(story, "export", "--as", "lee", "--run", story.escalated))) == 9


async def test_a_selection_takes_what_it_names_and_nothing_else(story: Story) -> None:
    async with Remit(story.shop.folder) as remit:
        head = await remit.sequencer.integrate()
        whole = [leaf.header for leaf in remit.leaves.leaves(Selection(), upto=head.seq)]

        def runs(**asked: Any) -> list[tuple[str, int]]:
            selection = Selection(**asked)
            found = [(leaf.header.run, leaf.header.n) for leaf in remit.leaves.leaves(selection, upto=head.seq)]
            assert len(found) == remit.leaves.count(selection, head.seq)
            return found

        def of(run: str) -> list[tuple[str, int]]:
            return [(header.run, header.n) for header in whole if header.run == run]

        assert runs(run=story.told) == runs(contract="tells") == of(story.told)
        assert runs(last=1) == of(story.escalated)
        assert runs(contract="nobody") == []
        middle = whole[len(whole) // 2].at
        assert runs(since=middle) == [(header.run, header.n) for header in whole if header.at >= middle]


async def test_times_are_dates_moments_or_durations(story: Story) -> None:
    assert lines(typed(story, "export", "--since", "2099-01-01")) == []
    assert len(lines(typed(story, "export", "--since", "1h", "--run", story.told))) > 10
    assert "is no time" in typed(story, "export", "--since", "yesterday", code=1)


async def test_the_record_is_never_exported_in_part(story: Story) -> None:
    assert "record_is_whole" in typed(story, "export", "--format", "record", "--last", "1", code=1)
    async with Remit(story.shop.folder) as remit:
        with pytest.raises(RunError, match="verifies only as a whole"):
            await remit.exporting.lines(Format.RECORD, Selection(since=1), to="x", by=None, keys=[])
        assert remit.register.events() == []


async def test_a_file_that_is_there_stays_until_the_new_one_is_whole(story: Story, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text("before")
    async with Remit(story.shop.folder) as remit:
        from sqlalchemy import update

        from remit.storage import schema

        with remit.database.engine.begin() as connection:
            damaged = update(schema.events).where(schema.events.c.run == story.escalated, schema.events.c.n == 3)
            connection.execute(damaged.values(body=b"damaged"))
    assert "record_corrupt" in typed(story, "export", "--out", str(file), code=1)
    assert file.read_text() == "before"
    assert [name for name in os.listdir(tmp_path) if "events" in name] == ["events.jsonl"]  # noqa: PTH208 - no loop waits for it


async def test_memory_stays_flat_however_long_the_record_is(story: Story) -> None:
    async with Remit(story.shop.folder) as remit:
        keys = remit.journal.start("shop", "register-shop")
        body: dict[str, Any] = {"to": "x" * 20_000, "format": "jsonl", "selection": {}}
        draft = Draft(type=EventType.RECORD_EXPORTED, actor="operator", body=body)
        await remit.journal.append(keys[0], *[draft] * 2_000, statements=[keys[1]])
        exported = await remit.exporting.lines(Format.RECORD, Selection(), to="x", by=None, keys=[])
        tracemalloc.start()
        try:
            size = sum(len(line) for line in exported)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert size > 40_000_000
    assert peak < 8_000_000


async def test_personal_data_stays_a_pseudonym(story: Story) -> None:
    assert MAIL not in typed(story, "export")
    assert "<email:" in typed(story, "export")
