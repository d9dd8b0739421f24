"""Exactly one byte stream: its states, frames in, frames out, its end.

Theory of operation
-------------------
A connection is driven by four inputs and one output::

    receive_data(data, now)   receive_eof(now)   connection_lost(now, exc)     (timers: Endpoint.handle_timer)
    data_to_send(now)         (or, where a stream takes bytes piece by piece: unsent(now), sent(count, now))

and walks through these states, never backwards::

    acceptor: PREAMBLE -> HELLO     -> ATTACH (-> PARKED) -> LIVE -> CLOSING -> CLOSED
    dialer:   PREAMBLE -> HELLO_ACK -> ATTACH (-> PARKED) -> LIVE -> CLOSING -> CLOSED

Before LIVE it touches no session: the step to LIVE is the endpoint's (``Endpoint.newcomer``), taken when the peer's
ATTACH is verified.  Each stretch of the way has its own module: :mod:`~networkio_proto.negotiation` the handshake,
:mod:`~networkio_proto.assembly` the messages that come in, :mod:`~networkio_proto.liveness` whether the peer is still
there.  What is here decides which of them gets a frame or a timer, and is alone in moving the state.

Inputs never raise because of the peer: what is wrong with its bytes becomes a
:class:`~networkio_proto.frames.PeerFault` inside, one CLOSE frame outside, and ``error`` for whoever asks; everything
before the bad byte was delivered.  In CLOSING and CLOSED, input means nothing.

CLOSING is the time in which the CLOSE goes out and the peer closes the stream (``connection_lost``).  For the rest of
the core the connection is over when it begins; it lasts ``Config.linger`` seconds at most, then the stream is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from struct import Struct
from typing import TYPE_CHECKING, Final

from .arbiter import Newcomer
from .assembly import Assembly
from .auth import TLSFacts
from .config import Limits
from .errors import CloseCode, ConfigurationError, ConnectionFailure, ConnectionLost, failure_for, printable
from .events import Transmit
from .frames import (
    ACK,
    ATTACH,
    CLOSE,
    DATA,
    FIN,
    FIRST_IGNORABLE,
    FLAG_RESUMABLE,
    HANDSHAKE_FRAME_LIMIT,
    HELLO,
    HELLO_ACK,
    MAX_SEQUENCE,
    PING,
    PONG,
    PREAMBLE,
    REJECT,
    SKIP,
    FrameDecoder,
    PeerFault,
    check_preamble,
    encode_close,
    frame_name,
)
from .handshake import Attach, InboxFacts, PeerLimits
from .liveness import Liveness
from .negotiation import Negotiation
from .timers import Timed

if TYPE_CHECKING:
    from .endpoint import Endpoint
    from .inbox import Inbox
    from .reconnect import Target
    from .session import Session

__all__ = ["Connection", "ConnectionState"]

#: control frames that change nothing: so many at once, and so many a second, before CLOSE ABUSE
_TOKENS = 256.0
_TOKENS_PER_SECOND = 64.0

#: a peer's wish to be left alone is honoured up to this (seconds)
_RETRY_AFTER_MAX = 300.0

_unpack_sequence = Struct(">Q").unpack_from
_ACK_BODY = Struct(">QQQQ")
_SKIP_BODY = Struct(">QQH")
_REJECT_BODY = Struct(">16sQH")
_CLOSE_BODY = Struct(">HQ")


class ConnectionState(Enum):
    """What a connection waits for."""

    PREAMBLE = "preamble"
    HELLO = "hello"
    HELLO_ACK = "hello_ack"
    ATTACH = "attach"
    PARKED = "parked"
    LIVE = "live"
    CLOSING = "closing"
    CLOSED = "closed"


#: for the hot paths: an attribute of an enum is looked up in a slow way
_LIVE: Final = ConnectionState.LIVE
_PARKED: Final = ConnectionState.PARKED
_CLOSED: Final = ConnectionState.CLOSED

#: the one frame (beside CLOSE) that each state of the handshake takes
_HANDSHAKE = {
    ConnectionState.HELLO: HELLO,
    ConnectionState.HELLO_ACK: HELLO_ACK,
    ConnectionState.ATTACH: ATTACH,
}


class Connection(Timed):
    """One byte stream.  Made by ``Endpoint.connect`` (we dialled) or ``Endpoint.accept``."""

    __slots__ = (
        "_assembly",
        "_control",
        "_decoder",
        "_endpoint",
        "_spoke",
        "_tokens",
        "_tokens_at",
        "_transmit",
        "_unsent",
        "attached",
        "backlog",
        "counted_out",
        "credit_told",
        "dial",
        "dialer",
        "dirty",
        "drop_at",
        "error",
        "first_told",
        "generation",
        "inbox_told",
        "key_id",
        "liveness",
        "negotiation",
        "outbox_told",
        "overloaded",
        "peer_id",
        "peer_incarnation",
        "peer_limits",
        "session",
        "settled_told",
        "source",
        "state",
        "target",
        "tls",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        now: float,
        *,
        target: Target | None = None,
        source: str = "",
        tls: TLSFacts | None = None,
    ) -> None:
        super().__init__()
        self._endpoint = endpoint
        #: the target that was dialled; None on the accepting side
        self.target = target
        self.dialer = target is not None
        self.source = source
        self.tls = tls
        self.state = ConnectionState.PREAMBLE
        #: why it ended
        self.error: ConnectionFailure | None = None
        self.session: Session | None = None
        #: the node was too busy when it came; it is told so when it has introduced itself
        self.overloaded = False
        #: the endpoint no longer counts it as a pending handshake
        self.counted_out = False
        # what the handshake finds out
        self.peer_id = ""
        #: of the key that proved it
        self.key_id: str | None = None
        self.peer_incarnation = b""
        self.peer_limits = PeerLimits(8192, 1, 45.0)
        self.attached: Attach | None = None
        self.dial = 0
        self.generation = 0
        # what our ATTACH on it said
        self.credit_told = 0
        self.outbox_told = b""
        self.inbox_told: InboxFacts | None = None
        #: ``read``, and the unsettled cost
        self.settled_told = (0, 0)
        self.first_told = 0
        # what goes out
        self.dirty = False
        self._transmit = Transmit(self)  # the same each time: making one is dearer than all the rest of want_write
        #: for the driver, if it can tell: how many bytes the system holds that it took and has not delivered yet
        self.backlog: Callable[[], int] | None = None
        self._control: list[bytes] = []
        self._spoke = False
        self._unsent: bytes | memoryview = b""
        #: while CLOSING: when the stream is dropped
        self.drop_at = 0.0
        # what comes in
        self._decoder = FrameDecoder()
        self._assembly = Assembly(self._decoder, endpoint.config.limits)
        self._tokens = _TOKENS
        self._tokens_at = now
        self.liveness = Liveness(self, endpoint, now)
        self.negotiation = Negotiation(self, endpoint, now)

    def __repr__(self) -> str:
        way = "to" if self.dialer else "from"
        return f"<Connection {way} {self.peer_id or '?'} {self.state.value}>"

    @property
    def live(self) -> bool:
        """Is it the session's connection?"""
        return self.state is _LIVE

    # -- inputs -------------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes | bytearray | memoryview, now: float) -> None:
        """Bytes came.  Never raises because of what they are."""
        state = self.state
        if state is not _LIVE and (state is ConnectionState.CLOSING or state is ConnectionState.CLOSED):
            return
        self.liveness.heard = now
        if state is _LIVE:
            self._decoder.lend(data)
            self._process(now)
            return
        self._decoder.feed(data)
        if state is _PARKED:
            if self._decoder.pending > self.credit_told + 2 * self._endpoint.config.limits.frame:
                self.close(CloseCode.FLOW, "more than the credit while it waits", now)
            return
        self._process(now)

    def receive_eof(self, now: float) -> None:
        """The peer's half of the stream ended.  Without a CLOSE before it this is a loss, never a clean end."""
        self.connection_lost(now, None)

    def connection_lost(self, now: float, exc: BaseException | None = None) -> None:
        """The stream broke, or is fully closed.  Idempotent."""
        if self.state is ConnectionState.CLOSING:
            self._drop()
        if self.state is ConnectionState.CLOSED:
            return
        detail = "the byte stream ended" if exc is None else f"{type(exc).__name__}: {printable(exc)}"
        self.fail(ConnectionLost(detail), now)

    # -- output -------------------------------------------------------------------------------------------------

    def data_to_send(self, now: float, max_bytes: int = 65536) -> list[bytes | memoryview]:
        """The next bytes for the stream, in order; an empty list when there are none.

        About ``max_bytes`` (a frame may pass it) in at most 64 buffers.  They count as sent: write all of them, or
        report the connection as lost.
        """
        out: list[bytes | memoryview] = []
        liveness = self.liveness
        state, session = self.state, self.session
        if self._control:
            if state is not _CLOSED:
                out.append(b"".join(self._control))
            self._control.clear()
        if state is _LIVE and session is not None:
            if liveness.due:
                liveness.fill(out)
            session.fill(out, max_bytes, now)
        if out:
            liveness.said = liveness.writing_since = now
        else:
            self.dirty = False
            liveness.writing_since = None
        return out

    def unsent(self, now: float) -> bytes | memoryview:
        """The next bytes for the stream, for drivers that write to it piece by piece; empty when there are none.

        They are the same, and count as unsent, until :meth:`sent` says how many of them the stream took.  It takes the
        place of :meth:`data_to_send`: a driver uses the one or the other.
        """
        if self.state is ConnectionState.CLOSED:
            self._unsent = b""
        elif not self._unsent:
            self._unsent = b"".join(self.data_to_send(now))
        return self._unsent

    def sent(self, count: int, now: float) -> None:
        """The stream took so many of the bytes that :meth:`unsent` returned; raises ConfigurationError for more."""
        if not 0 <= count <= len(self._unsent):
            raise ConfigurationError(f"the stream cannot have taken {count} of {len(self._unsent)} bytes")
        self._unsent = memoryview(self._unsent)[count:]
        self.liveness.writing_since = now

    @property
    def prompt(self) -> bool:
        """Is it worth writing at this very moment, even in the thread of whoever sent?

        So it is when a message is to go out and none is under way: its sender may well be waiting for the answer.
        Otherwise more may follow at once, and share a write with it.
        """
        session = self.session
        if session is None:
            return False
        outbox = session.outbox
        return outbox.untransmitted and outbox.transmitted <= outbox.received

    def want_write(self, now: float) -> None:
        """There is, or may be, something to send: tell the driver once."""
        if not self.dirty and self.state is not _CLOSED:
            self.dirty = True
            self.liveness.writing_since = now
            self._endpoint.effects.append(self._transmit)

    def say(self, frame: bytes, now: float) -> None:
        """Queue a frame, behind the preamble if it is the first."""
        if not self._spoke:
            self._spoke = True
            self._control.append(PREAMBLE)
        self._control.append(frame)
        self.want_write(now)

    def last_words(self, frame: bytes) -> None:
        """A frame that must go out before the CLOSE."""
        self._control.append(frame)

    # -- from state to state ------------------------------------------------------------------------------------

    def _process(self, now: float) -> None:
        """Work off what was fed, as far as the state goes."""
        try:
            if self.state is not _LIVE and not self._shake_hands(now):
                return
            if self.state is _LIVE:
                self._run_live(now)
        except PeerFault as fault:
            self.close(fault.code, fault.detail, now, private=fault.private)

    def _shake_hands(self, now: float) -> bool:
        """Work off what was fed as far as the handshake goes; False: it needs more, or is over."""
        if self.state is ConnectionState.PREAMBLE:
            preamble = self._decoder.take(len(PREAMBLE))
            if preamble is None:
                return False
            self._receive_preamble(preamble, now)
            if self.state is not ConnectionState.PREAMBLE:
                return False
            self.state = ConnectionState.HELLO_ACK if self.dialer else ConnectionState.HELLO
        while self.state in _HANDSHAKE:
            frame = self._decoder.next_frame(HANDSHAKE_FRAME_LIMIT)
            if frame is None:
                return False
            self._handshake_frame(*frame, now)
        return True

    def _receive_preamble(self, preamble: bytes, now: float) -> None:
        """Whoever speaks something else altogether gets no answer, which it could not read (P-PRE-5)."""
        try:
            check_preamble(preamble)
        except PeerFault as fault:
            if fault.code is CloseCode.VERSION:
                raise
            self.fail(failure_for(fault.code, fault.detail), now)

    def _handshake_frame(self, kind: int, flags: int, start: int, end: int, now: float) -> None:
        body = self._decoder.buffer[start:end]
        if kind == CLOSE:
            self._receive_close(flags, body, now)
            return
        if kind != _HANDSHAKE[self.state]:
            raise PeerFault(CloseCode.PROTOCOL, f"{frame_name(kind)} came in state {self.state.value}")
        if flags:
            raise PeerFault(CloseCode.PROTOCOL, f"{frame_name(kind)} with flags 0x{flags:02x}")
        self.negotiation.receive(kind, body, self._decoder.buffer[start - 6 : end], now)

    def told(self, limits: Limits) -> None:
        """By these its messages are judged."""
        self._assembly.limits = limits

    def expect_attach(self) -> None:
        """HELLO and HELLO_ACK fit each other."""
        self.state = ConnectionState.ATTACH

    @property
    def claimed(self) -> bool:
        """Did this side, as dialer, state its facts, and was not answered yet?"""
        return self.dialer and self.state is ConnectionState.ATTACH

    def newcomer(self) -> Newcomer:
        """The facts that the arbiter decides by."""
        attach = self.attached
        assert attach is not None
        return Newcomer(
            incarnation=self.peer_incarnation,
            dialled_here=self.dialer,
            dial=self.dial,
            generation=attach.generation if attach.generation is not None else self.generation,
            seen=attach.seen or 0,
        )

    def park(self) -> None:
        """Wait, unread, for the probe of the incumbent."""
        self.state = ConnectionState.PARKED

    def go_live(self, now: float) -> None:
        """It is the session's connection now; what waits in the buffer is read by whoever called us."""
        session, attach = self.session, self.attached
        assert session is not None
        assert attach is not None
        self.state = ConnectionState.LIVE
        self.negotiation.forget()
        self._assembly.begin(session.inbox, attach.run, session.counters)
        self.liveness.begin(now)
        self.want_write(now)

    def resume_reading(self, now: float) -> None:
        """Taken from the parking place: read what came meanwhile."""
        self._process(now)

    # -- frames of the live connection --------------------------------------------------------------------------

    def _run_live(self, now: float) -> None:
        """One pass over what was fed.  Messages before a fault are delivered."""
        session = self.session
        assert session is not None
        decoder, assembly = self._decoder, self._assembly
        limit = self._endpoint.config.limits.frame
        inboxes = session.inboxes
        inbox = inboxes.present
        fresh, touched = 0, False
        used = 0 if inbox is None else inbox.used
        try:
            while self.state is _LIVE:
                if inbox is not None and not decoder.lent and (run := assembly.run(inbox)):
                    fresh += run
                    touched = True
                if (one := assembly.gather(inbox)) is not None:
                    fresh += one
                    touched = True
                    continue
                if decoder.lent:  # no fragment begins here
                    decoder.keep()
                    continue
                frame = decoder.next_frame(limit)
                if frame is None:
                    break
                kind, flags, start, end = frame
                if kind != DATA:
                    touched = self._receive_control(kind, flags, start, end, now) or touched
                    inbox = inboxes.present
                elif inbox is not None:  # None: the session is over, the peer does not know yet
                    touched = True
                    fresh += assembly.receive(inbox, flags, start, end)
        finally:
            if touched or (inbox is not None and inbox.used > used):  # a message that begins takes credit
                urgent, assembly.urgent = assembly.urgent, False
                session.received_something(fresh, urgent, now)

    def _receive_control(self, kind: int, flags: int, start: int, end: int, now: float) -> bool:
        """Anything but DATA; True if it counts as something to acknowledge."""
        session = self.session
        assert session is not None
        buffer = self._decoder.buffer
        if kind == CLOSE:
            self._receive_close(flags, buffer[start:end], now)
            return False
        if kind >= FIRST_IGNORABLE:
            if start == end:
                self.spend(now)
            return False
        if flags:
            raise PeerFault(CloseCode.PROTOCOL, f"{frame_name(kind)} with flags 0x{flags:02x}")
        if kind == PING:
            self.liveness.receive_ping(_unpack_sequence(buffer, start)[0], now)
        elif kind == PONG:
            self.liveness.receive_pong(_unpack_sequence(buffer, start)[0], now)
        elif kind in (ACK, SKIP, REJECT, FIN):
            inbox = session.inboxes.present
            if inbox is not None:
                return self._receive_session_frame(session, inbox, kind, start, end, now)
        else:
            raise PeerFault(CloseCode.PROTOCOL, f"{frame_name(kind)} came in state {self.state.value}")
        return False

    def _receive_session_frame(
        self, session: Session, inbox: Inbox, kind: int, start: int, end: int, now: float
    ) -> bool:
        buffer = self._decoder.buffer
        if kind == ACK:
            received, read, credit, first = _ACK_BODY.unpack_from(buffer, start)
            if not session.progress.receive_ack(inbox, received, read, credit, first, now):
                self.spend(now)
            return False
        if kind == REJECT:
            outbox_id, sequence, code = _REJECT_BODY.unpack_from(buffer, start)
            text = buffer[start + _REJECT_BODY.size : end].decode("utf-8", "replace")
            if not session.progress.receive_reject(outbox_id, sequence, code, text, now):
                self.spend(now)
            return False
        if self._assembly.unfinished:
            raise PeerFault(CloseCode.PROTOCOL, f"{frame_name(kind)} inside of a fragmented message")
        before = inbox.received
        if kind == SKIP:
            first, last, reason = _SKIP_BODY.unpack_from(buffer, start)
            _check_sequence(first, last)
            if not session.receive_skip(first, last, reason):
                self.spend(now)
        else:
            sequence = _unpack_sequence(buffer, start)[0]
            _check_sequence(sequence, sequence)
            if not session.receive_fin(sequence, now):
                self.spend(now)
        self._assembly.moved(session.inbox, onward=inbox.received > before)
        return True

    def spend(self, now: float) -> None:
        """A control frame that changes nothing: bounded by a token bucket."""
        self._tokens = min(_TOKENS, self._tokens + (now - self._tokens_at) * _TOKENS_PER_SECOND) - 1.0
        self._tokens_at = now
        if self._tokens < 0:
            raise PeerFault(CloseCode.ABUSE, "")

    # -- time ---------------------------------------------------------------------------------------------------

    def ping(self, now: float) -> None:
        """Ask the peer for a sign of life."""
        self.liveness.ping(now)

    def on_timer(self, now: float) -> float | None:
        if self.state is _LIVE:
            return self.liveness.on_timer(now)
        if self.state is ConnectionState.CLOSING:
            return self._linger(now)
        parked = self.state is ConnectionState.PARKED and self.dialer  # as acceptor, parking does not count
        if self.state in _HANDSHAKE or self.state is ConnectionState.PREAMBLE or parked:
            return self.negotiation.on_timer(now)
        return None

    # -- ending -------------------------------------------------------------------------------------------------

    def close(
        self, code: CloseCode, detail: str, now: float, *, resumable: bool = True, retry_after: float = 0.0,
        private: str = "",
    ) -> None:
        """Say CLOSE and be done with it.  Idempotent.  ``private``: what only this side is told."""
        if self.state in (ConnectionState.CLOSING, ConnectionState.CLOSED):
            return
        error = failure_for(code, detail or private, resumable=resumable)
        silent = self.state is ConnectionState.PREAMBLE and not self.dialer and self._decoder.position < len(PREAMBLE)
        # a stranger gets the code alone: no hint, and no more bytes than it sent
        text = detail if self.peer_id else ""
        if silent:
            self.fail(error, now)
            return
        leaving = code is CloseCode.NORMAL or code is CloseCode.RESTARTING
        if leaving and self.state is ConnectionState.LIVE and self.session is not None:
            self.last_words(self.session.acknowledger.last_words())
        self.say(encode_close(code, round(retry_after * 1000), text, resumable=resumable), now)
        self.state = ConnectionState.CLOSING
        self._ended(error, now, flush=True)
        self.drop_at = now + self._endpoint.config.linger
        self._endpoint.timers.schedule(self, self.drop_at)

    def distrust(self, code: CloseCode, detail: str, now: float) -> None:
        """From the channel under it: that cannot be trusted.  Nothing is said but what the channel itself still says.

        A newcomer that proved nothing yet is refused by it, with ``code`` as if the handshake had failed here.
        """
        if self.state in (ConnectionState.CLOSING, ConnectionState.CLOSED):
            return
        self._control.clear()
        self.state = ConnectionState.CLOSING
        self._ended(failure_for(code, detail), now, flush=True)
        self.drop_at = now + self._endpoint.config.linger
        self._endpoint.timers.schedule(self, self.drop_at)

    def _linger(self, now: float) -> float | None:
        """The CLOSE has its time to go out, and the peer to end the stream; then nobody waits for it any more."""
        if now < self.drop_at:
            return self.drop_at
        self._drop()
        return None

    def _drop(self) -> None:
        """The CLOSE was said, and the stream is not needed any more."""
        self.state = ConnectionState.CLOSED
        self._endpoint.timers.cancel(self)
        self._endpoint.drop(self)

    def _receive_close(self, flags: int, body: bytes, now: float) -> None:
        if flags & ~FLAG_RESUMABLE:
            raise PeerFault(CloseCode.PROTOCOL, f"CLOSE with flags 0x{flags:02x}")
        code, retry_after = _CLOSE_BODY.unpack_from(body)
        text = printable(body[_CLOSE_BODY.size :].decode("utf-8", "replace"))
        error = failure_for(
            code,
            text,
            remote=True,
            retry_after=min(retry_after / 1000, _RETRY_AFTER_MAX),
            resumable=bool(flags & FLAG_RESUMABLE),
        )
        self.fail(error, now)

    def fail(self, error: ConnectionFailure, now: float) -> None:
        """It is over and nothing can be said any more."""
        self.state = ConnectionState.CLOSED
        self._ended(error, now, flush=False)

    def _ended(self, error: ConnectionFailure, now: float, *, flush: bool) -> None:
        self.error = error
        self._decoder.clear()
        self._assembly.clear()
        self.negotiation.forget()
        self._endpoint.timers.cancel(self)
        self._endpoint.connection_ended(self, now, flush=flush)


def _check_sequence(first: int, last: int) -> None:
    if first < 1 or last > MAX_SEQUENCE:
        raise PeerFault(CloseCode.PROTOCOL, f"sequences {first} to {last} are not from 1 to {MAX_SEQUENCE}")
