"""A replay as one self-contained page: nothing is loaded, nothing runs in it, and every text stays text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, cast

from remit.cli.replay_table import act_text, arguments, chance_text, change_text, values
from remit.replay.report import ReplayReport
from remit.terminal import clock_time, printable, span_text

if TYPE_CHECKING:
    from remit.replay.calls import CallLine
    from remit.replay.counterfactual import Cohort, TriedRun
    from remit.replay.recorded import RecordedRun
    from remit.replay.report import Replayed

_GOOD = frozenset({"verified", "identical", "completed", "allow"})
_BAD = frozenset({"diverged", "deny", "denied", "failed", "unknown", "stuck"})
_OPEN = frozenset({"undetermined", "hold", "held", "escalated", "missed", "defer", "deferred", "reject", "rejected"})

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #667078; --page: #fff; --card: #f6f7f8; --line: #dfe3e6;
  --good: #1a7f46; --bad: #b3261e; --open: #9a5b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8eb; --dim: #98a2aa; --page: #14171a; --card: #1c2024;
  --line: #30363b; --good: #5cc98a; --bad: #ff8a80; --open: #f0b35a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 78rem; padding: 2rem 1.25rem 4rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.35rem; margin: 0 0 .25rem; } .dim { color: var(--dim); }
.counts { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.25rem 0 1.75rem; padding: 0; list-style: none; }
.counts li { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .5rem .9rem; }
.counts b { display: block; font-size: 1.4rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
details.run { border: 1px solid var(--line); border-radius: .5rem; margin: .5rem 0; background: var(--page); }
details.run > summary { cursor: pointer; padding: .55rem .9rem; display: flex; flex-wrap: wrap; gap: .3rem 1rem;
  align-items: baseline; }
details.run > summary::before { content: "▸"; color: var(--dim); } details.run[open] > summary::before { content: "▾"; }
details.run > div { padding: 0 .9rem .9rem; border-top: 1px solid var(--line); }
summary .about { flex: 1 1 16rem; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
code, .mono { font: 13px/1.45 ui-monospace, monospace; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; margin: .8rem 0; }
.wide { overflow-x: auto; } th { text-align: left; font-weight: 500; color: var(--dim); font-size: 13px; }
th, td { padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.time { white-space: nowrap; font-variant-numeric: tabular-nums; color: var(--dim); }
td .below { color: var(--dim); font-size: 13.5px; overflow-wrap: anywhere; }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; } .open { color: var(--open); }
.apart { border-left: 3px solid var(--bad); background: var(--card); padding: .6rem .9rem; margin: .8rem 0; }
.apart dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: .4rem 0 0; }
.apart dt { color: var(--dim); font-size: 13px; } .apart dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
p.note { color: var(--open); margin: .6rem 0; overflow-wrap: anywhere; } p.end { margin: .6rem 0; overflow-wrap: anywhere; }
"""


def page(found: ReplayReport | Cohort) -> str:
    """The page of a replay, or of a counterfactual."""
    return "".join(_page(found))


def _page(found: ReplayReport | Cohort) -> Iterator[str]:
    title = "Replay" if isinstance(found, ReplayReport) else f"What if: {_plain(found.change.text)}"
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    # Were anything of a text taken for markup after all, a browser would still run and load nothing.
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">'
    yield f"<title>{_text(title)} · Remit</title><style>{_STYLE}</style></head><body>"
    if isinstance(found, ReplayReport):
        yield from _report(found)
    else:
        yield from _cohort(found)
    yield "</body></html>\n"


def _plain(text: str) -> str:
    return text.replace("`", "")


def _text(text: object) -> str:
    """Text as text: no markup, and every character of it can be seen."""
    return escape(printable(text), quote=True)


def _word(word: str) -> str:
    """An outcome, a verdict or a result, in its colour."""
    kind = "good" if word in _GOOD else "bad" if word in _BAD else "open" if word in _OPEN else ""
    return f'<span class="{kind}">{_text(word)}</span>'


# A replay.

_LEVELS = {
    0: "The chain of every run was checked, link by link.",
    1: "The code ran again over the recorded answers of each run, as far as that can be done; nothing was dispatched.",
    2: "Each decision of policy was made again by the policy that made it, as far as the record suffices.",
}


