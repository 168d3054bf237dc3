"""Backtests over redacted bodies: originals stay sealed, and what can't be told from pseudonyms is not guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backtest.recorded_shop import with_remit
from project import Shop, make_shop
from remit import Remit
from remit.backtest.backtest import Result
from remit.backtest.judging import judge
from remit.backtest.proposals import Alternative, proposed_terms

TOOLS = '''
from remit import Effect, Resource, tool
from remit.tools.spec import FieldClass

async def locate(context, args):
    return Resource(kind="Mailbox", id="1", tenant=context.tenant, region="eu", attributes={"owner": "ann@corp.example"})

@tool("mail.send", effects={Effect.WRITE, Effect.EGRESS}, field_classes={"pin": FieldClass.SECRET},
      resource_kind="Mailbox", resource_attributes={"owner": "String"}, locate=locate)
async def send(to: str, reply_to: str, text: str, pin: int = 0) -> bool:
    """Send a mail."""
    return True

@tool("mail.find", effects={Effect.READ})
async def find(to: str) -> str:
    """Find the latest mail to somebody."""
    return "found"
'''

SEND = 'principal, action == Action::"mail.send", resource'


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    made = make_shop(tmp_path, "sqlite:remit.db")
    (tmp_path / "tools" / "shop.py").write_text(TOOLS)
    facts = {"found": {"seen": "mail.find", "where": {"to": "args.to"}}}
    send = {"tool": "mail.send", "limits": {"per_run": 50}}
    made.contract("mails", [send, {"tool": "mail.find"}], facts=facts)
    return made


def mail(to: str, reply_to: str = "ann@corp.example", **more: Any) -> tuple[str, dict[str, Any]]:
    return "mail.send", {"to": to, "reply_to": reply_to, "text": "hello", **more}


def verdicts(shop: Shop, rule: str, *calls: tuple[str, dict[str, Any]]) -> dict[str, int]:
    """The counts of what the calls come to under one rule more."""

    async def record(remit: Remit) -> None:
        async with remit.gate("mails").run({}) as run:
            for tool, args in calls:
                assert (await run.propose(tool, args)).completed

    with_remit(shop, record)
    (shop.folder / "other.cedar").write_text(f'@id("added") {rule}')

    async def use(remit: Remit) -> Result:
        return judge(remit, proposed_terms(remit, Alternative(policy=shop.folder / "other.cedar")))

    result = with_remit(shop, use)
    assert result.reproduced == result.decisions
    return {name: count for name, count in result.firm.counts().items() if count and name != "decisions"}


def test_the_value_of_a_concealed_argument_is_never_guessed(shop: Shop) -> None:
    rule = f'forbid ({SEND}) when {{ context.args.to == "eve@evil.example" }};'
    assert verdicts(shop, rule, mail("eve@evil.example")) == {"undetermined": 1}


def test_a_rule_that_needs_no_concealed_value_decides_beside_one_that_does(shop: Shop) -> None:
    rule = f'''forbid ({SEND}) when {{ context.args.to like "*@evil.example" }};
    @id("firm") forbid ({SEND}) when {{ context.from.to.contains("model") }};'''
    assert verdicts(shop, rule, mail("eve@evil.example")) == {"tightened": 1}


def test_a_hold_that_depends_on_a_concealed_value_leaves_an_allow_open_and_no_deny(shop: Shop) -> None:
    held = f'@hold("role:care-lead") forbid ({SEND}) when {{ context.args.to like "*@evil.example" }};'
    assert verdicts(shop, held, mail("eve@evil.example")) == {"undetermined": 1}
    assert verdicts(shop, held + f'@id("no") forbid ({SEND});', mail("eve@evil.example"))["tightened"] == 2


@pytest.mark.parametrize(("reply_to", "change"), [("ann@corp.example", "tightened"), ("bob@corp.example", "same")])
def test_two_concealed_values_of_one_class_can_be_compared(shop: Shop, reply_to: str, change: str) -> None:
    rule = f"forbid ({SEND}) when {{ context.args.to == context.args.reply_to }};"
    assert verdicts(shop, rule, mail("ann@corp.example", reply_to)) == {change: 1}


def test_a_concealed_value_can_be_compared_with_the_object_that_was_looked_up(shop: Shop) -> None:
    rule = f"forbid ({SEND}) unless {{ context.args.to == resource.owner }};"
    assert verdicts(shop, rule, mail("ann@corp.example")) == {"same": 1}


def test_a_concealed_value_is_not_compared_with_one_that_is_shown(shop: Shop) -> None:
    rule = f"forbid ({SEND}) when {{ context.args.to == context.args.text }};"
    assert verdicts(shop, rule, mail("ann@corp.example")) == {"undetermined": 1}


def test_whether_a_concealed_value_is_there_is_on_record(shop: Shop) -> None:
    rule = f"forbid ({SEND}) when {{ context.args has to }};"
    assert verdicts(shop, rule, mail("ann@corp.example")) == {"tightened": 1}


def test_a_concealed_number_leaves_the_rules_that_read_it_open_and_no_others(shop: Shop) -> None:
    rule = f'''forbid ({SEND}) when {{ context.args has pin && context.args.pin == 4711 }};
    @id("firm") forbid ({SEND}) when {{ context.args.text == "bye" }};'''
    assert verdicts(shop, rule, mail("nobody", "nobody", pin=4711)) == {"undetermined": 1}
    firm = f'forbid ({SEND}) when {{ context.args.text == "hello" }};'
    assert verdicts(shop, firm, mail("nobody", "nobody", pin=4711))["tightened"] == 2


def test_facts_follow_a_concealed_value_by_its_pseudonym(shop: Shop) -> None:
    rule = f"forbid ({SEND}) unless {{ context.facts.found }};"
    calls = [("mail.find", {"to": "ann@corp.example"}), mail("ann@corp.example")]
    assert verdicts(shop, rule, *calls) == {"same": 2}
    assert verdicts(shop, rule, ("mail.find", {"to": "ann@corp.example"}), mail("not an address"))["undetermined"] == 1


def test_what_an_agent_wrote_like_a_pseudonym_counts_as_concealed(shop: Shop) -> None:
    rule = f'forbid ({SEND}) when {{ context.args.text == "x" }};'
    forged = ("mail.send", {"to": "ann@corp.example", "reply_to": "nobody", "text": "<email:abcdefghijkl>"})
    assert verdicts(shop, rule, forged) == {"undetermined": 1}


def test_a_concealed_id_of_the_object_matters_to_rules_about_that_one_object_alone(shop: Shop) -> None:
    tools = shop.folder / "tools" / "shop.py"
    tools.write_text(tools.read_text().replace('id="1"', 'id="ann@corp.example"'))
    about = 'forbid (principal, action == Action::"mail.send", resource == Mailbox::"ann@corp.example");'
    assert verdicts(shop, about, mail("ann@corp.example")) == {"undetermined": 1}
    other = f'forbid ({SEND}) when {{ resource.tenant == "other" }};'
    assert verdicts(shop, other, mail("bob@corp.example")) == {"same": 2}
