"""Recorded models, functions of the project, stand-ins and prices: models like any other, behind the same gate."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model_project import GOOD, PLAN, llm, model_shop
from model_server import Reply, Said, Server, said, serving
from remit import Completed, Failed, Outcome, Rejected, Remit
from remit.errors import ConfigError
from remit.journal.events import EventType
from remit.models.recorded import recorded_calls, recording_line
from remit.runs.listening import listening
from remit.values import digest

pytestmark = pytest.mark.anyio

RECORDED = '[models.main]\nkind = "recorded"\nrecording = "answers.jsonl"\n'
PYTHON = '[models.main]\nkind = "python"\nfunction = "models/planner.py:plan"\n'
VALUE = {"steps": ["look"], "confidence_per_mille": 700}
MESSAGES = [{"role": "user", "text": "hello"}]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as started:
        yield started


async def ask(remit: Remit, form: str, **args: Any) -> Outcome:
    async with remit.gate("desk").run({}) as run:
        return await run.propose(f"model:{form}", args)


def recording(folder: Path, *lines: tuple[str, Any, Any]) -> None:
    text = "\n".join(recording_line(model, digest(args), answer) for model, args, answer in lines)
    (folder / "answers.jsonl").write_text(f"{text}\n\n")


# ---- recorded ------------------------------------------------------------------------------------------------------


async def test_a_recorded_model_answers_in_every_form(tmp_path: Path, database_url: str) -> None:
    calls = [{"id": "c", "tool": "orders.read", "args": {"order": 1}}]
    shop = model_shop(tmp_path, database_url, RECORDED)
    recording(
        shop.folder,
        ("labels", {"text": "x"}, {**GOOD, "confidence_per_mille": 1}),
        ("value", {"goal": "x", "terms": 1}, {"value": VALUE, "finish": "stop"}),
        ("text", {"topic": "x"}, {"text": "a story", "finish": "length"}),
        ("tools", {"messages": MESSAGES}, {"text": None, "calls": calls, "finish": "tool_calls"}),
    )
    async with Remit(shop.folder) as remit:
        sorted_ = await ask(remit, "labels", text="x")
        valued = await ask(remit, "value", goal="x", terms=1)
        written = await ask(remit, "text", topic="x")
        turned = await ask(remit, "tools", messages=MESSAGES)
    assert isinstance(sorted_, Completed)
    assert sorted_.result["confidence_per_mille"] == 610
    assert isinstance(valued, Completed)
    assert (valued.result["value"], valued.result["confidence_per_mille"]) == (VALUE, 700)
    assert isinstance(written, Completed)
    assert (written.result["text"], written.result["finish"]) == ("a story", "length")
    assert written.result["usage"]["cost_microusd"] == 0
    assert isinstance(turned, Completed)
    assert (turned.result["text"], turned.result["calls"]) == (None, calls)


async def test_the_same_request_gets_its_answers_in_order_and_then_a_miss_that_names_it(
    tmp_path: Path, database_url: str
) -> None:
    shop = model_shop(tmp_path, database_url, RECORDED)
    args = {"topic": "x"}
    recording(shop.folder, *(("text", args, {"text": each, "finish": "stop"}) for each in ("first", "second")))
    async with Remit(shop.folder) as remit:
        for _ in range(2):
            async with remit.gate("desk").run({}) as run:
                came = [await run.propose("model:text", args) for _ in range(3)]
            assert [each.result["text"] for each in came if isinstance(each, Completed)] == ["first", "second"]
            assert isinstance(came[2], Failed)
            assert came[2].code == "recording_missed"
            assert re.search("holds 2 answers of `text` to request `[0-9a-f]{16}`, and it was asked 3 times", came[2].message)
            # What is asked may be guessed at by a digest without a key.
            assert digest(args)[:16] not in came[2].message
        other = await ask(remit, "text", topic="y")
    assert isinstance(other, Failed)
    assert "holds no answers of `text`" in other.message


@pytest.mark.parametrize("topic", ["x", "a letter to ann@corp.example"])
async def test_what_a_run_recorded_answers_the_same_run_again(
    tmp_path: Path, database_url: str, server: Server, topic: str
) -> None:
    server.replies = [Said(pieces=("a story",)), Said(pieces=("another",))]
    shop = model_shop(tmp_path, database_url, llm("openai", server.url))
    async with Remit(shop.folder) as remit:
        async with remit.gate("desk").run({}) as run:
            first = [await run.propose("model:text", {"topic": topic}) for _ in range(2)]
        events = [(run.id, each.type.value, each.header.span, each.body) for each in remit.journal.reader.events(run.id)]
    lines = list(recorded_calls(events))
    assert (digest({"topic": topic}) in lines[0]) is (topic == "x")
    (shop.folder / "answers.jsonl").write_text("".join(f"{line}\n" for line in lines))
    toml = (shop.folder / "remit.toml").read_text()
    (shop.folder / "remit.toml").write_text(toml.partition("[models.main]")[0] + RECORDED)
    async with Remit(shop.folder) as remit, remit.gate("desk").run({}) as run:
        again = [await run.propose("model:text", {"topic": topic}) for _ in range(2)]
    texts = [[each.result["text"] for each in came if isinstance(each, Completed)] for came in (first, again)]
    assert texts == [["a story", "another"]] * 2
    assert len(server.asked) == 2


@pytest.mark.parametrize("line", ["{", "[]", '{"model": "a", "request": 1, "answer": {}}', '{"model": "a", "model": "b"}'])
async def test_a_recording_that_is_none_is_refused_with_its_line(tmp_path: Path, database_url: str, line: str) -> None:
    shop = model_shop(tmp_path, database_url, RECORDED)
    (shop.folder / "answers.jsonl").write_text(f"\n{line}\n")
    async with Remit(shop.folder) as remit:
        with pytest.raises(ConfigError, match=r"answers\.jsonl:2: "):
            await ask(remit, "text", topic="x")


# ---- Python --------------------------------------------------------------------------------------------------------

PLANNER = f"""
from remit.errors import ToolFailed
from remit.models.interface import ModelAnswer

