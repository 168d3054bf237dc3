"""Meters: how much of something was used within a sliding window, exact enough never to admit too much.

A meter divides its window into 60 buckets. A charge is admitted if all buckets that reach into the window, the oldest
counted whole, leave room for it. So no window of the full length ever holds more than the limit; at worst a charge is
refused a sixtieth of the window early. State and work per charge are bounded, however many calls there were.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

_BUCKETS = 60
_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(dict[int, int]).decode


class Quantity(StrEnum):
    """What is counted. Money is in ten-thousandths of its currency's unit, spend in millionths of a US dollar."""

    CALLS = "calls"
    WRITES = "writes"
    ROWS = "rows"
    MONEY = "money"
    SPEND = "spend"


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """A demand on one meter: `amount` of at most `limit` within `window_ms`.

    `meter` is the key: everything that shares the limit shares the key. `label` is how people call the limit.
    """

    meter: str
    quantity: Quantity
    label: str
    limit: int
    window_ms: int
    amount: int


class Reserved(msgspec.Struct, frozen=True, kw_only=True):
    """What a charge took, and from which bucket, so that it can be given back."""

    meter: str
    quantity: Quantity
    bucket: int
    amount: int


class Exhausted(msgspec.Struct, frozen=True, kw_only=True):
    """The charge that found no room, and how much was used."""

    charge: Charge
    used: int


class _Meter:
    """One meter within one transaction: its buckets, and their sum once the old ones are dropped."""

    __slots__ = ("buckets", "newest", "total")

    def __init__(self, buckets: dict[int, int]) -> None:
        self.buckets = buckets
        self.newest: int | None = None
        self.total = 0

    def open_at(self, now_us: int, window_ms: int) -> int:
        """The bucket of now; what no longer reaches into the window that ends now is dropped, the rest summed up."""
        if self.newest is None:
            # Rounded up: sixty buckets must never be shorter than the window.
            width_us = -(-window_ms * 1000 // _BUCKETS)
            # A clock that is behind must not open a window that another process has already filled.
            newest = max(now_us // width_us, max(self.buckets, default=0))
            self.buckets = {b: used for b, used in self.buckets.items() if b >= newest - _BUCKETS}
            self.total = sum(self.buckets.values())
            self.newest = newest
        return self.newest

    def add(self, bucket: int, amount: int) -> None:
        self.buckets[bucket] = self.buckets.get(bucket, 0) + amount
        self.total += amount


class Meters:
    """The meters that one transaction has read, and what it does to them.

    The caller holds their rows locked from before the read until the commit.
    """

    def __init__(self, states: dict[str, bytes], now_us: int) -> None:
        self._now_us = now_us
        self._meters = {meter: _Meter(_decode(state)) for meter, state in states.items()}
        self._touched: set[str] = set()
        self._opened: list[_Meter] = []

    def go_on(self, now_us: int) -> None:
        """The next transaction, at `now_us`, of whoever holds these meters all the time."""
        if now_us != self._now_us:
            self._now_us = now_us
            for meter in self._opened:
                meter.newest = None
            self._opened.clear()

    def take(self, charges: tuple[Charge, ...]) -> tuple[Reserved, ...]:
        """Take every charge, whatever room there is: it is known to have been carried out."""
        return tuple(self._take(charge) for charge in charges)

    def put(self, reserved: Reserved) -> None:
        """What was reserved elsewhere, as it stands on record, whatever room there is."""
        meter = self._meters.get(reserved.meter)
        if meter is None:
            meter = self._meters[reserved.meter] = _Meter({})
        meter.add(reserved.bucket, reserved.amount)

    def reserve(self, charges: tuple[Charge, ...]) -> tuple[Reserved, ...] | Exhausted:
        """Take every charge, or none and say which one found no room."""
        taken: list[Reserved] = []
        for charge in charges:
            used = self._opened_at_now(charge).total
            if used + charge.amount > charge.limit:
                for reserved in taken:
                    self.release(reserved, reserved.amount)
                return Exhausted(charge=charge, used=used)
            taken.append(self._take(charge))
        return tuple(taken)

    def release(self, reserved: Reserved, amount: int) -> None:
        """Give back `amount` of a reservation (negative: it turned out to cost more).

        What has left the window since then needs no giving back.
        """
        meter = self._meters.get(reserved.meter)
        if meter is not None and reserved.bucket in meter.buckets:
            meter.add(reserved.bucket, -amount)
            self._touched.add(reserved.meter)

    def changed(self) -> dict[str, bytes]:
        """The states to write back."""
        return {name: _encode(self._meters[name].buckets) for name in self._touched}

    def _opened_at_now(self, charge: Charge) -> _Meter:
        meter = self._meters.get(charge.meter)
        if meter is None:
            meter = self._meters[charge.meter] = _Meter({})
        if meter.newest is None:
            self._opened.append(meter)
            meter.open_at(self._now_us, charge.window_ms)
        return meter

    def _take(self, charge: Charge) -> Reserved:
        meter = self._opened_at_now(charge)
        bucket = meter.open_at(self._now_us, charge.window_ms)
        meter.add(bucket, charge.amount)
        self._touched.add(charge.meter)
        return Reserved(meter=charge.meter, quantity=charge.quantity, bucket=bucket, amount=charge.amount)