def _report(report: ReplayReport) -> Iterator[str]:
    yield f"<h1>Replay of {len(report.runs)} runs</h1>"
    code = f", {report.code} code" if report.level == 1 else ""
    yield f'<div class="dim">{_text(report.tenant)} · level {report.level}{code} · {clock_time(report.at)} UTC</div>'
    yield f'<p class="dim">{_LEVELS[report.level]} What is shown is what the record shows: redacted.</p>'
    yield from _counts(report.counts)
    for why, count in report.reasons:
        if count > 1:
            yield f'<p class="note">{count:,} undetermined: {_text(why)}</p>'
    for each in report.runs:
        yield from _run(each)


def _counts(counts: dict[str, int]) -> Iterator[str]:
    yield '<ul class="counts">'
    for name, count in counts.items():
        kind = "good" if name in _GOOD else "bad" if name in _BAD and count else "open" if name in _OPEN and count else ""
        yield f'<li><b class="{kind}">{count:,}</b>{_text(name.replace("_", " "))}</li>'
    yield "</ul>"


def _run(each: Replayed) -> Iterator[str]:
    recorded = each.recorded
    is_open = " open" if each.result == "diverged" else ""
    yield f'<details class="run"{is_open}>{_summary(recorded, each.result)}<div>'
    yield f'<p class="dim mono">{_text(recorded.run)} · release {_text(recorded.release[:12])}</p>'
    for said in (each.why, each.note):
        if said:
            yield f'<p class="note">{_text(said)}</p>'
    yield from _apart(each)
    yield from _calls(each.lines)
    undecided = [one for one in each.decisions if one.reproduced is not True]
    for one in undecided:
        now = f"now {one.now}" if one.now else one.why
        yield f'<p class="note">step {_text(one.step)} {_text(one.tool)}: recorded {_text(one.recorded)}, {_text(now)}</p>'
    yield _end(recorded)
    yield "</div></details>"


def _summary(recorded: RecordedRun, result: str) -> str:
    opened: dict[str, Any] = cast("dict[str, Any]", recorded.events[0].body or {}) if recorded.events else {}
    about = values(opened.get("request"), 120) if opened else ""
    if recorded.undoes:
        about = f"undoes {recorded.undoes.removeprefix('run-')[:8]}"
    behalf = f' <span class="dim">for {_text(opened["on_behalf_of"])}</span>' if opened.get("on_behalf_of") else ""
    return (
        f"<summary><code>{_text(recorded.run.removeprefix('run-')[:8])}</code><span>{_text(recorded.contract)}</span>"
        f'<span class="dim">{clock_time(recorded.opened_at)}</span><span class="about dim">{_text(about)}{behalf}</span>'
        f"{_word(recorded.outcome)}<b>{_word(result)}</b></summary>"
    )


def _apart(each: Replayed) -> Iterator[str]:
    found = each.divergence
    if found is None:
        return
    at = "its end" if found.step == "end" else f"step {found.step}"
    differing = f" (not the same: {', '.join(found.differing)})" if found.differing else ""
    rows = [("expected", act_text(found.expected)), ("came", act_text(found.came) + differing), ("likely cause", each.cause)]
    yield f'<div class="apart"><span class="bad">diverged at {_text(at)}</span><dl>'
    yield from (f"<dt>{name}</dt><dd><code>{_text(_plain(said))}</code></dd>" for name, said in rows)
    yield "</dl></div>"


def _calls(lines: Sequence[CallLine]) -> Iterator[str]:
    if not lines:
        return
    heads = ("step", "tool and arguments", "verdict", "rule", "outcome", "time")
    yield '<div class="wide"><table><thead><tr>'
    yield from (f"<th>{name}</th>" for name in heads)
    yield "</tr></thead><tbody>"
    for one in lines:
        took = span_text(one.took_us) if one.took_us else ""
        below = "".join(f'<div class="below">{_text(said)}</div>' for said in _said(one))
        yield (
            f'<tr><td class="mono">{_text(one.step)}</td>'
            f"<td><b>{_text(one.tool)}</b> <code>{_text(arguments(one, None))}</code>{below}</td>"
            f'<td>{_word(one.verdict)}</td><td class="mono">{_text(" ".join(one.rules))}</td>'
            f'<td>{_word(one.outcome)}</td><td class="time">{_text(took)} {_text(one.answered)}</td></tr>'
        )
    yield "</tbody></table></div>"


