"""Level 3 with a language model behind it: one thing is changed, the whole cohort is tried again beside its own baseline.

The model is a real server over its real wire format. It answers by what it is asked, and about one of the runs by chance.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from desk import make_desk, with_remit

from model_server import Reply, Server, openai, serving
from project import Shop
from remit import Remit
from remit.cli.replay_page import page
from remit.cli.replay_table import cohort_lines
from remit.replay.chance import SignTest
from remit.replay.changes import parse_change
from remit.replay.counterfactual import Cohort, TriedRun
from remit.replay.recorded import Choice

KEY = "sk-live-0123456789abcdef0123456789"
PROMPT = "Who should see to this, the desk or a person?\n\n{text}\n"
CAREFUL = "Who should see to this, the desk or a person? Whatever is urgent is for a person.\n\n{text}\n"
LABELS = {"who": ["desk", "person"], "topic": ["money", "other"]}
WORKFLOW = """
async def desk(run, request):
    order = await run.call("orders.read", order=request["order"])
    answer = await run.model("sorter", text=request["text"])
    if answer["who"]["label"] == "person":
        await run.escalate("for a person", draft=answer["topic"]["label"])
    amount = {"amount": "5.00", "currency": "EUR"}
    await run.call("payments.refund", order=request["order"], amount=amount, account=order["account"])
    return {"topic": answer["topic"]["label"]}
