"""Who may do what to the record: by the project's `record.cedar` and nothing else, and never for oneself."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import remit

from project import Shop
from remit.checking.check import check_project, project_tools
from remit.contracts.problems import render
from remit.contracts.project import load_project
from remit.contracts.scaffold import init_project
from remit.errors import ConfigError
from remit.identity.principals import Person
from remit.records.policy import Purpose, RecordPolicy, RunFacts
from remit.records.record_cedar import Deed

RUN = RunFacts(run="run-1", contract="act", tenant="shop", region="eu", status="closed", on_behalf_of="anna")


def purpose(deed: Deed = Deed.REVEAL, who: str = "lee", *roles: str, reason: str = "asked", **more: bool) -> Purpose:
    person = Person(id=who, name=who, roles=frozenset(roles or ("role:care-lead",)), enabled=more.get("enabled", True))
    return Purpose(deed=deed, person=person, reason=reason, classes=frozenset({"iban"}))


def policy(shop: Shop, text: str) -> RecordPolicy:
    (shop.folder / "record.cedar").write_text(text)
    return RecordPolicy.load(load_project(shop.folder))


def test_what_no_rule_permits_nobody_may(shop: Shop) -> None:
    nobody = policy(shop, "")
    assert "no rule of `record.cedar` permits it" in (nobody.refusal(purpose(), RUN) or "")


def test_a_project_without_the_file_says_which_one_and_how_it_may_begin(shop: Shop) -> None:
    (shop.folder / "record.cedar").unlink()
    with pytest.raises(ConfigError) as missing:
        RecordPolicy.load(load_project(shop.folder))
    assert missing.value.code == "record_policy_missing"
    first, *example = missing.value.message.splitlines()
    assert f"there is no `record.cedar` in `{shop.folder}`" in first
    assert len(example) == 2
    # What it shows works.
    assert policy(shop, "\n".join(example)).refusal(purpose(Deed.ERASE), RUN) is None


def test_rules_ask_for_roles_people_deeds_runs_classes_and_a_reason(shop: Shop) -> None:
    found = policy(
        shop,
        """
        @id("a") permit (principal in Role::"care-lead", action == Action::"reveal", resource)
        when { resource.contract == "act" && resource.tenant == "shop" && resource.region == "eu" };
        @id("b") permit (principal == Person::"kim", action == Action::"hold", resource);
        @id("c") @reason("ibans stay where they are")
        forbid (principal, action, resource) when { context.classes.contains("iban") && resource.status == "held" };
        @id("d") @reason("say why") forbid (principal, action, resource) unless { context.reason_given };
        """,
    )
    assert found.refusal(purpose(), RUN) is None
    assert found.refusal(purpose(Deed.HOLD, "kim"), RUN) is None
    other = RunFacts(run="run-2", contract="other", tenant="shop", region="eu", status="held")
    for denied, run, why in (
        (purpose(Deed.ERASE), RUN, "no rule"),
        (purpose(Deed.HOLD), RUN, "no rule"),
        (purpose(who="kim", reason=" "), RUN, "say why (`d`)"),
        (purpose(), other, "ibans stay where they are (`c`)"),
        (purpose(Deed.REVEAL, "lee", "role:nothing"), RUN, "no rule"),
        (purpose(enabled=False), RUN, "this person is disabled"),
    ):
        assert why in (found.refusal(denied, run) or ""), (denied, run)


@pytest.mark.parametrize("deed", [Deed.REVEAL, Deed.ERASE])
def test_who_a_run_acts_for_may_not_see_or_erase_it_whatever_the_file_says(shop: Shop, deed: Deed) -> None:
    everybody = policy(shop, '@id("all") permit (principal, action, resource);')
    assert "somebody else must do it (`duties:not-for-oneself`)" in (everybody.refusal(purpose(deed, "anna"), RUN) or "")
    assert everybody.refusal(purpose(Deed.HOLD, "anna"), RUN) is None
    assert everybody.refusal(purpose(deed, "kim"), RUN) is None


def test_a_rule_that_can_not_be_evaluated_denies(shop: Shop) -> None:
    found = policy(
        shop,
        '@id("all") permit (principal, action, resource);'
        '@id("big") forbid (principal, action, resource) when { 9223372036854775807 + 1 > 0 };',
    )
    assert "can't be evaluated" in (found.refusal(purpose(), RUN) or "")


WRONG = [
    ("permit (principal, action, resource);", "has no `@id"),
    ('@id("a") permit (principal, action == Action::"revael", resource);', "action `revael` is not known"),
    ('@id("a") permit (principal in Role::"care-laed", action, resource);', "no person holds the role `care-laed`"),
    ('@id("a") permit (principal == Person::"ann", action, resource);', "person `ann` is not declared"),
    ('@id("a") permit (principal in Rle::"x", action, resource);', "entity type `Rle` is not known"),
    ('@id("a") permit (principal, action, resource) when { context.clases.contains("x") };', "`context.clases` does not exist"),
    ('@id("a") permit (principal, action, resource) when { resource.contrct == "x" };', "`resource.contrct` does not exist"),
    ('@id("a") permit (principal, action, resource) when { resource has foo };', "`resource.foo` does not exist"),
    (
        '@id("a") permit (principal, action, resource) when { resource.on_behalf_of == principal };',
        "`resource.on_behalf_of` may be absent",
    ),
    ('@id("a") permit (principal, action, resource) when { resource.status == 3 };', "not compatible"),
    ('@id("a") permit (principal == Role::"care-lead", action, resource);', "never applies"),
    ('@id("a") @hold("role:care-lead") forbid (principal, action, resource);', "`@hold` asks a person about a call"),
    ('@id("duties:a") permit (principal, action, resource);', "begins like a rule that is always there"),
    ('@id("a") permit (principal, action, resource)', "is not finished"),
]


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_what_is_wrong_with_the_file_is_found_with_its_line(shop: Shop, text: str, said: str) -> None:
    (shop.folder / "record.cedar").write_text(f"// first\n{text}\n")
    found = [each for each in check_project(shop.folder, project_tools) if each.file == "record.cedar"]
    assert [each.line for each in found] == [2], render(found)
    assert said in found[0].message


def test_every_problem_is_said_at_once_and_keeps_anybody_from_doing_anything(shop: Shop) -> None:
    text = "\n".join(rule.replace('@id("a")', f'@id("a{at}")') for at, (rule, _) in enumerate(WRONG[1:9]))
    (shop.folder / "record.cedar").write_text(text)
    found = [each for each in check_project(shop.folder, project_tools) if each.file == "record.cedar"]
    assert [each.line for each in found] == [1, 2, 3, 4, 5, 6, 7, 8]
    with pytest.raises(ConfigError, match="action `revael` is not known"):
        RecordPolicy.load(load_project(shop.folder))
    assert "record.cedar:3: person `ann` is not declared" in remit(shop, "check", code=1)


def test_a_file_that_can_not_be_read_is_a_problem(shop: Shop) -> None:
    (shop.folder / "record.cedar").write_bytes(b"\xff")
    assert "record.cedar" in {each.file for each in check_project(shop.folder, project_tools)}
    with pytest.raises(ConfigError):
        RecordPolicy.load(load_project(shop.folder))


def test_the_files_of_the_scaffold_and_of_the_demo_are_sound_and_let_somebody_do_everything(tmp_path: Path) -> None:
    init_project(tmp_path / "desk", "triage")
    demo = Path(__file__).parents[2] / "examples" / "it-tickets"
    for folder, role in ((tmp_path / "desk", "role:lead"), (demo, "role:it-lead")):
        found = RecordPolicy.load(load_project(folder))
        for deed in Deed:
            assert found.refusal(purpose(deed, "me", role), RUN) is None
            assert found.refusal(purpose(deed, "me", "role:none"), RUN) is not None
        assert "say why" in (found.refusal(purpose(Deed.ERASE, "me", role, reason=""), RUN) or "")
