"""A second model agrees only by saying so; whatever else it says, or fails to say, is an objection."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from model_server import Reply, Server, openai, serving
from project import REFUND, Shop, make_shop, write_action
from remit import Completed, Denied, Held, Outcome, Remit
from remit.cases.cases import Decision

pytestmark = pytest.mark.anyio

LABELS: dict[str, Any] = {
    "second": {"agrees": ["yes", "Yes", "no", "unsure"]},
    "other": {"category": ["yes", "no"]},
    "sorter": {"category": ["access", "network"], "priority": ["high", "low"]},
}
SORTING = """
async def sorting(run, request):
    return {"sorted": (await run.model("sorter", text="no network", **request))["category"]["label"]}
"""
ASK = {"autonomy": "approve", "approval": {"by": "role:care-lead", "within": "4h"}}
BINDING = {"timeout": "1s", "spend_per_call": "0.10 USD"}


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as started:
        yield started


def contract(shop: Shop, name: str, model: str, actions: list[dict[str, Any]], **more: Any) -> None:
    budget = {"calls": 9, "writes": 9, "spend": "1.00 USD", "time": "60s"}
    terms: dict[str, Any] = {"models": {model: {"use": "llm", "prompt": f"{model}.md", **BINDING}}, "budget": budget}
    shop.contract(name, actions, **{**terms, **more})
    prompts = shop.folder / "contracts" / name / "prompts"
    prompts.mkdir()
    (prompts / f"{model}.md").write_text("Answer for: {text}\n")
    (prompts / f"{model}.answer.json").write_text(json.dumps(LABELS[model]))


@pytest.fixture
async def remit(tmp_path: Path, database_url: str, server: Server) -> AsyncIterator[Remit]:
    shop = make_shop(tmp_path, database_url)
    section = f'\n[models.llm]\nkind = "llm"\nmodel = "openai:gpt-4o-mini"\nbase_url = "{server.url}/v1"\n'
    with (shop.folder / "remit.toml").open("a") as file:
        file.write(section)
    put, read = write_action("put.none", verify=["model:second"]), {"tool": "orders.read"}
    contract(shop, "denying", "second", [read, put])
    contract(shop, "asking", "second", [read, {**put, **ASK}])
    contract(shop, "short", "second", [put], budget={"calls": 1, "writes": 1, "spend": "1.00 USD", "time": "60s"})
    contract(shop, "wrong", "other", [write_action("put.none", verify=["model:other"])])
    when = {"confidence_below": "0.8"}
    escalate = {"to": "queue:care", "sla": "30m", "when": when}
    contract(shop, "paying", "sorter", [read, REFUND])
    contract(shop, "sorting", "sorter", [read], workflow=SORTING, escalate=escalate)
    async with Remit(shop.folder) as opened:
        yield opened


def says(label: str) -> Reply:
    return openai({"agrees": {"label": label, "confidence_per_mille": 990}})


async def put(remit: Remit, name: str) -> Outcome:
    async with remit.gate(name).run({"note": "rosebud"}, request_key="one") as run:
        return await run.propose("put.none", {"value": 41})


def ledger(remit: Remit) -> list[str]:
    path = remit.project.folder / "ledger"
    return [line.split()[2] for line in path.read_text().splitlines()] if path.exists() else []


async def test_a_second_model_that_says_yes_lets_the_call_on_and_was_shown_the_call_alone(
    remit: Remit, server: Server
) -> None:
    server.replies = [says("yes")]
    assert isinstance(await put(remit, "denying"), Completed)
    assert ledger(remit) == ["41"]
    [asked] = server.asked
    [word] = server.words()
    assert json.loads(word.splitlines()[0].removeprefix("Answer for: ")) == {"tool": "put.none", "arguments": {"value": 41}}
    assert "rosebud" not in repr(asked)


NO_AGREEMENT = {
    "no": says("no"),
    "unsure": says("unsure"),
    "another yes": says("Yes"),
    "no answer of the form": openai("Yes, I agree."),
    "an error": Reply(400, '{"error": {"message": "context_length_exceeded"}}'),
    "away": Reply(503, '{"error": {"message": "busy"}}', retry_after="0"),
    "silent": Reply(200, "{}", stall=True),
}


@pytest.mark.parametrize("reply", NO_AGREEMENT.values(), ids=NO_AGREEMENT.keys())
async def test_a_second_model_that_says_anything_else_or_fails_denies(
    remit: Remit, server: Server, reply: Reply
) -> None:
    server.replies = [reply]
    refused = await put(remit, "denying")
    assert isinstance(refused, Denied)
    assert refused.code == "not_verified"
    assert refused.message.startswith("model:second: ")
    assert ledger(remit) == []


@pytest.mark.parametrize("reply", [says("no"), NO_AGREEMENT["an error"]], ids=["no", "an error"])
async def test_where_a_person_may_decide_they_are_shown_the_second_models_objection(
    remit: Remit, server: Server, reply: Reply
) -> None:
    server.replies = [reply]
    held = await put(remit, "asking")
    assert isinstance(held, Held)
    shown = remit.cases.question(remit.cases.get(held.case))["shown"]
    assert "model:second: " in shown["reason"]
    assert "verify:model:second" in shown["rules"]
    assert ledger(remit) == []
    await remit.cases.decide(held.case, Decision.APPROVED, token=remit.person_token("lee"))
    assert isinstance(await put(remit, "asking"), Completed)


async def test_a_second_model_that_the_budget_does_not_reach_denies(remit: Remit, server: Server) -> None:
    server.replies = [says("yes")]
    refused = await put(remit, "short")
    assert isinstance(refused, Denied)
    assert (refused.code, "used its 1 calls" in refused.message) == ("not_verified", True)
    assert (server.asked, ledger(remit)) == ([], [])


async def test_a_model_that_does_not_answer_whether_it_agrees_denies(remit: Remit, server: Server) -> None:
    server.replies = [openai({"category": {"label": "yes", "confidence_per_mille": 990}})]
    refused = await put(remit, "wrong")
    assert isinstance(refused, Denied)
    assert refused.code == "not_verified"
    assert ledger(remit) == []


@pytest.mark.parametrize(
    ("category", "priority", "asked", "outcome"),
    [
        (800, 900, {}, "completed"),
        (799, 900, {}, "escalated"),
        (900, 799, {}, "escalated"),
        (900, 100, {"decide": ["category"]}, "completed"),
        (100, 900, {"decide": ["category"]}, "escalated"),
    ],
)
async def test_an_answer_below_the_contracts_confidence_goes_to_a_person(
    remit: Remit, server: Server, category: int, priority: int, asked: dict[str, Any], outcome: str
) -> None:
    answer = {
        "category": {"label": "network", "confidence_per_mille": category},
        "priority": {"label": "low", "confidence_per_mille": priority},
    }
    server.replies = [openai(answer)]
    result = await remit.run("sorting", asked)
    assert result.outcome == outcome, result
    cases = remit.cases.list("shop")
    assert [(case.kind, case.queue, case.case) for case in cases] == (
        [] if outcome == "completed" else [("escalation", "queue:care", result.case)]
    )
    if cases:
        least = min(category, priority) if not asked else category
        assert cases[0].reason == f"confidence {least / 1000:.3f} is below 0.800"


async def test_what_a_model_has_said_is_the_models_own_word_and_no_tools(remit: Remit, server: Server) -> None:
    answer = {head: {"label": label, "confidence_per_mille": 990} for head, label in (("category", "network"), ("priority", "low"))}
    server.replies = [openai(answer)]
    async with remit.gate("paying").run({}, request_key="one") as run:
        sorted_ = await run.propose("model:sorter", {"text": "no network"})
        assert isinstance(sorted_, Completed)
        account = sorted_.result["category"]["label"]
        amount = {"amount": "60.00", "currency": "EUR"}
        held = await run.propose("payments.refund", {"order": 4, "amount": amount, "account": account})
        assert isinstance(held, Held)
        assert remit.cases.question(remit.cases.get(held.case))["shown"]["labels"]["account"] == ["model"]
