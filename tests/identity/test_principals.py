"""Principals: names without look-alikes, a table where absence denies, nobody approving their own doing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from remit.errors import IdentityError, StorageError
from remit.identity.principals import (
    Declared,
    Person,
    PrincipalKind,
    Principals,
    Refusal,
    agent_principal,
    may_decide,
    parse_principal,
    person_principal,
)
from remit.storage.database import open_database
from remit.storage.writer import Statement

NOW_US = 1_750_000_000_000_000
AGENT, LEE = "agent/northwind/it-tickets", "person/lee"


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    database = open_database(database_url)
    yield database.engine
    database.close()


@pytest.fixture
def table(engine: Engine) -> Principals:
    return Principals(engine)


def test_a_name_comes_apart_and_together_again() -> None:
    agent = parse_principal(agent_principal("northwind", "it-tickets"))
    assert (agent.kind, agent.tenant, agent.name, str(agent)) == ("agent", "northwind", "it-tickets", AGENT)
    person = parse_principal(person_principal("lee"))
    assert (person.kind, person.tenant, person.name, str(person)) == ("person", None, "lee", LEE)
    assert person_principal("lee.park+ops@northwind.example") == "person/lee.park+ops@northwind.example"
    assert person_principal("0f8fad5b-d9cb-469f-a165-70867728950e").startswith("person/0f8f")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "lee",
        "person/",
        "person/Lee",
        "Person/lee",
        "person//lee",
        "person/lee/admin",
        "person/lee ",
        " person/lee",
        "person/lee\n",
        "person/l\x00ee",
        "person/../lee",
        "person/.lee",
        "person/l\u0435\u0435",
        "person/\uff4c\uff45\uff45",
        "person/lee\u200b",
        "person/lee\u202e",
        "person/lee\ud800",
        f"person/{'l' * 65}",
        "agent/northwind",
        "agent//it-tickets",
        "agent/northwind/",
        "agent/northwind/it_tickets",
        "agent/northwind/it-tickets/2",
        "agent/northwind/-",
        "agent/9/it",
        f"agent/northwind/{'t' * 49}",
        "user/anna",
        "agent\\northwind\\it",
    ],
)
def test_what_is_no_name_is_refused_and_shown_in_plain_characters(name: str) -> None:
    with pytest.raises(IdentityError) as caught:
        parse_principal(name)
    assert caught.value.code == "principal_malformed"
    assert caught.value.message.isascii()
    assert caught.value.message.isprintable()


def test_a_look_alike_is_called_what_it_is() -> None:
    with pytest.raises(IdentityError, match=r"`person/l\\u0435e` holds U\+0435"):
        parse_principal("person/l\u0435e")


@given(st.text())
def test_every_name_that_is_accepted_is_written_in_one_way(text: str) -> None:
    for candidate in (text, f"person/{text}", f"agent/{text}/{text}"):
        try:
            name = parse_principal(candidate)
        except IdentityError:
            continue
        assert str(name) == candidate
        assert candidate.isascii()
        assert candidate == candidate.lower()


def carry_out(engine: Engine, statement: Statement) -> None:
    """What the register's transaction does with it."""
    with engine.begin() as connection:
        assert connection.execute(text(statement.sql), statement.params).rowcount == statement.changes


def test_nobody_is_known_before_being_registered(table: Principals) -> None:
    assert table.get(AGENT) is None
    assert table.list("northwind") == ()
    for change in (table.enabling, table.disabling):
        with pytest.raises(IdentityError, match="is not registered") as caught:
            change(AGENT, NOW_US)
        assert caught.value.code == "principal_unknown"


def test_a_registered_principal_is_enabled_until_it_is_disabled(engine: Engine, table: Principals) -> None:
    found = table.register(AGENT, "northwind", PrincipalKind.AGENT, NOW_US)
    assert (found.principal, found.tenant, found.kind, found.enabled) == (AGENT, "northwind", "agent", True)
    carry_out(engine, table.disabling(AGENT, NOW_US + 1))
    disabled = table.get(AGENT)
    assert disabled is not None
    assert (disabled.enabled, disabled.updated_us) == (False, NOW_US + 1)
    carry_out(engine, table.enabling(AGENT, NOW_US + 2))
    enabled = table.get(AGENT)
    assert enabled is not None
    assert enabled.enabled


