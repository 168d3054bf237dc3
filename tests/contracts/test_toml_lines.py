from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.contracts.document import Document
from remit.contracts.toml_lines import parse_toml
from remit.values import Json, Path

EVERYTHING = '''# a comment with [brackets] and "quotes"
[project]
name = "a" # [x] = 1
x.y = 1.5
"q.\\u0041" = [
  1, # one

  { a = 2, b.c = [3,
     4] },
  """
multi ] = [
""""", 'x'
]

[[issuers]]
id = 1
[issuers.keys]
"a b" = 0x1F
[[issuers]]
id = 2
[[issuers.names]]
n = \'\'\'
]] \'\'\'
[[issuers.names]]
n = 2
[people.lee] # [people.anna]
roles = [ "a",
  "b" ]
'''


def read(text: str) -> Document:
    return parse_toml(text, "remit.toml")


def said(text: str) -> list[tuple[int, str]]:
    return [(problem.line, problem.message) for problem in read(text).problems]


def test_every_key_and_item_has_its_line_through_tables_arrays_and_quotes() -> None:
    document = read(EVERYTHING)
    assert document.problems == ()
    expected: dict[Path, int] = {
        ("project",): 2,
        ("project", "name"): 3,
        ("project", "x", "y"): 4,
        ("project", "q.A"): 5,
        ("project", "q.A", 0): 6,
        ("project", "q.A", 1): 8,
        ("project", "q.A", 1, "a"): 8,
        ("project", "q.A", 1, "b", "c", 0): 8,
        ("project", "q.A", 1, "b", "c", 1): 9,
        ("project", "q.A", 2): 10,
        ("project", "q.A", 3): 12,
        ("issuers", 0): 15,
        ("issuers", 0, "id"): 16,
        ("issuers", 0, "keys"): 17,
        ("issuers", 0, "keys", "a b"): 18,
        ("issuers", 1): 19,
        ("issuers", 1, "id"): 20,
        ("issuers", 1, "names", 0): 21,
        ("issuers", 1, "names", 0, "n"): 22,
        ("issuers", 1, "names", 1, "n"): 25,
        ("people", "lee"): 26,
        ("people", "lee", "roles", 1): 28,
    }
    assert {path: document.lines.get(path) for path in expected} == expected


def test_numbers_with_decimals_stay_text_and_no_float_comes_out() -> None:
    assert read("a = 0.80\nb = inf\nc = 1e3").value == {"a": "0.80", "b": "inf", "c": "1e3"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = 1\nb =\n", 2),
        ("a = 1\n\na = 2\n", 3),
        ("[a]\nb = 1\n[a]\n", 3),
        ("[a\n", 1),
        ("a = 'x", 1),
        ('a = 1\nb = "\\ud800"', 2),
        ("a = 1\nb = {", 2),
        ("a = 1\n\x00", 2),
        ("x = " + "9" * 5_000, 1),
        ("x = " + "[" * 5_000, 1),
        ("x = " + "[" * 40 + "]" * 40, 1),
        ("x = 1979-02-30", 1),
    ],
)
def test_what_is_not_toml_is_one_problem_on_its_line(text: str, line: int) -> None:
    document = read(text)
    assert [problem.line for problem in document.problems] == [line]
    assert document.is_broken(())


def test_dates_and_numbers_beyond_64_bits_are_problems_where_they_stand() -> None:
    assert said("a = 1\n[b]\nc = 1979-05-27\nd = [1,\n 99999999999999999999]\n") == [
        (3, "a date or time stands here; no key takes one"),
        (5, "a number is outside the range of 64-bit integers"),
    ]


KEYS = st.text(string.ascii_letters + "-_", min_size=1, max_size=4) | st.sampled_from(['"a.b"', "'c d'", '"["', '"#"'])
SCALARS = st.sampled_from(["1", "true", '"x"', "'#'", '"]"', "1.5", '"""\n[x]\n"""', "'''\n'''", '"a = \\""'])


class Writer:
    """Writes TOML and notes on which line it wrote what: the obvious reference for the scan."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self.text = ""
        self.lines: dict[Path, int] = {}

    def line(self) -> int:
        return self.text.count("\n") + 1

    def key(self, path: Path, used: set[str]) -> tuple[str, Path]:
        written = self._draw(KEYS.filter(lambda key: _bare(key) not in used))
        used.add(_bare(written))
        return written, (*path, _bare(written))

    def value(self, path: Path, depth: int) -> None:
        kind = self._draw(st.sampled_from(["scalar", "scalar", "array", "inline"])) if depth else "scalar"
        if kind == "scalar":
            self.text += self._draw(SCALARS)
        elif kind == "array":
            self.text += "["
            for at in range(self._draw(st.integers(0, 3))):
                self.text += self._draw(st.sampled_from(["", " ", "\n", "\n # ], \n"]))
                self.lines[(*path, at)] = self.line()
                self.value((*path, at), depth - 1)
                self.text += self._draw(st.sampled_from([",", " ,", ", # x = [\n"]))
            self.text += "]"
        else:
            self.text += "{"
            used: set[str] = set()
            for at in range(self._draw(st.integers(0, 2))):
                self.text += ", " if at else " "
                written, inner = self.key(path, used)
                self.lines[inner] = self.line()
                self.text += f"{written} = "
                self.value(inner, depth - 1)
            self.text += " }"

    def pairs(self, path: Path) -> None:
        used: set[str] = set()
        for _ in range(self._draw(st.integers(0, 3))):
            self.text += self._draw(st.sampled_from(["", "\n", "# [x]\n", "  "]))
            written, inner = self.key(path, used)
            self.lines[inner] = self.line()
            self.text += f"{written} = "
            self.value(inner, 2)
            self.text += self._draw(st.sampled_from(["\n", " # c = 'd'\n"]))


def _bare(key: str) -> str:
    return key.strip("\"'")


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[Path, int]]:
    writer = Writer(draw)
    tables: set[str] = set()
    for _ in range(draw(st.integers(0, 3))):
        written, path = writer.key((), tables)
        repeated = draw(st.integers(0, 2))
        for at in range(max(repeated, 1)):
            writer.lines.setdefault(path, writer.line())
            place = (*path, at) if repeated else path
            writer.lines[place] = writer.line()
            writer.text += f"[[ {written} ]]\n" if repeated else f"[{written}]\n"
            writer.pairs(place)
    return writer.text, writer.lines


@settings(deadline=None)
@given(documents())
def test_the_scan_finds_the_lines_that_the_writer_wrote(written: tuple[str, dict[Path, int]]) -> None:
    text, lines = written
    document = read(text)
    assert document.problems == ()
    assert {path: document.lines.get(path) for path in lines} == lines


@settings(deadline=None)
@given(st.text(max_size=60) | st.text("[]{}=.,\"'#\n ab1", max_size=60))
def test_no_text_makes_the_parser_fail(text: str) -> None:
    document = read(text)
    for problem in document.problems:
        assert 1 <= problem.line <= text.count("\n") + 1


def test_a_value_of_every_kind_is_json() -> None:
    value: Json = read("a = true\nb = [1, 'x']\n[c]\nd = {}\n").value
    assert value == {"a": True, "b": [1, "x"], "c": {"d": {}}}
