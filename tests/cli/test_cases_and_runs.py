"""People find what they must decide and what has happened: ids stay whole, filters tell the truth, a case says all."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from commands import make_hostile_shop, remit, remit_json, start, with_remit

from project import Shop
from remit import Held, Remit
from remit.cases.cases import Decision
from remit.journal.events import EventType
from remit.journal.journal import system_clock
from remit.storage import schema

HOUR_US = 3_600_000_000


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    return make_hostile_shop(tmp_path, database_url)


def plain(output: str) -> str:
    return re.sub(r"\x1b\[[\d;]*m", "", output)


def change_case(shop: Shop, case: str, **values: Any) -> None:
    """As time would: nothing but the row of the case is changed."""

    async def use(opened: Remit) -> None:
        with opened.database.engine.begin() as connection:
            connection.execute(schema.cases.update().where(schema.cases.c.case == case).values(**values))

    with_remit(shop, use)


@pytest.mark.parametrize("columns", [None, 40, 80, 120])
def test_ids_are_never_cut(shop: Shop, columns: int | None) -> None:
    opened = [start(shop, "escalate", "a long reason that goes on and on " * 5) for _ in range(2)]
    cases = plain(remit(shop, "cases", columns=columns))
    runs = plain(remit(shop, "runs", columns=columns))
    assert all(f"{one['case']}  " in cases and f"{one['run']}  " in runs for one in opened)
    if columns is not None and columns >= 80:
        assert all(len(text) <= columns for text in [*cases.splitlines(), *runs.splitlines()])
        assert len(cases.splitlines()) == 3


def test_nothing_is_folded_or_cut_in_a_pipe(shop: Shop) -> None:
    reason = " ".join(f"word{i}" for i in range(60))
    opened = start(shop, "escalate", reason)
    for arguments in (["case", opened["case"]], ["show", opened["run"]], ["runs"]):
        assert any(reason in text for text in remit(shop, *arguments).splitlines()), arguments
    # The row of a case holds the start of its reason.
    assert any(reason[:190] in text for text in remit(shop, "cases").splitlines())


def test_the_start_of_an_id_is_enough(shop: Shop) -> None:
    opened = start(shop, "ask", "DE1")
    case = opened["case"]
    assert case in remit(shop, "case", case.removeprefix("case-")[:6])
    assert case in remit(shop, "case", case[:12])
    assert "denied" in remit(shop, "deny", case[:12], "--as", "person/lee")
    assert "approved" in remit(shop, "approve", start(shop, "ask", "DE2")["case"][5:11], "--as", "lee")
    assert "resolved" in remit(shop, "resolve", start(shop, "escalate", "no")["case"][5:11], "--as", "lee")


def test_the_start_of_several_ids_names_them(shop: Shop) -> None:
    opened = [start(shop, "escalate", "why") for _ in range(2)]
    for kind, code in (("case", "case_ambiguous"), ("run", "run_ambiguous")):
        said = remit(shop, "case" if kind == "case" else "show", f"{kind}-", code=1)
        assert code in said
        assert all(one[kind] in said for one in opened)
    assert "case_not_found" in remit(shop, "case", "zzz", code=1)
    assert "run_not_found" in remit(shop, "show", "zzz", code=1)


def test_cases_and_runs_of_another_tenant_are_not_found(shop: Shop) -> None:
    opened = start(shop, "escalate", "why")

    async def move(opened_remit: Remit) -> None:
        with opened_remit.database.engine.begin() as connection:
            for table in (schema.cases, schema.runs):
                connection.execute(table.update().values(tenant="other"))

    with_remit(shop, move)
    assert "case_not_found" in remit(shop, "case", opened["case"], code=1)
    assert "run_not_found" in remit(shop, "show", opened["run"], code=1)
    assert remit_json(shop, "runs") == remit_json(shop, "cases") == []


def test_a_filter_that_is_not_known_names_those_that_are(shop: Shop) -> None:
    assert "'escalated'" in remit(shop, "runs", "--outcome", "bogus", code=2)
    assert "'withdrawn'" in remit(shop, "cases", "--status", "bogus", code=2)


def test_a_filter_that_matches_nothing_does_not_say_that_there_is_nothing(shop: Shop) -> None:
    assert "no runs yet" in remit(shop, "runs")
    start(shop, "return", "fine")
    assert remit(shop, "runs", "--outcome", "held") == "no run is held; `remit runs` lists all\n"
    assert remit(shop, "cases") == "nothing waits for a person\n"
    assert "nothing waits" not in remit(shop, "cases", "--status", "denied")


def test_runs_say_what_they_were_about_and_why_they_ended(shop: Shop) -> None:
    opened = start(shop, "escalate", "nobody knows")
    [row] = remit_json(shop, "runs", "--outcome", "escalated")
    assert (row["run"], row["request"], row["reason"]) == (
        opened["run"],
        {"do": "escalate", "text": "nobody knows"},
        "nobody knows",
    )
    assert 'do=escalate text="nobody knows" · nobody knows' in remit(shop, "runs")


def test_a_run_whose_record_is_damaged_hides_no_other(shop: Shop) -> None:
    whole, damaged = start(shop, "return", "fine"), start(shop, "return", "broken")

    async def damage(opened: Remit) -> None:
        with opened.database.engine.begin() as connection:
            connection.execute(schema.events.update().where(schema.events.c.run == damaged["run"]).values(hash=b"0" * 32))

    with_remit(shop, damage)
    listed = remit(shop, "runs")
    assert "text=fine" in listed
    assert f"event 1 of run `{damaged['run']}` is corrupt" in listed
    assert whole["run"] in listed


def test_the_status_stands_in_a_column_where_all_are_listed(shop: Shop) -> None:
    opened = start(shop, "ask", "DE1")
    start(shop, "escalate", "why")
    remit(shop, "deny", opened["case"], "--as", "lee")
    listed = remit(shop, "cases", "--status", "all").splitlines()
    assert "status" in listed[0]
    assert {word for text in listed[1:] for word in text.split()} >= {"open", "denied"}
    assert "status" not in remit(shop, "cases").splitlines()[0]


def test_an_approval_says_when_it_expires_and_the_queue_s_time_only_while_that_is_sooner(shop: Shop) -> None:
    case, now = start(shop, "ask", "DE1")["case"], system_clock()
    change_case(shop, case, due_at=now + HOUR_US // 2, expires_at=now + 4 * HOUR_US)
    page = remit(shop, "case", case)
    assert "expires    " in page
    assert "due        " in page
    assert "4.0 h" in remit(shop, "cases")
    change_case(shop, case, due_at=now + 8 * HOUR_US)
    assert "due        " not in remit(shop, "case", case)


def test_an_expired_approval_says_so_and_asks_nobody(shop: Shop) -> None:
    case = start(shop, "ask", "DE1")["case"]
    change_case(shop, case, expires_at=system_clock() - HOUR_US)
    page = remit(shop, "case", case)
    assert f"{case} · approval · expired" in page
    assert "remit approve" not in page
    assert "expired" in remit(shop, "cases")


def test_a_decided_case_says_who_when_and_why(shop: Shop) -> None:
    for do, command, decision in (("ask", "deny", "denied"), ("escalate", "resolve", "resolved")):
        case = start(shop, do, "DE1")["case"]
        remit(shop, command, case, "--as", "lee", "--reason", "I called back")
        page = remit(shop, "case", case)
        assert re.search(rf"{decision} +person/lee, \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC, ", page)
        assert re.search(r"reason +I called back\n", page)


def test_an_escalation_shows_request_and_draft_and_how_to_settle_it(shop: Shop) -> None:
    case = start(shop, "escalate", "why")["case"]
    page = remit(shop, "case", case)
    assert re.search(r"the request\n +do +escalate\n +text +why\n", page)
    assert re.search(r"its draft\n +note +why\n", page)
    assert f"remit resolve {case} --as PERSON" in page


def test_an_approval_shows_each_argument_on_a_line_of_its_own_with_where_it_came_from(shop: Shop) -> None:
    case = start(shop, "ask", "DE1")["case"]
    page = remit(shop, "case", case)
    assert re.search(r'amount\.amount +"60\.00"\n', page)
    assert re.search(r"account +DE1\n +from user\n", page)
    assert f"remit approve {case} --as PERSON" in page
    assert f"remit deny {case} --as PERSON" in page


def test_no_case_speaks_python(shop: Shop) -> None:
    for case in (start(shop, "ask", "DE1")["case"], start(shop, "escalate", "why")["case"]):
        page = remit(shop, "case", case)
        assert not re.search(r"[{}\[\]']|None|True|False|version", page)


def test_a_foreign_agent_s_approval_is_decided_though_nobody_here_drives_its_run(shop: Shop) -> None:
    async def ask(opened: Remit) -> str:
        async with opened.gate("away").run({"order": 1}) as run:
            amount = {"amount": "60.00", "currency": "EUR"}
            outcome = await run.propose("payments.refund", {"order": 4, "amount": amount, "account": "DE1"})
            assert isinstance(outcome, Held)
            return outcome.case

    said = remit(shop, "approve", with_remit(shop, ask), "--as", "lee")
    assert "approved by person/lee" in said
    assert "when its agent, which lives elsewhere, proposes the call again" in said


def test_a_run_is_opened_for_a_person_by_their_bare_id(shop: Shop) -> None:
    request = json.dumps({"do": "return", "text": "fine"})
    for name in ("anna", "person/anna"):
        run = remit_json(shop, "run", "acts", request, "--on-behalf-of", name)["run"]
        assert remit_json(shop, "show", run)[0]["content"]["on_behalf_of"] == "person/anna"


def test_nothing_is_opened_for_a_person_who_is_not_declared(shop: Shop) -> None:
    request = json.dumps({"do": "return", "text": "fine"})
    said = remit(shop, "run", "acts", request, "--on-behalf-of", "ann", code=1)
    assert "did you mean `anna`?" in said
    assert "principal_unknown" in said
    assert remit_json(shop, "runs") == []


def test_a_story_tells_active_time_and_held_time_apart(shop: Shop) -> None:
    class Clock:
        ahead_us = 0

        def __call__(self) -> int:
            return system_clock() + self.ahead_us

    clock = Clock()

    async def hold_for_two_hours(opened: Remit) -> str:
        result = await opened.run("acts", {"do": "ask", "text": "DE1"})
        assert result.case is not None
        clock.ahead_us = 2 * HOUR_US
        await opened.cases.decide(result.case, Decision.APPROVED, token=opened.person_token("lee"), reason="called")
        assert (await opened.engine.drive(result.run)).outcome == "completed"
        return result.run

    run = with_remit(shop, hold_for_two_hours, clock=clock)
    shown = remit(shop, "show", run)
    assert re.search(r"· completed · \d\.\d+ s · held 2\.0 h\n", shown)
    assert "person/lee approved after 2.0 h: called" in shown
    # The rule that held the call did not allow it; the person did.
    assert re.search(r"^ +allow  as person/lee approved$", shown, re.M)


def test_a_held_run_says_that_a_person_must_decide(shop: Shop) -> None:
    opened = start(shop, "ask", "DE1")
    shown = remit(shop, "show", opened["run"])
    assert "· held ·" in shown.splitlines()[0]
    assert f"held  a person must decide; see `remit case {opened['case']}`" in shown


def test_lines_of_a_story_keep_their_indent_and_fit_the_terminal(shop: Shop) -> None:
    opened = start(shop, "ask", " ".join(f"word{i}" for i in range(60)))
    for columns in (60, 80, 120):
        lines = plain(remit(shop, "show", opened["run"], columns=columns)).splitlines()
        assert max(map(len, lines)) <= columns
        assert all(text.startswith("    ") for text in lines[3:])


def test_a_story_has_no_cryptic_values(shop: Shop) -> None:
    run = start(shop, "propose", "text")["run"]
    shown = remit(shop, "show", run)
    assert "not kept" in shown
    assert not re.search(r"None|True|False|refused=|=\[\d+\]|per_mille", shown)
    assert remit_json(shop, "show", run)[0]["type"] == EventType.RUN_OPENED


@pytest.mark.parametrize("word", ["held", "hold", "escalated", "open"])
def test_what_waits_is_readable_on_light_and_dark(word: str) -> None:
    from remit.terminal import style_of

    assert "yellow" not in style_of(word)
