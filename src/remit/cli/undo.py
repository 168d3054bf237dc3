"""`remit undo`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from remit.cli.options import spread
from remit.cli.runs import RunArgument
from remit.terminal import JsonOption, ProjectOption, line, print_json, print_lines, reporting, width, with_remit

if TYPE_CHECKING:
    from rich.text import Text

    from remit.app import Remit
    from remit.runs.program import RunResult
    from remit.undo.undoing import Foreseen, Outlook

_STEP = 7


@dataclass(frozen=True, kw_only=True)
class UndoOptions:
    """Who undoes what, and why."""

    by: Annotated[
        str,
        typer.Option(
            "--as", metavar="PERSON", help="Who undoes it: a person of remit.toml whom record.cedar lets.", show_default=False
        ),
    ]
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept on record.", show_default=False)] = ""
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be done, and do nothing.")] = False
    overwrite: Annotated[
        list[str] | None,
        typer.Option(metavar="STEP", help="Undo this step even if somebody has changed its object since; repeatable."),
    ] = None


@spread
def undo(run: RunArgument, options: UndoOptions, json: JsonOption = False, project: ProjectOption = None) -> None:
    """Take back what a run did, newest first.

    Each step is undone by its tool's compensation, as a call through the gate on behalf of that person. What somebody
    has changed since is left alone, and what can't be undone is said. Interrupted, the same command goes on.
    """
    steps = tuple(options.overwrite or ())

    async def foresee(remit: Remit) -> Outlook:
        found, token = _asked(remit, run, options.by)
        return await remit.undoing.outlook(found, token=token, reason=options.reason, overwrite=steps)

    async def carry_out(remit: Remit) -> RunResult:
        found, token = _asked(remit, run, options.by)
        return await remit.undoing.undo(found, token=token, reason=options.reason, overwrite=steps)

    if options.plan:
        outlook = with_remit(project, foresee)
        if json:
            print_json(_outlook_json(outlook))
        else:
            print_lines([*_outlook_lines(outlook)])
        return
    result = with_remit(project, carry_out)
    with reporting(f"the undo {result.run} is {result.outcome}, see `remit show {result.run}`"):
        if json:
            print_json(asdict(result))
        else:
            print_lines([*_result_lines(result)])
    output: dict[str, Any] = result.output or {}
    raise typer.Exit(0 if result.outcome in ("completed", "held", "waiting") and not output.get("remaining") else 3)


def _asked(remit: Remit, run: str, by: str) -> tuple[str, str]:
    from remit.cli.lookup import find, find_person

    return find(remit, "run", run), remit.person_token(find_person(remit, by))


def _outlook_json(outlook: Outlook) -> dict[str, Any]:
    plan = outlook.plan
    calls: list[dict[str, Any]] = [
        {
            "step": each.call.step,
            "undoes": each.call.undoes,
            "tool": each.call.tool,
            "args": each.shown,
            "would_be": _fate(each),
            "why": each.why,
        }
        for each in outlook.foreseen
    ]
    return {"run": plan.run, "calls": calls, "remaining": msgspec.to_builtins(plan.remaining)}


def _fate(foreseen: Foreseen) -> str:
    if not foreseen.why:
        return "undone"
    return "nothing to do" if foreseen.is_done else "held" if foreseen.held else "left"


_STYLES = {"undone": "green", "held": "yellow", "nothing to do": "dim", "left": "red"}
_WOULD_BE = {"undone": "would be undone", "held": "would be held", "nothing to do": "nothing to do", "left": "would be left"}


def _outlook_lines(outlook: Outlook) -> Iterator[Text]:
    """What can't be undone comes first: whoever reads only the beginning must not miss it."""
    from remit.cli.layout import hanging
    from remit.cli.readable import name_text, pairs

    plan = outlook.plan
    yield line((f"run {plan.run}", "bold"), f" · {plan.contract} · newest first")
    for left in plan.remaining:
        said = line((name_text(left.tool), "bold"), "  ", ("stays", "red"), f": {left.why}")
        yield from hanging(line(f"{left.step:>5}  "), said, _STEP, width())
    for each in outlook.foreseen:
        fate, call = _fate(each), each.call
        args = " ".join(pairs(dict(each.shown), None if width() is None else 60))
        said = line((name_text(call.undoes), "bold"), f"  by {call.tool}  {args}  ", (_WOULD_BE[fate], _STYLES[fate]))
        if each.why:
            said.append(f": {each.why}")
        yield from hanging(line(f"{call.step:>5}  "), said, _STEP, width())
    if not outlook.foreseen and not plan.remaining:
        yield line(("it changed nothing", "dim"))


def _result_lines(result: RunResult) -> Iterator[Text]:
    from remit.cli.layout import hanging
    from remit.cli.readable import name_text
    from remit.cli.run_list import result_lines

    yield from result_lines(result)
    output: dict[str, Any] = result.output or {}
    for each in output.get("undone", ()):
        yield line(f"{each['step']:>5}  ", (name_text(each["tool"]), "bold"), f"  by {each['by']}  ", ("undone", "green"))
    for each in output.get("remaining", ()):
        said = line((name_text(each["tool"]), "bold"), "  ", ("stays", "red"), f": {each['why']}")
        yield from hanging(line(f"{each['step']:>5}  "), said, _STEP, width())
    if result.case:
        yield line(f"  waits in {result.case}; see `remit case {result.case}`; then it goes on by itself")
