"""`remit backtest`, `import` and `contract` on the command line: what they print, and how they exit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import remit, remit_json

from backtest.recorded_shop import RULES, record_runs, refund, shop_with, with_remit
from project import Shop
from remit import Remit

STRICTER = RULES + '@id("no-writes") @reason("no") forbid (principal, action == Action::"put.none", resource);'


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    made = shop_with(tmp_path)

    async def use(opened: Remit) -> None:
        async with opened.gate("refunds").run({}) as run:
            await run.propose("put.none", {"value": 1})
            await run.propose(*refund(1, "20.00"))

    with_remit(made, use)
    (made.folder / "stricter.cedar").write_text(STRICTER)
    return made


def test_the_counts_come_first_then_what_changed_and_where_one_can_look(shop: Shop) -> None:
    said = remit(shop, "backtest", "--policy", str(shop.folder / "stricter.cedar"))
    lines = said.splitlines()
    assert lines[0] == "2 decisions in 1 run of refunds, 2 reproduced under their own terms first"
    assert lines[1] == " 0 same · 0 now held · 1 tightened · 0 loosened · 0 undetermined"
    assert "no-writes" in said
    assert "stopped: 1 write" in said
    assert lines[-1].startswith("hypothetical, behind a change in its run: 1 decision: 1 same")
    (run,) = {word for line in lines for word in line.split() if word.startswith("run-")}
    assert "put.none" in remit(shop, "show", run)


def test_json_holds_the_counts(shop: Shop) -> None:
    found = remit_json(shop, "backtest", "--policy", str(shop.folder / "stricter.cedar"))
    counts = ("decisions", "reproduced", "same", "tightened", "loosened", "held", "undetermined")
    assert {name: found[name] for name in counts} == dict(zip(counts, (2, 2, 0, 1, 0, 0, 0), strict=True))


def test_a_pipeline_fails_on_what_it_asks_to_fail_on_and_on_nothing_else(shop: Shop) -> None:
    stricter = ("backtest", "--policy", str(shop.folder / "stricter.cedar"))
    remit(shop, *stricter, "--fail-on", "loosened")
    remit(shop, *stricter, "--fail-on", "loosened", "--fail-on", "tightened", code=3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--policy", "a", "--release", "b"), "give one of them"),
        (("--since", "yesterday"), "`yesterday` is no time"),
        (("--policy", "nowhere.cedar"), "`nowhere.cedar`"),
        (("--contract", "nowhere"), "`nowhere` does not exist"),
        (("--release", "abc"), "there is no release `abc`"),
    ],
)
def test_what_can_not_be_judged_is_said_in_words(shop: Shop, arguments: tuple[str, ...], said: str) -> None:
    assert said in remit(shop, "backtest", *arguments, code=1)


def test_infer_writes_a_folder_and_says_what_it_would_have_denied(shop: Shop) -> None:
    record_runs(shop, 5)
    said = remit(shop, "contract", "infer", "refunds")
    assert (shop.folder / "inferred" / "refunds" / "contract.yaml").is_file()
    assert "on the runs it was learnt from: 0 of " in said
    assert "exists already" in remit(shop, "contract", "infer", "refunds", code=1)


def test_tighten_names_what_nobody_used(shop: Shop) -> None:
    said = remit(shop, "contract", "tighten", "refunds")
    assert "1 run of refunds since" in said
    assert next(line.split()[:2] for line in said.splitlines() if "never called" in line) == ["grant", "orders.read"]
    unused = remit_json(shop, "contract", "tighten", "refunds")["unused"]
    assert {"kind": "grant", "name": "orders.read", "present": "granted", "used": "never called"} in unused


def test_import_names_the_contract_that_a_suite_needs(shop: Shop) -> None:
    run: dict[str, Any] = {"id": "1", "suite": "banking", "user_prompt": "pay", "steps": [], "final_output": None}
    (shop.folder / "runs.jsonl").write_text(json.dumps(run))
    said = remit(shop, "import", "agentdojo", str(shop.folder / "runs.jsonl"), code=1)
    assert "there is no contract `agentdojo-banking`" in said
