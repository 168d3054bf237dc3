"""Values that are known in a run are concealed in time that grows with the text and with their number, and no faster."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.journal.literals import Literals, replaced
from remit.journal.redaction import Redactor
from remit.journal.variants import folded


def redactor(*values: str) -> Redactor:
    own = Redactor(key=b"k" * 32, secrets=["correct-horse-battery-staple"]).for_run()
    for value in values:
        own.note("personal", value)
    return own


# Each of these took the square of its length: at this size that is minutes, or hours.
HOSTILE = {
    "the value again and again": ("Anna", "Anna "),
    "within longer words": ("Anna", "AnnaAnna"),
    "in another spelling": ("Anna Lee", "ANNA-LEE, "),
    "a long value that nearly stands there": ("ab " * 20_000 + "a", "ab "),
    "a value of one letter": ("aaaaaaaa", "a"),
}


@pytest.mark.parametrize(("value", "unit"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_megabyte_that_is_made_of_a_known_value_is_redacted(value: str, unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    shown = redactor(value).redact({"text": text}).value["text"]
    assert ("Anna " in shown) is False


def test_many_values_are_known_and_found() -> None:
    names = [f"Name{number:05} Surname" for number in range(5_000)]
    own = redactor(*names)
    shown = own.text(" and ".join(names))
    assert "Surname" not in shown
    assert len(set(shown.split(" and "))) == len(names)


@pytest.mark.parametrize("size", [1_000, 100_000, 1_400_000])
@pytest.mark.parametrize("unit", ["x", "Zürich ", "(a|b)*", "\\"])
def test_a_value_of_any_length_is_concealed_and_nothing_is_said_of_it(
    size: int, unit: str, capfd: pytest.CaptureFixture[str]
) -> None:
    value = (unit * size)[:size]
    own = redactor()
    own.redact({"note": value}, {"note": "personal"})
    shown = own.redact({"text": f"said: {value}!", "other": [value]})
    assert value not in str(shown.value)
    assert "personal" in shown.kinds
    assert capfd.readouterr() == ("", "")


def test_of_values_that_overlap_nothing_is_left() -> None:
    shown = redactor("Anna", "Anna Lee", "Lee Smith").text("to Anna Lee Smith, Anna Lee and Anna")
    assert [name for name in ("Anna", "Lee", "Smith") if name in shown] == []
    assert shown.count("<personal:") == 3


@given(st.lists(st.text("ab ", min_size=4, max_size=6), max_size=4), st.text("ab ,", max_size=40))
@settings(deadline=None, max_examples=300)
def test_no_known_value_is_left_as_a_word_of_its_own(values: list[str], text: str) -> None:
    known = Literals()
    for value in values:
        known.add("personal", value)
    shown = replaced(text, known.found(text), lambda kind, _: f"<{kind}>")
    assert Literals.found(known, shown) == []


@given(st.text())
@settings(deadline=None)
def test_a_text_is_folded_as_a_whole_as_it_is_character_by_character(text: str) -> None:
    data = text.encode(errors="replace")
    assert folded(data) == b"".join(folded(character.encode(errors="replace")) for character in data.decode())