def _said(one: CallLine) -> Iterable[str]:
    if one.untrusted:
        yield f"from text that outsiders wrote: {', '.join(one.untrusted)}"
    if one.said and one.outcome != "completed":
        yield one.said
    if one.person:
        yield f"{one.person} after {span_text(one.answered_after_us)}"
    if one.result is not None:
        yield f"→ {values(one.result, 400)}"


def _end(recorded: RecordedRun) -> str:
    body = cast("dict[str, Any]", (recorded.closed.body or {}) if recorded.closed is not None else {})
    output = values(body["output"], None) if body.get("output") is not None else ""
    return f'<p class="end">{_word(recorded.outcome)} <code>{_text(recorded.reason or output)}</code></p>'


# A counterfactual.


def _cohort(cohort: Cohort) -> Iterator[str]:
    yield f"<h1>What if: {_text(_plain(cohort.change.text))}</h1>"
    yield f'<div class="dim">{clock_time(cohort.at)} UTC · {_times(cohort.samples)} with the change, and as often without</div>'
    if change_text(cohort) != cohort.change.text:
        yield f'<div class="dim">change: {_text(_plain(change_text(cohort)))}</div>'
    yield '<p class="dim">Models were asked live, tools answered, no write was sent; nothing of this counts in any metric.</p>'
    yield from _counts(cohort.counts)
    yield '<div class="wide"><table><thead><tr><th></th><th>how trials end</th><th>calls</th><th>cost</th>'
    yield "<th>otherwise than on record</th></tr></thead><tbody>"
    for name, title in (("baseline", "without"), ("changed", "with the change")):
        arm: Any = cohort.arm(name)
        ends = ", ".join(f"{_word(outcome)} {count}" for outcome, count in arm["outcomes"].items())
        yield f"<tr><td>{title}</td><td>{ends}</td><td>{arm['calls']:.1f}</td><td>{arm['cost_microusd'] / 1e6:.4f} USD</td>"
        yield f"<td>{arm['otherwise_than_on_record']} of {arm['trials']}</td></tr>"
    yield "</tbody></table></div><div class=\"wide\"><table><thead><tr><th>difference by run</th><th>more with the change</th>"
    yield "<th>fewer</th><th>the same</th><th>by chance (sign test)</th></tr></thead><tbody>"
    for name, test in cohort.tests.items():
        yield f"<tr><td>{_text(name)}</td><td>{test.up}</td><td>{test.down}</td><td>{test.same}</td>"
        yield f"<td>{_text(chance_text(test.p_value))}</td></tr>"
    yield "</tbody></table></div>"
    for each in cohort.runs:
        yield from _tried(each)


def _times(samples: int) -> str:
    return "each run tried once" if samples == 1 else f"each run tried {samples} times"


def _tried(each: TriedRun) -> Iterator[str]:
    otherwise = bool(each.changed) and each.is_otherwise
    apart = each.apart
    same = "as before" if apart is None else "does otherwise"
    result = "not tried" if each.why else "ends otherwise" if otherwise else same
    yield f'<details class="run"{" open" if otherwise else ""}>{_summary(each.recorded, result)}<div>'
    if each.why:
        yield f'<p class="note">{_text(each.why)}</p>'
    if apart is not None:
        at = "the end" if apart.step == "end" else f"step {apart.step}"
        said = f"At {at}: {apart.before}; with the change {apart.after}"
        yield f'<p class="note">{_text(_plain(said))}</p>'
    for title, trials in (("Without the change", each.baseline), ("With the change", each.changed)):
        for number, trial in enumerate(trials, start=1):
            which = f" ({number} of {len(trials)})" if len(trials) > 1 else ""
            yield f"<p><b>{title}</b>{which}: {_word(trial.outcome)} {_text(trial.reason)}</p>"
            yield from _calls(trial.lines)
    yield "</div></details>"
