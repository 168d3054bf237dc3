"""What all commands share: options, output for people or machines, and errors in words.

Whatever does not come from our own source may have been written by an agent or a customer: nothing of it is ever read
as markup, and `printable` makes every character of it visible.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar
from unicodedata import category

import typer

from remit.errors import ConfigError, RemitError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from remit.app import Remit

T = TypeVar("T")

Part = str | tuple[str, str]
"""A piece of a line: text, or text and its style."""

ProjectOption = Annotated[
    Path | None,
    typer.Option(
        "--project",
        "-p",
        metavar="FOLDER",
        help="Folder of the project; by default the nearest one with a remit.toml.",
        envvar="REMIT_PROJECT",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
JsonTimesOption = Annotated[
    bool, typer.Option("--json", help="Print JSON for machines; times are microseconds since the epoch, UTC.")
]

# They take no room, or none that can be seen, though Unicode calls them marks, letters or symbols.
_UNSEEN = frozenset(
    (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), 0x2800, 0x3164, *range(0xFE00, 0xFE10), 0xFFA0)
).union(range(0xE0100, 0xE01F0))
_BEYOND_ASCII = re.compile(r"[^\x20-\x7e\n]")


def printable(text: object) -> str:
    """Text on one line, with every control, invisible and direction-changing character shown as an escape."""
    shown = str(text)
    if shown.isascii() and shown.isprintable():
        return shown
    return "".join(map(_visible, shown.replace("\r\n", "\n")))


def _visible(character: str) -> str:
    if character == "\n":
        return "⏎"
    return ascii(character)[1:-1] if _is_hidden(character) else character


def _is_hidden(character: str) -> bool:
    if ord(character) in _UNSEEN:
        return True
    return not character.isprintable() and category(character) != "Zs"


def cedar_text(text: str) -> str:
    r"""Cedar of which every character can be seen; in its strings `\u{…}` is the same character."""
    return _BEYOND_ASCII.sub(lambda found: _cedar_escape(found.group()), text)


def _cedar_escape(character: str) -> str:
    return f"\\u{{{ord(character):x}}}" if _is_hidden(character) and character != "\t" else character


def json_text(value: Any, *, indent: int | None = None) -> str:
    r"""JSON of which every character can be seen; what is escaped (`\uXXXX`) stays the same value."""
    return visible_json(json.dumps(value, ensure_ascii=False, default=str, indent=indent))


def visible_json(text: str) -> str:
    r"""The same JSON with what can't be seen as `\uXXXX`. Outside of strings JSON holds no such characters."""
    return _BEYOND_ASCII.sub(_json_escape, text)


def _json_escape(found: re.Match[str]) -> str:
    character = found.group()
    if not _is_hidden(character):
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


class OutputLost(RemitError):
    """Standard output can't be written: what was to be said there is lost, and what was done is not."""

    code = "output_lost"


@contextmanager
def writing() -> Generator[None]:
    """Write to standard output and see that it arrives. Raises `OutputLost`."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read it has had enough.
        raise
    except OSError as error:
        _drop_the_rest()
        why = (error.strerror or "unknown error").lower()
        raise OutputLost(f"can't write to standard output: {why}") from error


def _drop_the_rest() -> None:
    """What is left of the output would only fail once more, when the process ends."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextmanager
def reporting(done: str) -> Generator[None]:
    """Output about something that was done; where it is lost, the error says what that was."""
    try:
        yield
    except OutputLost as error:
        raise OutputLost(f"{error.message}; {done}") from error


def print_text(text: str) -> None:
    """Text on standard output as it is."""
    with writing():
        sys.stdout.write(f"{text}\n")


def print_json(value: Any, *, indent: int | None = None) -> None:
    """One JSON document on standard output."""
    print_text(json_text(value, indent=indent))


