"""Reports of classifiers as one self-contained page: reliability diagrams drawn as SVG, nothing loaded, nothing run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from remit.terminal import printable

if TYPE_CHECKING:
    from remit.models.calibration import Bin
    from remit.models.report import HeadReport, ModelReport

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #667078; --page: #fff; --line: #dfe3e6; --bar: #7ba7d9;
  --mark: #b3261e; --hit: 26, 127, 70; --miss: 179, 38, 30; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8eb; --dim: #98a2aa; --page: #14171a; --line: #30363b;
  --bar: #4b78ab; --mark: #ff8a80; --hit: 92, 201, 138; --miss: 255, 138, 128; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 2rem 1.25rem 4rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.35rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .25rem; } .dim { color: var(--dim); }
.side { display: flex; flex-wrap: wrap; gap: 2rem; align-items: flex-start; margin-top: 1rem; }
svg { width: 22rem; max-width: 100%; height: auto; } svg text { fill: var(--dim); font: 11px system-ui, sans-serif; }
.bar { fill: var(--bar); } .mark { stroke: var(--mark); stroke-width: 3; } .axis { stroke: var(--line); } .even { stroke: var(--dim);
  stroke-dasharray: 4 4; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; text-align: right; border: 1px solid var(--line); font-size: 13px; } th { font-weight: 500; }
"""
_SIDE, _EDGE = 300, 36


def page(found: Sequence[ModelReport]) -> str:
    """The page of these reports."""
    return "".join(_page(found))


def _text(text: object) -> str:
    return escape(printable(text), quote=True)


def _page(found: Sequence[ModelReport]) -> Iterator[str]:
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">'
    yield f"<title>Reliability of models · Remit</title><style>{_STYLE}</style></head><body>"
    for each in found:
        yield f"<h1>{_text(each.name)}</h1>"
        yield f'<div class="dim">classifier {_text(each.digest[:12])}, trained on {_text(each.training)}; measured out of fold</div>'
        for head in each.heads:
            yield from _head(head)
    yield "</body></html>\n"


def _head(head: HeadReport) -> Iterator[str]:
    measured = head.measured
    yield f"<h2>{_text(head.name)}</h2>"
    yield (
        f'<div class="dim">{measured.count:,} texts · right {measured.accuracy:.3f} · mean confidence {measured.confidence:.3f}'
        f" · expected calibration error {measured.ece:.3f} · log loss {measured.log_loss:.3f}</div>"
    )
    yield f'<div class="side">{"".join(_diagram(measured.bins))}<div>'
    yield "<table><tr><th>confidence from</th><th>texts</th><th>share</th><th>right</th></tr>"
    for each in measured.coverage:
        right = "–" if each.accuracy is None else f"{each.accuracy:.3f}"
        yield f"<tr><td>{each.threshold:.2f}</td><td>{each.kept:,}</td><td>{each.share:.3f}</td><td>{right}</td></tr>"
    yield "</table></div></div>"
    yield from _confusion(head)


def _diagram(bins: Sequence[Bin]) -> Iterator[str]:
    """Accuracy of each bin as a bar, its mean confidence as a mark; a bar that ends at its mark is honest."""
    size = _SIDE + 2 * _EDGE
    most = max((each.count for each in bins), default=0) or 1
    yield f'<svg viewBox="0 0 {size} {size}" role="img" aria-label="reliability diagram">'
    for step in range(6):
        at = _SIDE * step / 5
        y = _EDGE + _SIDE - at
        yield f'<line class="axis" x1="{_EDGE}" x2="{_EDGE + _SIDE}" y1="{y:.0f}" y2="{y:.0f}"/>'
        yield f'<text x="{_EDGE - 6}" y="{y + 4:.0f}" text-anchor="end">{step / 5:.1f}</text>'
        yield f'<text x="{_EDGE + at:.0f}" y="{_EDGE + _SIDE + 16}" text-anchor="middle">{step / 5:.1f}</text>'
    for each in bins:
        if not each.count:
            continue
        x, wide, high = _EDGE + _SIDE * each.low, _SIDE * (each.high - each.low), _SIDE * each.accuracy
        y = _EDGE + _SIDE - _SIDE * each.confidence
        shown = 0.35 + 0.65 * each.count / most
        about = f"{each.low:.2f}–{each.high:.2f}: {each.count:,} texts, confidence {each.confidence:.3f}, right {each.accuracy:.3f}"
        yield (
            f'<g><title>{about}</title><rect class="bar" opacity="{shown:.2f}" x="{x + 1:.1f}" y="{_EDGE + _SIDE - high:.1f}"'
            f' width="{wide - 2:.1f}" height="{high:.1f}"/>'
            f'<line class="mark" x1="{x + 1:.1f}" x2="{x + wide - 1:.1f}" y1="{y:.1f}" y2="{y:.1f}"/></g>'
        )
    yield f'<line class="even" x1="{_EDGE}" y1="{_EDGE + _SIDE}" x2="{_EDGE + _SIDE}" y2="{_EDGE}"/>'
    yield f'<text x="{_EDGE + _SIDE / 2}" y="{size - 4}" text-anchor="middle">confidence</text>'
    yield f'<text x="{_EDGE}" y="{_EDGE - 14}">share that was right (bar), mean confidence (line)</text></svg>'


def _confusion(head: HeadReport) -> Iterator[str]:
    labels = list(head.labels)
    yield '<p class="dim">True labels by row, chosen ones by column.</p><div class="wide"><table><tr><th></th>'
    yield "".join(f"<th>{_text(label)}</th>" for label in labels)
    yield "</tr>"
    for truth in labels:
        row = head.confusion.get(truth, {})
        total = sum(row.values()) or 1
        yield f"<tr><th>{_text(truth)}</th>"
        for chosen in labels:
            count = row.get(chosen, 0)
            colour = "hit" if chosen == truth else "miss"
            style = f' style="background: rgba(var(--{colour}), {0.6 * count / total:.2f})"' if count else ""
            yield f"<td{style}>{count:,}</td>"
        yield "</tr>"
    yield "</table></div>"
