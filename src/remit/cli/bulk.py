"""Many cases decided alike: first how many they are and what holds them, then, once that is confirmed, the decisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from remit.cli.case_page import status_of
from remit.terminal import line, print_lines, reporting, style_of

if TYPE_CHECKING:
    from rich.text import Text

    from remit.app import Remit
    from remit.cases.cases import Case, CaseResult, Decision
    from remit.cli.options import Many

_AT_A_TIME = 500
"""So many are decided with one token, which lives for minutes only."""
_NAMED = 10
"""How many rules are counted by name."""


def chosen(remit: Remit, decision: Decision, many: Many) -> list[Case]:
    """The cases that the filters leave and that can be decided so: approvals are approved or denied, others resolved."""
    asked = many.asked(remit)
    approvals = decision != "resolved"
    if approvals:
        asked.setdefault("kind", "approval")
    found = remit.cases.list(remit.tenant, limit=max(1, remit.cases.count(remit.tenant, **asked)), **asked)
    now = remit.clock()
    return [case for case in found if (case.kind == "approval") == approvals and status_of(case, now) == "open"]


def announce(cases: list[Case], decision: Decision, person: str) -> None:
    """What would be done, and how to do it."""
    lines = [line(f"{_cases(len(cases))} would be ", (decision, style_of(decision)), f" by person/{person}")]
    lines += counted(cases)
    said = "nothing was done; the same with `--yes` does it" if cases else "`remit cases` lists what is open"
    print_lines([*lines, line((said, "dim"))])


async def decide_all(remit: Remit, cases: list[Case], decision: Decision, person: str, reason: str) -> bool:
    """Decide them and say what became of them; whether all were."""
    done: list[CaseResult] = []
    for first in range(0, len(cases), _AT_A_TIME):
        some, token = cases[first : first + _AT_A_TIME], remit.person_token(person)
        done += await remit.cases.decide_all([case.case for case in some], decision, token=token, reason=reason)
    decided = sum(item.decided is not None for item in done)
    with reporting(f"{decided} of {_cases(len(done))} {decision}"):
        lines = [line(f"{decided:,} of {_cases(len(done))} ", (decision, style_of(decision)), f" by person/{person}")]
        lines += _not_decided(done)
        if decided and decision != "resolved":
            lines.append(line(("`remit worker` goes on with their runs", "dim")))
        print_lines(lines)
    return decided == len(done)


def _not_decided(done: Iterable[CaseResult]) -> Iterator[Text]:
    """Why some were not: each reason once, with the first of them as an example."""
    codes = Counter(item.error.code for item in done if item.error is not None)
    for code, count in codes.most_common():
        first = next(item.error for item in done if item.error is not None and item.error.code == code)
        yield line(f"  {count:,} not: ", (f"{first.message} ({code})", "red"))


def counted(cases: Iterable[Case]) -> Iterator[Text]:
    """How many cases there are of each rule that holds a call, and of each other kind."""
    counts = Counter(name for case in cases for name in held_by(case))
    wide = max((len(f"{count:,}") for count in counts.values()), default=0)
    for name, count in counts.most_common(_NAMED):
        yield line(f"  {f'{count:,}':>{wide}}  {name}")
    if len(counts) > _NAMED:
        yield line((f"  and {len(counts) - _NAMED} more", "dim"))


def held_by(case: Case) -> list[str]:
    """The rules that ask for an approval; what else a case is about is its kind."""
    return case.reason.split(", ") if case.kind == "approval" else [case.kind]


def _cases(count: int) -> str:
    return f"{count:,} case{'' if count == 1 else 's'}"
