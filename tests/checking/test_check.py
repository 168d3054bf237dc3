from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remit.checking.check import check_project
from remit.contracts.load import load_contract
from remit.contracts.problems import Problem, Severity, render, render_json
from remit.contracts.project import Project, load_project
from remit.errors import ConfigError
from remit.tools.decorator import tool
from remit.tools.spec import Effect, Money, Resource, ToolContext, ToolSpec
from remit.values import Json

REMIT = """\
[project]
name = "shop"
tenant = "shop"
region = "eu"

[tools]
modules = ["tools/shop.py"]

[connections.erp]
url = "https://erp.example"
user = "remit-agent"
secret = { env = "ERP_PASSWORD" }

[models.gpt]
kind = "llm"
model = "openai:gpt-5-mini"
secret = { env = "OPENAI_API_KEY" }

[models.triage]
kind = "classifier"
training = "data/history.jsonl"

[limits]
calls_per_minute = 600
money_per_day = "5000 EUR"

[[identity.issuers]]
issuer = "https://idp.example"
jwks = "https://idp.example/jwks.json"
audience = "remit"
algorithms = ["ES256"]

[queues.care]
roles = ["care-lead"]

[releases]
approval = "role:care-lead"

[people.lee]
name = "Lee"
roles = ["care-lead"]
"""

CONTRACT = """\
contract: refunds
owner: {team: customer-care, contact: care-leads@shop.example}
purpose: Decide and pay refunds that customers ask for.
style: workflow
author: person/lee
input: schemas/request.json
output: schemas/decision.json
actions:
  - tool: orders.read
    only: {tenant: shop, region: [eu]}
  - tool: risk.check
  - tool: orders.update
    only: {fields: [status], attributes: {vip: false}}
    limits: {per_run: 1}
  - tool: payments.refund
    autonomy: approve
    approval: {by: role:care-lead, within: 4h, above: 50.00 EUR}
    verify: [rule:amount_matches_order, model:second-opinion]
    limits: {per_run: 1, per_hour: 40, money_per_day: 2000.00 EUR}
models:
  second-opinion: {use: gpt, prompt: second.md, spend_per_call: 0.01 USD}
facts:
  fraud_checked: {seen: risk.check, where: {order: args.order}, within: 8h}
  refunded: {sum: payments.refund, of: args.amount}
budget: {calls: 12, writes: 2, spend: 0.05 USD, time: 60s}
limits: {money_per_day: 3000 EUR, spend_per_day: 5 USD}
escalate: {to: queue:care, sla: 30m, when: {confidence_below: 0.8, data_missing: true}}
success: {metric: refund_correct, baseline: {handle_time: 9m, error_rate: 4%}}
slo: {success: 98%, p95_latency: 8s, unauthorized_actions: 0, cost_per_success: 0.04 USD}
"""

POLICY = """\
@id("refund-after-fraud-check") @reason("a refund needs a fraud check of the same order within the hour")
forbid (principal, action == Action::"payments.refund", resource) unless { context.facts.fraud_checked };
"""

WORKFLOW = """\
async def amount_matches_order(call):
    return True


async def refunds(run, request):
    return {}
"""

SCHEMA = '{\n  "type": "object",\n  "properties": {"order": {"type": "integer"}}\n}\n'

FILES = {
    "remit.toml": REMIT,
    "data/history.jsonl": "",
    "tools/shop.py": "",
    "contracts/refunds/contract.yaml": CONTRACT,
    "contracts/refunds/policy.cedar": POLICY,
    "contracts/refunds/workflow.py": WORKFLOW,
    "contracts/refunds/prompts/second.md": "Is this refund right?\n",
    "contracts/refunds/prompts/second.answer.json": '{"right": ["yes", "no"]}',
    "contracts/refunds/schemas/request.json": SCHEMA,
    "contracts/refunds/schemas/decision.json": SCHEMA,
}


class Order(msgspec.Struct):
    order: int
    total: Money
    account: str


class Change(msgspec.Struct, omit_defaults=True):
    status: str = ""
    note: str = ""


async def find_order(_ctx: ToolContext, args: Mapping[str, Json]) -> Resource:
    return Resource(kind="Order", id=str(args["order"]), tenant="shop")


@tool("orders.read", effects={Effect.READ})
async def read_order(order: int) -> Order:
    """Read an order."""
    raise NotImplementedError


@tool(
    "orders.update",
    effects={Effect.WRITE},
    written="change",
    locate=find_order,
    resource_kind="Order",
    resource_attributes={"vip": "Bool", "items": "Long", "shop": "String"},
)
async def update_order(order: int, change: Change) -> None:
    """Change an order."""


@tool("risk.check", effects={Effect.READ})
async def check_risk(order: int) -> bool:
    """Check an order for fraud."""
    raise NotImplementedError


@tool("payments.refund", effects={Effect.WRITE, Effect.MONEY}, money="amount")
async def refund(order: int, amount: Money, account: Annotated[str, msgspec.Meta(max_length=40)]) -> None:
    """Pay money back."""


TOOLS = (read_order, update_order, check_risk, refund)
SPECS: Mapping[str, ToolSpec] = {each.spec.name: each.spec for each in TOOLS}


