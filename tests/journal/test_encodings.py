"""What must be hidden is found behind the encodings that texts travel in, in look-alike characters, and as a number."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.journal.encodings import decoded, plain
from remit.journal.redaction import Redactor
from remit.values import Json

SECRETS = ["correct-horse-battery-staple", "a/b+c d&é-Zq9_hunter", "per%cent/2Fhorse"]
ENCODED_SECRETS = {
    "one letter as in a URL": "%63orrect-horse-battery-staple",
    "letters in lower case hexadecimal": "a%2fb%2bc%20d%26%c3%a9-Zq9_hunter",
    "a URL within a URL": "a%252Fb%252Bc%2520d%2526%25C3%25A9-Zq9_hunter",
    "three times over": quote(quote("correct-horse-battery-staple".replace("o", "%6f"))),
    "a slash as in JSON": "a\\/b+c d&é-Zq9_hunter",
    "a plus sign as in JSON": "a/b\\u002Bc d&é-Zq9_hunter",
    "an accent as in JSON": "a/b+c d&\\u00e9-Zq9_hunter",
    "an ampersand as in HTML": "a/b+c d&amp;é-Zq9_hunter",
    "a letter as in HTML": "a/b+c d&&#233;-Zq9_hunter",
    "a form": "?q=a%2Fb%2Bc+d%26%C3%A9-Zq9_hunter",
    "quoted-printable": "a/b+c d&=C3=A9-Zq9_hunter",
    "quoted-printable hyphens": "correct=2Dhorse=2Dbattery=2Dstaple",
}


def redactor() -> Redactor:
    return Redactor(key=b"k" * 32, secrets=SECRETS).for_run()


@pytest.mark.parametrize("spelled", ENCODED_SECRETS.values(), ids=ENCODED_SECRETS.keys())
def test_a_credential_that_is_encoded_is_held_concealed_and_never_sealed(spelled: str) -> None:
    own = redactor()
    said: Json = {"text": f"see {spelled}, please"}
    assert own.holds_credential(said)
    assert own.holds_credential({spelled: [1]})
    assert own.sealed({}, said) is None
    for shown in (own.without_credentials(said), own.redact(said).value):
        assert spelled not in str(shown)
        assert "<concealed:" in str(shown)
        assert not own.holds_credential(shown)


@pytest.mark.parametrize(
    "text", ["100%25 of it", "a &amp; b", "C:\\users\\ann", "?a=12&b=3F", "\\u00e9t\\u00e9", "see https://x.example/a%2Fb"]
)
def test_what_is_encoded_and_no_credential_stays_as_it_is(text: str) -> None:
    own = redactor()
    assert not own.holds_credential({"text": text})
    assert own.redact({"text": text}).value == {"text": text}
    assert own.without_credentials({"text": text}) == {"text": text}


NBSP, EN_DASH, NARROW = "\u00a0", "\u2013", "\u202f"
FOUND = [
    ("email", "write to jose\u0301@corp.example", "jose\u0301@"),
    ("email", "ann\\u0040corp.example wrote", "ann\\u0040corp"),
    ("email", "ann&#64;corp.example wrote", "ann&#64;corp"),
    ("email", "ann&commat;corp.example wrote", "ann&commat;corp"),
    ("email", "ann=40corp.example wrote", "ann=40corp"),
    ("email", "ann\uff20corp.example wrote", "ann\uff20corp"),
    ("email", "an\u200bn@corp.example wrote", "an\u200bn"),
    ("card", f"4111{NBSP}1111{NBSP}1111{NBSP}1111", "1111"),
    ("card", f"4111{NARROW}1111{NARROW}1111{NARROW}1111", "1111"),
    ("card", "4111.1111.1111.1111", "1111"),
    ("card", "４１１１ 1111 1111 1111", "1111"),
    ("iban", f"DE89{NBSP}3704{NBSP}0044{NBSP}0532{NBSP}0130{NBSP}00", "3704"),
    ("iban", "de89370400440532013000", "3704"),
    ("iban", "to de89 3704 0044 0532 0130 00 today", "3704"),
    ("phone", f"+49{NBSP}151{NBSP}2345{NBSP}6789", "2345"),
    ("phone", f"+49{EN_DASH}151{EN_DASH}2345{EN_DASH}6789", "2345"),
    ("phone", "+49&nbsp;151&nbsp;2345&nbsp;6789", "2345"),
]


@pytest.mark.parametrize(("kind", "text", "hidden"), FOUND)
def test_what_is_spelled_in_other_characters_is_hidden_and_named(kind: str, text: str, hidden: str) -> None:
    shown = redactor().redact({"note": text, "more": [text]})
    assert hidden in text
    assert hidden not in str(shown.value)
    assert kind in shown.kinds
    assert f"<{kind}:" in shown.value["note"]


def test_a_value_has_the_same_pseudonym_in_whatever_characters_it_is_spelled() -> None:
    own = Redactor(key=b"k" * 32)
    assert own.text("jose\u0301@corp.example") == own.text("josé@corp.example")
    assert own.text("de89 3704 0044 0532 0130 00") == own.text("DE89370400440532013000")
    assert own.text("4111.1111.1111.1111") == own.redact(4111111111111111).value == own.text("4111 1111 1111 1111")


@pytest.mark.parametrize("number", [4111111111111111, 4111111111111111.0, 6011000990139424])
def test_a_card_number_that_is_a_number_is_hidden(number: float) -> None:
    shown = redactor().redact({"card": number, "cards": [number]})
    assert str(number)[:13] not in str(shown.value)
    assert shown.kinds == {"card"}


@pytest.mark.parametrize("number", [4111111111111112, 1750000000000008, 411111111111, -4111111111111111, 10**30, 1e300, True])
def test_a_number_that_is_no_card_number_stays(number: float) -> None:
    value = {"number": number}
    assert redactor().redact(value).value is value


@given(st.text())
@settings(deadline=None)
def test_decoding_ends_and_never_gives_the_text_itself(text: str) -> None:
    assert text not in list(decoded(text))
    assert plain(plain(text)) == plain(text)
