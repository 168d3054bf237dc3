"""JSON values: what is refused at the way in, and one canonical form for what is accepted."""

from __future__ import annotations

import json
import math
import re
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.values import MAX_BYTES, MAX_DEPTH, ValueRefused, decode, digest, encode, leaves, parse, show_path

INT_MIN, INT_MAX = -(2**63), 2**63 - 1

scalars = (
    st.none()
    | st.booleans()
    | st.integers(INT_MIN, INT_MAX)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
accepted: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda below: st.lists(below) | st.dictionaries(st.text(), below), max_leaves=30
)


def walk(value: Any) -> list[tuple[Any, Any]]:
    return list(leaves(value))


def refused(value: Any) -> str:
    with pytest.raises(ValueRefused) as raised:
        walk(value)
    assert raised.value.code in ("value_refused", "too_large")
    # A message goes into records and answers: it must be storable itself.
    raised.value.message.encode()
    assert len(raised.value.message) < 400
    return raised.value.message


def refused_text(text: str | bytes, code: str = "value_refused") -> str:
    with pytest.raises(ValueRefused) as raised:
        parse(text)
    assert raised.value.code == code
    raised.value.message.encode()
    assert len(raised.value.message) < 400
    return raised.value.message


def same(one: Any, other: Any) -> bool:
    """Equal in value and in kind: to Python, `1 == 1.0 == True`."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        fields = cast("dict[str, Any]", one)
        return fields.keys() == other.keys() and all(same(fields[key], other[key]) for key in fields)
    if isinstance(one, list):
        items = cast("list[Any]", one)
        return len(items) == len(other) and all(map(same, items, other))
    return one == other


@given(accepted)
@settings(deadline=None)
def test_what_is_accepted_reads_back_as_the_same_value(value: Any) -> None:
    walk(value)
    data = encode(value)
    assert same(parse(data), value)
    assert same(parse(data.decode()), value)
    assert same(decode(data), value)


@given(accepted, st.randoms())
@settings(deadline=None)
def test_the_order_of_keys_does_not_show_in_the_bytes(value: Any, random: Any) -> None:
    def shuffled(item: Any) -> Any:
        if isinstance(item, list):
            return [shuffled(each) for each in cast("list[Any]", item)]
        if isinstance(item, dict):
            fields = list(cast("dict[str, Any]", item).items())
            random.shuffle(fields)
            return {key: shuffled(each) for key, each in fields}
        return item

    assert encode(shuffled(value)) == encode(value)
    assert digest(shuffled(value)) == digest(value)


@given(accepted, accepted)
@settings(deadline=None)
def test_different_values_have_different_bytes(one: Any, other: Any) -> None:
    assert (encode(one) == encode(other)) == same(one, other) or _differ_by_signed_zero(one, other)


def _differ_by_signed_zero(one: Any, other: Any) -> bool:
    """0.0 equals -0.0, and JSON tells them apart; the bytes do too."""
    return same(one, other) and "-0.0" in repr(one) + repr(other)


@given(accepted)
@settings(deadline=None)
def test_the_bytes_are_json_with_sorted_keys_and_no_white_space(value: Any) -> None:
    def in_order(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        assert keys == sorted(keys)
        return dict(pairs)

    text = encode(value).decode()
    assert same(json.loads(text, object_pairs_hook=in_order), value)
    assert not re.search(r"\s", re.sub(r'"(?:[^"\\]|\\.)*"', "", text))


@given(accepted)
@settings(deadline=None)
def test_every_scalar_is_walked_once_under_its_own_path(value: Any) -> None:
    paths = [path for path, _ in walk(value)]
    assert len(set(paths)) == len(paths)
    for path, leaf in walk(value):
        found = value
        for part in path:
            found = found[part]
        assert found is leaf


def test_leaves_come_depth_first_and_in_order() -> None:
    value = {"b": [1, {"c": 2}], "a": 3}
    assert walk(value) == [(("b", 0), 1), (("b", 1, "c"), 2), (("a",), 3)]


def test_a_path_is_shown_as_people_write_it() -> None:
    assert show_path(("lines", 0, "amount")) == "lines[0].amount"
    assert show_path(()) == "value"


@pytest.mark.parametrize("name", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_json_does_not_have_is_refused_by_name(name: str) -> None:
    assert name in refused_text(f'{{"amount": {name}}}')


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_float_that_is_not_finite_is_refused_where_it_stands(number: float) -> None:
    assert "`lines[1]`" in refused({"lines": [1.5, number]})


def test_a_number_that_overflows_a_float_is_refused() -> None:
    assert "finite" in refused_text("[1e999]")
    assert "finite" in refused_text("[-1e999]")


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '{"x": [{"a": 1, "a": 1}]}', '{"a": 1, "\\u0061": 2}'])
def test_a_key_that_appears_twice_is_refused(text: str) -> None:
    assert "`a` appears twice" in refused_text(text)


def test_a_lone_surrogate_is_refused_in_values_and_in_keys() -> None:
    assert "`note`" in refused({"note": "a\ud800"})
    assert "`value`" in refused({"\udfff": 1})
    assert "`outer`" in refused({"outer": {"k\ud800": {"deep": 1}}})
    refused_text('{"a": "\\ud800"}')
    refused_text('{"\\udc00": 1}')
    refused_text('"\ud800"')
    # Twice in one object: the message that names the key is one that can be stored.
    refused_text('{"\\ud800": 1, "\\ud800": 2}')


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert parse('"\\ud83d\\ude00"') == "😀"


def test_bytes_are_utf8_and_nothing_else() -> None:
    assert parse('{"ä": "€"}'.encode()) == {"ä": "€"}
    for encoding in ("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1"):
        refused_text('{"ä": "€"}'.replace("€", "ß").encode(encoding))
    refused_text(b'"\xed\xa0\x80"')  # A surrogate as it would stand in UTF-8.
    refused_text(b'"\xff"')


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_nesting_ends_at_the_greatest_depth() -> None:
    assert walk(nested(MAX_DEPTH)) == [((0,) * MAX_DEPTH, 1)]
    assert "nested" in refused(nested(MAX_DEPTH + 1))
    assert "nested" in refused({"a": {"b": nested(MAX_DEPTH)}})
    assert "nested" in refused_text("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_bottomless_text_is_refused_and_not_followed(opening: str) -> None:
    refused_text(opening * (MAX_BYTES // len(opening)))


def test_a_value_that_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    assert "nested" in refused(value)


def test_a_value_that_shares_its_parts_without_end_is_refused() -> None:
    value: Any = []
    for _ in range(MAX_DEPTH - 1):
        value = [value] * 10
    assert "values in one" in refused(value)


def test_whole_numbers_are_of_64_bits() -> None:
    assert [leaf for _, leaf in walk([INT_MIN, INT_MAX])] == [INT_MIN, INT_MAX]
    assert "64-bit" in refused({"id": INT_MAX + 1})
    assert "64-bit" in refused({"id": INT_MIN - 1})
    assert "64-bit" in refused_text(str(INT_MAX + 1))
    assert "not valid JSON" in refused_text("1" * 10_000)


def test_the_size_limit_counts_bytes_not_characters() -> None:
    fits = '"' + "€" * ((MAX_BYTES - 2) // 3) + '"'
    assert parse(fits) == parse(fits.encode())
    for more in (fits[:-1] + '€"', '"' + "a" * (MAX_BYTES - 1) + '"'):
        assert "allowed" in refused_text(more, "too_large")
        assert "allowed" in refused_text(more.encode(), "too_large")
    with pytest.raises(ValueRefused) as raised:
        parse("[1, 2, 3]", limit_bytes=8)
    assert raised.value.code == "too_large"


@pytest.mark.parametrize("text", ["", "{", "[1,]", "{'a': 1}", "nul", "1 2", "01", '"\x01"', "// no\n1", "\ufeff1"])
def test_what_is_not_json_is_refused(text: str) -> None:
    assert "not valid JSON" in refused_text(text)


class Text(str):
    """A subclass could bring its own `encode`, `__eq__` or `__hash__`."""


@pytest.mark.parametrize("value", [b"x", (1, 2), {1}, 1j, object(), Text("x"), {"a": Text("x")}, [bytearray()]])
def test_what_json_does_not_have_is_refused(value: Any) -> None:
    assert "JSON does not have" in refused(value)


@pytest.mark.parametrize("key", [1, None, True, 1.5, (1,), Text("x")])
def test_a_key_that_is_not_a_plain_string_is_refused(key: Any) -> None:
    assert "keys are strings" in refused({"outer": {key: 1}})


def test_a_message_stays_short_whatever_the_names_are() -> None:
    refused({"k" * 100_000: math.nan})
    refused_text('{"' + "k" * 50_000 + '": 1, "' + "k" * 50_000 + '": 2}')