def place(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return folder


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return place(tmp_path / "shop", FILES)


def edit(folder: Path, file: str, old: str, new: str) -> None:
    path = folder / (file if file == "remit.toml" else f"contracts/refunds/{file}")
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
    path.write_text(text.replace(old, new))


def problems(folder: Path) -> list[Problem]:
    return check_project(folder, SPECS)


def test_a_sound_project_has_no_problem(shop: Path) -> None:
    assert problems(shop) == []


@dataclass(frozen=True)
class Wrong:
    """An edit of the sound project, and the one problem that follows from it."""

    title: str
    old: str
    new: str
    line: int
    message: str
    hint: str = ""
    file: str = "contract.yaml"
    others: int = 0
    severity: Severity = Severity.ERROR


CONTRACT_RULES = [
    # What the schema says.
    Wrong(
        "an unknown key",
        "style: workflow\n",
        "style: workflow\nlevel: 3\n",
        5,
        "key `level` is not known",
        "keys here: actions",
    ),
    Wrong("a misspelt key", "budget:", "budgets:", 25, "key `budgets` is not known", "did you mean `budget`?"),
    Wrong(
        "a nested misspelt key",
        "autonomy: approve",
        "autonomie: approve",
        16,
        "key `autonomie` is not known in `actions[3]`",
        "did you mean `autonomy`?",
    ),
    Wrong(
        "a missing key",
        "metric: refund_correct, ",
        "",
        28,
        "key `metric` is missing in `success`",
        "add it, such as `metric: triaged_correctly`; the name of the measure",
    ),
    Wrong(
        "a number for text",
        "metric: refund_correct",
        "metric: 7",
        28,
        "`success.metric` is the number 7; it should be text",
        "put it in quotes",
    ),
    Wrong(
        "a text for a number",
        "calls: 12",
        "calls: 012",
        25,
        "`budget.calls` is the text `012`; it should be a whole number",
        "decimal digits",
    ),
    Wrong(
        "yes for true",
        "data_missing: true",
        "data_missing: yes",
        27,
        "`escalate.when.data_missing` is the text `yes`; it should be `true` or `false`",
        "write `true`",
    ),
    Wrong(
        "a text for a list",
        "region: [eu]",
        "region: eu",
        10,
        "`actions[0].only.region` is the text `eu`; it should be a list",
        "write it as a list",
    ),
    Wrong(
        "a list for a mapping",
        "{success: 98%, p95_latency: 8s, unauthorized_actions: 0, cost_per_success: 0.04 USD}",
        "[98%]",
        29,
        "`slo` is a list; it should be a mapping",
        "keys here: cost_per_success",
    ),
    Wrong(
        "a value that is none of the choices",
        "autonomy: approve",
        "autonomy: approves",
        16,
        "`actions[3].autonomy` is `approves`, which is not one of its values",
        "did you mean `approve`?",
    ),
    Wrong(
        "a duration that is none",
        "within: 4h",
        "within: 4 hours",
        17,
        "`actions[3].approval.within` is `4 hours`, which is not how it is written",
        "write it like `30s`, `15m`, `4h`, `1d`",
    ),
    Wrong(
        "a number below the least",
        "per_hour: 40",
        "per_hour: -1",
        19,
        "`actions[3].limits.per_hour` is `-1`; the least is 0",
    ),
    Wrong(
        "a key without a value",
        "purpose: Decide and pay refunds that customers ask for.",
        "purpose:",
        3,
        "`purpose` has no value",
        "give it one",
    ),
    Wrong("a blank text", "team: customer-care", 'team: "  "', 2, "`owner.team` has no value", "give it one"),
    Wrong(
        "a duplicate key",
        "style: workflow\n",
        "style: workflow\nstyle: single\n",
        5,
        "key `style` appears twice",
        "the first one is on line 4",
    ),
    Wrong(
        "an alias",
        "team: customer-care, contact: care-leads@shop.example",
        "team: &t x, contact: *t",
        2,
        "alias `*t` is not used here",
        "write the value out",
        others=1,
    ),
    # What the rules say.
    Wrong(
        "a name that is not the folder's",
        "contract: refunds",
        "contract: refund",
        1,
        "the contract is called `refund`, its folder `refunds`",
        "same name",
    ),
    Wrong(
        "another tenant",
        "style: workflow\n",
        "style: workflow\ntenant: bank\n",
        5,
        "tenant `bank` is not the project's",
        "the project's tenant is `shop`",
    ),
    Wrong(
        "another tenant in an action",
        "tenant: shop",
        "tenant: bank",
        10,
        "tenant `bank` is not the project's",
        "leave the key out",
    ),
    Wrong(
        "another region",
        "style: workflow\n",
        "style: workflow\nregion: us\n",
        5,
        "region `us` is not the project's",
        "the project's region is `eu`",
    ),
    Wrong(
        "another region in an action",
        "region: [eu]",
        "region: [eu, us]",
        10,
        "region `us` is not the project's",
    ),
    Wrong(
        "an author who is nobody",
        "person/lee",
        "person/anna",
        5,
        "author `person/anna` is not declared",
        "add `[people.anna]` to `remit.toml`",
    ),
    Wrong(
        "an author who is no person",
        "person/lee",
        "agent/shop/x",
        5,
        "author `agent/shop/x` is not a person",
        "write it like `person/lee`",
    ),
    Wrong(
        "an unknown tool",
        "- tool: risk.check",
        "- tool: risks.check",
        11,
        "tool `risks.check` is not known",
        "did you mean `risk.check`? tools in reach: orders.read, orders.update, payments.refund, risk.check",
        others=1,
    ),
    Wrong(
        "a model among the actions",
        "- tool: risk.check",
        "- tool: risk.check\n  - tool: model:second-opinion",
        12,
        "tool `model:second-opinion` is not known",
        "under `models`",
    ),
    Wrong(
        "a tool granted twice",
        "- tool: risk.check",
        "- tool: risk.check\n  - tool: orders.read",
        12,
        "tool `orders.read` is granted twice",
        "the first one is on line 9",
    ),
    Wrong(
        "a write without a limit",
        "    limits: {per_run: 1}\n",
        "",
        12,
        "tool `orders.update` writes, and nothing limits it",
        "add `limits:",
    ),
    Wrong(
        "a write with empty limits",
        "    limits: {per_run: 1}\n",
        "    limits: {}\n",
        12,
        "tool `orders.update` writes, and nothing limits it",
    ),
    Wrong(
        "money that nobody guards",
        "    autonomy: approve\n    approval: {by: role:care-lead, within: 4h, above: 50.00 EUR}\n    verify: [rule:amount_matches_order, model:second-opinion]\n",
        "",
        15,
        "tool `payments.refund` moves money, and nobody approves or verifies it",
        "add `approval:",
    ),
    Wrong(
        "a money limit in another currency than the approval",
        "money_per_day: 2000.00 EUR",
        "money_per_day: 2000.00 USD",
        19,
        "`limits.money_per_day` is in USD, `approval.above` in EUR",
        "one currency",
    ),
    Wrong(
        "a money limit on a tool that moves none",
        "    limits: {per_run: 1}\n",
        "    limits: {per_run: 1, money_per_day: 1 EUR}\n",
        14,
        "tool `orders.update` moves no money that could be counted",
        "take the amount out",
    ),
    Wrong(
        "a suggestion to nobody",
        "- tool: risk.check",
        "- tool: risk.check\n    autonomy: suggest",
        12,
        "autonomy `suggest` asks a person, but nobody is named",
        "add `approval:",
    ),
    Wrong(
        "an approval of nobody",
        "    approval: {by: role:care-lead, within: 4h, above: 50.00 EUR}\n",
        "",
        16,
        "autonomy `approve` asks a person, but nobody is named",
    ),
    Wrong(
        "auto beside an approval of every call",
        "- tool: risk.check",
        "- tool: risk.check\n    autonomy: auto\n    approval: {by: role:care-lead, within: 4h}",
        12,
        "autonomy `auto` has an approval, so every call waits for a person",
        "autonomy: approve",
        severity=Severity.WARNING,
    ),
    Wrong(
        "a role that nobody holds",
        "by: role:care-lead",
        "by: role:care-leads",
        17,
        "no person holds the role `care-leads`",
        "did you mean `care-lead`? roles held: care-lead",
    ),
    Wrong(
        "a tool that writes fields without any",
        "only: {fields: [status], attributes: {vip: false}}",
        "only: {attributes: {vip: false}}",
        12,
        "tool `orders.update` writes fields, and none is named",
        "fields: note, status",
    ),
    Wrong(
        "an unknown field",
        "fields: [status]",
        "fields: [status, state]",
        13,
        "tool `orders.update` has no field `state`",
        "did you mean `status`? fields: note, status",
    ),
    Wrong(
        "a field named twice",
        "fields: [status]",
        "fields: [status, status]",
        13,
        "field `status` is named twice",
        "keep one",
    ),
    Wrong(
        "fields of a tool that writes none",
        "region: [eu]",
        "region: [eu], fields: [x]",
        10,
        "tool `orders.read` writes no fields",
        "take `fields` out",
    ),
    Wrong(
        "an unknown attribute",
        "vip: false",
        "vips: false",
        13,
        "what `orders.update` acts upon has no attribute `vips`",
        "did you mean `vip`?",
    ),
    Wrong(
        "an attribute of another type",
        "vip: false",
        "vip: no",
        13,
        """attribute `vip` is `"no"`; it should be `true` or `false`""",
        "without quotes",
    ),
    Wrong(
        "a decimal where a whole number should be",
        "vip: false",
        "items: 0.5",
        13,
        """attribute `items` is `"0.5"`; it should be a whole number""",
    ),
    Wrong(
        "a number where a text should be",
        "vip: false",
        "shop: 5",
        13,
        "attribute `shop` is `5`; it should be text",
        "put it in quotes",
    ),
    Wrong(
        "a rule that is no function",
        "rule:amount_matches_order",
        "rule:amount_matches",
        18,
        "there is no function `amount_matches` in `workflow.py`",
        "did you mean `amount_matches_order`?",
    ),
    Wrong(
        "a verifying model that is not bound",
        "model:second-opinion]",
        "model:second]",
        18,
        "model `second` is not among this contract's models",
        "models of this contract: second-opinion",
    ),
    Wrong(
        "a verifier of no kind",
        "rule:amount_matches_order",
        "amount_matches_order",
        18,
        "verifier `amount_matches_order` is neither a rule nor a model",
        "write it like `rule:",
    ),
    Wrong(
        "an unknown model",
        "use: gpt",
        "use: gtp",
        21,
        "model `gtp` is not declared in `remit.toml`",
        "did you mean `gpt`? models there: gpt, triage",
    ),
    Wrong(
        "a stand-in that is not declared",
        "use: gpt",
        "use: gpt, fallback: [gtp]",
        21,
        "model `gtp` is not declared in `remit.toml`",
        "did you mean `gpt`?",
    ),
    Wrong(
        "a model that stands in for itself",
        "use: gpt",
        "use: gpt, fallback: [gpt]",
        21,
        "model `gpt` is asked already",
        "name another one",
    ),
    Wrong(
        "a kind of answer that there is not",
        "use: gpt",
        "use: gpt, answer: essay",
        21,
        "`models.second-opinion.answer` is `essay`, which is not one of its values",
        "values: ",
    ),
    Wrong(
        "a classifier that is to write",
        "use: gpt, prompt: second.md",
        "use: triage, answer: text, prompt: second.md",
        21,
        "a classifier answers labels, not `text`",
        "choose another model",
        others=1,
    ),
    Wrong(
        "a stand-in that has labels alone",
        "use: gpt",
        "use: gpt, fallback: [triage], answer: tools",
        21,
        "a classifier answers labels, not `tools`",
        "leave `answer` out",
        others=1,
    ),
    Wrong(
        "a value without its schema",
        "use: gpt",
        "use: gpt, answer: value",
        21,
        "there is no `second.schema.json` beside the prompt",
        "write the JSON Schema",
        others=1,
    ),
    Wrong(
        "a second model that does not answer yes or no",
        "use: gpt",
        "use: gpt, answer: text",
        18,
        "`model:second-opinion` answers `text`, and can't say yes or no",
        "`agrees` among its heads",
    ),
    Wrong(
        "a prompt that is not there",
        "prompt: second.md",
        "prompt: second",
        21,
        "there is no prompt `second`",
        "did you mean `second.md`? files in `prompts/`: second.answer.json, second.md",
    ),
    Wrong(
        "a language model without a prompt",
        "prompt: second.md, ",
        "",
        21,
        "model `second-opinion` is a language model without a prompt",
        "files in `prompts/`: second.answer.json, second.md",
    ),
    Wrong(
        "a prompt without answers",
        "prompt: second.md",
        "prompt: second.answer.json",
        21,
        "there is no `second.answer.answer.json` beside the prompt",
        "write what it may answer",
    ),
    Wrong(
        "answers that are no labels",
        '["yes", "no"]',
        "7",
        1,
        "the answers are not labels by name",
        "such as `{",
        file="prompts/second.answer.json",
    ),
    Wrong(
        "answers that are no JSON",
        '["yes", "no"]',
        '["yes"',
        1,
        "not valid JSON: ",
        file="prompts/second.answer.json",
    ),
    Wrong(
        "a fact of two kinds",
        "seen: risk.check,",
        "seen: risk.check, count: risk.check,",
        23,
        "fact `fraud_checked` has `seen` and `count`",
        "exactly one of count, last, seen, sum",
    ),
    Wrong(
        "a fact of no kind",
        "sum: payments.refund, of: args.amount",
        "within: 8h",
        24,
        "fact `refunded` asks for nothing",
        "exactly one",
    ),
    Wrong(
        "a fact whose name policies can't read",
        "refunded: {",
        "re-funded: {",
        24,
        "`re-funded` can't be the name of a fact",
        "context.facts.<name>",
    ),
    Wrong(
        "a fact about an unknown tool",
        "seen: risk.check",
        "seen: risk.chek",
        23,
        "tool `risk.chek` is not known",
        "did you mean `risk.check`?",
    ),
    Wrong(
        "a fact about an unknown model",
        "seen: risk.check, where: {order: args.order}",
        "seen: model:first",
        23,
        "tool `model:first` is not known",
        "models of this contract: model:second-opinion",
    ),
    Wrong(
        "a fact about a tool that is not granted",
        "  - tool: risk.check\n",
        "",
        22,
        "tool `risk.check` is not granted, so no call of it is ever on record",
        "grant it",
        severity=Severity.WARNING,
    ),
    Wrong(
        "a fact with an unknown outcome",
        "within: 8h}",
        "within: 8h, outcome: done}",
        23,
        "`done` is no outcome of a call",
        "outcomes: any, completed",
    ),
    Wrong(
        "a count of a value",
        "seen: risk.check,",
        "count: risk.check, of: args.order,",
        23,
        "`count` asks about calls, not about a value",
        "take `of` out",
        others=1,
    ),
    Wrong(
        "a sum of nothing",
        "sum: payments.refund, of: args.amount",
        "sum: payments.refund",
        24,
        "`sum` needs a value to look at",
        "add `of:",
    ),
    Wrong(
        "a value that is no path",
        "of: args.amount",
        "of: amount",
        24,
        "`amount` is no path into a call",
        "write it like `args.amount`",
    ),
    Wrong(
        "a value that the tool does not have",
        "of: args.amount",
        "of: args.amounts",
        24,
        "tool `payments.refund` has no `args.amounts`",
        "did you mean `args.amount`?",
    ),
    Wrong(
        "a sum of texts",
        "of: args.amount",
        "of: args.account",
        24,
        "`args.account` is nothing that adds up",
        "sum whole numbers",
    ),
    Wrong(
        "a sum of one part of money",
        "of: args.amount",
        "of: args.amount.amount",
        24,
        "`args.amount.amount` is a part of money",
        "sum `args.amount`",
    ),
    Wrong(
        "the last of many values",
        "sum: payments.refund, of: args.amount",
        "last: payments.refund, of: args.amount",
        24,
        "`args.amount` is no single value",
        "name a text",
    ),
    Wrong(
        "a correlation over an unknown argument",
        "where: {order:",
        "where: {orders:",
        23,
        "tool `risk.check` has no argument `orders`",
        "did you mean `order`?",
    ),
    Wrong(
        "a correlation with an unknown argument",
        "args.order}",
        "args.orders}",
        23,
        "no granted tool has `args.orders`",
        "did you mean `args.order`?",
    ),
    Wrong(
        "an unknown queue",
        "to: queue:care",
        "to: queue:cares",
        27,
        "queue `cares` is not declared",
        "add `[queues.cares]` to `remit.toml`; did you mean `care`?",
    ),
    Wrong(
        "no writes in the budget",
        "writes: 2",
        "writes: 0",
        25,
        "the budget allows no writes, but `orders.update` is granted",
        "set `budget.writes`",
    ),
    Wrong(
        "writes forgotten in the budget",
        "writes: 2, ",
        "",
        25,
        "the budget allows no writes, but `orders.update` is granted",
    ),
    Wrong(
        "no calls in the budget",
        "calls: 12",
        "calls: 0",
        25,
        "the budget allows no calls at all",
        "at least one",
    ),
    Wrong(
        "limits of one kind in two currencies",
        "limits: {money_per_day: 3000 EUR",
        "limits: {money_per_hour: 300 USD, money_per_day: 3000 EUR",
        26,
        "`money_per_day` is in EUR, `money_per_hour` in USD",
        "one currency",
    ),
    Wrong(
        "spend that is not counted in dollars",
        "spend: 0.05 USD",
        "spend: 0.05 EUR",
        25,
        "`budget.spend` is `0.05 EUR`",
        "models are priced in USD",
    ),
    Wrong(
        "a spend limit that is not in dollars",
        "spend_per_day: 5 USD",
        "spend_per_day: 5 EUR",
        26,
        "`limits.spend_per_day` is `5 EUR`",
        "models are priced in USD",
    ),
    Wrong(
        "a short retention",
        "style: workflow\n",
        "style: workflow\nretention: 30d\n",
        5,
        "originals are kept for `30d`, less than six months",
        "183d",
        severity=Severity.WARNING,
    ),
    Wrong(
        "a run that is erased before its originals are due",
        "style: workflow\n",
        "style: workflow\nerase_after: 90d\n",
        5,
        "runs are erased after `90d`, and their originals kept for `183d`",
        "as long as `retention`",
    ),
    Wrong(
        "a run that is erased at once",
        "style: workflow\n",
        "style: workflow\nretention: 0d\nerase_after: 0d\n",
        6,
        "`erase_after` is `0d`, no time at all",
        others=1,
    ),
    Wrong(
        "a confidence above one",
        "confidence_below: 0.8",
        "confidence_below: 1.5",
        27,
        "`escalate.when.confidence_below` is `1.5`, and confidence goes from 0 to 1",
    ),
    Wrong("a share above all", "success: 98%", "success: 998%", 29, "`slo.success` is `998%`, above 100%"),
    Wrong(
        "a share too fine to be counted",
        "success: 98%",
        "success: 98.55%",
        29,
        "`slo.success` is `98.55%`, finer than a tenth of a percent",
    ),
    Wrong("no time at all", "sla: 30m", "sla: 0m", 27, "`escalate.sla` is `0m`, no time at all"),
    Wrong(
        "a time beyond all bounds",
        "sla: 30m",
        "sla: 99999999999999999999d",
        27,
        "`escalate.sla` is `99999999999999999999d`, longer than a century",
    ),
    Wrong(
        "an amount beyond all bounds",
        "3000 EUR",
        "9999999999999999 EUR",
        26,
        "`limits.money_per_day` is `9999999999999999 EUR`, more than exact decimals can hold",
    ),
    # The files beside the contract.
    Wrong(
        "a schema that is not there",
        "schemas/request.json",
        "schemas/requests.json",
        6,
        "schema `schemas/requests.json` does not exist",
        "did you mean `schemas/request.json`?",
    ),
    Wrong(
        "a schema out of the project",
        "schemas/request.json",
        "../../../x.json",
        6,
        "path `../../../x.json` leads out of the project",
        "move the file into it",
    ),
    Wrong(
        "a schema of the whole machine",
        "schemas/request.json",
        "/etc/passwd",
        6,
        "path `/etc/passwd` is not relative",
        "name a file inside the project",
    ),
    Wrong(
        "a workflow without a function to start with",
        "async def refunds",
        "def refunds",
        1,
        "there is no function to start with",
        "define `async def refunds(run, request)`; functions there: amount_matches_order, refunds",
        file="workflow.py",
    ),
    Wrong(
        "a workflow that takes too little",
        "refunds(run, request)",
        "refunds(run)",
        5,
        "function `refunds` does not take a run and a request",
        "write `async def refunds(run, request)`",
        file="workflow.py",
    ),
    Wrong(
        "a workflow that is not Python",
        "    return {}",
        "    return {",
        6,
        "not valid Python: '{' was never closed",
        file="workflow.py",
    ),
    Wrong("a policy that is not Cedar", "forbid (", "forbids (", 2, "not valid Cedar: ", file="policy.cedar"),
    Wrong(
        "a policy over a fact that is not declared",
        "fraud_checked",
        "fraud_check",
        2,
        "`context.facts.fraud_check` does not exist for `payments.refund`",
        "declared facts: fraud_checked",
        file="policy.cedar",
    ),
    Wrong(
        "a schema of no known type",
        '"integer"',
        '"int"',
        3,
        "`properties.order.type` is not JSON Schema 2020-12: ",
        file="schemas/request.json",
    ),
    Wrong(
        "a schema of something else than objects",
        '"object"',
        '"array"',
        2,
        "the schema is not of type `object`",
        file="schemas/request.json",
    ),
    Wrong(
        "a schema that leads to the network",
        '{"type": "integer"}',
        '{\n "$ref": "http://127.0.0.1:9/x"}',
        4,
        "`$ref` leads out of the file, to `http://127.0.0.1:9/x`",
        "#/$defs/",
        file="schemas/request.json",
    ),
    Wrong(
        "a schema that leads nowhere",
        '{"type": "integer"}',
        '{"$ref": "#/$defs/no"}',
        1,
        "the schema can't be used: pointer '/$defs/no' does not exist",
        file="schemas/request.json",
    ),
    Wrong(
        "a schema of another dialect",
        '  "type": "object"',
        '  "$schema": "http://json-schema.org/draft-07/schema#",\n  "type": "object"',
        2,
        "`http://json-schema.org/draft-07/schema#` is another dialect",
        "2020-12",
        file="schemas/request.json",
    ),
    Wrong(
        "a schema with an expression that is none",
        '"integer"',
        '"string", "pattern": "("',
        3,
        "`properties.order.pattern` is not JSON Schema 2020-12: ",
        file="schemas/request.json",
    ),
    Wrong(
        "a schema that is not JSON",
        '"object",',
        '"object"',
        3,
        "not valid JSON: ",
        file="schemas/request.json",
    ),
    Wrong(
        "a schema with a key twice",
        '"type": "object",',
        '"type": "object", "type": "object",',
        2,
        "key `type` appears twice in one object",
        file="schemas/request.json",
    ),
    Wrong(
        "a schema with NaN",
        '"integer"',
        '"integer", "maximum": NaN',
        3,
        "`NaN` is not JSON; numbers are finite",
        file="schemas/request.json",
    ),
]

PROJECT_RULES = [
    Wrong(
        "an unknown section",
        "[queues.care]",
        "[queue.care]\nx = 1\n[queues.care]",
        33,
        "key `queue` is not known",
        "did you mean `queues`?",
    ),
    Wrong(
        "an unknown key",
        'kind = "llm"',
        'kind = "llm"\ntop_p = 1',
        16,
        "key `top_p` is not known in `models.gpt`",
        "keys here: attempt_timeout",
    ),
    Wrong(
        "a missing key",
        'user = "remit-agent"\n',
        "",
        9,
        "key `user` is missing in `connections.erp`",
        "add it; the account",
    ),
    Wrong(
        "a wrong type",
        "calls_per_minute = 600",
        'calls_per_minute = "many"',
        24,
        "`limits.calls_per_minute` is the text `many`; it should be a whole number",
    ),
    Wrong(
        "a date",
        "calls_per_minute = 600",
        "calls_per_minute = 2024-01-31",
        24,
        "a date or time stands here; no key takes one",
    ),
    Wrong(
        "a symmetric algorithm",
        '["ES256"]',
        '["HS256"]',
        31,
        "`identity.issuers[0].algorithms[0]` is `HS256`, which is not one of its values",
        "values: ES256, ES384",
    ),
    Wrong(
        "a token that lasts too long",
        "[queues.care]",
        "[identity]\ntoken_minutes = 60\n[queues.care]",
        34,
        "`identity.token_minutes` is `60`; the most is 15",
    ),
    Wrong(
        "a name that can't be one",
        "[queues.care]",
        '[queues."Care Team"]\nroles = ["care-lead"]\n[queues.care]',
        33,
        "`Care Team` can't be a name in `queues`",
        "lower-case letters",
    ),
    Wrong(
        "a database without a file",
        'region = "eu"',
        'region = "eu"\ndatabase = "sqlite::memory:"',
        5,
        "`project.database` names no file",
        "sqlite:.remit/remit.db",
    ),
    Wrong(
        "a database out of the project",
        'region = "eu"',
        'region = "eu"\ndatabase = "sqlite:../x.db"',
        5,
        "path `../x.db` leads out of the project",
        "move the file into it",
    ),
    Wrong(
        "a database of another kind",
        'region = "eu"',
        'region = "eu"\ndatabase = "mysql://h/db"',
        5,
        "`project.database` is no database that can be used",
        "postgresql://user@host/db",
    ),
    Wrong(
        "a password in the database's address",
        'region = "eu"',
        'region = "eu"\ndatabase = "postgresql://u:geheim@h/db"',
        5,
        "`project.database` holds a password",
        "move it to `secret",
    ),
    Wrong(
        "a password for SQLite",
        'region = "eu"',
        'region = "eu"\nsecret = {env = "X"}',
        5,
        "a SQLite database has no password",
        "take `secret` out",
    ),
    Wrong(
        "a tool file that is not there",
        "tools/shop.py",
        "tools/shops.py",
        7,
        "file `tools/shops.py` does not exist",
        "relative to the project",
    ),
    Wrong(
        "a tool file out of the project",
        "tools/shop.py",
        "../shop.py",
        7,
        "path `../shop.py` leads out of the project",
        "move the file into it",
    ),
    Wrong(
        "a tool module that can't be one",
        "tools/shop.py",
        "tools/shop",
        7,
        "`tools/shop` is neither a module nor a `.py` file",
        "tools/directory.py",
    ),
    Wrong(
        "a tool module named twice",
        '["tools/shop.py"]',
        '[\n"tools/shop.py",\n"tools/shop.py"]',
        9,
        "tool module `tools/shop.py` is named twice",
        "keep one",
    ),
    Wrong(
        "a connection that leads nowhere",
        "https://erp.example",
        "erp.example",
        10,
        "`erp.example` is no address",
        "https://tracker.example",
    ),
    Wrong(
        "a password in an address",
        "https://erp.example",
        "https://u:geheim@erp.example",
        10,
        "the address holds a password",
        "move it to `secret`",
    ),
    Wrong(
        "a secret in two places",
        '{ env = "ERP_PASSWORD" }',
        '{ env = "ERP_PASSWORD", keyring = "a/b" }',
        12,
        "`connections.erp.secret` names more than one place",
        "exactly one of file, env, keyring",
    ),
    Wrong(
        "a secret in no place",
        '{ env = "ERP_PASSWORD" }',
        "{ }",
        12,
        "`connections.erp.secret` names no place",
    ),
    Wrong(
        "a secret instead of its name",
        "ERP_PASSWORD",
        "geheim!",
        12,
        "`env` is not the name of an environment variable",
        "not its value",
    ),
    Wrong(
        "a keyring entry without a user",
        'env = "ERP_PASSWORD"',
        'keyring = "erp"',
        12,
        "`erp` is no keyring entry",
        "service/user",
    ),
    Wrong(
        "a secret file out of the project",
        'env = "ERP_PASSWORD"',
        'file = "../erp"',
        12,
        "path `../erp` leads out of the project",
    ),
    Wrong(
        "a secret file that others can read",
        'env = "ERP_PASSWORD"',
        'file = "data/history.jsonl"',
        12,
        "the secret in `data/history.jsonl` can be read by others",
        "chmod 600",
        severity=Severity.WARNING,
    ),
    Wrong(
        "a classifier without training",
        'training = "data/history.jsonl"\n',
        "",
        19,
        "model `triage` of kind `classifier` has no `training`",
        "add `training`",
    ),
    Wrong(
        "training that is not there",
        "data/history.jsonl",
        "data/histories.jsonl",
        21,
        "file `data/histories.jsonl` does not exist",
    ),
    Wrong(
        "a classifier with a provider",
        'training = "data/history.jsonl"',
        'training = "data/history.jsonl"\nmodel = "openai:x"',
        22,
        "`model` means nothing to a model of kind `classifier`",
        "take it out",
    ),
    Wrong(
        "an LLM without a model",
        'model = "openai:gpt-5-mini"\n',
        "",
        14,
        "model `gpt` of kind `llm` has no `model`",
        "add `model`",
    ),
    Wrong(
        "an LLM without a key",
        'secret = { env = "OPENAI_API_KEY" }\n',
        "",
        14,
        "model `gpt` has no `secret`, and its provider wants a key",
        "base_url",
    ),
    Wrong(
        "an LLM without a provider",
        "openai:gpt-5-mini",
        "gpt-5-mini",
        16,
        "`gpt-5-mini` names no provider",
        "openai:gpt-5-mini",
    ),
    Wrong(
        "a stand-in that is not declared",
        'kind = "llm"',
        'kind = "llm"\nfallback = ["triages"]',
        16,
        "model `triages` is not declared",
        "did you mean `triage`?",
    ),
    Wrong(
        "a stand-in for itself",
        'kind = "llm"',
        'kind = "llm"\nfallback = ["gpt"]',
        16,
        "model `gpt` is asked already",
    ),
    Wrong(
        "a temperature out of range",
        'kind = "llm"',
        'kind = "llm"\ntemperature = 2.5',
        16,
        "`temperature` is `2.5`; it goes from 0 to 2",
    ),
    Wrong(
        "a price in another currency",
        'kind = "llm"',
        'kind = "llm"\nprice = {input = "1 EUR", output = "1 USD"}',
        16,
        "the price `input` is `1 EUR`",
        "priced in USD",
    ),
    Wrong(
        "a key of another kind of model",
        'kind = "llm"',
        'kind = "llm"\nrecording = "data/history.jsonl"',
        16,
        "`recording` means nothing to a model of kind `llm`",
        "take it out",
    ),
    Wrong(
        "a recording that is not there",
        'kind = "classifier"\ntraining = "data/history.jsonl"',
        'kind = "recorded"\nrecording = "data/answers.jsonl"',
        21,
        "file `data/answers.jsonl` does not exist",
    ),
    Wrong(
        "a function without a name",
        'kind = "classifier"\ntraining = "data/history.jsonl"',
        'kind = "python"\nfunction = "tools/shop.py"',
        21,
        "`tools/shop.py` names no function",
        "models/planner.py:plan",
    ),
    Wrong(
        "a function in no file",
        'kind = "classifier"\ntraining = "data/history.jsonl"',
        'kind = "python"\nfunction = "models/planner.py:plan"',
        21,
        "file `models/planner.py` does not exist",
    ),
    Wrong(
        "an LLM behind no address",
        'kind = "llm"',
        'kind = "llm"\nbase_url = "localhost:8080"',
        16,
        "`localhost:8080` is no address",
        "http://127.0.0.1:8080/v1",
    ),
    Wrong(
        "limits in two currencies",
        "[limits]\n",
        '[limits]\nmoney_per_hour = "1 USD"\n',
        26,
        "`money_per_day` is in EUR, `money_per_hour` in USD",
        "one currency",
    ),
    Wrong(
        "a spend limit that is not in dollars",
        "[limits]\n",
        '[limits]\nspend_per_day = "1 EUR"\n',
        24,
        "`limits.spend_per_day` is `1 EUR`",
        "models are priced in USD",
    ),
    Wrong(
        "an amount beyond all bounds",
        "5000 EUR",
        "9999999999999999 EUR",
        25,
        "`limits.money_per_day` is `9999999999999999 EUR`, more than exact decimals can hold",
    ),
    Wrong(
        "keys over an open line",
        "https://idp.example/jwks.json",
        "http://idp.example/jwks.json",
        29,
        "`http://idp.example/jwks.json` is no address to take keys from",
        "https://",
    ),
    Wrong(
        "keys in a file that is not there",
        "https://idp.example/jwks.json",
        "jwks.json",
        29,
        "file `jwks.json` does not exist",
    ),
    Wrong(
        "a queue that nobody works on",
        '[queues.care]\nroles = ["care-lead"]',
        '[queues.care]\nroles = ["care-lead", "night-shift"]',
        34,
        "no person holds the role `night-shift`",
        "roles held: care-lead",
    ),
    Wrong(
        "a queue without roles",
        '[queues.care]\nroles = ["care-lead"]',
        "[queues.care]\nroles = []",
        34,
        "`queues.care.roles` is empty",
        "give it a value",
    ),
    Wrong(
        "a release that nobody approves",
        'approval = "role:care-lead"',
        'approval = "role:boss"',
        37,
        "no person holds the role `boss`",
        "give it to somebody under `[people]`",
    ),
]


@pytest.mark.parametrize("wrong", CONTRACT_RULES, ids=lambda wrong: wrong.title)
def test_what_is_wrong_with_a_contract_is_named_with_its_line(shop: Path, wrong: Wrong) -> None:
    edit(shop, wrong.file, wrong.old, wrong.new)
    found = [problem for problem in problems(shop) if problem.message.startswith(wrong.message)]
    assert [(each.file, each.line, each.severity) for each in found] == [
        (f"contracts/refunds/{wrong.file}", wrong.line, wrong.severity)
    ], render(problems(shop))
    assert wrong.hint in found[0].suggestion
    assert len(problems(shop)) == 1 + wrong.others, render(problems(shop))


@pytest.mark.parametrize("wrong", PROJECT_RULES, ids=lambda wrong: wrong.title)
def test_what_is_wrong_with_a_project_is_named_with_its_line(shop: Path, wrong: Wrong) -> None:
    edit(shop, "remit.toml", wrong.old, wrong.new)
    found = [problem for problem in problems(shop) if problem.message.startswith(wrong.message)]
    assert [(each.file, each.line, each.severity) for each in found] == [("remit.toml", wrong.line, wrong.severity)], (
        render(problems(shop))
    )
    assert wrong.hint in found[0].suggestion
    assert len(problems(shop)) == 1 + wrong.others, render(problems(shop))
    assert "geheim" not in render(problems(shop))


def test_a_schema_of_a_value_is_read_like_any_other(shop: Path) -> None:
    prompts = shop / "contracts" / "refunds" / "prompts"
    (prompts / "plan.md").write_text("Plan {goal}\n")
    edit(shop, "contract.yaml", "models:", "models:\n  plan: {use: gpt, prompt: plan.md, answer: value}")
    for text, message in (
        ('{"type": "objekt"}', "`type` is not JSON Schema"),
        ('{"type": "array"}', "the schema is not of type `object`"),
        ('{"type": "object", "properties": {"a": {"$ref": "other.json"}}}', "`$ref` leads out of the file"),
        ('{"type": "object", "type": "object"}', "key `type` appears twice"),
    ):
        (prompts / "plan.schema.json").write_text(text)
        [found] = problems(shop)
        assert (found.file, found.message[: len(message)]) == ("contracts/refunds/prompts/plan.schema.json", message)
    (prompts / "plan.schema.json").write_text('{"type": "object"}')
    assert problems(shop) == []
    edit(shop, "contract.yaml", "prompt: plan.md, answer: value", "prompt: plan.md")
    assert problems(shop) == []
    (prompts / "plan.answer.json").write_text('{"a": ["b"]}')
    [found] = problems(shop)
    assert found.message == "beside the prompt stand `plan.answer.json` and `plan.schema.json`"


def test_every_problem_of_every_file_is_found_at_once(shop: Path) -> None:
    shutil.copytree(shop / "contracts/refunds", shop / "contracts/returns")
    edit(shop, "remit.toml", 'training = "data/history.jsonl"', 'training = "data/lost.jsonl"\nseed = 1')
    edit(shop, "contract.yaml", "- tool: risk.check", "- tool: risks.check")
    edit(shop, "contract.yaml", "owner:", "ownr:")
    edit(shop, "contract.yaml", "    limits: {per_run: 1}\n", "")
    edit(shop, "policy.cedar", "fraud_checked", "fraud_check")
    edit(shop, "schemas/decision.json", '"integer"', '"int"')
    (shop / "contracts/refunds/prompts/second.md").unlink()
    assert [
        (each.file.removeprefix("contracts/"), each.line, each.message.partition(":")[0]) for each in problems(shop)
    ] == [
        ("remit.toml", 21, "file `data/lost.jsonl` does not exist"),
        ("remit.toml", 22, "key `seed` is not known in `models.triage`"),
        ("refunds/contract.yaml", 2, "key `ownr` is not known"),
        ("refunds/contract.yaml", 11, "tool `risks.check` is not known"),
        ("refunds/contract.yaml", 12, "tool `orders.update` writes, and nothing limits it"),
        ("refunds/contract.yaml", 20, "there is no prompt `second.md`"),
        ("refunds/contract.yaml", 22, "tool `risk.check` is not granted, so no call of it is ever on record"),
        ("refunds/schemas/decision.json", 3, "`properties.order.type` is not JSON Schema 2020-12"),
        ("returns/contract.yaml", 1, "the contract is called `refunds`, its folder `returns`"),
    ]


def test_a_contract_that_is_wrong_elsewhere_still_has_its_policy_judged(shop: Path) -> None:
    edit(shop, "contract.yaml", "owner: {team: customer-care, contact: care-leads@shop.example}\n", "")
    edit(shop, "contract.yaml", "calls: 12", "calls: many")
    edit(shop, "policy.cedar", "fraud_checked", "fraud_check")
    assert [(each.file.rpartition("/")[2], each.line) for each in problems(shop)] == [
        ("contract.yaml", 1),
        ("contract.yaml", 24),
        ("policy.cedar", 2),
    ]


REQUEST = """\
{
  "type": "object",
  "properties": {
    "text": {"type": "string"},
    "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
    "extra": {"type": "object", "additionalProperties": {"type": "string"}},
    "mail": {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"body": {"type": "string"}}}]}
  },
  "additionalProperties": false,
  "$defs": {
    "line": {
      "type": "object",
      "properties": {"note": {"type": "string"}, "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}}}
    }
  }
}
"""


def test_parts_of_a_request_that_others_wrote_are_named_by_path(shop: Path) -> None:
    (shop / "contracts/refunds/schemas/request.json").write_text(REQUEST)
    paths = "text, lines.*.note, lines, lines.*.lines.*.note, extra.anything, mail.body"
    edit(shop, "contract.yaml", "actions:\n", f"untrusted_input: [{paths}]\nactions:\n")
    assert problems(shop) == []
    loaded = load_contract(shop / "contracts/refunds", load_project(shop), SPECS)
    assert loaded.contract.untrusted_input == tuple(paths.split(", "))
    assert loaded.bundle(dict.fromkeys(SPECS, ""))["contract"]["untrusted_input"] == paths.split(", ")


@pytest.mark.parametrize(
    ("path", "message", "hint"),
    [
        ("texts", "the input schema has no `texts`", "did you mean `text`? parts of a request: extra, lines, lines.*"),
        ("lines.note", "the input schema has no `lines.note`", "did you mean `lines.*.note`?"),
        ("lines.*.notes", "the input schema has no `lines.*.notes`", "did you mean `lines.*.note`?"),
        ("text.*", "the input schema has no `text.*`", "did you mean `text`?"),
        ("mail.subject", "the input schema has no `mail.subject`", "parts of a request:"),
        ("text, text", "`text` is named twice", "keep one"),
        (
            "a b",
            "`untrusted_input[0]` is `a b`, which is not how it is written",
            "`text`, `lines.*.note`; names with dots",
        ),
    ],
)
def test_a_part_of_a_request_that_can_not_be_is_a_problem(shop: Path, path: str, message: str, hint: str) -> None:
    (shop / "contracts/refunds/schemas/request.json").write_text(REQUEST)
    edit(shop, "contract.yaml", "actions:\n", f"untrusted_input: [{path}]\nactions:\n")
    assert [(each.file.rpartition("/")[2], each.line, each.message) for each in problems(shop)] == [
        ("contract.yaml", 8, message)
    ]
    assert hint in problems(shop)[0].suggestion


def test_a_hold_for_a_role_that_nobody_has_is_a_problem_where_it_stands(shop: Path) -> None:
    with (shop / "contracts/refunds/policy.cedar").open("a") as file:
        file.write(
            '@id("big")\n@reason("role:cfo")\n@hold("role:cfo")\n'
            'forbid (principal, action == Action::"orders.update", resource);\n'
        )
    found = problems(shop)
    assert [(each.file, each.line, each.message) for each in found] == [
        ("contracts/refunds/policy.cedar", 5, "no person holds the role `cfo`")
    ]
    assert found[0].suggestion == "give it to somebody under `[people]` in `remit.toml`; roles held: care-lead"
    edit(shop, "policy.cedar", '@hold("role:cfo")', '@hold("role:care-lead")')
    assert problems(shop) == []


NEEDS_THE_CHECK = "unless { context.facts.fraud_checked };"


@pytest.mark.parametrize(
    ("within", "policy", "severity"),
    [
        ("8h", NEEDS_THE_CHECK, None),
        ("4h", NEEDS_THE_CHECK, Severity.WARNING),
        ("239m", NEEDS_THE_CHECK, Severity.ERROR),
        ("1h", "when { !context.facts.fraud_checked };", Severity.ERROR),
        ("1h", "when { context.facts.fraud_checked == false && context.args.order > 5 };", Severity.ERROR),
        ("1h", "unless { if context.args.order > 5 then context.facts.fraud_checked else true };", Severity.ERROR),
        ("1h", "when { context.facts.fraud_checked };", None),
        ("1h", "unless { !context.facts.fraud_checked };", None),
    ],
)
def test_a_fact_that_is_too_old_by_the_time_somebody_approves_is_a_problem(
    shop: Path, within: str, policy: str, severity: Severity | None
) -> None:
    edit(shop, "contract.yaml", "within: 8h", f"within: {within}")
    edit(shop, "policy.cedar", NEEDS_THE_CHECK, policy)
    found = problems(shop)
    assert [(each.line, each.severity) for each in found] == ([] if severity is None else [(23, severity)])
    if found:
        assert found[0].message == (
            f"fact `fraud_checked` looks back `{within}`, and a call of `payments.refund` may wait `4h` for a person; "
            "approved late, it is denied by `refund-after-fraud-check`"
        )
        assert "longer than `4h`" in found[0].suggestion


@pytest.mark.parametrize(
    ("hold", "approval", "waits"),
    [
        # Each call is asked about for four hours at most, whatever a hold of the file says.
        ('@hold("role:care-lead") @within("1d")', "{by: role:care-lead, within: 4h}", "4h"),
        # Below the threshold only the hold asks.
        ('@hold("role:care-lead") @within("1d")', "{by: role:care-lead, within: 4h, above: 50.00 EUR}", "1d"),
        ('@hold("role:care-lead")', "{by: role:care-lead, within: 90m, above: 50.00 EUR}", "90m"),
    ],
)
def test_the_longest_question_about_a_call_is_what_its_facts_must_outlast(
    shop: Path, hold: str, approval: str, waits: str
) -> None:
    edit(shop, "contract.yaml", "within: 8h", "within: 1h")
    edit(shop, "contract.yaml", "{by: role:care-lead, within: 4h, above: 50.00 EUR}", approval)
    with (shop / "contracts/refunds/policy.cedar").open("a") as file:
        file.write(f'@id("odd") {hold} forbid (principal, action, resource) when {{ context.attempt > 3 }};\n')
    assert [f"may wait `{waits}` for a person" in each.message for each in problems(shop)] == [True]


def test_how_many_calls_there_were_may_become_too_few_while_somebody_is_asked(shop: Path) -> None:
    edit(shop, "contract.yaml", "seen: risk.check", "count: risk.check")
    edit(shop, "contract.yaml", "within: 8h", "within: 1h")
    edit(shop, "policy.cedar", NEEDS_THE_CHECK, "when { context.facts.fraud_checked < 2 };")
    assert [each.line for each in problems(shop)] == [23]
    edit(shop, "policy.cedar", "< 2", "> 2")
    assert problems(shop) == []
    edit(
        shop, "policy.cedar", "when { context.facts.fraud_checked > 2 }", "unless { 2 <= context.facts.fraud_checked }"
    )
    assert [each.line for each in problems(shop)] == [23]


def test_a_fact_of_a_rule_that_only_asks_is_no_problem(shop: Path) -> None:
    edit(shop, "contract.yaml", "within: 8h", "within: 1h")
    edit(shop, "policy.cedar", "@reason", '@hold("role:care-lead") @reason')
    assert problems(shop) == []


@pytest.mark.parametrize(
    ("table", "line", "message"),
    [
        ("- name: x\n  tool: risk.check\n  args: {order: 1}\n  expect: deny\n", 0, ""),
        ("- name: x\n  tool: risk.check\n  args: {order: 1}\n  expects: deny\n", 4, "key `expects` is not known"),
        ("name: x\n", 1, "the file is not a list of cases"),
        ("- name: x\n  tool: [\n", 3, ""),
        ("- name: x\n  tool: risks.check\n  expect: deny\n", 1, "case `x`: tool `risks.check` is not known"),
        ("\n- name: x\n  tool: risk.check\n  expect: deny\n", 2, "case `x`: no such call gets as far as policy"),
        (
            "- name: x\n  tool: risk.check\n  args: {order: 1}\n  facts: {fraud: true}\n  expect: deny\n",
            1,
            "case `x`: fact `fraud` is not declared",
        ),
    ],
)
def test_policy_tests_that_can_not_be_run_are_problems_and_those_that_fail_are_not(
    shop: Path, table: str, line: int, message: str
) -> None:
    (shop / "contracts/refunds/policy_tests.yaml").write_text(table)
    found = [each for each in problems(shop) if each.message.startswith(message)]
    assert [(each.file, each.line) for each in found] == (
        [("contracts/refunds/policy_tests.yaml", line)] if line else []
    )


def test_policies_may_be_about_models(shop: Path) -> None:
    edit(
        shop,
        "policy.cedar",
        "@id",
        """\
@id("short") @reason("long texts are not sent out")
forbid (principal, action == Action::"model:second-opinion", resource) when { context.args.text like "*secret*" };
@id""",
    )
    assert problems(shop) == []
    edit(shop, "policy.cedar", "context.args.text", "context.args.body")
    assert [(each.file.rpartition("/")[2], each.line) for each in problems(shop)] == [("policy.cedar", 2)]


def test_a_part_that_is_wrong_is_not_also_called_missing(shop: Path) -> None:
    edit(shop, "contract.yaml", "    limits: {per_run: 1}\n", "    limits: {per_run: -1}\n")
    edit(
        shop,
        "contract.yaml",
        "approval: {by: role:care-lead, within: 4h, above: 50.00 EUR}",
        "approval: {by: care-lead}",
    )
    edit(
        shop,
        "contract.yaml",
        "verify: [rule:amount_matches_order, model:second-opinion]",
        "verify: rule:amount_matches_order",
    )
    edit(shop, "contract.yaml", "writes: 2", "writes: two")
    edit(shop, "contract.yaml", "fields: [status]", "fields: status")
    assert [(each.line, each.message.partition(" ")[0]) for each in problems(shop)] == [
        (13, "`actions[2].only.fields`"),
        (14, "`actions[2].limits.per_run`"),
        (17, "`actions[3].approval.by`"),
        (17, "key"),
        (18, "`actions[3].verify`"),
        (25, "`budget.writes`"),
    ]


def test_the_lines_of_later_items_stay_right_where_an_earlier_one_is_wrong(shop: Path) -> None:
    edit(shop, "contract.yaml", "  - tool: orders.read\n", "  - tools: orders.read\n")
    edit(shop, "contract.yaml", "by: role:care-lead", "by: role:boss")
    assert [(each.line, each.message) for each in problems(shop)] == [
        (9, "key `tools` is not known in `actions[0]`"),
        (17, "no person holds the role `boss`"),
    ]


def test_a_remit_toml_that_can_not_be_read_hides_nothing_that_does_not_depend_on_it(shop: Path) -> None:
    (shop / "remit.toml").write_text("[project\n")
    edit(shop, "contract.yaml", "- tool: risk.check", "- tool: risks.check")
    assert [(each.file.rpartition("/")[2], each.line) for each in check_project(shop, SPECS)] == [
        ("remit.toml", 1),
        ("contract.yaml", 11),
        ("contract.yaml", 23),
    ]


def test_names_that_remit_toml_declares_badly_count_as_declared(shop: Path) -> None:
    edit(shop, "remit.toml", '[queues.care]\nroles = ["care-lead"]', "[queues.care]\nroles = 5")
    edit(shop, "remit.toml", 'name = "Lee"\n', "")
    assert [(each.file, each.line) for each in problems(shop)] == [("remit.toml", 34), ("remit.toml", 39)]


def test_tools_that_can_not_be_loaded_are_problems_and_nothing_is_said_about_what_uses_them(
    shop: Path,
) -> None:
    def load(project: Project) -> Mapping[str, ToolSpec]:
        assert project.tools.modules == ["tools/shop.py"]
        raise ConfigError("tools/shop.py:7: the name `x` is not of the form `service.verb`; rename it\ntool `y` is odd")

    assert [(each.file, each.line, each.message, each.suggestion) for each in check_project(shop, load)] == [
        ("remit.toml", 7, "tool `y` is odd", ""),
        ("tools/shop.py", 7, "the name `x` is not of the form `service.verb`", "rename it"),
    ]
    edit(shop, "remit.toml", "tools/shop.py", "tools/lost.py")
    assert [each.message for each in check_project(shop, load)] == ["file `tools/lost.py` does not exist"]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("policy.cedar", "the policy does not exist"),
        ("contract.yaml", "the file does not exist"),
        ("workflow.py", "style `workflow` needs a `workflow.py` beside the contract"),
    ],
)
def test_a_file_that_got_lost_is_a_problem(shop: Path, file: str, message: str) -> None:
    edit(
        shop,
        "contract.yaml",
        "verify: [rule:amount_matches_order, model:second-opinion]",
        "verify: [model:second-opinion]",
    )
    (shop / "contracts/refunds" / file).unlink()
    assert [each.message for each in problems(shop)] == [message]


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"a: 1\nb: \xff\n", 2, "the file is not valid UTF-8"),
        (b"# " + b"x" * 300_000, 1, "the file is larger than the 262,144 bytes allowed"),
        (b"", 1, "the file is empty"),
        (b"~", 1, "the file is empty"),
        (b"[]", 1, "the file is a list; it should be a mapping"),
        (b"just text", 1, "the file is the text `just text`; it should be a mapping"),
        (b"\x00", 1, "a control character stands here; YAML is plain text"),
    ],
)
def test_a_contract_that_is_none_is_one_problem(shop: Path, content: bytes, line: int, message: str) -> None:
    (shop / "contracts/refunds/contract.yaml").write_bytes(content)
    assert [(each.line, each.message) for each in problems(shop)][:1] == [(line, message)]


