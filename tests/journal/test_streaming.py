"""A text that comes in pieces is shown as the whole would be, whatever the pieces are."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from remit.journal.redaction import Redactor
from remit.journal.streaming import HELD, RedactedStream

CREDENTIAL = "correct-horse-battery-staple"
SECRETS = (
    CREDENTIAL,
    "sk-live-0123456789abcdefghij",
    "ann.other@corp.example",
    "DE89 3704 0044 0532 0130 00",
    "+49 30 1234567",
    "4111 1111 1111 1111",
    "password is swordfish99",
    "authorization: Bearer abcdefghijklmnop123456",
    "the account of Margaret Hamilton",
)
WORDS = ("hello", "a", "the order", "\n", "über", "注文を確認しました", "7", "x" * 90, "…", "/")


def redactor() -> Redactor:
    made = Redactor(key=b"k" * 32, secrets=[CREDENTIAL]).for_run()
    made.note("personal", "Margaret Hamilton")
    return made


def streamed(pieces: list[str]) -> list[str]:
    shown: list[str] = []
    stream = RedactedStream(redactor(), shown.append)
    for piece in pieces:
        stream.feed(piece)
    stream.end()
    return shown


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({place % (len(text) + 1) for place in places})
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


@given(
    parts=st.lists(st.one_of(st.sampled_from(SECRETS), st.sampled_from(WORDS), st.text(max_size=12)), max_size=40),
    places=st.lists(st.integers(0, 4000), max_size=60),
)
@example(parts=["DE89 3704 0044 0532 0130 00", CREDENTIAL, CREDENTIAL, "hello"], places=[])
@example(parts=[CREDENTIAL] * 12, places=list(range(0, 4000, 5)))
@example(parts=[*WORDS, "password is swordfish99", *WORDS, *WORDS], places=list(range(4000)))
def test_whatever_the_pieces_are_all_of_them_show_what_the_whole_shows(parts: list[str], places: list[int]) -> None:
    text = " ".join(parts)
    assert "".join(streamed(cut(text, places))) == redactor().text(text)


@given(before=st.integers(0, 200), after=st.integers(0, 200), secret=st.sampled_from(SECRETS), step=st.integers(1, 30))
def test_no_part_of_a_secret_is_shown_early(before: int, after: int, secret: str, step: int) -> None:
    text = f"{'word ' * before}{secret} {'word ' * after}"
    shown = "".join(streamed([text[at : at + step] for at in range(0, len(text), step)]))
    for word in ("correct-horse", "0123456789ab", "ann.other", "3704 0044", "1234567", "1111", "swordfish", "Hamilton"):
        assert word not in shown


def test_text_is_shown_while_it_comes_and_not_only_at_its_end() -> None:
    shown: list[str] = []
    stream = RedactedStream(redactor(), shown.append)
    for number in range(100):
        stream.feed(f"word{number} ")
    held = len("".join(f"word{number} " for number in range(100))) - len("".join(shown))
    assert HELD <= held <= HELD + 20


def test_a_script_without_blanks_is_shown_while_it_comes_as_well() -> None:
    shown: list[str] = []
    stream = RedactedStream(redactor(), shown.append)
    for _ in range(40):
        stream.feed("注文を確認しました")
    assert len("".join(shown)) > 200


def test_a_number_that_was_seen_alone_leaves_no_part_of_a_longer_one_in_the_clear() -> None:
    own = redactor()
    assert own.text("call 0044 0532 0130 today") != "call 0044 0532 0130 today"
    assert "DE89" not in own.text("pay to DE89 3704 0044 0532 0130 00 today")
