"""The contract that docs/contracts.md shows is sound, and its policy decides what the page says it decides."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from remit.checking.check import check_project, project_tools
from remit.checking.policy_tests import PolicyTest, PolicyTestResource, run_policy_tests
from remit.contracts.load import load_contract
from remit.contracts.problems import render
from remit.contracts.project import load_project
from remit.policy.decision import PolicyDecisionPoint

PAGE = Path(__file__).parents[2] / "docs" / "contracts.md"
_BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.S)
PROJECT = """\
[project]
name = "shop"
tenant = "shop"
region = "eu"
[tools]
modules = ["tools/shop.py"]
[queues.care]
roles = ["care-lead"]
[people.lee]
name = "Lee"
roles = ["care-lead"]
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The project of the page, put together of its blocks."""
    blocks: dict[str, list[str]] = {}
    for language, text in _BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        blocks.setdefault(language, []).append(text)
    # What the page says of a contract beside the first block is what the same contract may say as well.
    contract, *more = [text for text in blocks["yaml"] if "expect:" not in text]
    [cases] = [text for text in blocks["yaml"] if "expect:" in text]
    [tools] = [text for text in blocks["python"] if "@tool" in text]
    home = tmp_path / "contracts" / "refunds"
    for path, text in {
        tmp_path / "remit.toml": PROJECT + blocks["toml"][0],
        tmp_path / "models" / "planner.py": "async def plan(request):\n    return 'done'\n",
        tmp_path / "recordings" / "assess.jsonl": "",
        tmp_path / "data" / "history.jsonl": "",
        tmp_path / "tools" / "shop.py": tools,
        home / "contract.yaml": "\n".join([contract, *more]),
        home / "prompts" / "assess.schema.json": '{"type": "object"}',
        **{home / "prompts" / f"{name}.md": "Look at {order}\n" for name in ("assess", "write", "planner")},
        home / "policy.cedar": blocks["cedar"][0],
        home / "policy_tests.yaml": cases,
        home / "schemas" / "request.json": blocks["json"][0],
        home / "schemas" / "decision.json": '{"type": "object"}',
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def test_the_contract_of_the_page_has_no_problem(shop: Path) -> None:
    assert check_project(shop, project_tools) == [], render(check_project(shop, project_tools))


def test_the_cases_of_the_page_come_out_as_it_says(shop: Path) -> None:
    project = load_project(shop)
    tools = project_tools(project)
    loaded = load_contract(shop / "contracts/refunds", project, tools)
    policy = PolicyDecisionPoint.build(loaded.contract, tools, loaded.policy)
    results = run_policy_tests(shop / "contracts/refunds/policy_tests.yaml", policy, tools)
    assert [(each.name, each.message) for each in results if not each.passed] == []
    assert {each.decided for each in results} == {"allow", "deny", "hold"}


def test_every_key_of_a_case_is_explained_and_used() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text[text.index("### Its tests") : text.index("## The workflow")]
    for key in (*PolicyTest.__struct_fields__, *PolicyTestResource.__struct_fields__):
        assert f"`{key}`" in table, key
        assert re.search(rf"\b{key}: ", table), key