def test_a_file_with_a_byte_order_mark_and_other_line_ends_reads_like_any_other(shop: Path) -> None:
    for file in ("contracts/refunds/contract.yaml", "remit.toml"):
        path = shop / file
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert problems(shop) == []


@pytest.mark.parametrize(
    "file", ["contract.yaml", "policy.cedar", "prompts/second.md", "workflow.py", "schemas/request.json"]
)
def test_a_link_out_of_the_project_is_not_followed(shop: Path, file: str, tmp_path: Path) -> None:
    inside = shop / "contracts/refunds" / file
    outside = tmp_path / "outside"
    inside.rename(outside)
    inside.symlink_to(outside)
    assert any("leads out of the project" in each.message for each in problems(shop)), render(problems(shop))


def test_a_contract_folder_that_is_a_link_out_of_the_project_is_not_read(shop: Path, tmp_path: Path) -> None:
    (shop / "contracts/refunds").rename(tmp_path / "refunds")
    (shop / "contracts/refunds").symlink_to(tmp_path / "refunds")
    found = problems(shop)
    assert [(each.file, each.line) for each in found] == [("contracts/refunds/contract.yaml", 1)]
    assert "leads out of the project" in found[0].message


def test_a_project_without_contracts_is_warned_about(shop: Path) -> None:
    shutil.rmtree(shop / "contracts")
    assert [(each.severity, each.message) for each in problems(shop)] == [
        (Severity.WARNING, "there is no contract in `contracts/`")
    ]