def test_registering_again_does_not_enable_what_was_disabled(engine: Engine, table: Principals) -> None:
    table.register(AGENT, "northwind", PrincipalKind.AGENT, NOW_US)
    carry_out(engine, table.disabling(AGENT, NOW_US))
    assert not table.register(AGENT, "northwind", PrincipalKind.AGENT, NOW_US + 1).enabled


def test_a_person_of_one_tenant_is_not_taken_over_by_another(table: Principals) -> None:
    table.register(LEE, "northwind", PrincipalKind.PERSON, NOW_US)
    with pytest.raises(IdentityError) as caught:
        table.register(LEE, "southwind", PrincipalKind.PERSON, NOW_US)
    assert caught.value.code == "principal_conflict"
    assert [row.principal for row in table.list("northwind")] == [LEE]


@pytest.mark.parametrize(
    ("principal", "tenant", "kind"),
    [
        (AGENT, "southwind", PrincipalKind.AGENT),
        (AGENT, "northwind", PrincipalKind.PERSON),
        (LEE, "northwind", PrincipalKind.AGENT),
        (LEE, "Northwind", PrincipalKind.PERSON),
        (LEE, "", PrincipalKind.PERSON),
        ("root", "northwind", PrincipalKind.PERSON),
    ],
)
def test_a_name_that_does_not_fit_its_tenant_and_kind_is_refused(
    table: Principals, principal: str, tenant: str, kind: PrincipalKind
) -> None:
    with pytest.raises(IdentityError) as caught:
        table.register(principal, tenant, kind, NOW_US)
    assert caught.value.code == "principal_malformed"
    assert table.list("northwind") == table.list("southwind") == ()


def test_the_list_is_of_one_tenant_and_sorted(table: Principals) -> None:
    for principal in ("person/zoe", "person/amy"):
        table.register(principal, "northwind", PrincipalKind.PERSON, NOW_US)
    table.register("agent/southwind/refunds", "southwind", PrincipalKind.AGENT, NOW_US)
    assert [row.principal for row in table.list("northwind")] == ["person/amy", "person/zoe"]


def test_a_declared_person_without_a_row_is_disabled(engine: Engine, table: Principals) -> None:
    assert not table.person("lee", "Lee Park", ["it-lead"]).enabled
    table.register(LEE, "northwind", PrincipalKind.PERSON, NOW_US)
    lee = table.person("lee", "Lee Park", ["it-lead"])
    assert (lee.principal, lee.roles, lee.enabled) == (LEE, {"it-lead"}, True)
    carry_out(engine, table.disabling(LEE, NOW_US))
    assert not table.person("lee", "Lee Park", ["it-lead"]).enabled


DECLARED = {
    LEE: Declared(tenant="northwind", kind=PrincipalKind.PERSON),
    AGENT: Declared(tenant="northwind", kind=PrincipalKind.AGENT),
}


def rows(engine: Engine) -> int:
    with engine.connect() as connection:
        return len(connection.exec_driver_sql("SELECT principal FROM principals").all())


def test_who_is_declared_is_enabled_and_reading_that_writes_nothing(engine: Engine) -> None:
    table = Principals(engine, lambda: DECLARED)
    assert table.person("lee", "Lee Park", ["it-lead"]).enabled
    assert not table.person("kim", "Kim", []).enabled
    assert {row.principal: row.enabled for row in table.list("northwind")} == {LEE: True, AGENT: True}
    assert table.list("southwind") == ()
    assert rows(engine) == 0


def test_a_row_is_made_when_it_is_first_needed_and_only_then(engine: Engine) -> None:
    table = Principals(engine, lambda: DECLARED)
    table.ensure([LEE, "person/nobody"], NOW_US)
    table.ensure([LEE], NOW_US + 1)
    assert rows(engine) == 1
    carry_out(engine, table.disabling(AGENT, NOW_US))
    table.ensure([AGENT], NOW_US + 1)
    assert {row.principal: row.enabled for row in table.list("northwind")} == {LEE: True, AGENT: False}


