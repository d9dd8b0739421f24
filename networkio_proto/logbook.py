"""What a node says of rare events, for whoever reads its log: which lines there are, and how many of each.

Theory of operation
-------------------
The core does not log; it emits :class:`~networkio_proto.events.Log` effects, and a driver hands them to its logger.
Each kind of line is a :class:`Line` and has a token bucket of its own, filled by ``now``: a flood of one kind neither
fills the disk nor hides another kind.  What is left out is counted, and told with the next line of its kind.

Whatever another process could have chosen (an address, the words of a CLOSE) is escaped and cut by
:func:`~networkio_proto.errors.printable`, and goes in as an argument, never into the format.  Payloads, headers, keys
and nonces are no part of any line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import CloseCode, ConnectionFailure, ConnectionLost, DialFailed, DuplicateIdentity, printable
from .events import Log, ResumeReport
from .handshake import Why
from .reconnect import TargetState

if TYPE_CHECKING:
    from .connection import Connection
    from .endpoint import Endpoint
    from .reconnect import Target

__all__ = ["ERROR", "INFO", "LINES", "WARNING", "Line", "Logbook"]

#: levels, as the standard library's logging has them
INFO, WARNING, ERROR = 20, 30, 40

#: an error's words may be so long: the place, the peer's own words, what to do
_WORDS = 300

#: so many different sources of failed handshakes are told apart between two lines
_SOURCES = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One kind of line.  So many at once (``burst``), then one in ``pause`` seconds."""

    level: int
    text: str
    burst: int = 16
    pause: float = 1.0


CONNECTED = Line(INFO, "connected to %s")
RESUMED = Line(INFO, "connected to %s again after %.1f s (connection %d; messages that go out again: %d)")
LOST = Line(INFO, "the connection to %s ended: %s")
FAULT = Line(WARNING, "the connection to %s ended because of a fault: %s")
RESTARTED = Line(INFO, "%s has restarted: its process is a new one")
ENDED = Line(INFO, "the session with %s ended (messages read: %d, failed: %d)")
ABORTED = Line(INFO, "the session with %s was aborted (messages read: %d, failed: %d)")
EXPIRED = Line(INFO, "the session with %s expired without a connection (messages read: %d, failed: %d)")
DIALLING = Line(WARNING, "dialling %s fails, and is tried again: %s")
GIVEN_UP = Line(WARNING, "dialling %s fails, and is given up: %s")
IMPOSTOR = Line(ERROR, "another process, at %s, uses the id of the connected peer %s, and was turned away")
NAMESAKE = Line(ERROR, "another process uses this node's id; %s turns this one away: %s")
STRANGER = Line(WARNING, "a handshake from %s failed: %s", 4, 10.0)
STRANGERS = Line(WARNING, "%d handshakes from %d sources failed, the last from %s: %s", 4, 10.0)
VERIFYING = Line(ERROR, "verifying a peer raised %s at %s, and the peer is refused", 1, 600.0)
INSTRUMENTATION = Line(ERROR, "the instrumentation failed in %s with %s at %s; its messages go on, this is told once")

#: all of them
LINES = (
    CONNECTED, RESUMED, LOST, FAULT, RESTARTED, ENDED, ABORTED, EXPIRED, DIALLING, GIVEN_UP, IMPOSTOR, NAMESAKE,
    STRANGER, STRANGERS, VERIFYING, INSTRUMENTATION,
)  # fmt: skip

_MISBEHAVIOUR = {CloseCode.PROTOCOL, CloseCode.FLOW, CloseCode.TOO_LARGE, CloseCode.ABUSE}

#: ends of a connection that belong to how connections are made and chosen
_ROUTINE = {CloseCode.NORMAL, CloseCode.RESTARTING, CloseCode.COLLISION, CloseCode.RETRY, CloseCode.SUPERSEDED}

_OVER = {Why.FINISHED: ENDED, Why.EXPIRED: EXPIRED, Why.ABORTED: ABORTED}


class _Bucket:
    """How many lines of a kind may be said now."""

    __slots__ = ("_at", "_line", "_tokens", "left_out")

    def __init__(self, line: Line, now: float) -> None:
        self._line = line
        self._tokens = float(line.burst)
        self._at = now
        #: lines since the last one that was said
        self.left_out = 0

    def take(self, now: float) -> bool:
        """May one more be said?"""
        line = self._line
        self._tokens = min(float(line.burst), self._tokens + max(0.0, now - self._at) / line.pause)
        self._at = now
        if self._tokens < 1.0:
            self.left_out += 1
            return False
        self._tokens -= 1.0
        return True