async def plan(request):
    if request.answer == "tools":
        last = request.messages[-1].text
        if last == "stop":
            return "done"
        return {{"calls": [{{"tool": request.tools[0].name, "args": {{"order": len(request.messages)}}}}]}}
    if request.answer == "text":
        if request.args["topic"] == "away":
            raise ToolFailed("the planner rests", code="resting", retryable=True)
        return ModelAnswer(text=f"about {{request.args['topic']}}", tokens_in=7, cost_microusd=3)
    if request.answer == "value":
        return {{**{VALUE!r}, **({{"more": 1}} if request.args["terms"] == "bad" else {{}})}}
    return {GOOD!r}
"""


def python_shop(folder: Path, database: str, code: str = PLANNER, more: str = "") -> Path:
    shop = model_shop(folder, database, PYTHON + more)
    (shop.folder / "models").mkdir()
    (shop.folder / "models" / "planner.py").write_text(code)
    return shop.folder


async def test_a_function_of_the_project_is_a_model_in_every_form(tmp_path: Path, database_url: str) -> None:
    async with Remit(python_shop(tmp_path, database_url)) as remit:
        sorted_ = await ask(remit, "labels", text="x")
        valued = await ask(remit, "value", goal="x", terms=1)
        written = await ask(remit, "text", topic="x")
        turned = await ask(remit, "tools", messages=MESSAGES)
        ended = await ask(remit, "tools", messages=[{"role": "user", "text": "stop"}])
    assert isinstance(sorted_, Completed)
    assert sorted_.result["category"] == GOOD["category"]
    assert isinstance(valued, Completed)
    assert valued.result["value"] == VALUE
    assert isinstance(written, Completed)
    assert (written.result["text"], written.result["usage"]["cost_microusd"]) == ("about x", 3)
    assert written.result["usage"]["model"].startswith("python:plan@")
    assert isinstance(turned, Completed)
    assert turned.result["calls"] == [{"id": "call-1", "tool": "orders.read", "args": {"order": 1}}]
    assert isinstance(ended, Completed)
    assert (ended.result["text"], ended.result["calls"], ended.result["finish"]) == ("done", [], "stop")


async def test_a_functions_answer_is_held_to_the_same_form_and_its_failures_have_names(
    tmp_path: Path, database_url: str
) -> None:
    async with Remit(python_shop(tmp_path, database_url)) as remit:
        wrong = await ask(remit, "value", goal="x", terms="bad")
        away = await ask(remit, "text", topic="away")
        malformed = await ask(remit, "text", theme="x")
    assert isinstance(wrong, Failed)
    assert wrong.code == "model_answer_invalid"
    assert isinstance(away, Failed)
    assert (away.code, [each["outcome"] for each in away.usage["attempts"]]) == ("resting", ["resting"] * 3)
    assert isinstance(malformed, Rejected)


async def test_a_models_code_is_part_of_the_release_and_kept_with_it(tmp_path: Path, database_url: str) -> None:
    folder = python_shop(tmp_path, database_url)
    async with Remit(folder) as remit:
        first = remit.program("desk")
        assert any(text.decode() == PLANNER for text in first.texts.values())
    (folder / "models" / "planner.py").write_text(PLANNER + "\n# changed\n")
    async with Remit(folder) as remit:
        assert remit.program("desk").authority.release != first.authority.release


@pytest.mark.parametrize("code", ["def plan(request):\n    return 1\n", "plan = 1\n", "x = 1\n"])
async def test_what_is_no_function_to_ask_is_refused(tmp_path: Path, database_url: str, code: str) -> None:
    async with Remit(python_shop(tmp_path, database_url, code)) as remit:
        with pytest.raises(ConfigError, match="is no function to ask"):
            remit.program("desk")


# ---- stand-ins, prices, listeners ----------------------------------------------------------------------------------


async def test_where_a_provider_is_away_its_stand_in_answers_and_the_record_names_both(
    tmp_path: Path, database_url: str, server: Server
) -> None:
    server.replies = [Reply(503, "{}", retry_after="0")]
    sections = llm("openai", server.url, more='fallback = ["planner"]\nattempts = 2') + PYTHON.replace("main", "planner")
    shop = model_shop(tmp_path, database_url, sections)
    (shop.folder / "models").mkdir()
    (shop.folder / "models" / "planner.py").write_text(PLANNER)
    async with Remit(shop.folder) as remit:
        outcome = await ask(remit, "text", topic="x")
        release = remit.program("desk").authority.release
    assert isinstance(outcome, Completed)
    assert outcome.result["text"] == "about x"
    attempts = [(each["model"], each["outcome"]) for each in outcome.result["usage"]["attempts"]]
    assert attempts == [("main", "http 503"), ("main", "http 503"), ("planner", "stop")]
    (shop.folder / "models" / "planner.py").write_text(PLANNER + "\n# changed\n")
    async with Remit(shop.folder) as remit:
        assert remit.program("desk").authority.release != release


async def test_a_server_that_is_away_is_left_alone_after_a_while_by_all_runs(
    tmp_path: Path, database_url: str, server: Server
) -> None:
    server.replies = [Reply(503, "{}", retry_after="0")]
    shop = model_shop(tmp_path, database_url, llm("openai", server.url, more="attempts = 2"))
    async with Remit(shop.folder) as remit:
        outcomes = [await ask(remit, "text", topic=str(n)) for n in range(4)]
    assert len(server.asked) == 5
    last = outcomes[-1]
    assert isinstance(last, Failed)
    assert (last.code, "is not asked for another" in last.message) == ("model_unavailable", True)


@pytest.mark.parametrize(
    ("model", "price", "cost"),
    [
        ("openai:in-house", "", 100_000),
        ("openai:in-house", 'price = { input = "0 USD", output = "0 USD" }', 0),
        ("openai:gpt-4o-mini", 'price = { input = "1000 USD", output = "2000 USD" }', 140_000),
    ],
)
async def test_what_nobody_knows_the_price_of_costs_what_was_reserved_unless_remit_toml_says(
    tmp_path: Path, database_url: str, server: Server, model: str, price: str, cost: int
) -> None:
    body = json.dumps(
        {
            "id": "c1",
            "object": "chat.completion",
            "created": 1,
            "model": model.partition(":")[2],
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
        }
    )
    server.replies = [Reply(200, body)]
    section = f'[models.main]\nkind = "llm"\nmodel = "{model}"\nbase_url = "{server.url}/v1"\n{price}\n'
    async with Remit(model_shop(tmp_path, database_url, section).folder) as remit:
        async with remit.gate("desk").run({}) as run:
            outcome = await run.propose("model:text", {"topic": "x"})
        [ended] = [e for e in remit.journal.reader.events(run.id) if e.type is EventType.CALL_COMPLETED]
    assert isinstance(outcome, Completed)
    assert ended.header.cost_microusd == outcome.result["usage"]["cost_microusd"] == cost
    assert outcome.result["usage"].get("priced", True) is bool(price)


async def test_a_step_on_record_gives_its_text_at_once(tmp_path: Path, database_url: str, server: Server) -> None:
    server.replies = [Said(pieces=("my key is sk-live-", "abcdefgh12345678 ", "and that is all of it."))]
    workflow = """
