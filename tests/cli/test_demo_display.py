"""What the demo shows of tickets, rules and reasons is text: whatever it holds, nothing of it is obeyed as markup."""

from __future__ import annotations

import pytest
from commands import HOSTILE, MARKUP

from remit.demo.display import Display
from remit.demo.redteam import Tried
from remit.demo.summary import Acts, Summary
from remit.terminal import printable


def summary() -> Summary:
    """The figures of a demo in which nothing happened, by a rule with an odd name."""
    return Summary(
        runs=1,
        outcomes={"denied": 1},
        calls=1,
        verdicts={"deny": 1},
        denied_by={MARKUP: 1},
        held_by={MARKUP: 2},
        limited=0,
        corrected=0,
        correct=1,
        priority_right=0,
        priority_asked=0,
        autonomous=0,
        steps_ms={MARKUP: (1, 1.0, 1.0)},
        p50_ms=1.0,
        p95_ms=1.0,
        cost_microusd=0,
        seconds=1.0,
    )


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> Display:
    monkeypatch.setenv("COLUMNS", "4000")
    return Display()


def test_a_difference_between_tracker_and_journal_is_shown_as_it_is(
    display: Display, capsys: pytest.CaptureFixture[str]
) -> None:
    display.closing(Acts(triaged=(), summary=summary(), tried=(), differences=[HOSTILE], unchanged=True))
    assert f"  {printable(HOSTILE)}" in capsys.readouterr().err


def test_what_stopped_an_attack_is_shown_as_it_is(display: Display, capsys: pytest.CaptureFixture[str]) -> None:
    display.attacks([Tried(attack=MARKUP, stopped=True, by=HOSTILE)], unchanged=False)
    said = capsys.readouterr().err
    assert printable(MARKUP) in said
    assert printable(HOSTILE) in said
    assert "compared before and after: CHANGED" in said


def test_names_of_rules_and_tools_are_shown_as_they_are(display: Display, capsys: pytest.CaptureFixture[str]) -> None:
    display.summary(summary())
    said = capsys.readouterr().err
    assert said.count(printable(MARKUP)) == 3
    assert "1 in 1.0 s · denied 1" in said


def test_what_is_said_is_text(display: Display, capsys: pytest.CaptureFixture[str]) -> None:
    display.say(HOSTILE, indent=2)
    display.command("remit show '[/]'", "[/] \x1b")
    with display.step(MARKUP):
        pass
    said = capsys.readouterr().err
    assert printable(HOSTILE) in said
    assert "remit show '[/]'  # [/] \\x1b" in said
    assert f"✓ {MARKUP}" in said
