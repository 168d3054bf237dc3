from __future__ import annotations

import pytest

from remit.tools.docstring import Docstring, parse_docstring


def test_prose_is_unwrapped_and_paragraphs_stay_apart() -> None:
    docs = parse_docstring("""Read one
        order.

        Only orders of the
        last year.
        """)
    assert docs == Docstring(description="Read one order.\n\nOnly orders of the last year.")


def test_arguments_are_named_with_or_without_a_type_and_over_several_lines() -> None:
    docs = parse_docstring("""Read.

    Args:
        order: Number of the order,
            without the prefix.
        region (str): Where: `eu` or `us`.

    Returns:
        The order.

    Raises:
        ToolFailed: There is none.
    """)
    assert docs.description == "Read."
    assert docs.fields == {
        "order": "Number of the order, without the prefix.",
        "region": "Where: `eu` or `us`.",
    }
    assert docs.returns == "The order."


def test_attributes_of_a_class_are_fields_too() -> None:
    assert parse_docstring("A line.\n\nAttributes:\n    sku: What was sold.").fields == {"sku": "What was sold."}


def test_text_at_the_margin_ends_a_section() -> None:
    docs = parse_docstring("Read.\n\nArgs:\n    order: Number.\nMore to know.")
    assert docs.description == "Read.\n\nMore to know."
    assert docs.fields == {"order": "Number."}


def test_no_docstring_is_an_empty_one() -> None:
    assert parse_docstring(None) == Docstring()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Read.\n\nArgs:\n    order Number", "`order Number` in the docstring is not of the form"),
        ("Read.\n\nArgs:\n    order: One.\n    order: Two.", "`order` is described twice"),
    ],
)
def test_an_entry_that_says_nothing_clear_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_docstring(text)
