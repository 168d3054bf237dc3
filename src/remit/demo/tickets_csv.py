"""Reads anybody's ticket export: a CSV file, plain or gzipped, with whatever columns, separators and encoding it has.

The file is read as a stream. What can't be used (ragged rows, rows without text) is counted and reported by line
number; only a file that can't be read at all, or a column that isn't there, is an error.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import zlib
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from io import StringIO, TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from remit.errors import ConfigError

DELIMITERS = (",", ";", "\t", "|")
"""What a file may be separated by, tried in this order."""

MAX_FIELD_CHARACTERS = 10_000_000
"""A longer field is not a ticket but a quotation mark that nobody closed; its row is reported and left out."""

MAX_PROBLEMS_KEPT = 20
"""So many problems are kept with their line numbers; all are counted."""

_SNIFFED_ROWS = 50
_SAMPLE_CHARACTERS = 1 << 18
_BLOCK_BYTES = 1 << 20
_COLUMNS_SHOWN = 40
_GZIP_MAGIC = b"\x1f\x8b"
_ZIP_MAGIC = b"PK\x03\x04"


@dataclass(frozen=True, kw_only=True)
class ColumnMapping:
    """Which column is what. At least one of `title` and `body` is needed."""

    title: str | None = None
    body: str | None = None
    labels: Mapping[str, str]
    """Column of the true label, by the name of the head that is to predict it."""

    def columns(self) -> tuple[str, ...]:
        """Every column that is asked for, once."""
        named = (self.title, self.body, *self.labels.values())
        return tuple(dict.fromkeys(name for name in named if name is not None))


@dataclass(frozen=True, kw_only=True)
class ExportRow:
    """One usable row. White space at the ends of a field is gone."""

    line: int
    """Line of the file on which the row starts, from 1; the header is on line 1."""
    title: str
    body: str
    labels: Mapping[str, str]
    """By head; a head whose field was empty is not in it."""

    @property
    def text(self) -> str:
        """Title and body, as a classifier should read them."""
        return f"{self.title}\n{self.body}" if self.title and self.body else self.title or self.body


@dataclass(frozen=True, kw_only=True)
class RowProblem:
    """A row that was left out."""

    line: int
    """Where the row starts."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What became of the rows of one reading. Blank lines are no rows."""

    rows: int
    kept: int
    skipped: int
    unlabelled: Mapping[str, int]
    """Kept rows without a label, by head; heads that always had one are not in it."""
    problems: tuple[RowProblem, ...]
    """The first `MAX_PROBLEMS_KEPT` of the `skipped`."""


