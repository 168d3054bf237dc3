"""What agents and customers wrote is shown as it is: never obeyed as markup or by the terminal, never a line of its own."""

from __future__ import annotations

import json
import logging
import re
import sys
import unicodedata
from pathlib import Path

import pytest
from commands import BIDI, CONTROLS, HOSTILE, LINES, MARKUP, make_hostile_shop, remit, remit_json, start, with_remit
from hypothesis import given
from hypothesis import strategies as st
from rich.style import Style

from project import Shop
from remit import Remit
from remit.cli.readable import leaves, value_text
from remit.storage import schema
from remit.terminal import cedar_text, json_text, line, printable

_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_CONCEALED = re.compile(r"\x1b\[(?:\d+;)*8m")


@pytest.fixture
def shop(tmp_path: Path, database_url: str) -> Shop:
    return make_hostile_shop(tmp_path, database_url)


def seen(output: str) -> str:
    """What is printed without our colours; fails where anything in it can't be seen."""
    assert not _CONCEALED.search(output)
    plain = _COLOUR.sub("", output)
    hidden = {c for c in plain if c != "\n" and not c.isprintable()}
    assert hidden == set(), f"{hidden!r}"
    return plain


def whole(output: str) -> str:
    """What is printed without its spaces, and with wrapped lines put together."""
    return re.sub(r"\s+", "", re.sub(r"\n *│ ", "", seen(output)))


def assert_shown(output: str, text: str) -> None:
    """The whole text stands there, escaped where it must be."""
    assert "".join(printable(text).replace('"', '\\"').split()) in whole(output)


@given(st.text())
def test_whatever_is_printed_is_one_line_of_which_every_character_can_be_seen(text: str) -> None:
    shown = printable(text)
    assert all(c.isprintable() or unicodedata.category(c) == "Zs" for c in shown)
    assert printable(shown) == shown
    assert line(text).plain == shown
    assert {span.style for span in line(text).spans} <= {"", Style()}