async def talk(run, request):
    answer = await run.model("text", topic="x")
    outcome = await run.call("put.keyed", value=1)
    return {}
"""
    shop = model_shop(tmp_path, database_url, llm("openai", server.url))
    action = {"tool": "put.keyed", "autonomy": "approve", "approval": {"by": "role:care-lead", "within": "4h"}}
    models = {"text": {"use": "main", "prompt": "write.md", "answer": "text", "spend_per_call": "0.10 USD"}}
    actions = [{**action, "limits": {"per_run": 1}}]
    budget = {"calls": 9, "writes": 2, "spend": "1 USD"}
    shop.contract("talk", actions, workflow=workflow, models=models, budget=budget)
    live: list[str] = []
    again: list[str] = []
    from remit.cases.cases import Decision

    async with Remit(shop.folder) as remit:
        with listening(live.append):
            held = await remit.run("talk", {})
        assert held.outcome == "held", held
        assert held.case is not None
        await remit.cases.decide(held.case, Decision.APPROVED, token=remit.person_token("lee"))
        with listening(again.append):
            ended = await remit.engine.drive(held.run)
    assert ended.outcome == "completed", ended
    assert "".join(live) == "".join(again)
    assert "".join(live).endswith("and that is all of it.")
    assert "abcdefgh" not in repr(live) + repr(again)
    assert len(server.asked) == 1


async def test_contracts_bind_stand_ins_of_their_own(tmp_path: Path, database_url: str, server: Server) -> None:
    server.replies = [Reply(401, "{}"), said("from the other")]
    sections = llm("openai", server.url, more='fallback = ["main2"]') + llm("openai", server.url, "main2") + llm("openai", server.url, "main3")
    binding = {"use": "main", "fallback": ["main3"], "prompt": "write.md", "answer": "text", "spend_per_call": "0.10 USD"}
    shop = model_shop(tmp_path, database_url, sections, models={"text": binding})
    async with Remit(shop.folder) as remit:
        outcome = await ask(remit, "text", topic="x")
    assert isinstance(outcome, Completed)
    assert [each["model"] for each in outcome.result["usage"]["attempts"]] == ["main", "main3"]


def test_a_schema_with_definitions_of_its_own_is_a_part_of_the_results_schema() -> None:
    import jsonschema_rs

    from remit.models.forms import ValueForm

    validator = jsonschema_rs.Draft202012Validator(ValueForm(PLAN).output_schema)
    usage = {"cost_microusd": 0}
    assert validator.is_valid({"value": VALUE, "finish": "stop", "usage": usage})
    assert not validator.is_valid({"value": {**VALUE, "steps": ["x"]}, "finish": "stop", "usage": usage})