class TicketFile:
    """An opened export: iterate over it for its tickets, as often as needed; then read `tally`."""

    def __init__(self, path: Path, mapping: ColumnMapping, *, delimiter: str | None, encoding: str | None) -> None:
        """Use `read_tickets`."""
        self.path = path
        self.mapping = mapping
        self.encoding, self.notes = (encoding, ()) if encoding else _sniff_encoding(path)
        """How the bytes were read, and what a person should know about that."""
        self.delimiter = delimiter or self._sniff_delimiter()
        self.columns: tuple[str, ...] = tuple(name.strip() for name in self._sample(self.delimiter)[0])
        """The columns of the file, in order."""
        self._places = _find_columns(path, self.columns, mapping.columns())
        self._count = _Counter()

    @property
    def tally(self) -> Tally:
        """Of the latest reading, up to where it has come."""
        return self._count.tally()

    def __iter__(self) -> Iterator[ExportRow]:
        """Read the file from the start. Raises `ConfigError` if it can't be read to its end."""
        count = self._count = _Counter()
        for span, row in self._rows():
            outcome = self._ticket(span, row)
            count.add(outcome, self.mapping.labels)
            if isinstance(outcome, ExportRow):
                yield outcome

    def _rows(self) -> Iterator[tuple[tuple[int, int], list[str] | None]]:
        """Rows under the header with their first and last line; `None` for one that can't be parsed."""
        with _open_text(self.path, self.encoding) as text:
            reader = csv.reader(text, delimiter=self.delimiter)
            first = 1
            while True:
                try:
                    row = next(reader, None)
                except csv.Error:
                    yield (first, reader.line_num), None
                else:
                    if row is None:
                        return
                    # The first line is the header; an empty list is a blank line.
                    if row and first > 1:
                        yield (first, reader.line_num), row
                first = reader.line_num + 1

    def _ticket(self, span: tuple[int, int], row: list[str] | None) -> ExportRow | RowProblem:
        first, last = span
        if row is None:
            reason = f"a field has more than {MAX_FIELD_CHARACTERS:,} characters; is a quote not closed?"
            return RowProblem(line=first, reason=reason)
        width = len(self.columns)
        if len(row) < width or any(field.strip() for field in row[width:]):
            lines = f" and runs to line {last}; is a quote not closed?" if last > first else ""
            return RowProblem(line=first, reason=f"the row has {len(row)} fields, the header {width}{lines}")
        fields = {name: row[place].strip() for name, place in self._places.items()}
        title = "" if self.mapping.title is None else fields[self.mapping.title]
        body = "" if self.mapping.body is None else fields[self.mapping.body]
        if not (title or body):
            return RowProblem(line=first, reason="the row has no text")
        labels = {head: fields[column] for head, column in self.mapping.labels.items() if fields[column]}
        return ExportRow(line=first, title=title, body=body, labels=labels)

    def _sniff_delimiter(self) -> str:
        """The separator that finds most of the wanted columns, then the most even rows, then the most columns."""
        wanted = set(self.mapping.columns())

        def fit(delimiter: str) -> tuple[int, float, int]:
            header, *rows = self._sample(delimiter)
            even = sum(len(row) == len(header) for row in rows) / len(rows) if rows and len(header) > 1 else 0.0
            return len(wanted.intersection(name.strip() for name in header)), even, len(header)

        return max(DELIMITERS, key=fit)

    def _sample(self, delimiter: str) -> list[list[str]]:
        """The header and the first rows, if separated by `delimiter`. Raises `ConfigError` for an empty file."""
        with _open_text(self.path, self.encoding) as text:
            sample = text.read(_SAMPLE_CHARACTERS)
        if not sample.strip():
            raise ConfigError(f"`{self.path.name}` is empty; it needs a header line with the names of the columns")
        rows = list(islice(csv.reader(StringIO(sample, newline=""), delimiter=delimiter), _SNIFFED_ROWS))
        if not rows[0]:
            raise ConfigError(f"line 1 of `{self.path.name}` is blank; the names of the columns must stand there")
        return [rows[0], *(row for row in rows[1:] if row)]


class _Counter:
    """Counts the rows of one reading."""

    def __init__(self) -> None:
        self._kept = 0
        self._skipped = 0
        self._unlabelled: Counter[str] = Counter()
        self._problems: list[RowProblem] = []

    def add(self, outcome: ExportRow | RowProblem, heads: Iterable[str]) -> None:
        if isinstance(outcome, ExportRow):
            self._kept += 1
            self._unlabelled.update(head for head in heads if head not in outcome.labels)
            return
        self._skipped += 1
        if len(self._problems) < MAX_PROBLEMS_KEPT:
            self._problems.append(outcome)

    def tally(self) -> Tally:
        return Tally(
            rows=self._kept + self._skipped,
            kept=self._kept,
            skipped=self._skipped,
            unlabelled=dict(self._unlabelled),
            problems=tuple(self._problems),
        )


def read_tickets(
    path: Path, mapping: ColumnMapping, *, delimiter: str | None = None, encoding: str | None = None
) -> TicketFile:
    """Open an export, plain or gzipped. Separator and encoding (UTF-8, UTF-16 with a mark, else Windows-1252) are found.

    Bytes that don't belong to the encoding become U+FFFD. Raises `ConfigError` if the file can't be read, is empty, or
    lacks a column of the mapping.
    """
    if mapping.title is None and mapping.body is None:
        raise ConfigError("no column holds the text; map `title`, `body` or both to a column")
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n '):
        raise ConfigError(f"`{delimiter}` can't separate columns; use one character such as `,` or `;`")
    # The limit belongs to the whole process, so it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD_CHARACTERS))
    return TicketFile(path, mapping, delimiter=delimiter, encoding=encoding)