def console(*, stderr: bool = False) -> Console:
    """Where results are printed; colours only where somebody looks."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, stderr=stderr)


def width() -> int | None:
    """The columns of the terminal; `None` where the output goes elsewhere, and nothing is cut or folded."""
    out = console()
    return out.width if out.is_terminal else None


def line(*parts: Part) -> Text:
    """One line of printable text; never markup."""
    from rich.text import Text

    made = Text()
    for part in parts:
        text, style = (part, "") if isinstance(part, str) else part
        made.append(printable(text), style=style)
    return made


def say(*parts: Part) -> None:
    """Print one line of printable text."""
    print_lines([line(*parts)])


def print_lines(lines: list[Text], *, stderr: bool = False) -> None:
    """Print lines as they are: whoever made them has fitted them to the terminal."""
    out = console(stderr=stderr)
    with nullcontext() if stderr else writing():
        for one in lines:
            one.rstrip()
            out.print(one, soft_wrap=True)


def fail(error: RemitError) -> NoReturn:
    """Say what is wrong and exit with 1."""
    say_error(error)
    raise typer.Exit(1)


def say_error(error: RemitError) -> None:
    """Say what is wrong on standard error."""
    # What is wrong in the project's files is a list; any other message is one line, whatever it quotes.
    said = error.message.split("\n") if isinstance(error, ConfigError) else [error.message]
    lines = [line(text) for text in said]
    lines[0] = line(("error: ", "bold red")) + lines[0]
    lines[-1] = lines[-1] + line((f" ({error.code})", "dim"))
    print_lines(lines, stderr=True)


def with_remit(project: Path | None, use: Callable[[Remit], Coroutine[Any, Any, T]]) -> T:
    """Open the project, use it, close it; errors are said in words."""
    import asyncio

    async def main() -> T:
        from remit.app import Remit

        async with Remit(project) as remit:
            return await use(remit)

    _make_logs_printable()
    try:
        return asyncio.run(main())
    except RemitError as error:
        fail(error)


def _make_logs_printable() -> None:
    """What is logged may quote agents and systems; a traceback keeps its lines."""
    import logging

    class Printable(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return "\n".join(map(printable, super().format(record).split("\n")))

    # Who configures logging decides how; this is where it goes otherwise.
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(Printable())


def clock_time(at_us: int) -> str:
    """Microseconds since the epoch as local-independent text, to the second."""
    return datetime.fromtimestamp(at_us / 1e6, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")


def short_time(at_us: int, now_us: int) -> str:
    """`08:18:16` of today, `24 Nov 08:18` of another day, `2024-11-24` of another year; all UTC."""
    at, now = (datetime.fromtimestamp(us / 1e6, tz=UTC) for us in (at_us, now_us))
    if at.date() == now.date():
        return at.strftime("%H:%M:%S")
    return at.strftime("%d %b %H:%M" if at.year == now.year else "%Y-%m-%d")


def span_text(us: int) -> str:
    """A duration as people say it: `0.04 s`, `3.2 s`, `6 min`, `2.5 h`, `3 days`."""
    seconds = us / 1e6
    if seconds < 1:
        return f"{seconds:.3f} s" if seconds < 0.1 else f"{seconds:.2f} s"
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"


def from_now(at_us: int, now_us: int) -> str:
    """`in 24 min`, `3.0 h ago`, `just now`."""
    if 0 <= now_us - at_us < 1_000_000:
        return "just now"
    span = span_text(abs(at_us - now_us))
    return f"in {span}" if at_us >= now_us else f"{span} ago"


UNTRUSTED = "dark_orange3"
"""Dark enough for a white background, and bright enough for a black one."""

STYLES = {
    "completed": "green",
    "allow": "green",
    "approved": "green",
    "resolved": "green",
    "escalated": UNTRUSTED,
    "held": UNTRUSTED,
    "hold": UNTRUSTED,
    "open": UNTRUSTED,
    "waiting": UNTRUSTED,
    "defer": UNTRUSTED,
    "expired": "red",
    "reject": "magenta",
    "rejected": "magenta",
    "denied": "red",
    "deny": "red",
    "failed": "red",
    "stuck": "red",
    "unknown": "bold red",
    "diverged": "bold red",
    "running": "dark_cyan",
    "ready": "dark_cyan",
}


def style_of(word: str) -> str:
    """The colour of an outcome or verdict, the same everywhere; the word always stands beside it."""
    return STYLES.get(word, "default")