"""
TEXTS = [f"refund order {n}, urgent" if n % 2 else f"refund order {n}, no hurry" for n in range(12)]


class Model:
    """What the server answers: by prompt and text, and about order 4 another thing every second time."""

    def __init__(self) -> None:
        self.times: dict[str, int] = {}
        self.turn = Lock()

    def __call__(self, asked: dict[str, Any]) -> Reply:
        words = str(asked["messages"][0]["content"])
        careful = "for a person." in words or asked["model"] == "careful"
        who = "person" if careful and ", urgent" in words else "desk"
        with self.turn:
            seen = self.times[words] = self.times.get(words, 0) + 1
        if "order 4," in words and seen % 2 == 0:
            who = "person"
        return openai(
            {
                "who": {"label": who, "confidence_per_mille": 900 - seen},
                "topic": {"label": "money", "confidence_per_mille": 990},
            }
        )


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as started:
        started.answering = Model()
        yield started


@pytest.fixture
def shop(tmp_path: Path, database_url: str, server: Server) -> Shop:
    binding = {"use": "now", "prompt": "sort.md", "timeout": "5s", "spend_per_call": "0.10 USD"}
    shop = make_desk(
        tmp_path / "shop", database_url, WORKFLOW, models={"sorter": binding}, budget={"calls": 9, "writes": 2, "spend": "1.00 USD"}
    )
    with (shop.folder / "remit.toml").open("a") as file:
        for name, model in (("now", "gpt-4o-mini"), ("careful", "careful")):
            file.write(
                f'\n[models.{name}]\nkind = "llm"\nmodel = "openai:{model}"\nbase_url = "{server.url}/v1"\n'
                'secret = { file = "model.secret" }\n'
            )
    secret = shop.folder / "model.secret"
    secret.write_text(KEY)
    secret.chmod(0o600)
    prompts = shop.folder / "contracts" / "desk" / "prompts"
    prompts.mkdir()
    (prompts / "sort.md").write_text(PROMPT)
    (prompts / "sort.answer.json").write_text(json.dumps(LABELS))
    return shop


def run_all(shop: Shop) -> None:
    async def use(remit: Remit) -> None:
        for order, text in enumerate(TEXTS):
            result = await remit.run("desk", {"order": order, "text": text})
            assert result.outcome == "completed", result

    with_remit(shop, use)


def what_if(shop: Shop, change: str, samples: int = 1) -> Cohort:
    async def use(remit: Remit) -> Cohort:
        return await remit.counterfactuals.compare(Choice(last=50), parse_change(change, remit.project), {}, samples=samples)

    return with_remit(shop, use)


def written(shop: Shop, name: str, text: str) -> Path:
    path = shop.folder / name
    path.write_text(text)
    return path


def ends(each: TriedRun) -> tuple[list[str], list[str]]:
    return [trial.outcome for trial in each.baseline], [trial.outcome for trial in each.changed]


def said(cohort: Cohort) -> str:
    return "\n".join(each.plain for each in cohort_lines(cohort))


def test_another_prompt_is_tried_on_the_whole_cohort_beside_its_own_baseline(shop: Shop, server: Server) -> None:
    run_all(shop)
    recorded, paid = len(server.asked), shop.tries()
    cohort = what_if(shop, f"prompt=sort.md:{written(shop, 'careful.md', CAREFUL)}", samples=2)
    assert (cohort.counts["runs"], cohort.counts["tried"]) == (12, 12)
    # Both arms were asked anew: the baseline is no copy of the record.
    asked = [str(one["messages"][0]["content"]) for one in server.asked[recorded:]]
    assert [sum("for a person." in words for words in asked), len(asked)] == [24, 48]
    for number, each in enumerate(cohort.runs):
        if number == 4:
            # By chance, in either arm: once as on record, once not.
            assert [sorted(arm) for arm in ends(each)] == [["completed", "escalated"]] * 2
        else:
            assert ends(each) == (["completed"] * 2, ["escalated" if number % 2 else "completed"] * 2)
    assert cohort.tests["ends otherwise than on record"] == SignTest(up=6, down=0, same=6)
    assert cohort.arm("baseline")["otherwise_than_on_record"] == 1
    assert cohort.arm("changed")["otherwise_than_on_record"] == 13
    assert cohort.tests["completed"].down == 6
    # Fewer calls, because what went to a person pays nothing; and nothing was paid at all.
    assert cohort.tests["calls"].down == 6
    assert shop.tries() == paid


def test_all_but_the_prompt_is_asked_as_before(shop: Shop, server: Server) -> None:
    run_all(shop)
    recorded = len(server.asked)
    what_if(shop, f"prompt={written(shop, 'careful.md', CAREFUL)}")
    before: list[str] = []
    changed: list[str] = []
    for one in server.asked[recorded:]:
        words = one["messages"][0]["content"]
        (changed if "for a person." in words else before).append(json.dumps(one, sort_keys=True))
    added = " Whatever is urgent is for a person."
    assert sorted(one.replace(added, "") for one in changed) == sorted(before)
    assert len(before) == len(TEXTS)


def test_where_the_change_first_shows_is_said_of_each_run(shop: Shop) -> None:
    run_all(shop)
    cohort = what_if(shop, f"prompt={written(shop, 'careful.md', CAREFUL)}", samples=2)
    at = [None if each.apart is None else each.apart.step for each in cohort.runs]
    assert at == ["2" if number % 2 else None for number in range(12)]
    text = said(cohort)
    assert text.count("at step 2: `model:sorter` answers topic `money`, who `desk`; with the change `model:sorter` answers") == 6
    assert "change: prompt `careful.md` (in the release: prompt `sort.md` of `desk`); each run tried 2 times with it" in text
    assert "at step 2" in page(cohort).lower()


def test_an_answer_that_ends_the_run_in_the_same_way_is_told_apart_all_the_same(shop: Shop, server: Server) -> None:
    run_all(shop)

    def otherwise(asked: dict[str, Any]) -> Reply:
        topic = "other" if "for a person." in str(asked["messages"][0]["content"]) else "money"
        confident = {"confidence_per_mille": 900}
        return openai({"who": {"label": "desk", **confident}, "topic": {"label": topic, **confident}})

    server.answering = otherwise
    cohort = what_if(shop, f"prompt={written(shop, 'careful.md', CAREFUL)}")
    assert cohort.tests["ends otherwise than on record"] == SignTest(up=0, down=0, same=12)
    assert cohort.tests["does otherwise than on record"] == SignTest(up=12, down=0, same=0)
    assert said(cohort).count("does otherwise") == 13
    assert [each.is_otherwise for each in cohort.runs] == [False] * 12


def test_another_model_is_asked_by_the_same_prompt(shop: Shop, server: Server) -> None:
    run_all(shop)
    recorded = len(server.asked)
    cohort = what_if(shop, "model=careful")
    asked = server.asked[recorded:]
    by_model = {
        model: sorted(str(one["messages"]) for one in asked if one["model"] == model) for model in ("gpt-4o-mini", "careful")
    }
    assert by_model["careful"] == by_model["gpt-4o-mini"]
    assert len(asked) == 24
    assert cohort.tests["completed"].down >= 6
    assert "change: model `careful`" in said(cohort)


PARTS = {
    "prompt": ["prompt `sort.md`"],
    "model": ["contract `models`", "model binding `sorter`"],
    "policy": ["policy"],
}
CHANGES: dict[str, Callable[[Shop], str]] = {
    "prompt": lambda shop: f"prompt={written(shop, 'careful.md', CAREFUL)}",
    "model": lambda _shop: "model=careful",
    "policy": lambda shop: f"policy={written(shop, 'other.cedar', '// says nothing')}",
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_is_one_part_of_the_release_and_the_report_says_which(shop: Shop, kind: str) -> None:
    run_all(shop)
    cohort = what_if(shop, CHANGES[kind](shop))
    assert cohort.parts == {"desk": PARTS[kind]}
    shown = said(cohort)
    assert all(part in shown for part in PARTS[kind])


def test_a_tools_other_answers_are_no_other_release(shop: Shop) -> None:
    run_all(shop)
    answers = [{"args": {"order": 3}, "result": {"account": "CLOSED", "note": ""}}, {"result": {"account": "DE0933", "note": ""}}]
    cohort = what_if(shop, f"tool=orders.read:{written(shop, 'orders.json', json.dumps(answers))}")
    assert cohort.parts == {}
    (apart,) = [each.apart for each in cohort.runs if each.recorded.run == cohort.runs[3].recorded.run]
    assert apart is not None
    assert (apart.step, apart.after) == ("3", "`payments.refund` allow")
