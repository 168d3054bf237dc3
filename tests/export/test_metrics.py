"""Metrics are what the journal says, read a stretch at a time, in the form that Prometheus itself can read."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as open_metrics,  # pyright: ignore[reportUnknownVariableType]
)
from prometheus_client.parser import text_string_to_metric_families as plain_metrics
from stories import Story, erase, live_through, make_story_shop, receiving, tell

from cli.commands import remit as command
from remit import Remit
from remit.export.fold_file import FoldFile
from remit.export.metrics import JournalFold
from remit.export.prometheus import Exposition, serve
from remit.journal.events import Draft, EventType
from remit.journal.leaves import Selection

pytestmark = pytest.mark.anyio

Samples = Mapping[str, float]


def samples(families: Any) -> dict[str, float]:
    """Every sample by its name and labels."""
    found: dict[str, float] = {}
    for family in families:
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


@pytest.fixture
async def story(tmp_path: Path, database_url: str) -> Story:
    return await tell(tmp_path / "shop", database_url)


async def scraped(story: Story) -> dict[str, float]:
    return samples(plain_metrics(await asyncio.to_thread(command, story.shop, "metrics")))


async def test_they_count_what_happened(story: Story) -> None:
    found = await scraped(story)
    expected = {
        "remit_runs_total{contract=tells,outcome=completed}": 1,
        "remit_runs_total{contract=away,outcome=escalated}": 1,
        "remit_calls_total{contract=tells,tool=payments.refund,verdict=hold}": 1,
        "remit_calls_total{contract=tells,tool=payments.refund,verdict=allow}": 1,
        "remit_calls_total{contract=tells,tool=put.safe,verdict=deny}": 1,
        "remit_calls_total{contract=tells,tool=put.safe,verdict=reject}": 1,
        "remit_calls_total{contract=tells,tool=(none),verdict=deny}": 1,
        "remit_calls_total{contract=tells,tool=model:sorter,verdict=allow}": 1,
        "remit_call_outcomes_total{contract=tells,outcome=failed,tool=odd.write}": 1,
        "remit_call_outcomes_total{contract=tells,outcome=unknown,tool=odd.write}": 1,
        "remit_denials_total{contract=tells,rule=never-13}": 1,
        "remit_denials_total{contract=tells,rule=not_granted}": 1,
        "remit_cases_open{kind=unknown,queue=queue:care}": 1,
        "remit_case_seconds_count{kind=approval}": 1,
        "remit_case_seconds_count{kind=escalation}": 1,
        "remit_run_seconds_count{contract=tells}": 1,
        "remit_run_seconds_bucket{contract=tells,le=+Inf}": 1,
        "remit_call_seconds_count{contract=tells,tool=orders.read}": 1,
        "remit_decision_seconds_count{contract=tells}": 10,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert not any(name.startswith("remit_runs_open{") for name in found)


async def test_every_series_is_one_that_prometheus_takes(story: Story) -> None:
    text = await asyncio.to_thread(command, story.shop, "metrics")
    families = list(plain_metrics(text))
    assert all(family.documentation for family in families)
    assert {family.type for family in families} == {"counter", "gauge", "histogram"}
    for family in families:
        for sample in family.samples:
            assert sample.value >= 0


async def test_what_an_agent_calls_a_tool_never_becomes_a_name(story: Story) -> None:
    async with Remit(story.shop.folder) as remit, remit.gate("away").run({}) as run:
        for name in ('x"} 1\nremit_runs_total 99', "model:nobody", "a" * 500):
            await run.propose(name, {})
    found = await scraped(story)
    assert found["remit_calls_total{contract=away,tool=(none),verdict=deny}"] == 3
    assert "remit_runs_total{}" not in found


async def test_they_go_on_from_where_the_last_look_ended(story: Story) -> None:
    async with Remit(story.shop.folder) as remit:
        fold = JournalFold(remit.leaves)
        head = await remit.sequencer.integrate()
        for upto in range(0, head.seq + 1, 7):
            fold.catch_up(upto)
        by_parts = fold.catch_up(head.seq)
        at_once = JournalFold(remit.leaves).catch_up(head.seq)
        assert by_parts == at_once
        assert by_parts.events == remit.leaves.count(Selection(), head.seq)
        assert fold.catch_up(head.seq).events == by_parts.events
        await live_through(remit, "again")
        head = await remit.sequencer.integrate()
        assert fold.catch_up(head.seq) == JournalFold(remit.leaves).catch_up(head.seq)
        assert fold.folded.runs == {("tells", "completed"): 2, ("away", "escalated"): 2}


async def test_a_count_that_was_kept_goes_on_with_what_is_new(story: Story, tmp_path: Path) -> None:
    async with Remit(story.shop.folder) as remit:
        head = await remit.sequencer.integrate()
        file = FoldFile(tmp_path / "metrics.fold", every=1)
        Exposition(remit.leaves, look=lambda: head.seq, now=remit.clock, kept=file).text()
        await live_through(remit, "again")
        new = await remit.sequencer.integrate()
        fold = FoldFile(tmp_path / "metrics.fold").fold(remit.leaves)
        assert fold.state.seq == head.seq
        from_there, from_the_first = fold.catch_up(new.seq), JournalFold(remit.leaves)
        assert from_there == from_the_first.catch_up(new.seq)
        assert fold.state == from_the_first.state
        assert (tmp_path / "metrics.fold").stat().st_mode & 0o777 == 0o600


async def test_a_count_that_is_damaged_or_of_another_record_is_not_believed(story: Story, tmp_path: Path) -> None:
    path = tmp_path / "metrics.fold"
    async with Remit(story.shop.folder) as remit:
        head = await remit.sequencer.integrate()
        fold = JournalFold(remit.leaves)
        fold.catch_up(head.seq)
        FoldFile(path, every=1).keep(fold.state)
        kept = path.read_bytes()
        assert FoldFile(path).fold(remit.leaves).state == fold.state
        for damaged in (b"", kept[:-1], kept + b"x", b"x" + kept[1:], kept[:70] + b"x" + kept[71:]):
            path.write_bytes(damaged)
            assert FoldFile(path).fold(remit.leaves).state.seq == 0
        fold.state.hash = b"of another record"
        FoldFile(path, every=1).keep(fold.state)
        assert FoldFile(path).fold(remit.leaves).state.seq == 0


async def test_where_a_count_can_not_be_kept_it_is_told_once_and_shown_all_the_same(
    story: Story, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Remit(story.shop.folder) as remit:
        head = await remit.sequencer.integrate()
        file = FoldFile(tmp_path / "nowhere" / "metrics.fold", every=1)
        exposition = Exposition(remit.leaves, look=lambda: head.seq, now=remit.clock, kept=file)
        for _ in range(2):
            assert "remit_runs_total{" in exposition.text()
    assert [record.levelname for record in caplog.records if "nowhere" in record.message] == ["WARNING"]


async def test_open_and_held_runs_are_told_apart_from_those_that_ended(story: Story) -> None:
    async with Remit(story.shop.folder) as remit:
        assert (await remit.run("tells", {"text": "held"})).outcome == "held"
    found = await scraped(story)
    assert found["remit_runs_open{contract=tells}"] == 1
    assert found["remit_cases_open{kind=approval,queue=queue:care}"] == 1
    assert found["remit_cases_overdue{kind=approval,queue=queue:care}"] == 0
    later = 10**6 * 3600

    async with Remit(story.shop.folder) as remit:
        head = await remit.sequencer.integrate()
        exposition = Exposition(remit.leaves, look=lambda: head.seq, now=lambda: remit.clock() + later)
        found = samples(plain_metrics(exposition.text()))
    assert found["remit_cases_overdue{kind=approval,queue=queue:care}"] == 1
    assert 3600 <= found["remit_case_age_seconds{kind=approval,queue=queue:care}"] < 3700


async def test_a_closed_run_waits_for_no_approval_any_more_and_for_its_other_cases_still(story: Story) -> None:
    async with Remit(story.shop.folder) as remit:
        held = await remit.run("tells", {"text": "held"})
        fold = JournalFold(remit.leaves)
        fold.catch_up((await remit.sequencer.integrate()).seq)
        assert {kind for kind, _ in fold.state.asked[held.run].values()} == {"approval", "unknown"}
        await remit.close_run(held.run, token=remit.person_token("lee"))
        fold.catch_up((await remit.sequencer.integrate()).seq)
        assert {kind for kind, _ in fold.state.asked[held.run].values()} == {"unknown"}
        assert held.run not in fold.state.open


async def test_replays_and_undos_are_no_runs_of_the_contract(story: Story) -> None:
    async with Remit(story.shop.folder) as remit:
        before = (await scraped(story))["remit_runs_total{contract=tells,outcome=completed}"]
        replayed = Draft(type=EventType.RUN_REPLAYED, actor="operator", body={"runs": 1}, refs={"run": story.told})
        await remit.register.append(replayed)
        log, keys = remit.journal.start("shop", "run-undo")
        opened = Draft(
            type=EventType.RUN_OPENED,
            actor="agent/shop/tells",
            refs={"undoes": story.told},
            body={"contract": f"undo:{story.told}", "request": {}, "on_behalf_of": "person/lee"},
        )
        closed = Draft(
            type=EventType.RUN_CLOSED,
            actor="agent/shop/tells",
            verdict="completed",
            body={"outcome": "completed", "output": None, "reason": "", "events": 2},
        )
        await remit.journal.append(log, opened, closed, statements=[keys])
    found = await scraped(story)
    assert found["remit_runs_total{contract=tells,outcome=completed}"] == before
    assert found["remit_undos_total{contract=tells,outcome=completed}"] == 1
    assert found["remit_register_events_total{type=run.replayed}"] == 1


async def test_runs_of_others_count_as_that_and_nothing_else(story: Story) -> None:
    before = await scraped(story)
    async with Remit(story.shop.folder) as remit:
        seen = remit.leaves.run(story.told)
        log, keys = remit.journal.start("shop", "run-imported")
        drafts = [
            Draft(
                type=leaf.type,
                actor=leaf.header.actor,
                span=leaf.header.span,
                refs={**leaf.header.refs, **({"imported": "somebody"} if leaf.header.n == 1 else {})},
                verdict="imported" if leaf.type is EventType.RUN_CLOSED else leaf.header.verdict,
                body=leaf.body,
            )
            for leaf in seen
            if leaf.type in (EventType.RUN_OPENED, EventType.CALL_DECIDED, EventType.CALL_COMPLETED, EventType.RUN_CLOSED)
        ]
        await remit.journal.append(log, *drafts, statements=[keys])
    after = await scraped(story)
    assert after["remit_imports_total{contract=tells}"] == 1
    same = ("remit_runs", "remit_calls", "remit_call_", "remit_denials", "remit_decision_seconds_count", "remit_tokens")
    assert {name: value for name, value in after.items() if name.startswith(same)} == {
        name: value for name, value in before.items() if name.startswith(same)
    }


async def test_erased_runs_still_count(story: Story) -> None:
    before = await scraped(story)
    async with Remit(story.shop.folder) as remit:
        await erase(remit, story.told)
        await erase(remit, story.escalated)
    after = await scraped(story)
    runs = {name: value for name, value in before.items() if name.startswith(("remit_runs_total", "remit_run_seconds"))}
    assert {name: after[name] for name in runs} == runs
    assert after["remit_denials_total{contract=tells,rule=erased}"] == 2


async def test_they_are_served_in_both_forms_while_the_record_grows(tmp_path: Path, database_url: str) -> None:
    shop = make_story_shop(tmp_path / "shop", database_url)
    async with Remit(shop.folder) as remit:
        loop = asyncio.get_running_loop()

        def look() -> int:
            return asyncio.run_coroutine_threadsafe(remit.sequencer.integrate(), loop).result().seq

        def fetch(url: str, accept: str) -> str:
            request = urllib.request.Request(url, headers={"Accept": accept})
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.read().decode()

        with serve(Exposition(remit.leaves, look=look, now=remit.clock), "127.0.0.1:0") as address:
            url = f"http://{address}/metrics"
            text = await asyncio.to_thread(fetch, url, "text/plain")
            assert "remit_runs_total{" not in text
            await live_through(remit, "once")
            texts = await asyncio.gather(*(asyncio.to_thread(fetch, url, "text/plain") for _ in range(4)))
            for text in texts:
                assert samples(plain_metrics(text))["remit_runs_total{contract=tells,outcome=completed}"] == 1
            openly = await asyncio.to_thread(fetch, url, "application/openmetrics-text")
            assert openly.endswith("# EOF\n")
            assert samples(open_metrics(openly))["remit_runs_total{contract=tells,outcome=completed}"] == 1


async def test_a_port_that_is_taken_is_said(tmp_path: Path, database_url: str) -> None:
    shop = make_story_shop(tmp_path / "shop", database_url)
    with receiving() as taken:
        listen = taken.url.removeprefix("http://")
        said = await asyncio.to_thread(command, shop, "metrics", "--listen", listen, code=1)
    assert "can't listen on" in said
