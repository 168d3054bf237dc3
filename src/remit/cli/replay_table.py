"""A replay in lines: each run, every call and decision in it, and the result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from remit.cli.layout import hanging, table
from remit.cli.readable import name_text, pairs, value_text
from remit.terminal import UNTRUSTED, Part, line, short_time, span_text, style_of, width

if TYPE_CHECKING:
    from rich.text import Text

    from remit.replay.calls import CallLine
    from remit.replay.compare import Act
    from remit.replay.counterfactual import Cohort, TriedRun
    from remit.replay.recorded import RecordedRun
    from remit.replay.report import Replayed, ReplayReport

_SHORT = 40
_BELOW = 9
"""The column of what is said below a line."""

_STYLES = {
    "verified": "green",
    "identical": "green",
    "diverged": "bold red",
    "undetermined": UNTRUSTED,
    "missed": UNTRUSTED,
}


def report_lines(report: ReplayReport) -> list[Text]:
    """The whole replay: its runs, the oldest first, and the result of all."""
    made: list[Text] = []
    for each in report.runs:
        made += [*_run(each, report), line("")]
    made += _diverged(report)
    made += _undetermined(report)
    made.append(line(*_summary(report)))
    return made


def _summary(report: ReplayReport) -> list[Part]:
    counts = report.counts
    parts: list[Part] = [_many(counts["runs"], "run"), " · ", _many(counts["calls"], "call"), " · ", _many(counts["decisions"], "decision")]
    if report.level == 0:
        parts += [" · ", (f"{counts['verified']} verified", "green")]
    else:
        parts += [" · ", (f"{counts['identical']} identical", "green" if counts["identical"] else "")]
        parts += [" · ", (f"{counts['diverged']} diverged", "bold red" if counts["diverged"] else "")]
    parts += [" · ", (f"{counts['undetermined']} undetermined", UNTRUSTED if counts["undetermined"] else "")]
    if report.level == 2:
        parts.append(f" · of the decisions of policy {counts['reproduced']} reproduced, {counts['not_reproduced']} not")
        parts.append(f", {counts['undetermined_decisions']} undetermined")
    return parts


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _diverged(report: ReplayReport) -> Iterator[Text]:
    for each in report.runs:
        if each.divergence is not None:
            at = each.divergence.step
            yield line((f"{each.recorded.run}", "bold"), f" diverged at {_step(at)}: {each.cause}")


def _undetermined(report: ReplayReport) -> Iterator[Text]:
    """Why, once for all of which it is the same; where nearly every run has a reason of its own, each stands with its run."""
    for why, count in report.reasons:
        if count > 1:
            yield from hanging(line((f"{count} undetermined", UNTRUSTED), ": "), line(why), 4, width())


def _step(step: str) -> str:
    return "its end" if step == "end" else f"step {step}"


def _run(each: Replayed, report: ReplayReport) -> Iterator[Text]:
    recorded, columns = each.recorded, width()
    yield line(*title(recorded, report.at), "   ", (each.result, _STYLES[each.result]))
    if each.lines:
        yield from _calls(each.lines, columns)
    yield from _below("end", _ending(recorded), columns)
    for said in (each.why, each.note):
        if said:
            yield from _below("", [(said, UNTRUSTED)], columns)
    if each.divergence is not None:
        yield from _divergence(each, columns)
    for one in each.decisions:
        if one.reproduced is not True:
            now = f"now {one.now}" if one.now else one.why
            parts: list[Part] = [("not reproduced" if one.now else "undetermined", "bold red" if one.now else UNTRUSTED)]
            yield from _below(one.step, [*parts, f"  {one.tool}  recorded {one.recorded}  {now}"], columns)


def title(recorded: RecordedRun, now: int) -> list[Part]:
    """`run 7f3a21c4 · refunds · release 41c0ab · 10:42:01 · for ann · completed`."""
    opened: dict[str, Any] = cast("dict[str, Any]", recorded.events[0].body or {}) if recorded.events else {}
    parts: list[Part] = [(f"run {recorded.run.removeprefix('run-')[:8]}", "bold"), f" · {recorded.contract}"]
    parts.append(f" · release {recorded.release[:6]} · {short_time(recorded.opened_at, now)}")
    if opened.get("on_behalf_of"):
        parts.append(f" · for {str(opened['on_behalf_of']).removeprefix('person/')}")
    if recorded.undoes:
        parts.append(f" · undoes {recorded.undoes.removeprefix('run-')[:8]}")
    return [*parts, " · ", (recorded.outcome, style_of(recorded.outcome))]


def _ending(recorded: RecordedRun) -> list[Part]:
    body = cast("dict[str, Any]", (recorded.closed.body or {}) if recorded.closed is not None else {})
    said = recorded.reason or (values(body.get("output"), _SHORT) if body.get("output") is not None else "")
    return [(recorded.outcome, style_of(recorded.outcome)), f"  {said}" if said else ""]


def _calls(lines: Sequence[CallLine], columns: int | None) -> Iterator[Text]:
    """The table of a run's decisions, and what was said below each."""
    names = ["  step", "tool", "verdict", "outcome", "time", "rule", "arguments"]
    rows = [_row(one) for one in lines]
    made = table(names, rows, columns, drop=["time", "rule"])
    yield made[0]
    for one, row in zip(lines, made[1:], strict=True):
        yield row
        yield from _said(one, columns)