def test_code_is_read_and_never_run(shop: Path) -> None:
    (shop / "contracts/refunds/workflow.py").write_text(WORKFLOW + "raise SystemExit('it ran')\n")
    assert problems(shop) == []


def test_a_workflow_may_have_one_public_function_of_another_name(shop: Path) -> None:
    edit(shop, "workflow.py", "async def refunds", "async def decide")
    assert problems(shop) == []
    with (shop / "contracts/refunds/workflow.py").open("a") as file:
        file.write("\n\nasync def other(run, request): ...\n")
    assert [each.message for each in problems(shop)] == ["there is no function to start with"]


def test_problems_read_like_a_colleague(shop: Path) -> None:
    edit(shop, "contract.yaml", "- tool: payments.refund", "- tool: payment.refund")
    edit(shop, "contract.yaml", "style: workflow\n", "style: workflow\nretention: 30d\n")
    edit(shop, "contract.yaml", "  refunded: {sum: payments.refund, of: args.amount}\n", "")
    edit(shop, "contract.yaml", ", where: {order: args.order}", "")
    assert (
        render(problems(shop))
        == """\
contracts/refunds/contract.yaml:5: warning: originals are kept for `30d`, less than six months
  keep them `183d` or longer, unless the law asks for less
contracts/refunds/contract.yaml:16: tool `payment.refund` is not known
  did you mean `payments.refund`? tools in reach: orders.read, orders.update, payments.refund, risk.check
1 problem, 1 warning"""
    )
    assert json.loads(render_json(problems(shop))) == {
        "problems": [
            {
                "file": "contracts/refunds/contract.yaml",
                "line": 5,
                "message": "originals are kept for `30d`, less than six months",
                "suggestion": "keep them `183d` or longer, unless the law asks for less",
                "severity": "warning",
            },
            {
                "file": "contracts/refunds/contract.yaml",
                "line": 16,
                "message": "tool `payment.refund` is not known",
                "suggestion": "did you mean `payments.refund`? "
                "tools in reach: orders.read, orders.update, payments.refund, risk.check",
                "severity": "error",
            },
        ],
        "errors": 1,
        "warnings": 1,
    }
    assert render([]) == "no problems"