def in_training_part(text: str, *, train_share: float) -> bool:
    """Whether a text belongs to the part for training, decided by a hash of its words alone.

    So the same text, whatever its case and spacing, is always on the same side, in every file and on every machine.
    `train_share` lies between 0 and 1.
    """
    words = " ".join(text.casefold().split())
    first = hashlib.sha256(words.encode(errors="surrogatepass")).digest()[:8]
    return int.from_bytes(first) < train_share * 2**64


def split_tickets(tickets: Iterable[ExportRow], *, train_share: float) -> tuple[list[ExportRow], list[ExportRow]]:
    """Tickets to train on, and the rest, each in the order given; about `train_share` of the texts are in the first.

    Raises `ValueError` unless `train_share` lies between 0 and 1.
    """
    if not 0 < train_share < 1:
        raise ValueError(
            f"a training share of {train_share} leaves nothing for one of the parts; take 0.6, for example"
        )
    train: list[ExportRow] = []
    rest: list[ExportRow] = []
    for ticket in tickets:
        (train if in_training_part(ticket.text, train_share=train_share) else rest).append(ticket)
    return train, rest


def _find_columns(path: Path, columns: Sequence[str], wanted: Sequence[str]) -> dict[str, int]:
    missing = [name for name in wanted if name not in columns]
    if missing:
        known = ", ".join(f"`{name}`" for name in columns[:_COLUMNS_SHOWN])
        more = f" and {len(columns) - _COLUMNS_SHOWN} more" if len(columns) > _COLUMNS_SHOWN else ""
        faults = " and ".join(f"no column `{name}`{_suggestion(name, columns)}" for name in missing)
        raise ConfigError(f"`{path.name}` has {faults}; its columns are {known}{more}")
    twice = next((name for name in wanted if columns.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"`{path.name}` has several columns `{twice}`; rename all but one of them")
    return {name: columns.index(name) for name in wanted}


def _suggestion(name: str, columns: Sequence[str]) -> str:
    plain = {column.casefold(): column for column in columns if column}
    close = get_close_matches(name.casefold(), plain, n=1)
    return f" (did you mean `{plain[close[0]]}`?)" if close else ""


def _sniff_encoding(path: Path) -> tuple[str, tuple[str, ...]]:
    """Decode the whole file once, a block at a time: one Latin letter may stand on the very last line."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    with _open_bytes(path) as data:
        block = data.read(_BLOCK_BYTES)
        if block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16", ()
        found = "utf-8-sig" if block.startswith(codecs.BOM_UTF8) else "utf-8"
        while block:
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                line += error.object.count(b"\n", 0, error.start)
                note = f"`{path.name}` is not UTF-8 (line {line}); it was read as Windows-1252"
                return "cp1252", (note,)
            line += block.count(b"\n")
            block = data.read(_BLOCK_BYTES)
    # A letter cut off by the end of the file is damage, not another encoding: it is replaced when read.
    return found, ()


@contextmanager
def _open_text(path: Path, encoding: str) -> Generator[TextIO]:
    with _open_bytes(path) as data:
        try:
            # `newline=""` leaves line ends inside quoted fields alone, as the csv module wants it.
            text = TextIOWrapper(data, encoding=encoding, errors="replace", newline="")
        except LookupError as error:
            raise ConfigError(f"encoding `{encoding}` is not known; use `utf-8` or `cp1252`, for example") from error
        try:
            yield text
        except UnicodeError as error:
            raise ConfigError(f"`{path.name}` is not `{encoding}`; leave the encoding out to have it found") from error


@contextmanager
def _open_bytes(path: Path) -> Generator[BinaryIO]:
    """The bytes of the file, unzipped; every way in which reading can fail becomes a `ConfigError`."""
    try:
        with path.open("rb") as plain:
            magic = plain.peek(4)[:4]
            if magic == _ZIP_MAGIC:
                raise ConfigError(f"`{path.name}` is a ZIP archive or a workbook; export it as CSV")
            with gzip.open(plain) if magic[:2] == _GZIP_MAGIC else plain as data:
                yield cast("BinaryIO", data)
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file `{path}`") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ConfigError(f"`{path.name}` is a damaged gzip file: {error}") from error
    except OSError as error:
        raise ConfigError(f"`{path.name}` can't be read: {error.strerror or error}") from error