@given(st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_for_machines_shows_every_character_and_is_the_same_value(value: object) -> None:
    written = json_text(value)
    assert all(c.isprintable() or unicodedata.category(c) == "Zs" for c in written)
    assert json.loads(written) == value


def test_characters_that_can_not_be_seen_are_escaped_whatever_unicode_calls_them() -> None:
    assert printable("\x1b\x9b\u202e\u200b\ufeff\u034f\u3164\ufe0f\U000e0101\U000e0041\ud800") == (
        r"\x1b\x9b\u202e\u200b\ufeff\u034f\u3164\ufe0f\U000e0101\U000e0041\ud800"
    )
    assert printable("a\r\nb\nc\td") == r"a⏎b⏎c\td"
    assert printable("Grüße, 東京 \u3000x\xa0y ☺") == "Grüße, 東京 \u3000x\xa0y ☺"


def test_cedar_keeps_its_meaning_and_hides_nothing() -> None:
    assert cedar_text('permit(principal);\n\t// "\u202e"') == 'permit(principal);\n\t// "\\u{202e}"'


def test_one_text_can_not_be_mistaken_for_two_values() -> None:
    assert value_text({"note": "x amount=5", "amount": 7}) == 'note="x amount=5" amount=7'
    assert value_text({"note": 'x" amount="5'}) == 'note="x\\" amount=\\"5"'
    assert value_text(["none", None, "yes", True, "12", 12]) == '["none", none, "yes", yes, "12", 12]'
    assert value_text({"a b=c": 1}) == '"a b=c"=1'
    assert list(leaves({"a": {"b": [1, {"c": None}]}, "d": {}})) == [("a.b[0]", 1), ("a.b[1].c", None), ("d", {})]


@pytest.mark.parametrize("columns", [None, 80, 120])
@pytest.mark.parametrize("text", [MARKUP, CONTROLS, LINES, BIDI, HOSTILE])
def test_an_escalation_is_shown_as_its_agent_wrote_it(shop: Shop, text: str, columns: int | None) -> None:
    opened = start(shop, "escalate", text)
    assert opened["case"] in seen(remit(shop, "cases", columns=columns))
    assert_shown(remit(shop, "case", opened["case"], columns=columns), text)
    assert_shown(remit(shop, "show", opened["run"]), text)
    seen(remit(shop, "show", opened["run"], columns=columns))
    seen(remit(shop, "runs", columns=columns))
    seen(remit(shop, "resolve", opened["case"], "--as", "lee", "--reason", text.replace("\0", ""), columns=columns))
    assert_shown(remit(shop, "case", opened["case"], columns=columns), text)


@pytest.mark.parametrize("columns", [None, 80])
def test_an_approval_is_shown_as_it_would_be_carried_out(shop: Shop, columns: int | None) -> None:
    opened = start(shop, "ask", HOSTILE)
    page = remit(shop, "case", opened["case"], columns=columns)
    assert_shown(page, HOSTILE)
    assert "DE09[b]33[conceal]hidden[/]" in whole(page)
    seen(remit(shop, "cases", columns=columns))
    seen(remit(shop, "show", opened["run"], columns=columns))
    seen(remit(shop, "approve", opened["case"], "--as", "lee", "--reason", "[/] \u202e", columns=columns))
    assert_shown(remit(shop, "case", opened["case"], columns=columns), "[/] \u202e")


@pytest.mark.parametrize("columns", [None, 80])
def test_a_tool_name_draws_no_lines_of_its_own(shop: Shop, columns: int | None) -> None:
    opened = start(shop, "propose", "made.up\n    9  payments.refund  amount=1\n         allow  grant:payments.refund")
    shown = seen(remit(shop, "show", opened["run"], columns=columns))
    assert not [text for text in shown.splitlines() if text.lstrip().startswith(("9  payments.refund", "allow  grant:pay"))]
    assert "itsargumentswerenotacceptable,andarenotkept" in whole(shown)


@pytest.mark.parametrize("do", ["escalate", "propose", "break", "ask", "return"])
@pytest.mark.parametrize("columns", [None, 80])
def test_a_run_says_what_became_of_it(shop: Shop, do: str, columns: int | None) -> None:
    request = json.dumps({"do": do, "text": HOSTILE})
    seen(remit(shop, "run", "acts", request, columns=columns, code=3 if do == "break" else 0))
    [row] = remit_json(shop, "runs")
    assert row["request"]["text"] == HOSTILE
    seen(remit(shop, "deny", row_case, "--as", "lee") if (row_case := _case(shop)) and do == "ask" else "")


def _case(shop: Shop) -> str:
    return next((case["case"] for case in remit_json(shop, "cases")), "")


def test_a_worker_goes_on_past_a_hostile_reason(shop: Shop) -> None:
    opened = start(shop, "ask", MARKUP)

    async def decide(opened_remit: Remit) -> None:
        from remit.cases.cases import Decision

        token = opened_remit.person_token("lee")
        await opened_remit.cases.decide(opened["case"], Decision.DENIED, token=token, reason=HOSTILE)

    with_remit(shop, decide)
    assert_shown(remit(shop, "worker", "--once"), HOSTILE)


@pytest.mark.parametrize("do", ["escalate", "propose", "ask", "return"])
def test_json_of_the_record_is_visible_and_exact(shop: Shop, do: str) -> None:
    opened = start(shop, do, HOSTILE)
    for arguments in (["runs"], ["cases"], ["show", opened["run"]], *([["case", opened["case"]]] if opened["case"] else [])):
        written = remit(shop, *arguments, "--json")
        seen(written)
        json.loads(written)
    events = remit_json(shop, "show", opened["run"])
    assert events[0]["content"]["request"]["text"] == HOSTILE


def test_what_people_type_is_no_markup_either(shop: Shop) -> None:
    for arguments in (
        ["show", "[/]\x1b"],
        ["case", "[/]\x1b"],
        ["approve", "x", "--as", "[/]\x1b"],
        ["run", "[/]\x1b", "{}"],
        ["run", "acts", '{"do": 1, "text": "[/]\\u001b"'],
        ["policy", "show", "[/]\x1b"],
    ):
        seen(remit(shop, *arguments, code=1))


@pytest.mark.parametrize("columns", [None, 80])
def test_names_out_of_the_database_are_text(shop: Shop, columns: int | None) -> None:
    name = HOSTILE.replace("\0", "").encode(errors="ignore").decode()

    async def add(opened: Remit) -> None:
        row = {"principal": f"agent/shop/{name}", "tenant": "shop", "kind": "agent", "enabled": True, "updated_at": 1}
        with opened.database.engine.begin() as connection:
            connection.execute(schema.principals.insert().values(row))

    with_remit(shop, add)
    seen(remit(shop, "principal", "list", columns=columns))
    seen(remit(shop, "principal", "list", "--json"))
    seen(remit(shop, "release", "show", "acts", columns=columns))


def test_what_is_logged_is_printable_too(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    remit(shop, "cases")
    assert logging.lastResort is not None
    record = logging.LogRecord("remit", logging.WARNING, "", 0, "can't go on: %s", ("\x1b]52;\u202e",), None)
    logging.lastResort.handle(record)
    sys.stderr.flush()
    assert capsys.readouterr().err == "can't go on: \\x1b]52;\\u202e\n"
