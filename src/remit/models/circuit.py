"""A circuit breaker: a model that fails again and again is left alone for a while, then tried with one request.

One for each model of `remit.toml` and each process; it is told the time and never waits.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from remit.models.interface import Fault, ModelFailed

FAILURES = 5
"""So many failures in a row, within `WINDOW_S`, open the circuit."""
WINDOW_S = 60.0
OPEN_S = 30.0
"""How long an open circuit stays so before one request is let through to see."""

_log = logging.getLogger("remit")


class Circuit:
    """Closed as long as the model answers; open after repeated failures; half open while one request finds out.

    `now`: seconds on any clock that does not go back.
    """

    def __init__(self, name: str, now: Callable[[], float]) -> None:
        self.name = name
        self._now = now
        self._failures: deque[float] = deque(maxlen=FAILURES)
        self._open_until: float | None = None
        self._probing = False

    @property
    def state(self) -> str:
        """`closed`, `open` or `half-open`."""
        if self._open_until is None:
            return "closed"
        return "half-open" if self._probing or self._now() >= self._open_until else "open"

    def admit(self) -> None:
        """Let a request through; each one is followed by `succeeded`, `failed` or `dropped`. Raises `ModelFailed`."""
        if self._open_until is None:
            return
        left_s = self._open_until - self._now()
        if left_s > 0 or self._probing:
            when = f"for another {left_s:.0f} s" if left_s > 0 else "until one request has shown whether it is back"
            raise ModelFailed(
                f"it has failed {FAILURES} times in a row and is not asked {when}",
                code="model_unavailable",
                fault=Fault.AWAY,
                why=f"circuit {self.state}",
            )
        self._probing = True

    def succeeded(self) -> None:
        """The model answered, whatever it said."""
        if self._open_until is not None:
            _log.warning("model `%s` answers again; its circuit is closed", self.name)
        self._failures.clear()
        self._open_until, self._probing = None, False

    def failed(self) -> None:
        """The model was away, overloaded, too slow or broken."""
        now = self._now()
        self._failures.append(now)
        if self._open_until is not None:
            # One more failure of what is known to be away; said once, when it began.
            self._open_until, self._probing = now + OPEN_S, False
        elif len(self._failures) == FAILURES and now - self._failures[0] <= WINDOW_S:
            self._open_until = now + OPEN_S
            _log.warning(
                "model `%s` has failed %d times in a row; its circuit is open, and it is tried again every %.0f s",
                self.name,
                FAILURES,
                OPEN_S,
            )

    def dropped(self) -> None:
        """Nobody knows: whoever asked does not wait any more."""
        self._probing = False