def _row(one: CallLine) -> list[Text]:
    took = span_text(one.took_us) if one.took_us else ""
    rules = " ".join(one.rules)
    if one.answered:
        took = f"{took} {one.answered}".strip()
    return [
        line(f"{one.step:>6}"),
        line((name_text(one.tool, _SHORT), "bold")),
        line((one.verdict, style_of(one.verdict))),
        line((one.outcome, style_of(one.outcome))),
        line((took, "dim")),
        line(rules),
        line(arguments(one, _SHORT)),
    ]


def arguments(one: CallLine, limit: int | None) -> str:
    """The arguments in one line; those that were not acceptable are not on record."""
    if one.args is None:
        return "" if one.tool == "escalate" else "(not acceptable, and not kept)"
    return values(one.args, limit)


def values(value: Any, limit: int | None) -> str:
    """A value in one line: `issue=12 changes.category=network`."""
    if isinstance(value, dict) and value:
        return " ".join(pairs(cast("dict[str, Any]", value), limit))
    return value_text(value, limit)


def _said(one: CallLine, columns: int | None) -> Iterator[Text]:
    if one.untrusted:
        yield from _below("", [(f"from text that outsiders wrote: {', '.join(one.untrusted)}", UNTRUSTED)], columns)
    if one.said and one.outcome != "completed":
        yield from _below("", [one.said], columns)
    if one.person:
        yield from _below("", [f"{one.person} after {span_text(one.answered_after_us)}"], columns)


def _below(head: str, parts: Sequence[Part], columns: int | None) -> Iterator[Text]:
    yield from hanging(line(f"{head:>6}  "), line(*parts), _BELOW, columns)


def _divergence(each: Replayed, columns: int | None) -> Iterator[Text]:
    found = each.divergence
    assert found is not None
    yield line("  ", (f"diverged at {_step(found.step)}", "bold red"))
    yield from hanging(line("    expected "), line(act_text(found.expected)), 13, columns)
    differing = f"  (not the same: {', '.join(found.differing)})" if found.differing else ""
    yield from hanging(line("    came     "), line(act_text(found.came), (differing, "bold")), 13, columns)
    yield from hanging(line("    likely   "), line(each.cause), 13, columns)


def act_text(act: Act) -> str:
    """What a run did, in words, with its values."""
    shown = values(act.values, 200) if act.values not in (None, {}) else ""
    return f"{act.what} {shown}".rstrip()


def cohort_lines(cohort: Cohort) -> list[Text]:
    """A counterfactual: the runs that come out otherwise, how all end with the change and without it, and chance."""
    made: list[Text] = []
    for each in cohort.runs:
        made += _tried(each, cohort.at)
    made.append(line(""))
    times = "once" if cohort.samples == 1 else f"{cohort.samples} times"
    made.append(line(f"change: {change_text(cohort)}; each run tried {times} with it, and as often without"))
    for name in ("baseline", "changed"):
        made.append(line(f"  {name:<9}", *_arm(cohort.arm(name))))
    made.append(line("differences by run, with the change against without it, and how likely chance alone makes as much:"))
    for name, test in cohort.tests.items():
        moved = f"{test.up} more, {test.down} fewer, {test.same} the same"
        made.append(line(f"  {name:<31}{moved:<36}{chance_text(test.p_value)}"))
    counts = cohort.counts
    parts: list[Part] = [f"{_many(counts['runs'], 'run')} · {counts['tried']} tried · {counts['otherwise']} end otherwise"]
    parts.append(f" · {counts['missed']} trials missed an answer · {counts['simulated']} writes simulated, none sent")
    return [*made, line(*parts)]


def change_text(cohort: Cohort) -> str:
    """The change, and where that says more, which parts of which release are others with it; nothing else is."""
    parts = [f"{', '.join(parts)} of `{contract}`" for contract, parts in cohort.parts.items() if [*parts] != [cohort.change.text]]
    return f"{cohort.change.text} (in the release: {'; '.join(parts)})" if parts else cohort.change.text


def chance_text(p_value: float) -> str:
    """`p = 0.031`; a very small one is not said to be none."""
    return f"p = {p_value:.3f}" if p_value >= 0.0005 else "p < 0.001"


def _arm(arm: dict[str, Any]) -> list[Part]:
    ends = "  ".join(f"{outcome} {count}" for outcome, count in arm["outcomes"].items())
    spent = f"{arm['calls']:.1f} calls and {arm['cost_microusd'] / 1e6:.4f} USD a trial"
    return [f"{ends}   {spent}   otherwise than on record {arm['otherwise_than_on_record']} of {arm['trials']}"]


def _tried(each: TriedRun, now: int) -> Iterator[Text]:
    if each.why:
        yield line(*title(each.recorded, now), "   ", ("not tried", UNTRUSTED), f": {each.why}")
        return
    apart = each.apart
    mark = ("ends otherwise", "bold") if each.is_otherwise else ("as before", "dim") if apart is None else ("does otherwise", "")
    yield line(*title(each.recorded, now), "   ", mark)
    if apart is not None:
        said = f"at {_step(apart.step)}: {apart.before}; with the change {apart.after}"
        yield from _below("", [said], width())
    for name, trials in (("without", each.baseline), ("with", each.changed)):
        for trial in trials if each.is_otherwise else ():
            said = f" {trial.reason}" if trial.reason else ""
            style = _STYLES.get(trial.outcome, style_of(trial.outcome))
            yield from _below(name, [(trial.outcome, style), said, f" · {trial.calls} calls"], width())