def test_a_declared_name_that_another_tenant_has_registered_is_nobody_here(engine: Engine) -> None:
    Principals(engine).register(LEE, "southwind", PrincipalKind.PERSON, NOW_US)
    table = Principals(engine, lambda: DECLARED)
    assert not table.person("lee", "Lee Park", ["it-lead"]).enabled
    with pytest.raises(IdentityError) as caught:
        table.ensure([LEE], NOW_US)
    assert caught.value.code == "principal_conflict"


def test_a_table_that_is_gone_is_a_storage_error(engine: Engine, table: Principals) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE principals")
    with pytest.raises(StorageError):
        table.get(AGENT)
    with pytest.raises(StorageError):
        table.register(AGENT, "northwind", PrincipalKind.AGENT, NOW_US)
    with pytest.raises(StorageError):
        table.disabling(AGENT, NOW_US)


def person(name: str = "lee", *roles: str) -> Person:
    return Person(id=name, name=name.title(), roles=frozenset(roles or ("it-lead",)), enabled=True)


def code_of(verdict: Refusal | None) -> str | None:
    return None if verdict is None else verdict.code


def test_a_person_with_the_role_may_decide_what_others_asked_for() -> None:
    assert may_decide(person(), ["role:it-lead"], AGENT, "person/kim", "person/sam") is None
    assert may_decide(person(), ["it-lead", "boss"], AGENT, None, None) is None


@pytest.mark.parametrize(
    ("requester", "on_behalf_of", "author", "code"),
    [
        (LEE, None, None, "requester_is_approver"),
        (AGENT, LEE, None, "beneficiary_is_approver"),
        (AGENT, None, LEE, "author_is_approver"),
        ("Lee", None, None, "principal_malformed"),
        (AGENT, "person/Lee", None, "principal_malformed"),
        (AGENT, None, "", "principal_malformed"),
        (AGENT, None, "person/l\u0435\u0435", "principal_malformed"),
    ],
)
def test_nobody_decides_about_their_own_doing(
    requester: str, on_behalf_of: str | None, author: str | None, code: str
) -> None:
    verdict = may_decide(person(), ["role:it-lead"], requester, on_behalf_of, author)
    assert code_of(verdict) == code
    assert isinstance(verdict, Refusal)
    assert not verdict.message.endswith(".")


def test_without_the_role_or_any_role_named_nobody_decides() -> None:
    missing = may_decide(person("lee", "sales"), ["role:it-lead", "role:boss"], AGENT, None, None)
    assert missing == Refusal(
        code="role_missing",
        message="`person/lee` has none of the roles `boss`, `it-lead`; ask somebody who has",
    )
    assert code_of(may_decide(person(), [], AGENT, None, None)) == "role_missing"
    assert code_of(may_decide(person("lee", ""), [""], AGENT, None, None)) == "role_missing"


def test_a_disabled_person_decides_nothing_and_left_out_means_disabled() -> None:
    lee = Person(id="lee", name="Lee", roles=frozenset({"it-lead"}))
    assert code_of(may_decide(lee, ["it-lead"], AGENT, None, None)) == "approver_disabled"


PEOPLE = st.sampled_from(["lee", "kim", "sam"])
ROLES = st.sets(st.sampled_from(["it-lead", "boss"]))
PARTIES = st.none() | PEOPLE.map(person_principal) | st.just(AGENT)


@given(PEOPLE, ROLES, st.booleans(), ROLES, st.tuples(PARTIES, PARTIES, PARTIES))
def test_deciding_agrees_with_the_rule_in_one_sentence(
    name: str,
    held: set[str],
    enabled: bool,
    required: set[str],
    parties: tuple[str | None, str | None, str | None],
) -> None:
    who = Person(id=name, name=name, roles=frozenset(held), enabled=enabled)
    allowed = enabled and bool(held & required) and who.principal not in parties
    assert (may_decide(who, required, *parties) is None) == allowed