def test_what_a_file_says_can_not_steer_the_terminal(shop: Path) -> None:
    edit(shop, "contract.yaml", "- tool: risk.check", '- tool: "\\e[2Jrisk\\n`check\\u202e"')
    text = render(problems(shop))
    assert "`\\x1b[2Jrisk\\n`check\\u202e`" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


# Whatever is done to a contract, the checker says something with a place, and never fails.

SCRAPS = st.sampled_from(
    ["", "~", "no", "-1", "0.8", "[]", "{}", "[x, 1]", "{x: {y: [z]}}", "&a b", "*a", "!!int 1", "'", '"', "\t", "\n", "- ", ": ",
     "role:x", "queue:x", "4h", "98%", "1 EUR", "999999999999999999999999d", "args.x", "rule:x", "model:x", "\ud800", "\x00",
     "risk.check", "payments.refund", "[" * 40, "? ", "#", "<<: x", "---\n", "%YAML 1.3\n", "true", "\u2028", "9" * 30]
)  # fmt: skip


@st.composite
def mutations(draw: st.DrawFn, text: str) -> str:
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        text = text[:start] + draw(SCRAPS) + text[end:]
    return text


@st.composite
def shuffled_words(draw: st.DrawFn, text: str) -> str:
    """Whole words replaced, so that the text more often stays well formed and the rules get their turn."""
    words = text.split(" ")
    for _ in range(draw(st.integers(1, 4))):
        words[draw(st.integers(0, len(words) - 1))] = draw(SCRAPS | st.sampled_from(words))
    return " ".join(words)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return place(tmp_path_factory.mktemp("shared"), FILES)


@pytest.mark.parametrize("file", ["remit.toml", "contracts/refunds/contract.yaml", "contracts/refunds/schemas/request.json",
                                  "contracts/refunds/workflow.py", "contracts/refunds/policy.cedar"])  # fmt: skip
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_mutation_makes_the_checker_fail_and_every_problem_has_its_place(
    shared: Path, file: str, data: st.DataObject
) -> None:
    text = FILES[file]
    path = shared / file
    mutated = data.draw(mutations(text) | shuffled_words(text)).encode("utf-8", "surrogatepass")
    path.write_bytes(mutated)
    try:
        found = problems(shared)
    finally:
        path.write_text(text)
    lines = mutated.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1
    for problem in found:
        assert (shared / problem.file).exists()
        assert problem.line >= 1
        assert problem.line <= lines or problem.file != file
        assert problem.message
        assert "\n" not in problem.message
    assert render(found)
