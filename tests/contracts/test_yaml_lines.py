from __future__ import annotations

import string
from typing import Any, cast

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.contracts.document import Document
from remit.contracts.yaml_lines import parse_yaml
from remit.values import Json, Path


def read(text: str) -> Document:
    return parse_yaml(text, "contract.yaml")


def said(text: str) -> list[tuple[int, str]]:
    return [(problem.line, problem.message) for problem in read(text).problems]


def test_mappings_lists_and_scalars_become_json_with_the_line_of_each() -> None:
    document = read("a: 1\nb:\n  - x\n  - {c: true, d: null}\n  -\n    e: -7\n")
    assert document.value == {"a": 1, "b": ["x", {"c": True, "d": None}, {"e": -7}]}
    assert document.problems == ()
    assert [document.line(path) for path in (("a",), ("b",), ("b", 0), ("b", 1, "d"), ("b", 2, "e"))] == [
        1,
        2,
        3,
        4,
        6,
    ]


def test_the_line_of_a_place_that_is_not_there_is_that_of_the_nearest_above_it() -> None:
    document = read("a:\n  b:\n    c: 1\n")
    assert document.line(("a", "b", "missing", 3)) == 2
    assert document.line(("nothing",)) == 1


def test_a_value_on_the_line_below_its_key_is_found_at_the_key() -> None:
    assert read("a:\n\n  - b\nc: >\n  long\n  text\n").line(("c",)) == 4


@pytest.mark.parametrize(
    "text",
    [
        "no",
        "on",
        "Off",
        "yes",
        "y",
        "1:30",
        "010",
        "0o17",
        "0x1F",
        "1_000",
        "+5",
        "2024-01-31",
        "0.8",
        "1e3",
        ".inf",
        ".NaN",
    ],
)
def test_what_the_versions_of_yaml_read_differently_stays_the_text_that_it_is(text: str) -> None:
    assert read(f"a: {text}\n{text}: b").value == {"a": text, text: "b"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-12", -12),
        ('"1"', "1"),
        ("'true'", "true"),
    ],
)
def test_only_what_all_versions_agree_on_is_resolved(text: str, value: Json) -> None:
    assert read(f"a: {text}").value == {"a": value}


def test_a_key_that_appears_twice_is_a_problem_on_the_line_of_the_second() -> None:
    document = read("tool: a\nlimits: {x: 1}\ntool:\n  b: [1, {c: 2}]\nend: 1\n")
    assert [(p.line, p.message, p.suggestion) for p in document.problems] == [
        (3, "key `tool` appears twice", "the first one is on line 1; keep one of them")
    ]
    assert document.value == {"tool": "a", "limits": {"x": 1}, "end": 1}


def test_aliases_anchors_tags_and_merge_keys_are_refused_each_on_its_line() -> None:
    text = "base: &b {x: 1}\nuse: *b\nrun: !!python/object/apply:os.system [ls]\nn: !!int '3'\nm:\n  <<: *b\n"
    assert said(text) == [
        (1, "anchor `&b` is not used here"),
        (2, "alias `*b` is not used here"),
        (3, "tag `tag:yaml.org,2002:python/object/apply:os.system` is not used here"),
        (4, "tag `tag:yaml.org,2002:int` is not used here"),
        (6, "alias `*b` is not used here"),
    ]


def test_a_bomb_of_aliases_is_refused_without_being_expanded() -> None:
    rows = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    problems = read("\n".join(rows)).problems
    assert len(problems) == 30 + 29 * 9
    assert {problem.line for problem in problems} == set(range(1, 31))


def test_keys_that_are_not_text_are_problems_and_their_values_are_not_read() -> None:
    document = read("1: a\ntrue: b\n~: {c: d}\n? [x, {y: z}]\n: {w: [1]}\nend: 1\n")
    assert [(problem.line, problem.message) for problem in document.problems] == [
        (1, "key `1` is a number; keys are text"),
        (2, "key `true` is a truth value; keys are text"),
        (3, "key is empty; keys are text"),
        (4, "a key is text; this one is a mapping or a list"),
    ]
    assert document.value == {"end": 1}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: [1, 2\nb: 3", 2),
        ("a: 1\n  b: 2\n", 2),
        ("a: 1\n\tb: 2\n", 2),
        ("a: 'open\n\n", 3),
        ("a: 1\nb: \x07\n", 2),
        ("a: 1\nb: \x00\n", 2),
        ("a: b: c", 1),
        ("%YAML 9.9\n---\na: 1", 1),
        ('a: "\\UFFFFFFFF"', 1),
        ('a: "\\U00110000"', 1),
        ("}", 1),
        ("a: @x", 1),
    ],
)
def test_what_is_not_yaml_is_one_problem_on_its_line(text: str, line: int) -> None:
    document = read(text)
    assert [problem.line for problem in document.problems] == [line]
    assert document.is_broken(())


def test_an_empty_file_a_second_document_and_endless_nesting_are_problems() -> None:
    assert said("") == said("# nothing\n") == [(1, "the file is empty")]
    assert said("a: 1\n---\nb: 2\n") == [(2, "a second document starts here; a file holds one")]
    assert said("\n" + "[" * 10_000) == [(2, "nested more than 32 levels deep")]
    assert said("{a: " * 10_000) == [(1, "nested more than 32 levels deep")]


def test_numbers_beyond_64_bits_and_lone_surrogates_are_problems() -> None:
    assert said("a: 9223372036854775807\nb: 9223372036854775808\nc: " + "9" * 10_000)[0][0] == 2
    assert len(said("a: 9223372036854775807\nb: 9223372036854775808\nc: " + "9" * 10_000)) == 2
    assert said('a: 1\nb: "\\ud800"') == [(2, "a lone surrogate stands here, which is not valid Unicode")]


def test_lines_are_counted_as_editors_do_whatever_else_yaml_takes_for_a_line_break() -> None:
    document = read("a: 1 # \u2028\u0085\nb: 2\n")
    assert document.line(("b",)) == 2


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(
        st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029\ufeff\ufffe\uffff"),
        max_size=8,
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(string.ascii_letters, min_size=1, max_size=5).map("k{}".format), inner, max_size=4)
    ),
    max_leaves=12,
)


def lines_by_composing(node: Any, path: Path = ()) -> dict[Path, int]:
    """The obvious other way: PyYAML's own node tree."""
    found: dict[Path, int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            place = (*path, key.value)
            found |= lines_by_composing(value, place) | {place: key.start_mark.line + 1}
    elif isinstance(node, yaml.SequenceNode):
        for at, item in enumerate(node.value):
            place = (*path, at)
            found |= {place: item.start_mark.line + 1} | lines_by_composing(item, place)
    return found


@settings(deadline=None)
@given(JSON, st.booleans())
def test_whatever_is_dumped_is_read_back_with_the_lines_of_the_node_tree(value: Json, flow: bool) -> None:
    text = yaml.safe_dump(value, default_flow_style=flow, allow_unicode=True)
    document = read(text)
    assert document.problems == ()
    assert document.value == value
    tree = cast("Any", yaml.compose(text, yaml.SafeLoader))  # pyright: ignore[reportUnknownMemberType]
    expected = lines_by_composing(tree)
    assert {path: line for path, line in document.lines.items() if path} == expected


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("{}[]:-&*!|>'\"%@#,?\n \t\\"), max_size=80))
def test_no_text_makes_the_parser_fail(text: str) -> None:
    document = read(text)
    for problem in document.problems:
        assert 1 <= problem.line <= text.count("\n") + 1
