"""A monotonic clock of one machine: its own origin, a rate that is not quite right, and sleep that it may not count.

Theory of operation
-------------------
The time of a world is the true one.  A :class:`Clock` maps it to what one machine shows: a straight line from the last
moment at which something happened to it.  A machine that is suspended stops the line (:meth:`Clock.stop`); when it goes
on, the clock has stood still, or leaps over the time that it slept, as monotonic clocks of different systems do.  It
never goes back.

The core has no other clock, least of all one of the wall, so there is none that could be set.
"""

from __future__ import annotations

from math import inf, ulp

__all__ = ["Clock"]


class Clock:
    """``rate``: its seconds in a true one.  ``shows``: what it shows at the true time ``at``."""

    def __init__(self, rate: float = 1.0, shows: float = 0.0, at: float = 0.0) -> None:
        self.rate = rate
        self._at = at
        self._shows = shows
        self._stopped = False

    def read(self, true: float) -> float:
        """What it shows at that true time, which is not before anything that happened to it."""
        return self._shows if self._stopped else self._shows + (true - self._at) * self.rate

    def when(self, shown: float) -> float:
        """The first true time at which it shows that much, to within its resolution; ``inf`` while it stands still."""
        if self._stopped:
            return inf
        true = self._at + (shown - self._shows) / self.rate
        step = max(ulp(true), ulp(shown))
        while self.read(true) < shown:
            true += step
        return true

    def stop(self, true: float) -> None:
        """The machine is suspended."""
        self._at, self._shows, self._stopped = true, self.read(true), True

    def go(self, true: float, *, leap: bool) -> None:
        """It goes on; with ``leap`` the clock counts the time for which it stood still."""
        if self._stopped:
            self._shows += (true - self._at) * self.rate if leap else 0.0
            self._at, self._stopped = true, False
