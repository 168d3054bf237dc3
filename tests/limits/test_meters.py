"""Meters against an exact log of every charge: never too much within a window, never refused without a reason."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import example, given, settings
from hypothesis import strategies as st

from remit.limits.meters import Charge, Exhausted, Meters, Quantity, Reserved

START_US = 1_750_000_000_000_000
MINUTE_MS = 60_000
MINUTE_US = 60_000_000
BUCKET_US = 1_000_000


def charge(amount: int = 1, *, limit: int = 10, meter: str = "m", window_ms: int = MINUTE_MS) -> Charge:
    return Charge(meter=meter, quantity=Quantity.CALLS, label=f"{limit} per minute", limit=limit, window_ms=window_ms, amount=amount)


@dataclass
class Table:
    """The rows of all meters, read and written as transactions do it."""

    rows: dict[str, bytes] = field(default_factory=dict[str, bytes])

    def reserve(self, now_us: int, *charges: Charge) -> tuple[Reserved, ...] | Exhausted:
        names = {each.meter for each in charges}
        meters = Meters({name: state for name, state in self.rows.items() if name in names}, now_us)
        outcome = meters.reserve(charges)
        self.rows.update(meters.changed())
        return outcome

    def take(self, now_us: int, one: Charge) -> Reserved | None:
        outcome = self.reserve(now_us, one)
        return None if isinstance(outcome, Exhausted) else outcome[0]

    def release(self, now_us: int, reserved: Reserved, amount: int) -> None:
        meters = Meters({name: state for name, state in self.rows.items() if name == reserved.meter}, now_us)
        meters.release(reserved, amount)
        self.rows.update(meters.changed())


@dataclass
class Taken:
    """An admitted charge in the log: when, by the latest clock of an admitted one so far, and how much is left."""

    at_us: int
    amount: int
    reserved: Reserved


@dataclass
class Log:
    """The obvious meter: every charge is kept, and a window is added up."""

    window_us: int
    taken: list[Taken] = field(default_factory=list[Taken])

    def within(self, now_us: int, span_us: int) -> int:
        return sum(each.amount for each in self.taken if now_us - span_us < each.at_us <= now_us)


windows_ms = st.sampled_from([1, 7, 59, 61, 1_000, MINUTE_MS, 3_600_000, 86_400_000])
# Steps of time in hundredths of a window: much at once, nothing at all, several windows, and back.
steps = st.tuples(
    st.integers(-30, 130) | st.just(0) | st.sampled_from([-500, 99, 100, 101, 400]),
    st.integers(0, 99),
    st.integers(0, 6),
    st.integers(0, 3),
)


@given(windows_ms, st.integers(0, 15), st.lists(steps, max_size=60))
@settings(max_examples=300, deadline=None)
@example(window_ms=1, limit=1, moves=[(0, 0, 1, 0), (98, 5, 1, 0)])
@example(window_ms=MINUTE_MS, limit=10, moves=[(0, 0, 6, 0), (101, 0, 6, 0), (-500, 0, 5, 0), (99, 0, 6, 0)])
def test_no_window_ever_holds_more_than_the_limit_and_none_is_refused_early(
    window_ms: int, limit: int, moves: list[tuple[int, int, int, int]]
) -> None:
    window_us = window_ms * 1000
    # A sixtieth of the window, rounded up to a whole microsecond.
    bucket_us = -(-window_us // 60)
    table, log = Table(), Log(window_us)
    clock, latest = START_US, 0
    for hundredths, offset_us, amount, give_back in moves:
        clock += hundredths * window_us // 100 + offset_us
        now = max(latest, clock)
        wanted = charge(amount, limit=limit, window_ms=window_ms)
        reserved = table.take(clock, wanted)
        if reserved is not None:
            latest = now
            log.taken.append(Taken(at_us=now, amount=amount, reserved=reserved))
            assert log.within(now, window_us) <= limit
        else:
            assert log.within(now, 61 * bucket_us) + amount > limit
        if give_back and log.taken:
            oldest = log.taken[(give_back * 7) % len(log.taken)]
            back = min(give_back, oldest.amount)
            table.release(clock, oldest.reserved, back)
            oldest.amount -= back


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 5)), max_size=200))
@settings(deadline=None)
def test_the_state_of_a_meter_stays_small_however_many_charges_there_are(moves: list[tuple[int, int]]) -> None:
    table, now = Table(), START_US
    for wait_us, amount in moves:
        now += wait_us
        table.take(now, charge(amount, limit=10**9))
        assert len(table.rows["m"]) < 61 * 16


def test_a_limit_is_reached_exactly_and_free_again_a_window_later() -> None:
    table = Table()
    assert [table.take(START_US, charge(limit=3)) is not None for _ in range(4)] == [True, True, True, False]
    assert table.take(START_US + MINUTE_US - 1, charge(limit=3)) is None
    assert table.take(START_US + MINUTE_US + BUCKET_US, charge(limit=3)) is not None


def test_a_burst_at_the_border_of_two_minutes_does_not_count_twice() -> None:
    """What a counter that is set back each minute allows: the limit in the last second, and again in the next."""
    table, border = Table(), START_US - START_US % MINUTE_US
    assert all(table.take(border - 1, charge(limit=5)) for _ in range(5))
    assert not any(table.take(border + second * BUCKET_US, charge(limit=5)) for second in range(59))


def test_what_is_used_is_said_with_the_charge_that_found_no_room() -> None:
    table = Table()
    table.take(START_US, charge(7))
    wanted = charge(4)
    assert table.reserve(START_US, wanted) == Exhausted(charge=wanted, used=7)
    assert table.take(START_US, charge(3)) is not None


def test_of_several_charges_all_are_taken_or_none() -> None:
    table = Table()
    table.take(START_US, charge(9, meter="b"))
    before = dict(table.rows)
    refused = table.reserve(START_US, charge(5, meter="a"), charge(2, meter="b"), charge(1, meter="c"))
    assert refused == Exhausted(charge=charge(2, meter="b"), used=9)
    assert Meters(dict(before), START_US).reserve((charge(10, meter="a"),)) == table.reserve(
        START_US, charge(10, meter="a")
    )
    taken = table.reserve(START_US, charge(1, meter="b"), charge(1, meter="c"))
    assert isinstance(taken, tuple)
    assert [reserved.meter for reserved in taken] == ["b", "c"]


def test_two_charges_on_one_meter_share_its_room() -> None:
    table = Table()
    assert isinstance(table.reserve(START_US, charge(6), charge(6)), Exhausted)
    assert isinstance(table.reserve(START_US, charge(5), charge(5)), tuple)
    assert table.take(START_US, charge(1)) is None


def test_entries_of_one_transaction_see_each_others_charges() -> None:
    meters = Meters({}, START_US)
    outcomes = [meters.reserve((charge(4),)) for _ in range(3)]
    assert [isinstance(outcome, Exhausted) for outcome in outcomes] == [False, False, True]
    assert meters.changed().keys() == {"m"}


def test_a_charge_that_found_no_room_on_a_new_meter_leaves_no_row() -> None:
    meters = Meters({}, START_US)
    assert isinstance(meters.reserve((charge(11),)), Exhausted)
    assert meters.changed() == {}


def test_what_is_given_back_is_room_again() -> None:
    table = Table()
    reserved = table.take(START_US, charge(10))
    assert reserved is not None
    table.release(START_US + 5 * BUCKET_US, reserved, 4)
    assert table.take(START_US + 5 * BUCKET_US, charge(5)) is None
    assert table.take(START_US + 5 * BUCKET_US, charge(4)) is not None


def test_what_turned_out_to_cost_more_is_taken_even_where_there_is_no_room() -> None:
    table = Table()
    reserved = table.take(START_US, charge(8))
    assert reserved is not None
    table.release(START_US, reserved, -5)
    wanted = charge(1)
    assert table.reserve(START_US, wanted) == Exhausted(charge=wanted, used=13)


def test_what_has_left_the_window_is_not_given_back_to_another_one() -> None:
    table = Table()
    reserved = table.take(START_US, charge(10))
    assert reserved is not None
    later = START_US + 2 * MINUTE_US
    assert table.take(later, charge(10)) is not None
    table.release(later, reserved, 10)
    assert table.take(later, charge(1)) is None


def test_a_clock_that_is_behind_opens_no_window_that_is_filled() -> None:
    table = Table()
    assert table.take(START_US, charge(10)) is not None
    for behind_us in (1, BUCKET_US, MINUTE_US, 100 * MINUTE_US, START_US):
        assert table.take(START_US - behind_us, charge(1)) is None


def test_a_charge_by_a_clock_that_is_behind_counts_as_long_as_any_other() -> None:
    table = Table()
    table.take(START_US, charge(1))
    table.take(START_US - 50 * BUCKET_US, charge(9))
    assert table.take(START_US + 30 * BUCKET_US, charge(1)) is None


def test_a_limit_of_nothing_admits_nothing() -> None:
    assert Table().take(START_US, charge(1, limit=0)) is None