class Logbook:
    """The lines of one endpoint."""

    __slots__ = ("_buckets", "_endpoint", "_sources")

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._buckets: dict[Line, _Bucket] = {}
        #: of failed handshakes, since the last line that told of one
        self._sources: set[str] = set()

    # -- what happened ------------------------------------------------------------------------------------------

    def connected(self, peer_id: str, report: ResumeReport, now: float) -> None:
        """A connection is live."""
        if report.resumed:
            self._say(RESUMED, now, printable(peer_id), report.downtime, report.connections, report.retransmitted)
        else:
            self._say(CONNECTED, now, printable(peer_id))

    def disconnected(self, peer_id: str, error: ConnectionFailure, now: float) -> None:
        """A live connection ended."""
        fault = error.code in _MISBEHAVIOUR
        self._say(FAULT if fault else LOST, now, printable(peer_id), printable(error, _WORDS))

    def restarted(self, peer_id: str, now: float) -> None:
        """The peer is another process than before."""
        self._say(RESTARTED, now, printable(peer_id))

    def over(self, peer_id: str, why: int, read: int, failed: int, now: float) -> None:
        """A session ended; ``why`` as ATTACH tells it."""
        self._say(_OVER[why], now, printable(peer_id), read, failed)

    def dial_failed(self, target: Target, error: ConnectionFailure, now: float) -> None:
        """An attempt came to nothing: told once for each way of failing, until a connection stands."""
        if error.code in _ROUTINE:
            return
        way = (type(error), type(error.__cause__))
        if way in target.told:
            return
        target.told.add(way)
        if isinstance(error, DuplicateIdentity):
            self._say(NAMESAKE, now, printable(target.key), printable(error, _WORDS))
        else:
            line = GIVEN_UP if target.state is TargetState.STOPPED else DIALLING
            reason = error.__cause__ if isinstance(error, DialFailed) else error  # the line says the rest
            words = printable(reason, _WORDS) or type(reason).__name__
            self._say(line, now, printable(target.key), words)

    def impostor(self, connection: Connection, now: float) -> None:
        """A newcomer uses the id of a peer that is there."""
        self._say(IMPOSTOR, now, _place(connection.source), printable(connection.peer_id))

    def handshake_failed(self, source: str, error: ConnectionFailure, now: float) -> None:
        """Somebody dialled this node and did not get in.  Who merely hangs up (a health check) is not told."""
        if error.code in _ROUTINE or isinstance(error, (ConnectionLost, DuplicateIdentity)):
            return
        if len(self._sources) < _SOURCES:
            self._sources.add(source)
        left_out = self._take(STRANGER, now)
        if left_out is None:
            return
        sources, self._sources = len(self._sources), set()
        told = (_place(source), printable(error, _WORDS))
        if left_out:
            self._emit(STRANGERS, STRANGERS.text, left_out + 1, sources, *told)
        else:
            self._emit(STRANGER, STRANGER.text, *told)

    def instrumentation_failed(self, kind: str, error: BaseException) -> None:
        """Told once by whoever calls this.  Not its words: they could hold what it was given."""
        self._emit(INSTRUMENTATION, INSTRUMENTATION.text, kind, type(error).__name__, _raised_at(error))

    def verifying_failed(self, error: BaseException, now: float) -> None:
        """What looks up keys raised.  Not its words: they could hold a key."""
        self._say(VERIFYING, now, type(error).__name__, _raised_at(error))

    # -- saying it ----------------------------------------------------------------------------------------------

    def _say(self, line: Line, now: float, *arguments: object) -> None:
        left_out = self._take(line, now)
        if left_out:
            self._emit(line, f"{line.text} (and %d more lines like this were left out)", *arguments, left_out)
        elif left_out is not None:
            self._emit(line, line.text, *arguments)

    def _take(self, line: Line, now: float) -> int | None:
        """How many lines of the kind were left out before this one; None if it is left out too."""
        bucket = self._buckets.get(line)
        if bucket is None:
            bucket = self._buckets[line] = _Bucket(line, now)
        if not bucket.take(now):
            return None
        left_out, bucket.left_out = bucket.left_out, 0
        return left_out

    def _emit(self, line: Line, text: str, *arguments: object) -> None:
        endpoint = self._endpoint
        endpoint.effects.append(Log(line.level, f"node %s: {text}", (endpoint.peer_id, *arguments)))


def _raised_at(error: BaseException) -> str:
    """File and line."""
    place, trace = "an unknown place", error.__traceback__
    while trace is not None:
        place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return printable(place, _WORDS)


def _place(source: str) -> str:
    return printable(source) or "an unknown address"
