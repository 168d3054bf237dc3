"""Redaction: what must be hidden is, wherever it stands; the rest is left alone; and no text makes it slow."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from remit.journal.detectors import KINDS
from remit.journal.pseudonyms import class_of, classes_in
from remit.journal.redaction import Redactor
from remit.tools.spec import FieldClass

SECRET = "hunter2-Blue/Horse"
REDACTOR = Redactor(key=b"k" * 32, secrets=[SECRET, 's3cr3t "quoted"', "short"])
PSEUDONYM = re.compile(r"<[a-z-]+:[a-p]{12}>")

PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAu1SU1LfVLPHCozMxH2Mo\nq8/+=\n-----END RSA PRIVATE KEY-----"
JWT = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJlLWJ5dGVz"

# What stands in a text → the part of it that must be gone.
FOUND = {
    "email": [
        ("write to ann.lee+desk@mail.corp.example today", "ann.lee+desk@mail.corp.example"),
        ("an address in words of any language: jürgen@müller.example", "jürgen@müller.example"),
        ("<mailto:ann@corp.example>.", "ann@corp.example"),
        ("https://api.example/find?q=ann%40corp.example&n=1", "ann%40corp.example"),
    ],
    "iban": [
        ("to DE89 3704 0044 0532 0130 00 please", "DE89 3704 0044 0532 0130 00"),
        ("to DE89370400440532013000.", "DE89370400440532013000"),
        # What follows looks like one more group of it.
        ("BE68 5390 0754 7034 EUR 20", "BE68 5390 0754 7034"),
        ("AT61 1904 3002 3457 3201 FROM HOME", "AT61 1904 3002 3457 3201"),
        ("NO93 8601 1117 947 and", "NO93 8601 1117 947"),
    ],
    "card": [
        ("card 4111 1111 1111 1111, thanks", "4111 1111 1111 1111"),
        ("card 4111-1111-1111-1111", "4111-1111-1111-1111"),
        ("378282246310005 is one of fifteen digits", "378282246310005"),
        # Digits before or behind it are not part of it, and do not hide it.
        ("order 22 4111 1111 1111 1111", "4111 1111 1111 1111"),
        ("4111 1111 1111 1111 12/27 737", "4111 1111 1111 1111"),
        ("2024 4111 1111 1111 1111 2025", "4111 1111 1111 1111"),
        ("ID42 4111 1111 1111 1111", "4111 1111 1111 1111"),
        ("4111 1111 1111 1112 5555 5555 5555 4444", "5555 5555 5555 4444"),
    ],
    "national-id": [
        ("SSN 078-05-1120 on file", "078-05-1120"),
        ("personnummer 811228-9874", "811228-9874"),
        ("NINO AB 12 34 56 C, please", "AB 12 34 56 C"),
        ("NINO AB123456C", "AB123456C"),
        ("sécu 2 55 08 14 168 025 38", "2 55 08 14 168 025 38"),
        ("née à Ajaccio: 1 84 12 2A 451 089 33", "1 84 12 2A 451 089 33"),
        ("Steuer-ID 86 095 742 719", "86 095 742 719"),
        ("Steuer-ID 65929970489.", "65929970489"),
        ("PESEL 44051401359", "44051401359"),
        ("PESEL 02270803624 of this century", "02270803624"),
        ("DNI 12345678Z", "12345678Z"),
        ("NIE X-1234567-L", "X-1234567-L"),
        ("codice fiscale RSSMRA85T10A562S", "RSSMRA85T10A562S"),
        ("AHV 756.9217.0769.85", "756.9217.0769.85"),
        ("CPF 529.982.247-25", "529.982.247-25"),
    ],
    "phone": [
        ("call +49 151 2345 6789 after five", "+49 151 2345 6789"),
        ("call +1 (555) 123-4567", "+1 (555) 123-4567"),
        # Long enough to be a card number that is none.
        ("call 0049 151 2345 6789", "0049 151 2345 6789"),
    ],
    "key": [
        (f"see {PEM} there", "MIIEowIBAAKCAQEAu1SU1LfVLPHCozMxH2Mo"),
        ('{"private_key": "-----BEGIN PRIVATE KEY-----\\nMIIEowIBAAK\\n-----END PRIVATE KEY-----\\n"}', "MIIEowIBAAK"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,A1\n\nMIIEowIBAAK\n",
            "MIIEowIBAAK",
        ),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQOYBGMIIE\n", "lQOYBGMIIE"),
        ("sk_live_abcdefghijklmnop1234", "abcdefghijklmnop1234"),
        ("sk-proj-abcdefghij_klmnopqr-st", "abcdefghij_klmnopqr-st"),
        ("sk-abcdefghijklmnopqrstuvwx", "abcdefghijklmnopqrstuvwx"),
        ("ghp_abcdefghijklmnopqrstuvwxyz012345", "abcdefghijklmnopqrstuvwxyz012345"),
        ("github_pat_11ABCDEFG0abcdefghij_klmnop", "11ABCDEFG0abcdefghij_klmnop"),
        ("glpat-abcdefghij0123456789", "abcdefghij0123456789"),
        # Digits within it must not be taken out as a card number, which would leave the rest.
        ("xoxb-4111111111111111-abcdefsecret", "abcdefsecret"),
        ("AKIAIOSFODNN7EXAMPLE", "IOSFODNN7EXAMPLE"),
        ("AIzaSyA-abcdefghijklmnopqrstuvwxyz01234", "SyA-abcdefghijklmnopqrstuvwxyz01234"),
        (f"token {JWT} expired", "eyJzdWIiOiJhbm4ifQ"),
        ("Authorization: Bearer abcdef.ghijkl/mnopqr==", "abcdef.ghijkl/mnopqr"),
        ("postgresql://app:swordfish@db/app", "swordfish"),
        ("Password: swordfish", "swordfish"),
        ("the password is swordfish", "swordfish"),
        ("das Passwort ist swordfish", "swordfish"),
        ("password is: swordfish", "swordfish"),
        ("DB_PASSWORD=swordfish", "swordfish"),
        ("client_secret = swordfish", "swordfish"),
        ("access_token=swordfish", "swordfish"),
        ("api-key: swordfish", "swordfish"),
        ('{"password": "sword fish"}', "sword fish"),
        ('{\\"password\\": \\"swordfish\\"}', "swordfish"),
        ("secret: password: swordfish", "swordfish"),
        # As URLs and forms spell it, also within an URL that is in a URL.
        ("GET https://api.example/find?q=my+password+is+swordfish failed", "swordfish"),
        ("https://api.example/find?next=%2Flogin%3Fpassword%3Dswordfish", "swordfish"),
        ("https://api.example/go?to=https%253A%252F%252Fapp%253Aswordfish%2540db", "swordfish"),
        ("Authorization: Basic dXNlcjpzd29yZGZpc2g=", "dXNlcjpzd29yZGZpc2g"),
        ("{'authorization': 'ApiKey swordfish-7'}", "swordfish-7"),
        ("[(b'authorization', b'Basic dXNlcjpzd29yZGZpc2g=')]", "dXNlcjpzd29yZGZpc2g"),
        ("pwd: +49 151 2345 6789", "2345"),
    ],
}  # fmt: skip

# What only looks like it.
LEFT = [
    "Der Drucker im Büro läuft nicht — 打印机坏了 — принтер 😀",
    "The laptop in room 4.12 restarts since 2024-05-17 10:20:30, ticket 10042, error 0x80070005.",
    "meet me @ 10, or at ann@ work; user@localhost",
    "AB12 CDEF GHIJ KLMN OPQR, DE89 3704 1144 0532 1130 01, DE00",
    "4111 1111 1111 1112 and 1234567890123456 and 0000000000000000 and 123456789012",
    "000-12-3456, 666-12-3456, 912-34-5678, 123-00-4567, 123-45-0000, 123-456-7890, 12-345-6789",
    "811328-9874 has no such month, 811228-9875 another digit; 111.111.111-11, 529.982.247-26, 756.9217.0769.84",
    "GB 12 34 56 C, QQ123456C, 12345678A, RSSMRA85T10A562T, 12345678901, 44051401358, 1 84 12 76 451 089 47",
    "order 1750000000000000000 of 1750000000000",
    "+49, 0049, 00 12, 12345678, call extension 4711",
    "sk-short, ghp_short, eyJ.eyJ.x, AKIA, bearer of news, https://corp.example/a:b@c",
    "100%25 of 50%, C%2B%2B, https://corp.example/a%20b?q=how+are+you&r=a+b, 1+1=2, ?a=b+c",
    "authorization is needed; Authorization: none",
    "my password expired; the secretary has a secret; no token; keys are in the drawer",
    "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
]


@pytest.mark.parametrize(("kind", "text", "hidden"), [(kind, *case) for kind, cases in FOUND.items() for case in cases])
def test_what_a_detector_seeks_is_hidden_and_named(kind: str, text: str, hidden: str) -> None:
    shown = REDACTOR.redact({"note": text})
    assert hidden in text
    assert hidden not in shown.value["note"]
    assert kind in shown.kinds
    assert f"<{kind}:" in shown.value["note"]


@pytest.mark.parametrize("text", LEFT)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    value = {"note": text, "more": [text, 1, None, True, 1.5]}
    shown = REDACTOR.redact(value)
    assert shown.value is value
    assert shown.kinds == frozenset()


def test_what_stands_around_it_stays() -> None:
    shown = REDACTOR.text("Ann (ann@corp.example, +49 151 2345 6789) paid with 4111 1111 1111 1111, für €5.")
    assert PSEUDONYM.sub("…", shown) == "Ann (…, …) paid with …, für €5."


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("iban", "DE89 3704 0044 0532 0130 00", "DE89370400440532013000"),
        ("card", "4111-1111-1111-1111", "4111 1111 1111 1111"),
        ("phone", "+49 151 2345 6789", "0049 (151) 2345-6789"),
        ("email", "Ann@Corp.example", "ann@corp.example"),
        ("national-id", "86 095 742 719", "86095742719"),
    ],
)
def test_a_value_is_followed_however_it_is_spelled(kind: str, one: str, other: str) -> None:
    assert REDACTOR.text(one) == REDACTOR.text(other) == REDACTOR.pseudonym(kind, one)
    assert REDACTOR.pseudonym(kind, one) in REDACTOR.pseudonyms(other)


def test_a_pseudonym_is_stable_and_tells_nothing_without_the_key() -> None:
    one = REDACTOR.text("ann@corp.example wrote")
    assert one == REDACTOR.text("ann@corp.example wrote")
    assert one.split()[0] == REDACTOR.text("from: ann@corp.example").split()[1]
    assert one.split()[0] == REDACTOR.pseudonym("email", "ann@corp.example")
    assert one != Redactor(key=b"j" * 32).text("ann@corp.example wrote")
    assert one != REDACTOR.text("bob@corp.example wrote")
    assert PSEUDONYM.fullmatch(one.split()[0])


@given(st.text(max_size=5), st.text(max_size=5))
@settings(deadline=None)
def test_a_literal_secret_never_comes_through(before: str, behind: str) -> None:
    for spelled in (SECRET, "hunter2-Blue%2FHorse", 's3cr3t "quoted"', 's3cr3t \\"quoted\\"'):
        shown = REDACTOR.redact({before + spelled + behind: [spelled * 2], "x": spelled})
        assert spelled not in str(shown.value)
        assert "secret" in shown.kinds


@pytest.mark.parametrize("before", ["", "u:", "us:", "user:"])
def test_a_literal_secret_is_known_in_base64_wherever_it_begins(before: str) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        coded = encode(f"{before}{SECRET}:tail".encode()).decode()
        inner = base64.b64encode(SECRET.encode()).decode()[4:-4]
        for text in (f"x {coded} y", f"https://x.example/?auth={coded}"):
            shown = REDACTOR.redact({"note": text})
            assert "secret" in shown.kinds
            assert inner not in shown.value["note"]
            assert REDACTOR.holds_credential(text)


def test_a_secret_too_short_to_be_one_is_not_looked_for() -> None:
    assert REDACTOR.text("in short") == "in short"


def test_a_literal_secret_within_something_else_that_is_hidden_is_gone_as_well() -> None:
    assert SECRET not in REDACTOR.text(f"password: {SECRET}, postgresql://app:{SECRET}@db.example/x")


def test_declared_fields_are_hidden_whatever_they_hold() -> None:
    value = {
        "name": "Ann",
        "lines": [{"iban": "x", "note": "y"}, {"iban": {"of": ["z", 5, None]}}],
        "empty": None,
        "paid": False,
    }
    classes = {"name": "personal", "lines.*.iban": "secret", "empty": "personal", "paid": "money"}
    shown = REDACTOR.redact(value, classes)
    assert shown.kinds == {"personal", "secret", "money"}
    name, line, other = shown.value["name"], *shown.value["lines"]
    assert name == REDACTOR.pseudonym("personal", "Ann")
    assert line["note"] == "y"
    assert all(PSEUDONYM.fullmatch(text) for text in (name, line["iban"], *other["iban"]["of"][:2]))
    assert other["iban"]["of"][2] is None
    assert shown.value["empty"] is None
    assert shown.value["paid"] == REDACTOR.pseudonym("money", "False")


def test_a_prefix_says_where_the_value_stands() -> None:
    classes = {"result.owner": "personal", "owner": "secret"}
    shown = REDACTOR.redact({"owner": "Ann"}, classes, prefix="result")
    assert shown.kinds == {"personal"}
    assert REDACTOR.redact([{"owner": "Ann"}], {"*.owner": "personal"}).kinds == {"personal"}
    assert REDACTOR.redact("Ann", {"result": "personal"}, prefix="result").kinds == {"personal"}


def test_keys_are_redacted_like_values() -> None:
    shown = REDACTOR.redact({"ann@corp.example": {"ok": 1}})
    assert list(shown.value) == [REDACTOR.pseudonym("email", "ann@corp.example")]
    assert shown.kinds == {"email"}


def test_a_key_that_is_written_like_anothers_pseudonym_does_not_take_its_place() -> None:
    """Else an argument could be hidden from the person who is asked about it."""
    forged = REDACTOR.pseudonym("email", "ann@corp.example")
    for value in ({"ann@corp.example": 1, forged: 2}, {forged: 2, "ann@corp.example": 1}):
        shown = REDACTOR.redact({"to": value}).value["to"]
        assert sorted(shown.values()) == [1, 2]
        concealed = REDACTOR.redact({"to": value}, {"to": "personal"}).value["to"]
        assert len(concealed) == 2


def test_a_lone_surrogate_leaves_a_text_that_can_be_stored() -> None:
    for text in ("\ud800", "ann@corp.example \udfff", "a\ud800" * 20):
        assert "ann@" not in REDACTOR.text(text)
        REDACTOR.text(text).encode()


PIECES = st.sampled_from(
    [text for cases in FOUND.values() for text, _ in cases]
    + [hidden for cases in FOUND.values() for _, hidden in cases]
    + LEFT
    + ["password", "password: ", "secret = ", "is ", "token:", '"', "\\", " ", "\n", "-", "@", ".", "+", "00", "a", "4"]
    + ["eyJ", "Bearer ", "://x:", "-----BEGIN PRIVATE KEY-----", SECRET, "ä", "<", ">", "<email:", "<password:"]
    + ["<card:001234567890>", "<phone:004915112345>", "\ud800"]
)
texts = st.lists(PIECES | st.text(max_size=4), max_size=8).map("".join)


@given(texts)
@settings(max_examples=500, deadline=None)
@example("password: 4 111 111111111111")
@example("<key:001912345678>")
@example("Authorization: nonecall +49 151 2345 6789 after five")
def test_redacting_again_changes_nothing(text: str) -> None:
    once = REDACTOR.redact({"a": text, text: [text]}, {"none": "personal"})
    again = REDACTOR.redact(once.value)
    assert again.value is once.value
    assert again.kinds == frozenset()
    assert REDACTOR.text(REDACTOR.text(text)) == REDACTOR.text(text)


@pytest.mark.parametrize("kind", [*KINDS, *FieldClass, "person", "subject"])
def test_a_pseudonym_of_any_class_is_no_find_of_its_own(kind: str) -> None:
    pseudonym = REDACTOR.pseudonym(kind, "x")
    assert REDACTOR.text(f"a {pseudonym} b") == f"a {pseudonym} b"
    # And whoever reads it knows the class again.
    assert class_of(pseudonym) == kind
    assert list(classes_in(f"a {pseudonym} b")) == [kind]


@given(texts)
@settings(deadline=None)
def test_whether_anything_was_found_is_said_truly(text: str) -> None:
    value: dict[str, Any] = {"a": [text]}
    shown = REDACTOR.redact(value)
    assert (shown.value is value) == (not shown.kinds) or "\ud800" in text


@given(st.lists(texts | PIECES, min_size=1, max_size=3))
@settings(max_examples=300, deadline=None)
def test_a_text_is_shown_alike_wherever_it_stands(given: list[str]) -> None:
    """A value is looked at as a whole first, so that most need no walk; that must not change what comes of it."""
    shown = [REDACTOR.text(text) for text in given]
    assert REDACTOR.redact(given).value == shown
    assert REDACTOR.redact({"texts": given}).value["texts"] == shown
    classed = REDACTOR.redact({"texts": given, "name": "Ann"}, {"name": "personal"})
    assert (classed.value["texts"], classed.kinds >= {"personal"}) == (shown, True)


def test_originals_with_a_credential_in_them_are_not_sealed() -> None:
    for original in ({"note": f"use {SECRET}"}, [SECRET], {SECRET: 1}, {"url": "https://x/hunter2-Blue%2FHorse"}):
        assert REDACTOR.sealed(REDACTOR.redact(original).value, original) is None
    personal = {"note": "write to ann@corp.example"}
    assert REDACTOR.sealed(REDACTOR.redact(personal).value, personal) is personal
    plain = {"note": "nothing"}
    assert REDACTOR.sealed(plain, plain) is None


# Each makes a candidate begin again and again that comes to nothing, some of them only far behind: an expression that
# waits for them at every find takes the square of the length. At this size that is hours.
HOSTILE = {
    "words that are encoded": "%41%42?a=b+c ",
    "one word that is encoded": "%2541",
    "queries without an end": "?a=",
    "numbers of people that are none": "12345678901 ",
    "numbers of people without a blank": "078-05-",
    "digits that could be cards": "4111 1111 1111 1112 ",
    "digits in one line": "4",
    "single digits": "4 ",
    "hyphens that could be an address": "4-",
    "addresses without an end": "a@4-",
    "addresses without a beginning": "aaaa.",
    "account numbers that are none": "AB12 3456 7890 ",
    "account numbers of a country that are none": "DE12 3456 7890 ",
    "tokens between tokens": "eyJaaaaaaaaa-ghp_aaaaaaaaaaaaaaaaaaaaaa-",
    "beginnings of tokens": "eyJ-",
    "keys without an end": "-----BEGIN PRIVATE KEY-----",
    "names of secrets": "password:",
    "names of secrets in quotes": 'password="a\\" ',
    "names of secrets far apart": "password" + " " * 60,
    "plus signs": "+49 ",
    "addresses with passwords": "://a:",
    "bearers": "bearer ",
}


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_of_a_megabyte_is_redacted(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    assert REDACTOR.text(text) is not None


def test_hostile_text_of_five_megabytes_is_redacted() -> None:
    text = "".join(unit * (400_000 // len(unit)) for unit in HOSTILE.values())
    assert len(text) > 5_000_000
    assert "ghp_" not in REDACTOR.text(text)
