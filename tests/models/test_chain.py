"""Attempts, stand-ins and circuits, on a clock that the test turns."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.contracts.model import AnswerKind
from remit.contracts.project_file import PriceSection
from remit.models.chain import BACKOFF_S, CORRECTIONS, FallbackChain, Link, Spent, Timing
from remit.models.circuit import FAILURES, OPEN_S, WINDOW_S, Circuit
from remit.models.interface import ChatMessage, Fault, ModelAnswer, ModelFailed, ModelRequest, OnText, WrongAnswer
from remit.models.llm import legal_name, retry_after_ms
from remit.models.prices import cost_by_section
from remit.tools.spec import TOOL_NAME

pytestmark = pytest.mark.anyio

REQUEST = ModelRequest(
    binding="main",
    run="run-1",
    answer=AnswerKind.TEXT,
    args={},
    args_digest="",
    messages=(ChatMessage(role="user", text="hello"),),
)


class Clock:
    """A clock that only waiting moves; `waits` are all of them."""

    def __init__(self, share: float = 1.0) -> None:
        self.now = 1000.0
        self.waits: list[float] = []
        self.pace = Timing(now=lambda: self.now, sleep=self.sleep, share=lambda: share)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


Step = ModelAnswer | ModelFailed | Callable[[OnText | None], ModelAnswer]


class Scripted:
    """A model that does as it is told, the last thing for ever; `asked` is what it was sent."""

    corrects = True

    def __init__(self, name: str, *steps: Step, clock: Clock | None = None, takes_s: float = 0) -> None:
        self.name = name
        self._steps = list(steps)
        self._clock = clock
        self._takes_s = takes_s
        self.asked: list[ModelRequest] = []

    async def ask(self, request: ModelRequest, on_text: OnText | None) -> ModelAnswer:
        self.asked.append(request)
        if self._clock is not None:
            self._clock.now += self._takes_s
        step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        if isinstance(step, ModelFailed):
            raise ModelFailed(step.message, code=step.code, fault=step.fault, why=step.why, retry_after_ms=step.retry_after_ms)
        return step if isinstance(step, ModelAnswer) else step(on_text)


def failing(fault: Fault, retry_after_ms: int | None = None) -> ModelFailed:
    return ModelFailed(f"it is {fault.value}", code="model_http", fault=fault, why=fault.value, retry_after_ms=retry_after_ms)


HELLO = ModelAnswer(text="hello", tokens_in=10, tokens_out=2, cost_microusd=5)
BUSY = failing(Fault.BUSY)


def text_of(answer: ModelAnswer) -> str:
    if not answer.text or "wrong" in answer.text:
        raise WrongAnswer("it is wrong")
    return answer.text


def chain(clock: Clock, *models: Scripted, attempts: int = 3, timeout_s: float = 60) -> FallbackChain:
    links = [
        Link(name=model.name, model=model, circuit=Circuit(model.name, lambda: clock.now), attempts=attempts) for model in models
    ]
    return FallbackChain(links, timeout_s=timeout_s, pace=clock.pace)


async def ask(asked: FallbackChain, on_text: OnText | None = None) -> tuple[Any, Spent]:
    spent = Spent()
    try:
        return await asked.ask(REQUEST, text_of, on_text, spent), spent
    except ModelFailed as failed:
        return failed, spent


def outcomes(spent: Spent) -> list[tuple[Any, Any]]:
    return [(each["model"], each["outcome"]) for each in spent.attempts]


# ---- attempts ------------------------------------------------------------------------------------------------------


async def test_what_may_pass_is_tried_again_with_waits_that_double() -> None:
    clock = Clock()
    said, spent = await ask(chain(clock, Scripted("a", BUSY, BUSY, HELLO)))
    assert said == "hello"
    assert clock.waits == [BACKOFF_S, 2 * BACKOFF_S]
    assert outcomes(spent) == [("a", "busy"), ("a", "busy"), ("a", "stop")]


async def test_jitter_takes_any_share_of_a_wait() -> None:
    for share in (0.0, 0.3):
        clock = Clock(share)
        await ask(chain(clock, Scripted("a", BUSY), attempts=5))
        assert clock.waits == pytest.approx([share * BACKOFF_S * 2**n for n in range(4)])


async def test_a_server_that_asks_for_a_wait_gets_it_if_there_is_time() -> None:
    clock = Clock()
    said, _ = await ask(chain(clock, Scripted("a", failing(Fault.BUSY, 20_000), HELLO)))
    assert (said, clock.waits) == ("hello", [20.0])
    clock = Clock()
    model = Scripted("a", failing(Fault.BUSY, 20_000), HELLO)
    said, _ = await ask(chain(clock, model, timeout_s=19))
    assert isinstance(said, ModelFailed)
    assert "asks to be left alone for 20 s; 19 s are left" in said.message
    assert (clock.waits, len(model.asked)) == ([], 1)


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.BUSY])
async def test_nothing_else_is_tried_again(fault: Fault) -> None:
    clock = Clock()
    model = Scripted("a", failing(fault), HELLO)
    said, _ = await ask(chain(clock, model))
    assert isinstance(said, ModelFailed)
    assert len(model.asked) == 1


# ---- stand-ins -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.BUSY, Fault.BROKEN, Fault.BARRED, Fault.AWAY, Fault.MISSING])
async def test_where_a_model_can_not_answer_the_next_one_is_asked_and_the_record_says_why(fault: Fault) -> None:
    clock = Clock()
    said, spent = await ask(chain(clock, Scripted("a", failing(fault)), Scripted("b", HELLO), attempts=1))
    assert (said, spent.model) == ("hello", "b")
    assert outcomes(spent) == [("a", fault.value), ("b", "stop")]


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.WRONG])
async def test_nobody_else_is_asked_to_get_around_a_refusal_or_a_request_that_is_wrong(fault: Fault) -> None:
    clock = Clock()
    other = Scripted("b", HELLO)
    said, _ = await ask(chain(clock, Scripted("a", failing(fault)), other))
    assert isinstance(said, ModelFailed)
    assert other.asked == []


async def test_where_all_fail_the_error_tells_of_each() -> None:
    said, _ = await ask(chain(Clock(), Scripted("a", BUSY), Scripted("b", failing(Fault.BROKEN))))
    assert isinstance(said, ModelFailed)
    assert said.message == "model `a`: it is busy; model `b`: it is broken"


async def test_a_model_that_takes_its_share_of_the_time_leaves_the_others_theirs() -> None:
    clock = Clock()
    slow = Scripted("a", BUSY, clock=clock, takes_s=4)
    said, spent = await ask(chain(clock, slow, Scripted("b", HELLO), timeout_s=10, attempts=9))
    assert said == "hello"
    assert outcomes(spent)[-1] == ("b", "stop")
    # 4 s, a wait of half a second, and what is left of 5 s would not do for another wait.
    assert len(slow.asked) == 2


# ---- corrections ---------------------------------------------------------------------------------------------------


async def test_an_answer_is_given_back_a_bounded_number_of_times_and_every_token_counts() -> None:
    wrong = ModelAnswer(text="wrong", tokens_in=10, tokens_out=1, cost_microusd=3)
    model = Scripted("a", wrong, HELLO)
    said, spent = await ask(chain(Clock(), model))
    assert (said, spent.tokens_in, spent.cost_microusd) == ("hello", 20, 8)
    assert [(each.role, each.text) for each in model.asked[1].messages[1:]] == [
        ("assistant", "wrong"),
        ("user", "That is not what was asked for: it is wrong"),
    ]
    other = Scripted("b", HELLO)
    model = Scripted("a", wrong)
    said, spent = await ask(chain(Clock(), model, other))
    assert isinstance(said, ModelFailed)
    assert (said.code, len(model.asked), other.asked) == ("model_answer_invalid", CORRECTIONS + 1, [])
    assert spent.tokens_in == 10 * (CORRECTIONS + 1)


async def test_text_of_an_attempt_that_broke_off_is_set_apart_from_what_begins_anew() -> None:
    def breaks_off(on_text: OnText | None) -> ModelAnswer:
        assert on_text is not None
        on_text("hel")
        raise failing(Fault.BUSY)

    def speaks(on_text: OnText | None) -> ModelAnswer:
        assert on_text is not None
        on_text("hello")
        return HELLO

    heard: list[str] = []
    await ask(chain(Clock(), Scripted("a", breaks_off, speaks)), heard.append)
    assert heard == ["hel", "\n\n", "hello"]


# ---- circuits ------------------------------------------------------------------------------------------------------


async def test_a_circuit_opens_after_failures_in_a_row_and_closes_after_one_request_that_is_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    model = Scripted("a", *[BUSY] * FAILURES, BUSY, HELLO)
    asked = chain(clock, model, attempts=1)
    caplog.set_level(logging.WARNING)
    for _ in range(FAILURES):
        await ask(asked)
    said, spent = await ask(asked)
    assert isinstance(said, ModelFailed)
    assert "is not asked for another 30 s" in said.message
    assert outcomes(spent) == [("a", "circuit open")]
    assert len(model.asked) == FAILURES
    clock.now += OPEN_S
    await ask(asked)
    assert len(model.asked) == FAILURES + 1
    said, _ = await ask(asked)
    assert isinstance(said, ModelFailed)
    assert len(model.asked) == FAILURES + 1
    clock.now += OPEN_S
    assert (await ask(asked))[0] == "hello"
    assert (await ask(asked))[0] == "hello"
    assert ["circuit is open" in each.message for each in caplog.records] == [True, False]


def test_while_one_request_finds_out_no_other_is_let_through() -> None:
    clock = Clock()
    circuit = Circuit("a", lambda: clock.now)
    for _ in range(FAILURES):
        circuit.failed()
    clock.now += OPEN_S
    assert circuit.state == "half-open"
    circuit.admit()
    with pytest.raises(ModelFailed, match="until one request has shown"):
        circuit.admit()
    circuit.dropped()
    circuit.admit()
    circuit.succeeded()
    assert circuit.state == "closed"


def test_failures_that_lie_far_apart_or_have_successes_between_open_nothing() -> None:
    clock = Clock()
    circuit = Circuit("a", lambda: clock.now)
    for _ in range(3 * FAILURES):
        circuit.failed()
        clock.now += WINDOW_S / (FAILURES - 1) + 1
    assert circuit.state == "closed"
    for number in range(3 * FAILURES):
        circuit.failed()
        if number % (FAILURES - 1) == 0:
            circuit.succeeded()
    assert circuit.state == "closed"


async def test_a_server_that_refuses_or_bars_is_up() -> None:
    clock = Clock()
    for fault in (Fault.REFUSED, Fault.WRONG, Fault.BARRED):
        model = Scripted("a", failing(fault))
        asked = chain(clock, model, attempts=1)
        for _ in range(2 * FAILURES):
            await ask(asked)
        assert len(model.asked) == 2 * FAILURES


# ---- small parts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("0", 0),
        ("120", 120_000),
        ("Wed, 21 Oct 2026 07:28:10 GMT", 10_000),
        ("Wed, 21 Oct 2026 07:27:00 GMT", 0),
        ("", None),
        ("-1", None),
        ("soon", None),
        ("٣", None),
        ("999999999", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_a_date(said: str, expected: int | None) -> None:
    assert retry_after_ms(said, datetime(2026, 10, 21, 7, 28, tzinfo=UTC)) == expected


@given(st.sets(st.from_regex(TOOL_NAME, fullmatch=True), max_size=20))
def test_every_tool_has_a_name_that_providers_take_and_no_two_the_same(names: set[str]) -> None:
    legal = {legal_name(name) for name in names}
    assert len(legal) == len(names)
    assert all(len(each) <= 64 and set(each) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-") for each in legal)


def test_a_price_counts_cached_tokens_apart_and_rounds_up() -> None:
    price = PriceSection(input="2.00 USD", output="8.00 USD", cached="0.50 USD")
    assert cost_by_section(price, tokens_in=1000, tokens_out=100, tokens_cached=400) == 1200 + 200 + 800
    assert cost_by_section(price, tokens_in=1, tokens_out=0, tokens_cached=1) == 1
    whole = PriceSection(input="2.00 USD", output="8.00 USD")
    assert cost_by_section(whole, tokens_in=1000, tokens_out=100, tokens_cached=400) == 2800
    assert cost_by_section(PriceSection(input="0 USD", output="0 USD"), tokens_in=9, tokens_out=9, tokens_cached=0) == 0
