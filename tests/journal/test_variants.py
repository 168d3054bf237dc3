"""What a run knows already is concealed in every spelling that a machine gives it, and words by chance are left alone."""

from __future__ import annotations

import base64
from collections.abc import Callable
from itertools import pairwise
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from remit.journal.redaction import Redactor
from remit.journal.variants import MOST, Found, Variants, folded, variants_of

SECRET = "hunter2-Blue/Horse"
NAME = "Rosalind O'Franklin"


def redactor() -> Redactor:
    """One of a run in which a declared field has held a name."""
    own = Redactor(key=b"k" * 32, secrets=[SECRET]).for_run()
    own.note("personal", NAME)
    return own


SPELLINGS: dict[str, Callable[[str], str]] = {
    "upper case": str.upper,
    "lower case": str.lower,
    "swapped case": str.swapcase,
    "without separators": lambda text: "".join(filter(str.isalnum, text)),
    "in camel case": lambda text: "".join(word.capitalize() for word in text.replace("-", " ").replace("/", " ").split()),
    "with other separators": lambda text: "_".join(text.upper().replace("-", " ").replace("/", " ").split()),
    "a letter each": " ".join,
    "backwards": lambda text: text[::-1],
    "backwards in upper case": lambda text: text.upper()[::-1],
    "as a URL has it": lambda text: quote(text, safe=""),
    "as a URL may have it": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "in Base64": lambda text: base64.b64encode(text.encode()).decode(),
    "in Base64 behind something": lambda text: base64.urlsafe_b64encode(b"u:" + text.encode() + b":x").decode(),
    "in hexadecimal": lambda text: text.encode().hex(),
    "in hexadecimal with colons": lambda text: text.encode().hex(":").upper(),
    "in full-width letters": lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
}


@pytest.mark.parametrize("spelled", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize(("value", "kind"), [(SECRET, "secret"), (NAME, "personal")])
def test_a_value_that_is_known_is_concealed_however_it_is_spelled(
    value: str, kind: str, spelled: Callable[[str], str]
) -> None:
    text = spelled(value)
    for given_ in (text, f"it says {text}, twice: {text}."):
        found = redactor().redact({"said": given_, "rest": "the printer"})
        assert kind in found.kinds, given_
        shown = found.value["said"]
        assert folded(text.encode()).decode()[2:-2] not in folded(shown.encode()).decode(), shown
        assert found.value["rest"] == "the printer"


def backwards(text: str) -> str:
    return text[::-1]


def in_hexadecimal(text: str) -> str:
    return text.encode().hex()


def in_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("detected", "spelled"),
    [
        ("DE89370400440532013000", backwards),
        ("ann.lee@corp.example", in_hexadecimal),
        ("AKIAIOSFODNN7EXAMPLE", str.lower),
        ("DE89370400440532013000", in_base64),
        ("ghp_0123456789abcdefghijABCD", str.upper),
    ],
)
def test_what_a_detector_has_found_is_known_from_then_on(detected: str, spelled: Callable[[str], str]) -> None:
    own = redactor()
    assert own.redact({"text": spelled(detected)}).value == {"text": spelled(detected)}
    own.redact({"text": f"it is {detected} today"})
    shown = own.redact({"text": spelled(detected)}).value["text"]
    assert spelled(detected) not in shown


def test_what_only_its_surroundings_betray_is_not_known_elsewhere() -> None:
    own = redactor()
    assert "expired" not in own.text("password: expired")
    assert own.text("it has EXPIRED") == "it has EXPIRED"


def test_words_by_chance_are_left_alone() -> None:
    own = redactor()
    for kind, value in (("personal", "Anna"), ("personal", "123"), ("personal", "12:34"), ("personal", "live at")):
        own.note(kind, value)
    for text in ("Hannah and annals", "1-2-3", "1234 of them", "live, attached", "the evil one", "Rosalind and Franklin"):
        assert own.text(text) == text
    assert own.text("ANNA, anna.") != "ANNA, anna."


def test_a_class_that_is_named_in_a_pseudonym_is_no_value() -> None:
    own = redactor()
    own.note("personal", "Personal")
    once = own.text("a personal matter")
    assert once.count("<personal:") == 1


def test_a_run_knows_what_it_has_seen_and_others_do_not() -> None:
    shared = Redactor(key=b"k" * 32, secrets=[SECRET])
    one, other = shared.for_run(), shared.for_run()
    one.note("personal", NAME)
    assert one.text(NAME.upper()) != NAME.upper()
    assert other.text(NAME.upper()) == shared.text(NAME.upper()) == NAME.upper()
    # Nor does whoever speaks for all runs learn from what it is shown.
    shared.text("DE89370400440532013000")
    assert shared.text(backwards("DE89370400440532013000")) == backwards("DE89370400440532013000")


def test_a_credential_in_another_spelling_is_one_that_is_held_and_is_never_sealed() -> None:
    own = redactor()
    for spelled in SPELLINGS.values():
        said = {"text": spelled(SECRET)}
        assert own.holds_credential(said)
        assert own.sealed({}, said) is None
        assert folded(spelled(SECRET).encode()) not in folded(str(own.without_credentials(said)).encode())
    assert not own.holds_credential({"text": NAME})


def test_of_very_many_values_each_is_found_as_of_few() -> None:
    known = Variants()
    names = [f"Person number {i:04d} of them" for i in range(MOST)]
    for i, name in enumerate(names):
        known.add("personal", name)
        assert known.stand_in(name.upper().encode()), i
        assert known.stand_in(names[0].upper().encode())
        assert not known.stand_in(b"person number 9999 of them")
    found = known.found("; ".join(name.upper() for name in names))
    assert len(found) == MOST
    known.add("personal", "One too many of them")
    assert not known.stand_in(b"ONE TOO MANY OF THEM")


@given(st.text(min_size=1, max_size=40), st.text(max_size=30), st.text(max_size=30))
@example("straße-ﬁn", "İ", "ß")
def test_no_spelling_of_a_value_is_left_in_any_text(value: str, before: str, behind: str) -> None:
    known = Variants()
    known.add("secret", value, anywhere=True)
    for variant in variants_of("secret", value, anywhere=True):
        text = f"{before} {variant.needle.decode()} {behind}"
        spans = known.found(text)
        assert spans
        assert [span.start for span in spans] == sorted({span.start for span in spans})
        assert all(one.end <= two.start for one, two in pairwise(spans))
        left = "|".join(text[a:b] for a, b in _between(spans, len(text)))
        assert variant.needle.decode() not in left or "|" in variant.needle.decode()


def _between(spans: list[Found], end: int) -> list[tuple[int, int]]:
    edges = [0, *(edge for span in spans for edge in (span.start, span.end)), end]
    return list(zip(edges[::2], edges[1::2], strict=True))


@pytest.mark.parametrize("text", ["call +49 30 1234567 now", "to (Anna Lee)", "mail <ann.lee@corp.example>, or +49 30 1234567"])
def test_a_text_is_shown_the_second_time_as_it_was_the_first(text: str) -> None:
    own = redactor()
    own.note("personal", "(Anna Lee)")
    once = own.text(text)
    assert own.text(text) == once
    assert "+" not in once
