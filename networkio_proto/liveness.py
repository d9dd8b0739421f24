"""Is the peer of a live connection still there, does the stream take bytes, and does the peer see that of us?

Theory of operation
-------------------
Every byte that comes is a sign of life.  A peer that is silent is asked by PING; after ``Config.dead_after`` of silence
the connection is closed.  Either side also speaks before *the other's* patience ends, by a PING when it has nothing
else to say.  A stream that takes no byte for ``Config.write_stall`` is given up even if the peer talks.  It may take
none for minutes and still be alive: a system that has got used to a quick line holds megabytes, and takes no more
before most of them are gone.  Where the driver can tell how much that is (``Connection.backlog``), it is looked at now
and then while bytes wait, and a change counts like a byte that was taken.

A *probe* is a PING with a short deadline: somebody else claims the session, and the connection keeps it only if the
peer answers.  Bytes that are no PONG may be old ones, out of some buffer: they extend the probe a few times.

Silence counts only while this process itself ran (``Endpoint.paused``): after a pause of our own the peer is asked
before it is judged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import CloseCode, ConnectionLost
from .frames import encode_ping, encode_pong

if TYPE_CHECKING:
    from .connection import Connection
    from .endpoint import Endpoint

__all__ = ["Liveness"]

#: a probed incumbent that sends bytes but no PONG gets so many more intervals before it counts as alive
_PROBE_EXTENSIONS = 5

#: while bytes wait, the backlog is looked at so often in the time of ``Config.write_stall``
_LOOKS = 4

#: a probe of one incumbent begins at most so often (seconds)
_PROBE_SPACING = 1.0

#: the round trip is measured at most so often (seconds)
_MEASURE_SPACING = 1.0


class Liveness:
    """The signs of life of one connection, and its deadlines from the moment on at which it is live."""

    __slots__ = (
        "_backlog",
        "_connection",
        "_endpoint",
        "_grace",
        "_last_ping",
        "_moved",
        "_opaque",
        "_ping",
        "_pong",
        "_ponged",
        "_probe_at",
        "_probe_begun",
        "_probe_extensions",
        "_probe_opaque",
        "_probe_since",
        "_spread",
        "due",
        "heard",
        "said",
        "writing_since",
    )

    def __init__(self, connection: Connection, endpoint: Endpoint, now: float) -> None:
        self._connection = connection
        self._endpoint = endpoint
        #: when bytes came last, and when bytes were handed out last
        self.heard = now
        self.said = now
        #: since when the driver has bytes that it could not write; None while it has none
        self.writing_since: float | None = None
        #: what was seen of the backlog: for bytes that wait since when, and how much it was; and when that changed
        self._backlog: tuple[float, int] | None = None
        self._moved = now
        self._last_ping = now
        #: the number of the last PING, and the highest that was answered
        self._opaque = 0
        self._ponged = 0
        #: PING and PONG that wait to go out
        self._ping: int | None = None
        self._pong: int | None = None
        self.due = False
        #: until then nobody is judged
        self._grace = 0.0
        self._probe_at: float | None = None
        self._probe_since = now
        self._probe_begun = now - _PROBE_SPACING
        self._probe_opaque = 0
        self._probe_extensions = 0
        # deadlines are spread so that 5,000 connections made at once do not ping at once
        self._spread = 0.75 + 0.25 * endpoint.random.random()

    def begin(self, now: float) -> None:
        """The connection is live."""
        self.heard = self._last_ping = now
        self._endpoint.timers.cancel(self._connection)
        self._endpoint.timers.schedule(self._connection, self._next_deadline(now))

    # -- PING and PONG ------------------------------------------------------------------------------------------

    def ping(self, now: float) -> None:
        """Ask for a sign of life."""
        self._last_ping = now
        self._opaque += 1
        self._ping = self._opaque
        self.due = True
        self._connection.want_write(now)

    def measure(self, now: float) -> None:
        """Ask for the round trip, unless it was just asked for: a peer counts too many PINGs as abuse."""
        if now >= self._last_ping + _MEASURE_SPACING:
            self.ping(now)

    def receive_ping(self, opaque: int, now: float) -> None:
        """The peer asks; the latest question is answered."""
        self._connection.spend(now)
        self._pong = opaque
        self.due = True
        self._connection.want_write(now)

    def receive_pong(self, opaque: int, now: float) -> None:
        """The peer answers."""
        if self._ponged < opaque <= self._opaque:
            self._ponged = opaque
            if opaque == self._opaque and self._connection.session is not None:  # of earlier ones the time is not known
                self._connection.session.counters.measured(now - self._last_ping)
        else:
            self._connection.spend(now)
        if self._probe_at is not None and self._probe_opaque <= opaque <= self._opaque:
            self._alive(now)

    def fill(self, out: list[bytes | memoryview]) -> None:
        """Append what waits to go out."""
        self.due = False
        if self._pong is not None:
            out.append(encode_pong(self._pong))
            self._pong = None
        if self._ping is not None:
            out.append(encode_ping(self._ping))
            self._ping = None

    # -- deadlines ----------------------------------------------------------------------------------------------

    def on_timer(self, now: float) -> float | None:
        """Do what is due; the next deadline, or None if the connection is over."""
        connection, config = self._connection, self._endpoint.config
        if self._endpoint.paused:  # our own pause is not the peer's silence: ask before judging
            self._grace = now + config.probe_timeout
            self.ping(now)
        if now >= self._dead_at():
            connection.close(CloseCode.TIMEOUT, f"{connection.peer_id} was silent for {now - self.heard:.1f} s", now)
            return None
        if self.writing_since is not None:
            self._look(now)
            if now >= self._stall_at(self.writing_since):
                stalled = f"the stream to {connection.peer_id} took no byte for {config.write_stall} s"
                connection.fail(ConnectionLost(stalled), now)
                return None
        if self._probe_at is not None and now >= self._probe_at:
            self._probe_over(now)
        if connection.live and now >= self._ping_at():
            self.ping(now)
        return self._next_deadline(now) if connection.live else None

    def _look(self, now: float) -> None:
        """Is what the system holds still on its way?"""
        backlog = self._connection.backlog
        if self.writing_since is not None and backlog is not None:
            seen = self.writing_since, backlog()
            if seen != self._backlog:
                self._backlog, self._moved = seen, now

    def _dead_at(self) -> float:
        dead_at = self.heard + self._endpoint.config.dead_after
        return dead_at if dead_at > self._grace else self._grace

    def _stall_at(self, since: float) -> float:
        return max(max(since, self._moved) + self._endpoint.config.write_stall, self._grace)

    def _ping_at(self) -> float:
        last, heard, said = self._last_ping, self.heard, self.said  # without max(): it takes as long as all the rest
        heard = (heard if heard > last else last) + self._endpoint.config.ping_after * self._spread
        said = (said if said > last else last) + self._connection.peer_limits.idle * 4 / 9 * self._spread
        return heard if heard < said else said

    def _next_deadline(self, now: float) -> float:
        deadline = min(self._dead_at(), self._ping_at())
        if self.writing_since is not None:
            deadline = min(deadline, self._stall_at(self.writing_since))
            if self._connection.backlog is not None:
                deadline = min(deadline, now + self._endpoint.config.write_stall / _LOOKS)
        return deadline if self._probe_at is None else min(deadline, self._probe_at)

    # -- the probe ----------------------------------------------------------------------------------------------

    def probe(self, now: float) -> None:
        """Somebody else claims this session: answer within the probe time, or lose it."""
        if self._probe_at is not None:
            return
        if now < self._probe_begun + _PROBE_SPACING:  # a stranger's dials must not become a flood of PINGs
            self._probe_at = self._probe_begun + _PROBE_SPACING
            self._probe_since, self._probe_extensions, self._probe_opaque = now, -1, self._opaque + 1
            self._endpoint.timers.schedule(self._connection, self._probe_at)
            return
        self._begin_probe(now)

    def _begin_probe(self, now: float) -> None:
        self._probe_begun = now
        self.ping(now)
        self._probe_opaque = self._opaque
        self._probe_since = now
        self._probe_extensions = 0
        self._probe_at = now + self._endpoint.config.probe_timeout
        self._endpoint.timers.schedule(self._connection, self._probe_at)

    def _probe_over(self, now: float) -> None:
        if self._probe_extensions < 0:  # it had to wait for its time
            self._begin_probe(now)
            return
        silent = self.heard <= self._probe_since
        if silent and not self._endpoint.paused:
            self._probe_at = None
            assert self._connection.session is not None
            self._endpoint.incumbent_silent(self._connection.session, now)
        elif self._probe_extensions < _PROBE_EXTENSIONS:
            self._probe_extensions += 1
            self._probe_since = now
            self._probe_at = now + self._endpoint.config.probe_timeout
        else:
            self._alive(now)

    def _alive(self, now: float) -> None:
        self._probe_at = None
        assert self._connection.session is not None
        self._endpoint.incumbent_alive(self._connection.session, now)
