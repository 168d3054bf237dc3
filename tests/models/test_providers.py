"""Three providers' wire formats against a real server: every form of answer, and every fault, with what is recorded of it."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from model_project import GOOD, KEY, PROVIDERS, llm, model_shop
from model_server import TOKENS_CACHED, TOKENS_IN, TOKENS_OUT, Reply, Said, Server, said, serving
from remit import Completed, Failed, Outcome, Remit
from remit.journal.events import Event, EventType
from remit.runs.listening import listening

pytestmark = pytest.mark.anyio

TOPIC = "rosebud the sledge"
ASKED: dict[str, dict[str, Any]] = {
    "labels": {"text": TOPIC},
    "value": {"goal": TOPIC, "terms": {"days": 3}},
    "text": {"topic": TOPIC},
    "tools": {"messages": [{"role": "user", "text": TOPIC}]},
}
PLAN = {"steps": ["look", "act"], "confidence_per_mille": 700}
ANSWERS: dict[str, Said] = {
    "labels": said(GOOD),
    "value": said(PLAN),
    "text": Said(pieces=("Once upon ", "a time.")),
    "tools": Said(pieces=("I look it up.",), calls=(("call_1", "orders-read", '{"order": 7}'),)),
}


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as started:
        yield started


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> str:
    return request.param


@asynccontextmanager
async def opened(folder: Path, database: str, sections: str, **more: Any) -> AsyncGenerator[Remit]:
    async with Remit(model_shop(folder, database, sections, **more).folder) as remit:
        yield remit


async def ask(remit: Remit, form: str) -> tuple[Outcome, Event]:
    """What became of one question, and the event of its end."""
    async with remit.gate("desk").run({}) as run:
        outcome = await run.propose(f"model:{form}", ASKED[form])
    return outcome, end(remit, run.id)


def end(remit: Remit, run: str) -> Event:
    ends = (EventType.CALL_COMPLETED, EventType.CALL_FAILED)
    [ended] = [event for event in remit.journal.reader.events(run) if event.type in ends]
    return ended


async def hear(remit: Remit, form: str) -> tuple[list[str], Outcome, Event]:
    """What a listener heard of one answer, what the workflow got, and the event of its end."""
    heard: list[str] = []
    with listening(heard.append):
        ran = await remit.run("talk", {"form": form, "args": ASKED[form]})
    assert ran.outcome == "completed", ran
    return heard, Completed(result=ran.output["answer"]), end(remit, ran.run)


def usage(outcome: Outcome, ended: Event) -> dict[str, Any]:
    found = outcome.result["usage"] if isinstance(outcome, Completed) else ended.body["usage"]
    assert (ended.header.tokens_in, ended.header.tokens_out) == (found["tokens_in"], found["tokens_out"])
    assert ended.header.cost_microusd == found["cost_microusd"]
    return found


def tried(outcome: Outcome, ended: Event) -> list[tuple[str, str]]:
    return [(each["model"], each["outcome"]) for each in usage(outcome, ended)["attempts"]]


# ---- what is understood --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ASKED)
async def test_every_provider_answers_in_every_form_with_tokens_cost_and_template_on_record(
    tmp_path: Path, database_url: str, server: Server, provider: str, form: str
) -> None:
    server.replies = [ANSWERS[form]]
    async with opened(tmp_path, database_url, llm(provider, server.url)) as remit:
        outcome, ended = await ask(remit, form)
    assert isinstance(outcome, Completed), outcome
    result = outcome.result
    match form:
        case "labels":
            assert (result["category"], result["confidence_per_mille"]) == (GOOD["category"], 610)
        case "value":
            assert (result["value"], result["confidence_per_mille"], result["finish"]) == (PLAN, 700, "stop")
        case "text":
            assert (result["text"], result["finish"]) == ("Once upon a time.", "stop")
        case _:
            [call] = result["calls"]
            assert (call["tool"], call["args"]) == ("orders.read", {"order": 7})
            assert (result["text"], result["finish"]) == ("I look it up.", "tool_calls")
    spent = usage(outcome, ended)
    assert (spent["tokens_in"], spent["tokens_out"]) == (TOKENS_IN, TOKENS_OUT)
    assert 0 < spent["cost_microusd"] < 100_000
    assert spent["model"] == PROVIDERS[provider][0]
    assert len(spent["template"]) == 64
    assert len(server.asked) == 1
    assert server.keys[0].removeprefix("Bearer ") == KEY


@pytest.mark.parametrize("form", ["text", "tools"])
async def test_a_stream_hands_the_text_on_piece_by_piece_and_the_whole_is_recorded(
    tmp_path: Path, database_url: str, server: Server, provider: str, form: str
) -> None:
    words = [f"word{n} " for n in range(60)]
    calls = ANSWERS["tools"].calls if form == "tools" else ()
    server.replies = [Said(pieces=words, calls=calls)]
    async with opened(tmp_path, database_url, llm(provider, server.url)) as remit:
        heard, outcome, ended = await hear(remit, form)
    assert isinstance(outcome, Completed)
    assert "".join(heard) == "".join(words) == outcome.result["text"] == ended.body["result"]["text"]
    assert len(heard) > 5
    if form == "tools":
        assert [(each["tool"], each["args"]) for each in outcome.result["calls"]] == [("orders.read", {"order": 7})]
    assert usage(outcome, ended)["tokens_out"] == TOKENS_OUT


async def test_a_conversation_with_tools_is_sent_on_in_the_providers_words(
    tmp_path: Path, database_url: str, server: Server, provider: str
) -> None:
    server.replies = [said("The order is fine.", cached=TOKENS_CACHED)]
    messages = [
        {"role": "user", "text": "is order 7 fine?"},
        {"role": "assistant", "text": "", "calls": [{"id": "call_1", "tool": "orders.read", "args": {"order": 7}}]},
        {"role": "tool", "call_id": "call_1", "text": '{"account": "DE0933"}'},
    ]
    async with opened(tmp_path, database_url, llm(provider, server.url)) as remit, remit.gate("desk").run({}) as run:
        outcome = await run.propose("model:tools", {"messages": messages, "tools": ["orders.read"], "desk": "orders"})
    assert isinstance(outcome, Completed), outcome
    assert outcome.result["text"] == "The order is fine."
    assert outcome.result["usage"]["tokens_cached"] == TOKENS_CACHED
    [asked] = server.asked
    sent = json.dumps(asked)
    assert "You answer for orders." in sent
    assert "DE0933" in sent
    assert "orders-read" in sent
    assert "risk-check" not in sent
    assert "orders.read" not in sent
    assert ("cache_control" in sent) == (provider == "anthropic")


async def test_only_granted_actions_can_be_offered(tmp_path: Path, database_url: str, server: Server) -> None:
    server.replies = [ANSWERS["tools"]]
    async with opened(tmp_path, database_url, llm("openai", server.url)) as remit, remit.gate("desk").run({}) as run:
        outcome = await run.propose("model:tools", {**ASKED["tools"], "tools": ["payments.refund"]})
        assert not outcome.completed
        assert server.asked == []
        assert (await run.propose("model:tools", ASKED["tools"])).completed
    offered = {each["function"]["name"] for each in server.asked[0]["tools"]}
    assert offered == {"orders-read", "risk-check"}


async def test_a_tool_that_was_never_offered_is_handed_on_as_it_was_called_so_that_the_gate_can_deny_it(
    tmp_path: Path, database_url: str, server: Server
) -> None:
    server.replies = [Said(calls=(("c", "payments-refund", "{}"),))]
    async with opened(tmp_path, database_url, llm("openai", server.url)) as remit:
        outcome, _ = await ask(remit, "tools")
    assert isinstance(outcome, Completed)
    assert outcome.result["calls"] == [{"id": "c", "tool": "payments-refund", "args": {}}]


@pytest.mark.parametrize("arguments", ['{"order": 1, "order": 2}', '{"order": NaN}', '{"order": ', "[1]"])
async def test_arguments_that_are_no_strict_json_are_given_back(
    tmp_path: Path, database_url: str, server: Server, arguments: str
) -> None:
    server.replies = [Said(calls=(("c", "orders-read", arguments),)), ANSWERS["tools"]]
    async with opened(tmp_path, database_url, llm("openai", server.url)) as remit:
        outcome, ended = await ask(remit, "tools")
    assert isinstance(outcome, Completed), outcome
    assert outcome.result["calls"][0]["args"] == {"order": 7}
    assert "That is not what was asked for" in server.words()[-1]
    assert usage(outcome, ended)["tokens_in"] == 2 * TOKENS_IN


WRONG_VALUES: list[Any] = [
    {"steps": [], "confidence_per_mille": 1},
    {"steps": ["ab"], "confidence_per_mille": 1},
    {"steps": ["look"]},
    {"steps": ["look"], "confidence_per_mille": 1, "more": 1},
    '{"steps": ["look"], "steps": ["look"], "confidence_per_mille": 1}',
    '{"steps": ["look"], "confidence_per_mille": NaN}',
    "no",
]


@pytest.mark.parametrize("wrong", WRONG_VALUES)
async def test_a_value_that_does_not_meet_its_schema_is_given_back_and_all_tokens_count(
    tmp_path: Path, database_url: str, server: Server, wrong: Any
) -> None:
    server.replies = [said(wrong), said(wrong), said(PLAN)]
    async with opened(tmp_path, database_url, llm("openai", server.url)) as remit:
        outcome, ended = await ask(remit, "value")
        assert isinstance(outcome, Completed), outcome
        assert outcome.result["value"] == PLAN
        assert usage(outcome, ended)["tokens_in"] == 3 * TOKENS_IN
        server.replies = [said(wrong)]
        outcome, ended = await ask(remit, "value")
    assert isinstance(outcome, Failed)
    assert outcome.code == "model_answer_invalid"
    assert usage(outcome, ended)["tokens_in"] == 3 * TOKENS_IN


async def test_an_answer_that_was_cut_short_says_so(tmp_path: Path, database_url: str, server: Server, provider: str) -> None:
    server.replies = [said("Once upon", finish="length")]
    async with opened(tmp_path, database_url, llm(provider, server.url)) as remit:
        outcome, _ = await ask(remit, "text")
    assert isinstance(outcome, Completed)
    assert (outcome.result["text"], outcome.result["finish"]) == ("Once upon", "length")


# ---- what goes wrong -----------------------------------------------------------------------------------------------

LEAK = json.dumps({"error": {"message": f"bad key {KEY} for {TOPIC}", "code": 400, "status": "INVALID_ARGUMENT"}})


class Case:
    """What the server does, and what comes of it: code (empty where it completes), attempts, tokens of the input."""

    def __init__(self, replies: list[Reply | Said], code: str, attempts: list[str], tokens: int, form: str = "text") -> None:
        self.replies = replies
        self.code = code
        self.attempts = attempts
        self.tokens = tokens
        self.form = form


FINE = ANSWERS["text"]
FAULTS = {
    "busy, then fine": Case([Reply(429, LEAK, retry_after="0"), FINE], "", ["http 429", "stop"], TOKENS_IN),
    "busy for longer than there is time": Case([Reply(429, LEAK, retry_after="60")], "model_http", ["http 429"], 0),
    "an error, then fine": Case([Reply(500, LEAK, retry_after="0"), FINE], "", ["http 500", "stop"], TOKENS_IN),
    "errors without end": Case([Reply(500, LEAK, retry_after="0")], "model_http", ["http 500"] * 3, 0),
    "overloaded": Case([Reply(529, LEAK, retry_after="0"), FINE], "", ["http 529", "stop"], TOKENS_IN),
    "bad request": Case([Reply(400, LEAK)], "model_http", ["http 400"], 0),
    "no such key": Case([Reply(401, LEAK)], "model_http", ["http 401"], 0),
    "not allowed": Case([Reply(403, LEAK)], "model_http", ["http 403"], 0),
    "silent": Case([Reply(200, "{}", stall=True)], "model_timeout", ["time-out"], 0),
    "no JSON": Case([Reply(200, f"{{{KEY}")], "model_answer_invalid", ["not its interface"], 0),
    "another content": Case(
        [Reply(200, f"<html>{TOPIC}</html>", Content_Type="text/html")], "model_answer_invalid", ["not its interface"], 0
    ),
    "no answer in it": Case([Reply(200, "{}")], "model_answer_invalid", ["not its interface"], 0),
    "empty, then fine": Case([said(""), FINE], "", ["stop", "stop"], 2 * TOKENS_IN),
    "a refusal of a value": Case([Said(refusal="I won't.")], "model_refused", ["refusal"], TOKENS_IN, "value"),
    "a refusal of labels": Case([Said(refusal="I won't.")], "model_refused", ["refusal"], TOKENS_IN, "labels"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_has_a_name_its_attempts_and_its_tokens_on_record_and_tells_no_secret(
    tmp_path: Path, database_url: str, server: Server, provider: str, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    case = FAULTS[fault]
    server.replies = list(case.replies)
    caplog.set_level(logging.INFO)
    more = {"timeout": "1s"} if fault == "silent" else {}
    async with opened(tmp_path, database_url, llm(provider, server.url), **more) as remit:
        outcome, ended = await ask(remit, case.form)
    assert (outcome.code if isinstance(outcome, Failed) else "") == case.code, outcome
    assert tried(outcome, ended) == [("main", each) for each in case.attempts]
    assert usage(outcome, ended)["tokens_in"] == case.tokens
    assert len(server.asked) == len(case.attempts)
    told = repr(outcome) + repr(ended) + caplog.text
    assert KEY not in told
    assert TOPIC not in told


async def test_a_refusal_of_a_text_is_an_answer_that_says_so(
    tmp_path: Path, database_url: str, server: Server, provider: str
) -> None:
    server.replies = [Said(refusal="I won't.")]
    async with opened(tmp_path, database_url, llm(provider, server.url)) as remit:
        for form in ("text", "tools"):
            outcome, _ = await ask(remit, form)
            assert isinstance(outcome, Completed), outcome
            assert outcome.result["finish"] == "refusal"
    assert len(server.asked) == 2


async def test_a_stream_that_is_cut_is_asked_for_again_and_what_it_used_counts(
    tmp_path: Path, database_url: str, server: Server, provider: str
) -> None:
    words = [f"word{n} " for n in range(60)]
    server.replies = [Said(pieces=words, cut=True), Said(pieces=words)]
    async with opened(tmp_path, database_url, llm(provider, server.url)) as remit:
        heard, outcome, ended = await hear(remit, "text")
    assert isinstance(outcome, Completed)
    assert outcome.result["text"] == "".join(words)
    assert [outcome for _, outcome in tried(outcome, ended)] == ["cut off", "stop"]
    first, second = "".join(heard).split("\n\n")
    assert second == "".join(words)
    assert second.startswith(first)
    # Anthropic says at the beginning how much it was asked; the others would have said it at the end.
    assert usage(outcome, ended)["tokens_in"] == (2 if provider == "anthropic" else 1) * TOKENS_IN


async def test_a_stream_that_ends_before_the_model_has_is_no_answer(
    tmp_path: Path, database_url: str, server: Server, provider: str
) -> None:
    words = [f"word{n} " for n in range(60)]
    server.replies = [Said(pieces=words, early=True), Said(pieces=words)]
    async with opened(tmp_path, database_url, llm(provider, server.url)) as remit:
        _, outcome, ended = await hear(remit, "text")
    assert isinstance(outcome, Completed)
    assert outcome.result["text"] == "".join(words)
    assert [outcome for _, outcome in tried(outcome, ended)] == ["cut off", "stop"]


async def test_a_body_that_is_cut_is_a_connection_that_broke(
    tmp_path: Path, database_url: str, server: Server, provider: str
) -> None:
    server.replies = [Said(pieces=("Once upon a time " * 50,), cut=True), FINE]
    async with opened(tmp_path, database_url, llm(provider, server.url)) as remit:
        outcome, ended = await ask(remit, "text")
    assert isinstance(outcome, Completed), outcome
    assert tried(outcome, ended)[0][1] in ("unreachable", "cut off")
