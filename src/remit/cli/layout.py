"""Text in lines that fit the terminal: wrapping with a hanging indent, and tables whose ids are never cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from remit.terminal import console

_GAP = 2
_LEAST = 24
"""Columns that the last column of a table keeps; others go before it gets narrower."""


def hanging(head: Text, body: Text, indent: int, width: int | None) -> Iterator[Text]:
    """`head`, and `body` from column `indent` on. Where it goes on a bar marks it, so that no text looks like a line of ours."""
    room = None if width is None else max(20, width - indent)
    pieces = [body] if room is None or body.cell_len <= room else list(body.wrap(console(), room))
    head = head.copy()
    head.append(" " * max(0, indent - head.cell_len))
    yield head + pieces[0]
    for piece in pieces[1:]:
        yield Text(" " * (indent - 2)) + Text("│ ", style="dim") + piece


def table(names: Sequence[str], rows: Sequence[Sequence[Text]], width: int | None, *, drop: Sequence[str]) -> list[Text]:
    """A header and the rows. The last column is cut to what is left; the columns of `drop` go first, in that order."""
    kept = list(names)
    widths = {name: max(len(name), *(row[i].cell_len for row in rows)) for i, name in enumerate(names)} if rows else {}
    for name in drop:
        if width is None or _taken(widths, kept) + min(_LEAST, widths.get(kept[-1], 0)) <= width:
            break
        kept.remove(name)
    if not rows:
        return []
    last = kept[-1]
    room = None if width is None else max(_LEAST // 2, width - _taken(widths, kept))
    if room is not None:
        widths[last] = min(widths[last], room)
    lines = [_row([Text(name, style="dim") for name in kept], [widths[name] for name in kept])]
    places = [names.index(name) for name in kept]
    lines.extend(_row([row[i] for i in places], [widths[name] for name in kept]) for row in rows)
    return lines


def _taken(widths: dict[str, int], kept: Sequence[str]) -> int:
    """What all but the last column take."""
    return sum(widths.get(name, 0) + _GAP for name in kept[:-1])


def _row(cells: Sequence[Text], widths: Sequence[int]) -> Text:
    line = Text()
    for i, (cell, wide) in enumerate(zip(cells, widths, strict=True)):
        shown = cell.copy()
        last = i == len(cells) - 1
        shown.truncate(wide, overflow="ellipsis", pad=not last)
        line.append_text(shown)
        line.append("" if last else " " * _GAP)
    return line
