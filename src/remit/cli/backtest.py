"""`remit backtest`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit.cli.options import MOST, spread
from remit.terminal import JsonOption, Part, ProjectOption, line, print_json, print_lines, style_of, width, with_remit

if TYPE_CHECKING:
    from rich.text import Text

    from remit.app import Remit
    from remit.backtest.backtest import Result
    from remit.backtest.proposals import Alternative

_SHOWN_ID = 12
"""`run-` and eight characters, as `remit show` takes them."""


class FailOn(StrEnum):
    """What makes a pipeline stop."""

    LOOSENED = "loosened"
    TIGHTENED = "tightened"
    HELD = "held"
    UNDETERMINED = "undetermined"


@dataclass(frozen=True, kw_only=True)
class JudgedBy:
    """By what the past is judged; without any of it, by the contract as it is now."""

    policy: Annotated[
        Path | None, typer.Option("--policy", metavar="FILE", help="Judge by this policy.cedar.", show_default=False)
    ] = None
    contract: Annotated[
        Path | None,
        typer.Option("--contract", metavar="PATH", help="Judge by this contract.yaml, or the contract in this folder."),
    ] = None
    release: Annotated[
        str | None, typer.Option("--release", metavar="DIGEST", help="Judge by this release; its beginning is enough.")
    ] = None
    name: Annotated[
        str | None, typer.Option("--for", metavar="CONTRACT", help="Whose runs, where the project has several contracts.")
    ] = None

    def alternative(self) -> Alternative:
        """What is meant. Raises `ConfigError`."""
        from remit.backtest.proposals import Alternative
        from remit.errors import ConfigError

        if sum(given is not None for given in (self.policy, self.contract, self.release)) > 1:
            raise ConfigError("`--policy`, `--contract` and `--release` each say by what to judge; give one of them")
        return Alternative(policy=self.policy, contract=self.contract, release=self.release, contract_name=self.name)


@dataclass(frozen=True, kw_only=True)
class OfThePast:
    """Which decisions are made again."""

    since: Annotated[
        str | None,
        typer.Option("--since", metavar="WHEN", help="Only what was decided since, such as `7d` or `2026-11-01`."),
    ] = None
    last: Annotated[int | None, typer.Option("--last", metavar="N", min=1, max=MOST, help="Only the last N runs.")] = None


@spread
def backtest(
    by: JudgedBy,
    of: OfThePast,
    fail_on: Annotated[
        list[FailOn] | None, typer.Option("--fail-on", metavar="CHANGE", help="Exit with 3 if some decision is loosened, tightened, held or undetermined; may be said again.")
    ] = None,
    json: JsonOption = False,
    project: ProjectOption = None,
) -> None:
    """Decide every recorded call again, under other terms.

    What would have been denied, asked or allowed. Nothing is carried out; that it was done is on record.
    """

    async def use(remit: Remit) -> tuple[str, Result]:
        from remit.backtest.judging import Judging, judge_on_record
        from remit.backtest.proposals import proposed_terms
        from remit.cli.counting import counting
        from remit.cli.times import since_us

        terms = proposed_terms(remit, by.alternative())
        with counting(f"judging the record of {terms.name}") as shown:
            judging = Judging(since_us=since_us(of.since, remit.clock()), last_runs=of.last, on_entry=shown)
            return terms.name, await judge_on_record(remit, terms, judging)

    judged, result = with_remit(project, use)
    if json:
        print_json({"contract": judged, **result.as_json()})
    else:
        print_lines([*report_lines(judged, result)])
    found = [kind for kind in fail_on or () if result.firm.changes[kind] or result.hypothetical.changes[kind]]
    raise typer.Exit(3 if found else 0)


def report_lines(contract: str, result: Result) -> Iterator[Text]:
    """What a backtest has found, for people."""
    found = result.as_json()
    runs = f"{found['runs']:,} run{'' if found['runs'] == 1 else 's'}"
    yield line(
        (f"{found['decisions']:,}", "bold"),
        f" decision{'' if found['decisions'] == 1 else 's'} in {runs} of {contract}, {found['reproduced']:,} reproduced under their own terms first",
    )
    yield line(*_counts(found))
    yield from _changes(found)
    yield from _meaning(found)
    hypothetical = found["hypothetical"]
    if hypothetical["decisions"]:
        many = "" if hypothetical["decisions"] == 1 else "s"
        parts: list[Part] = [f"hypothetical, behind a change in its run: {hypothetical['decisions']:,} decision{many}:"]
        yield line(*parts, *_counts(hypothetical))


def _counts(found: dict[str, Any]) -> Iterator[Part]:
    words = (
        ("same", "same", ""),
        ("held", "now held", style_of("held")),
        ("tightened", "tightened", style_of("denied")),
        ("loosened", "loosened", "bold red"),
        ("undetermined", "undetermined", "dim"),
    )
    for number, (key, said, style) in enumerate(words):
        yield " · " if number else " "
        yield (f"{found[key]:,} {said}", style if found[key] else "")


def _changes(found: dict[str, Any]) -> Iterator[Text]:
    from remit.cli.layout import table

    rows: list[list[Text]] = []
    for name in ("rule", "tool", "contract", "principal"):
        groups: list[dict[str, Any]] = found["by"][name]
        # Of one contract there is one, and one principal: said where there is more to tell.
        if name in ("contract", "principal") and len(groups) < 2:
            continue
        rows += [_group(name, row[name], row) for row in groups]
    rows += [_group("can't tell", row["reason"], row) for row in found["undetermined_because"]]
    if rows:
        yield line("")
        yield from table(["by", "what", "how many", "tools", "such as (run, step)"], rows, width(), drop=["tools"])


def _group(name: str, what: str, row: dict[str, Any]) -> list[Text]:
    kinds = {"held": "held", "tightened": "tightened", "loosened": "loosened", "undetermined": "undetermined"}
    counts = ", ".join(f"{row[kind]:,} {said}" for kind, said in kinds.items() if row.get(kind))
    return [
        line((name, "dim")),
        line((what, "bold")),
        line(counts),
        line(" ".join(row["tools"][:3])),
        line(", ".join(_example(each) for each in row["examples"][:2])),
    ]


def _example(place: str) -> str:
    run, _, step = place.partition(" ")
    return f"{run[:_SHOWN_ID]} {step}"


def _meaning(found: dict[str, Any]) -> Iterator[Text]:
    said: list[str] = []
    asked: dict[str, int] = found["approvals"]
    if asked:
        said.append("approvals asked: " + ", ".join(f"{count:,} of {role}" for role, count in asked.items()))
    for key, what in (("stopped", "stopped"), ("let_through", "let through")):
        writes, money = found[key]["writes"], found[key]["money"]
        if writes or money:
            moved = "".join(f", {_amount(amount)} {currency}" for currency, amount in money.items())
            said.append(f"{what}: {writes:,} write{'' if writes == 1 else 's'}{moved}")
    if said:
        yield line("")
        yield from (line(text) for text in said)


def _amount(text: str) -> str:
    whole, _, decimals = text.partition(".")
    return f"{int(whole):,}.{decimals.rstrip('0').ljust(2, '0')}"
