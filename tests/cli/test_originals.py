"""Who may decide a case can see what is redacted for everybody else, and that they have seen it is on record."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import make_hostile_shop, remit, remit_json, start

from project import Shop
from remit.journal.events import EventType

IBAN = "DE89370400440532013000"
MAIL = "ann@shop.example"


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    return make_hostile_shop(tmp_path, database_url)


def test_originals_of_a_call_are_shown_to_who_may_decide_it(shop: Shop) -> None:
    opened = start(shop, "ask", IBAN)
    hidden = remit(shop, "case", opened["case"])
    assert IBAN not in hidden
    assert f"`remit case {opened['case']} --as PERSON` shows the originals to who may decide, and records that" in hidden
    shown = remit(shop, "case", opened["case"], "--as", "kim")
    assert shown.count(IBAN) == 2, "in the call, and in the request that it came from"
    assert "these are the originals; that person/kim was shown them is on record" in shown
    assert remit_json(shop, "show", opened["run"])[-1]["type"] == EventType.CASE_REVEALED
    assert "person/kim saw the originals" in remit(shop, "show", opened["run"])
    assert IBAN not in remit(shop, "case", opened["case"])


def test_originals_of_a_request_are_shown_to_who_takes_it_over(shop: Shop) -> None:
    opened = start(shop, "escalate", MAIL)
    assert "shows the originals" in remit(shop, "case", opened["case"])
    assert f"text  {MAIL}" in remit(shop, "case", opened["case"], "--as", "lee")


def test_who_may_not_decide_sees_no_original_and_nothing_is_recorded(shop: Shop) -> None:
    opened = start(shop, "ask", IBAN)
    said = remit(shop, "case", opened["case"], "--as", "anna", code=1)
    assert "role_missing" in said
    assert IBAN not in said
    assert EventType.CASE_REVEALED not in {event["type"] for event in remit_json(shop, "show", opened["run"])}


def test_where_nothing_is_redacted_nothing_is_said_of_originals(shop: Shop) -> None:
    for do in ("ask", "escalate"):
        assert "originals" not in remit(shop, "case", start(shop, do, "plain")["case"])


def test_machines_get_the_originals_beside_the_question(shop: Shop) -> None:
    opened = start(shop, "ask", IBAN)
    assert "originals" not in remit_json(shop, "case", opened["case"])
    found = remit_json(shop, "case", opened["case"], "--as", "kim")
    assert found["originals"]["args"]["account"] == found["originals"]["request"]["text"] == IBAN
    assert found["question"]["shown"]["args"]["account"] != IBAN


def test_a_closed_run_is_still_told_as_closed_after_its_case_was_looked_at_and_settled(shop: Shop) -> None:
    opened = start(shop, "escalate", MAIL)
    remit(shop, "case", opened["case"], "--as", "lee")
    remit(shop, "resolve", opened["case"], "--as", "lee")
    assert "· escalated ·" in remit(shop, "show", opened["run"]).splitlines()[0]
    [row] = remit_json(shop, "runs")
    assert (row["state"], row["reason"]) == ("escalated", remit_json(shop, "show", opened["run"])[-3]["content"]["reason"])


@pytest.mark.parametrize("command", ["approve", "deny"])
def test_who_is_about_to_decide_is_told_how_to_see_the_originals(shop: Shop, command: str) -> None:
    assert "`remit case CASE --as PERSON` shows the originals" in " ".join(remit(shop, command, "--help").split())
