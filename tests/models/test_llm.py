"""Language models over their real wire formats: a server on loopback that answers, errs, stalls and lies as told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from model_server import ANTHROPIC, Reply, Server, anthropic, openai, serving
from project import Shop, make_shop
from remit import Completed, Failed, Outcome, Remit
from remit.journal.events import EventType

pytestmark = pytest.mark.anyio

KEY = "sk-live-0123456789abcdef0123456789"
LABELS = {"category": ["access", "network"], "priority": ["high", "low"]}
GOOD = {
    "category": {"label": "network", "confidence_per_mille": 930},
    "priority": {"label": "low", "confidence_per_mille": 610},
}
OTHER_LABEL = {**GOOD, "category": {"label": "admin", "confidence_per_mille": 999}}
TOO_SURE = {**GOOD, "category": {"label": "access", "confidence_per_mille": 1001}}
PROMPT = "Sort this. Title: {title}\n\n{text}\n"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as started:
        yield started


def make_project(folder: Path, database: str, section: str) -> Shop:
    shop = make_shop(folder, database)
    with (shop.folder / "remit.toml").open("a") as file:
        file.write(f'\n[models.sorter]\nkind = "llm"\n{section}\nsecret = {{ file = "model.secret" }}\n')
    secret = shop.folder / "model.secret"
    secret.write_text(KEY)
    secret.chmod(0o600)
    binding = {"use": "sorter", "prompt": "sort.md", "timeout": "1s", "spend_per_call": "0.10 USD"}
    shop.contract("desk", [{"tool": "orders.read"}], models={"sorter": binding}, budget={"calls": 9, "spend": "1.00 USD"})
    prompts = shop.folder / "contracts" / "desk" / "prompts"
    prompts.mkdir()
    (prompts / "sort.md").write_text(PROMPT)
    (prompts / "sort.answer.json").write_text(json.dumps(LABELS))
    return shop


@pytest.fixture
async def remit(tmp_path: Path, database_url: str, server: Server) -> AsyncIterator[Remit]:
    section = f'model = "openai:gpt-4o-mini"\nbase_url = "{server.url}/v1"'
    async with Remit(make_project(tmp_path, database_url, section).folder) as opened:
        yield opened


async def ask(remit: Remit, text: str = "no network", **more: Any) -> tuple[Outcome, str]:
    async with remit.gate("desk").run({}) as run:
        outcome = await run.propose("model:sorter", {"text": text, **more})
    return outcome, run.id


async def test_an_answer_of_the_form_asked_for_completes_with_its_tokens_and_its_cost_on_record(
    remit: Remit, server: Server
) -> None:
    server.replies = [openai(GOOD)]
    outcome, run = await ask(remit, title="Wi-Fi {text}")
    assert isinstance(outcome, Completed)
    assert outcome.result["category"] == GOOD["category"]
    assert outcome.result["confidence_per_mille"] == 610
    [completed] = [e for e in remit.journal.reader.events(run) if e.type is EventType.CALL_COMPLETED]
    assert (completed.header.tokens_in, completed.header.tokens_out) == (100, 20)
    assert completed.header.cost_microusd > 0
    assert "Title: Wi-Fi {text}" in server.words()[0]


async def test_the_key_goes_to_the_models_server_and_nowhere_else(remit: Remit, server: Server) -> None:
    server.replies = [openai({**GOOD, "category": {"label": KEY, "confidence_per_mille": 1}}), openai(GOOD)]
    outcome, run = await ask(remit)
    assert outcome.completed
    assert server.keys[0] == f"Bearer {KEY}"
    assert KEY not in repr(remit.journal.reader.events(run))


@pytest.mark.parametrize(
    "wrong",
    [
        "I think it is the network.",
        "",
        "{",
        '{"category": 1, "category": 2}',
        {"category": GOOD["category"]},
        {**GOOD, "note": "x"},
        OTHER_LABEL,
        TOO_SURE,
        {**GOOD, "priority": "low"},
        {**GOOD, "priority": {"label": "low", "confidence_per_mille": 0.5}},
        '{"category": NaN}',
    ],
)
async def test_a_wrong_answer_is_sent_back_and_its_correction_counts(remit: Remit, server: Server, wrong: Any) -> None:
    server.replies = [openai(wrong), openai(f"Sorry. ```json\n{json.dumps(GOOD)}\n```")]
    outcome, run = await ask(remit)
    assert isinstance(outcome, Completed)
    assert outcome.result["priority"] == GOOD["priority"]
    assert "That is not what was asked for" in server.words()[-1]
    [completed] = [e for e in remit.journal.reader.events(run) if e.type is EventType.CALL_COMPLETED]
    assert completed.header.tokens_in == 200


async def test_a_model_that_goes_on_answering_wrongly_fails(remit: Remit, server: Server) -> None:
    server.replies = [openai(OTHER_LABEL)]
    outcome, _ = await ask(remit)
    assert isinstance(outcome, Failed)
    assert outcome.code == "model_answer_invalid"
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (Reply(401, '{"error": {"message": "no such key"}}'), "model_http"),
        (Reply(400, '{"error": {"message": "context_length_exceeded"}}'), "model_http"),
        (Reply(200, "<html>maintenance</html>"), "model_answer_invalid"),
        (Reply(200, "{}"), "model_answer_invalid"),
        (Reply(200, '{"choices": []}'), "model_answer_invalid"),
        (Reply(200, "{}", stall=True), "model_timeout"),
    ],
)
async def test_what_goes_wrong_at_the_models_server_is_a_failure_with_a_name(
    remit: Remit, server: Server, reply: Reply, code: str
) -> None:
    server.replies = [reply]
    outcome, _ = await ask(remit)
    assert isinstance(outcome, Failed)
    assert outcome.code == code


@pytest.mark.parametrize("status", [429, 500, 503, 529])
async def test_a_busy_server_is_asked_again(remit: Remit, server: Server, status: int) -> None:
    busy = Reply(status, '{"error": {"message": "busy"}}', retry_after="0")
    server.replies = [busy, openai(GOOD)]
    outcome, _ = await ask(remit)
    assert outcome.completed
    assert len(server.asked) == 2


async def test_a_server_that_is_not_there_is_a_failure_with_a_name(tmp_path: Path, database_url: str) -> None:
    with serving() as gone:
        pass
    project = make_project(tmp_path, database_url, f'model = "openai:gpt-4o-mini"\nbase_url = "{gone.url}/v1"')
    async with Remit(project.folder) as remit:
        outcome, _ = await ask(remit)
    assert isinstance(outcome, Failed)
    assert outcome.code == "model_unavailable"


async def test_anthropics_messages_are_understood_as_well(
    tmp_path: Path, database_url: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
    server.replies = [anthropic(OTHER_LABEL), anthropic(GOOD)]
    project = make_project(tmp_path, database_url, f'model = "anthropic:{ANTHROPIC}"')
    async with Remit(project.folder) as remit:
        outcome, _ = await ask(remit)
    assert isinstance(outcome, Completed)
    assert outcome.result["confidence_per_mille"] == 610
    assert [key.removeprefix("Bearer ") for key in server.keys] == [KEY, KEY]
    said = cast("list[Any]", server.asked[-1]["messages"])
    assert [message["role"] for message in said] == ["user", "assistant", "user"]
