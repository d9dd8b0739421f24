"""Exactly one byte stream: handshake, frames in, frames out, liveness.

Theory of operation
-------------------
A connection is driven by four inputs and one output::

    receive_data(data, now)   receive_eof(now)   connection_lost(now, exc)     (timers: Endpoint.handle_timer)
    data_to_send(now)

and walks through these states, never backwards::

    acceptor: PREAMBLE -> HELLO     -> ATTACH (-> PARKED) -> LIVE -> CLOSING -> CLOSED
    dialer:   PREAMBLE -> HELLO_ACK -> ATTACH (-> PARKED) -> LIVE -> CLOSING -> CLOSED

Before LIVE it touches no session: the step to LIVE is the endpoint's (``Endpoint.newcomer``), taken when the peer's
ATTACH is verified.  Inputs never raise because of the peer: what is wrong with its bytes becomes a
:class:`~networkio_proto.frames.PeerFault` inside, one CLOSE frame outside, and ``error`` for whoever asks; everything
before the bad byte was delivered.  In CLOSING and CLOSED, input means nothing.
"""

from __future__ import annotations

from enum import Enum
from struct import Struct
from typing import TYPE_CHECKING

from .arbiter import Newcomer
from .auth import Proof, TLSFacts
from .config import COST_PER_MESSAGE
from .errors import (
    CloseCode,
    ConnectionFailure,
    ConnectionLost,
    failure_for,
    printable,
)
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
    DataFlag,
    FrameDecoder,
    PeerFault,
    check_preamble,
    encode_close,
    encode_ping,
    encode_pong,
    frame_name,
)
from .handshake import (
    VERSION,
    Attach,
    Hello,
    HelloAck,
    PeerLimits,
    choose_version,
    encode_attach,
    encode_hello,
    encode_hello_ack,
    parse_attach,
    parse_hello,
    parse_hello_ack,
    zero_mac,
)
from .inbox import Details
from .maps import decode_map
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

#: a probed incumbent that sends bytes but no PONG gets so many more intervals before it counts as alive
_PROBE_EXTENSIONS = 5

#: a probe of one incumbent begins at most so often (seconds)
_PROBE_SPACING = 1.0

#: beyond ``limits.message``, for the reserved header ``id`` of a message that changed its outbox
_ID_ROOM = 64

#: a peer's wish to be left alone is honoured up to this (seconds)
_RETRY_AFTER_MAX = 300.0

#: from here on every sequence is compared with the greatest
_SEQUENCES_SCARCE = MAX_SEQUENCE - 2**32

_DATA_HEAD = Struct(">IBBQ")
_unpack_data = _DATA_HEAD.unpack_from
_SEQUENCE = Struct(">Q")
_unpack_sequence = _SEQUENCE.unpack_from
_TOTAL = Struct(">I")
_HEADER_LENGTH = Struct(">H")
_ACK_BODY = Struct(">QQQQ")
_SKIP_BODY = Struct(">QQH")
_REJECT_BODY = Struct(">16sQH")
_CLOSE_BODY = Struct(">HQ")

_RAW = int(DataFlag.RAW)
_NOT_RAW = 0xFF & ~_RAW
_PLAIN_COST = COST_PER_MESSAGE - 10  # a plain message's cost = its frame's length + this
_FIRST_FLAGS = int(
    DataFlag.FRAGMENT_MORE | DataFlag.REDELIVERED | DataFlag.ACK_NOW | DataFlag.HEADERS | DataFlag.RAW
)
_NEXT_FLAGS = int(DataFlag.FRAGMENT_MORE | DataFlag.FRAGMENT_CONTINUED)
_MORE = int(DataFlag.FRAGMENT_MORE)


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


#: the one frame (beside CLOSE) that each state of the handshake takes
_HANDSHAKE = {
    ConnectionState.HELLO: HELLO,
    ConnectionState.HELLO_ACK: HELLO_ACK,
    ConnectionState.ATTACH: ATTACH,
}


class _Partial:
    """A message whose last fragment has not come."""

    __slots__ = ("chunks", "details", "flags", "fresh", "missing", "sequence")

    def __init__(self, sequence: int, flags: int, details: Details, missing: int, fresh: bool) -> None:
        self.sequence = sequence
        self.flags = flags
        self.details = details
        self.missing = missing
        self.fresh = fresh
        #: one buffer, not a list: a peer chooses how small the fragments are
        self.chunks = bytearray()


class Connection(Timed):
    """One byte stream.  Made by ``Endpoint.connect`` (we dialled) or ``Endpoint.accept``."""

    __slots__ = (
        "_control",
        "_dead_grace",
        "_deadline",
        "_decoder",
        "_endpoint",
        "_hello",
        "_last_ping",
        "_last_received",
        "_last_sent",
        "_opaque",
        "_partial",
        "_ping",
        "_pong",
        "_ponged",
        "_probe_at",
        "_probe_begun",
        "_probe_extensions",
        "_probe_opaque",
        "_probe_since",
        "_run_pending",
        "_special",
        "_spoke",
        "_spread",
        "_tokens",
        "_tokens_at",
        "_transcript",
        "_write_since",
        "attached",
        "counted_out",
        "credit_told",
        "dial",
        "dialer",
        "dirty",
        "error",
        "generation",
        "mac",
        "outbox_told",
        "overloaded",
        "peer_id",
        "peer_incarnation",
        "peer_limits",
        "session",
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
        self.peer_incarnation = b""
        self.peer_limits = PeerLimits(8192, 1, 45.0)
        self.attached: Attach | None = None
        self.dial = 0
        self.generation = 0
        self.credit_told = 0
        self.outbox_told = b""
        self.mac = b""
        self._hello: Hello | None = None
        self._transcript = b""
        # what goes out
        self.dirty = False
        self._control: list[bytes] = []
        self._spoke = False
        self._ping: int | None = None
        self._pong: int | None = None
        self._write_since: float | None = None
        # what comes in
        self._decoder = FrameDecoder()
        self._partial: _Partial | None = None
        self._run_pending = False
        self._special = False
        self._tokens = _TOKENS
        self._tokens_at = now
        # liveness
        self._deadline = now + endpoint.config.handshake_timeout
        self._last_received = now
        self._last_sent = now
        self._last_ping = now
        self._opaque = 0
        self._ponged = 0
        self._dead_grace = 0.0
        self._probe_at: float | None = None
        self._probe_since = now
        self._probe_begun = now - _PROBE_SPACING
        self._probe_opaque = 0
        self._probe_extensions = 0
        # deadlines are spread so that 5,000 connections made at once do not ping at once
        self._spread = 0.75 + 0.25 * endpoint.random.random()
        endpoint.timers.schedule(self, self._deadline)

    def __repr__(self) -> str:
        way = "to" if self.dialer else "from"
        return f"<Connection {way} {self.peer_id or '?'} {self.state.value}>"

    # -- inputs -------------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes | bytearray | memoryview, now: float) -> None:
        """Bytes came.  Never raises because of what they are."""
        state = self.state
        if state is ConnectionState.CLOSING or state is ConnectionState.CLOSED:
            return
        self._last_received = now
        self._decoder.feed(data)
        if state is ConnectionState.PARKED:
            if self._decoder.pending > self.credit_told + 2 * self._endpoint.config.limits.frame:
                self.close(CloseCode.FLOW, "more than the credit while it waits", now)
            return
        self._process(now)

    def receive_eof(self, now: float) -> None:
        """The peer's half of the stream ended.  Without a CLOSE before it this is a loss, never a clean end."""
        self.connection_lost(now, None)

    def connection_lost(self, now: float, exc: BaseException | None = None) -> None:
        """The stream broke, or is fully closed.  Idempotent."""
        if self.state in (ConnectionState.CLOSING, ConnectionState.CLOSED):
            self.state = ConnectionState.CLOSED
            return
        detail = "the byte stream ended" if exc is None else f"{type(exc).__name__}: {printable(exc)}"
        self._lost(ConnectionLost(detail), now)

    # -- output -------------------------------------------------------------------------------------------------

    def data_to_send(self, now: float, max_bytes: int = 65536) -> list[bytes | memoryview]:
        """The next bytes for the stream, in order; an empty list when there are none.

        About ``max_bytes`` (a frame may pass it) in at most 64 buffers.  They count as sent: write all of them, or
        report the connection as lost.
        """
        out: list[bytes | memoryview] = []
        if self.state is ConnectionState.CLOSED:
            self._control.clear()
        if self._control:
            out.append(b"".join(self._control))
            self._control.clear()
        if self.state is ConnectionState.LIVE and self.session is not None:
            if self._pong is not None:
                out.append(encode_pong(self._pong))
                self._pong = None
            if self._ping is not None:
                out.append(encode_ping(self._ping))
                self._ping = None
            self.session.fill(out, max_bytes, now)
        if out:
            self._last_sent = now
            self._write_since = now
        else:
            self.dirty = False
            self._write_since = None
        return out

    def want_write(self, now: float) -> None:
        """There is, or may be, something to send: tell the driver once."""
        if not self.dirty and self.state is not ConnectionState.CLOSED:
            self.dirty = True
            self._write_since = now
            self._endpoint.transmit(self)

    # -- handshake ----------------------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """The dialer speaks first."""
        endpoint = self._endpoint
        target = self.target
        to = None if target is None else target.to
        config = endpoint.config
        hello = Hello(
            versions=(VERSION, VERSION),
            peer_id=endpoint.peer_id,
            to=to,
            incarnation=endpoint.incarnation,
            dial=self.dial,
            nonce=endpoint.random_bytes(32),
            features=endpoint.features,
            require=endpoint.require,
            auth=endpoint.auth.name,
            key_id=endpoint.auth.key_id(to),
            limits=PeerLimits(config.limits.frame, config.limits.message, config.dead_after),
            codec=endpoint.codec,
        )
        self._hello = hello
        frame = encode_hello(hello)
        self._transcript = PREAMBLE + frame
        self._say(frame, now)

    def _say(self, frame: bytes, now: float) -> None:
        """Queue a frame, behind the preamble if it is the first."""
        if not self._spoke:
            self._spoke = True
            self._control.append(PREAMBLE)
        self._control.append(frame)
        self.want_write(now)

    def _process(self, now: float) -> None:
        """Work off what was fed, as far as the state goes."""
        try:
            if self.state is ConnectionState.PREAMBLE:
                preamble = self._decoder.take(len(PREAMBLE))
                if preamble is None:
                    return
                self._receive_preamble(preamble, now)
                if self.state is not ConnectionState.PREAMBLE:
                    return
                self.state = ConnectionState.HELLO_ACK if self.dialer else ConnectionState.HELLO
            while self.state in _HANDSHAKE:
                frame = self._decoder.next_frame(HANDSHAKE_FRAME_LIMIT)
                if frame is None:
                    return
                self._handshake_frame(*frame, now)
            if self.state is ConnectionState.LIVE:
                self._run_live(now)
        except PeerFault as fault:
            self.close(fault.code, fault.detail, now)

    def _receive_preamble(self, preamble: bytes, now: float) -> None:
        """Whoever speaks something else altogether gets no answer, which it could not read (P-PRE-5)."""
        try:
            check_preamble(preamble)
        except PeerFault as fault:
            if fault.code is CloseCode.VERSION:
                raise
            self._lost(failure_for(fault.code, fault.detail), now)

    def _handshake_frame(self, kind: int, flags: int, start: int, end: int, now: float) -> None:
        body = self._decoder.buffer[start:end]
        if kind == CLOSE:
            self._receive_close(flags, body, now)
            return
        if kind != _HANDSHAKE[self.state]:
            raise PeerFault(CloseCode.PROTOCOL, f"{frame_name(kind)} came in state {self.state.value}")
        if flags:
            raise PeerFault(CloseCode.PROTOCOL, f"{frame_name(kind)} with flags 0x{flags:02x}")
        raw = self._decoder.buffer[start - 6 : end]
        if kind == HELLO:
            self._receive_hello(body, raw, now)
        elif kind == HELLO_ACK:
            self._receive_hello_ack(body, raw, now)
        else:
            self._receive_attach(body, raw, now)

    def _receive_hello(self, body: bytes, raw: bytes, now: float) -> None:
        endpoint = self._endpoint
        hello = parse_hello(body)
        version = choose_version(hello.versions)
        self._introduce(hello.peer_id, hello.incarnation, hello.limits)
        self.dial = hello.dial
        if hello.to is not None and hello.to != endpoint.peer_id:
            raise PeerFault(CloseCode.WRONG_PEER, f"this is {endpoint.peer_id}, not {hello.to}")
        features = tuple(feature for feature in hello.features if feature in endpoint.features)
        self._check_features(hello.require, features)
        self._check_features(endpoint.require, features)
        self._check_same(hello.auth, hello.codec)
        if self.overloaded:
            self.close(CloseCode.OVERLOAD, "", now, retry_after=1.0 + 4.0 * endpoint.random.random())
            return
        config = endpoint.config
        ack = HelloAck(
            version=version,
            peer_id=endpoint.peer_id,
            incarnation=endpoint.incarnation,
            nonce=endpoint.random_bytes(32),
            features=features,
            auth=endpoint.auth.name,
            limits=PeerLimits(config.limits.frame, config.limits.message, config.dead_after),
            codec=endpoint.codec,
        )
        self._hello = hello
        frame = encode_hello_ack(ack)
        self._transcript = PREAMBLE + raw + PREAMBLE + frame
        self.state = ConnectionState.ATTACH
        self._say(frame, now)

    def _receive_hello_ack(self, body: bytes, raw: bytes, now: float) -> None:
        endpoint = self._endpoint
        ack = parse_hello_ack(body)
        choose_version((ack.version, ack.version))
        self._introduce(ack.peer_id, ack.incarnation, ack.limits)
        target = self.target
        if target is not None and target.to is not None and target.to != ack.peer_id:
            raise PeerFault(CloseCode.WRONG_PEER, f"{ack.peer_id} answered, {target.to} was meant")
        if not set(ack.features) <= set(endpoint.features):
            raise PeerFault(CloseCode.PROTOCOL, "HELLO_ACK: features has one that was not offered")
        self._check_features(endpoint.require, ack.features)
        self._check_same(ack.auth, ack.codec)
        session = endpoint.provisional(ack.peer_id, now)
        if session.connection is not None and not session.finished:  # a finished one only waits for a last word
            assert target is not None
            endpoint.bind(target, session)  # a target that names nobody has found whom it looked for
            self.close(CloseCode.COLLISION, "", now)
            return
        # stated on two dials at once, our facts would be old on the one taken last; so also when the newer dial is lost
        # here and its ATTACH still on the way: it would pass for news (P-ARB-11)
        if endpoint.claims(session) or self.dial < session.arbitration.stated:
            self.close(CloseCode.COLLISION, "", now)
            return
        self.session = session
        self._transcript += PREAMBLE + raw
        self.state = ConnectionState.ATTACH
        self.send_attach(now)

    def _introduce(self, peer_id: str, incarnation: bytes, limits: PeerLimits) -> None:
        """From here on it is known who claims to be there."""
        self.peer_id = peer_id
        self.peer_incarnation = incarnation
        self.peer_limits = limits
        self._endpoint.introduced(self)
        if peer_id == self._endpoint.peer_id:
            raise PeerFault(CloseCode.SELF, f"both ends are {peer_id}")

    def _check_same(self, auth: str, codec: str) -> None:
        endpoint = self._endpoint
        if auth != endpoint.auth.name:
            raise PeerFault(
                CloseCode.AUTH_FAILED, f"the peer authenticates by {printable(auth)}, this side by {endpoint.auth.name}"
            )
        if codec != endpoint.codec:
            raise PeerFault(
                CloseCode.CODEC, f"the peer's codec is {printable(codec)}, this side's is {endpoint.codec}"
            )

    def _check_features(self, required: tuple[str, ...], chosen: tuple[str, ...]) -> None:
        missing = [feature for feature in required if feature not in chosen]
        if missing:
            raise PeerFault(CloseCode.VERSION, f"the required feature {printable(missing[0])} is not shared")

    @property
    def claimed(self) -> bool:
        """Did this side, as dialer, state its facts, and was not answered yet?"""
        return self.dialer and self.state is ConnectionState.ATTACH

    def send_attach(self, now: float) -> None:
        """State our facts: as dialer when HELLO_ACK came, as acceptor when this connection was taken."""
        session = self.session
        assert session is not None
        if self.dialer:
            session.arbitration.stated = self.dial
        if session.arbitration.arbiter:
            self.generation = session.arbitration.next_generation()
        frame = encode_attach(session.facts(self, now), self._sign)
        self._say(frame, now)

    def _proof(self, role: bytes, attach: bytes) -> Proof:
        mine, other = self._endpoint.peer_id, self.peer_id
        hello = self._hello
        return Proof(
            role=role,
            dialer_id=mine if self.dialer else other,
            acceptor_id=other if self.dialer else mine,
            key_id=None if hello is None else hello.key_id,
            transcript=self._transcript,
            binding=b"" if self.tls is None else self.tls.binding,
            dialer_mac=self.mac if role == b"A" else b"",
            attach=attach,
        )

    def _sign(self, attach: bytes) -> bytes | None:
        mac = self._endpoint.auth.sign(self._proof(b"D" if self.dialer else b"A", attach))
        if self.dialer:
            self.mac = mac or b""
        return mac

    def _receive_attach(self, body: bytes, raw: bytes, now: float) -> None:
        attach = parse_attach(body)
        covered = raw if attach.mac is None else zero_mac(raw)
        proof = self._proof(b"A" if self.dialer else b"D", covered)
        if not self._endpoint.auth.verify(proof, attach.mac, self.tls):
            raise PeerFault(CloseCode.AUTH_FAILED, "")
        if attach.mac is not None and not raw.endswith(attach.mac):
            raise PeerFault(CloseCode.PROTOCOL, "ATTACH: mac is not the last thing in it")
        if not self.dialer:
            self.mac = attach.mac or b""
        session = self.session or self._endpoint.provisional(self.peer_id, now)
        if (attach.generation is None) == (not session.arbitration.arbiter):
            raise PeerFault(CloseCode.PROTOCOL, "ATTACH: generation and seen are exchanged: the greater id arbitrates")
        self.session = session
        self.attached = attach
        self._endpoint.newcomer(self, now)

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
        self._hello = None
        self._transcript = b""
        inbox = session.inbox
        self._run_pending = inbox is not None and inbox.run != attach.run
        self._note_special()
        self._last_received = self._last_ping = now
        self._schedule(now)
        self.want_write(now)

    def resume_reading(self, now: float) -> None:
        """Taken from the parking place: read what came meanwhile."""
        self._process(now)

    # -- frames of the live connection --------------------------------------------------------------------------

    def _note_special(self) -> None:
        """Does DATA need a second look on this connection now?"""
        limits = self._endpoint.config.limits
        inbox = None if self.session is None else self.session.inbox
        self._special = (
            self._partial is not None
            or self._run_pending
            or limits.message < limits.frame
            or (inbox is not None and inbox.barred)
            or (inbox is not None and inbox.received > _SEQUENCES_SCARCE)
        )

    def _run_live(self, now: float) -> None:
        """One pass over what was fed.  Messages before a fault are delivered."""
        session = self.session
        assert session is not None
        decoder = self._decoder
        limit = self._endpoint.config.limits.frame
        inbox = session.inbox
        fresh, touched, urgent = 0, False, False
        try:
            while self.state is ConnectionState.LIVE:
                if inbox is not None and not self._special and (run := self._run_messages(inbox, limit)):
                    fresh += run
                    touched = True
                frame = decoder.next_frame(limit)
                if frame is None:
                    break
                kind, flags, start, end = frame
                if kind == DATA and inbox is not None:
                    touched = True
                    if (flags == 0 or flags == _RAW) and not self._special:
                        buffer = decoder.buffer
                        if inbox.accept(_unpack_sequence(buffer, start)[0], buffer[start + 8 : end], flags):
                            fresh += 1
                    else:
                        fresh += self._receive_message(flags, start, end)
                        urgent = urgent or bool(flags & DataFlag.ACK_NOW)
                elif kind != DATA:
                    touched = self._receive_control(kind, flags, start, end, now) or touched
                    inbox = session.inbox
        finally:
            if touched:
                session.received_something(fresh, urgent, now)

    def _run_messages(self, inbox: Inbox, limit: int) -> int:
        """The hot path: take whole, plain messages as long as one follows another; how many they were.

        Whatever is not exactly that is left to the caller, who looks at it with all due care.
        """
        if inbox.telling or inbox.fin:
            return 0
        decoder = self._decoder
        buffer, position = decoder.buffer, decoder.position
        size, append = len(buffer), inbox.ready.append
        before = received = inbox.received
        used, allowed = inbox.used, inbox.allowed
        while position + 14 <= size:
            length, kind, flags, sequence = _unpack_data(buffer, position)
            end = position + 4 + length
            if (
                kind != DATA
                or flags & _NOT_RAW
                or sequence != received + 1
                or end > size
                or used >= allowed
                or not 10 <= length <= limit
            ):
                break
            received = sequence
            used += length + _PLAIN_COST
            append((inbox, sequence, buffer[position + 14 : end], flags, None))
            position = end
        decoder.position = position
        inbox.received = received
        inbox.unsettled += used - inbox.used
        inbox.used = used
        return received - before

    def _adopt_run(self) -> None:
        """The first sequence of this connection: from here the inbox's position is under the sender's present run."""
        session, attach = self.session, self.attached
        if self._run_pending and session is not None and session.inbox is not None and attach is not None:
            session.inbox.run = attach.run
            self._run_pending = False
            self._note_special()

    def _receive_message(self, flags: int, start: int, end: int) -> int:
        """DATA with anything special about it; 1 if a new message is complete that waits to be taken."""
        session = self.session
        assert session is not None
        assert session.inbox is not None
        buffer = self._decoder.buffer
        sequence: int = _unpack_sequence(buffer, start)[0]
        if sequence > MAX_SEQUENCE:
            raise PeerFault(CloseCode.PROTOCOL, f"sequence {sequence} is over the greatest, {MAX_SEQUENCE}")
        if flags & DataFlag.FRAGMENT_CONTINUED:
            partial = self._continue(sequence, flags, buffer[start + 8 : end])
        else:
            partial = self._begin(sequence, flags, start + 8, end)
        if flags & _MORE:
            if partial.missing <= 0:
                raise PeerFault(CloseCode.PROTOCOL, f"more fragments of {sequence} are announced than its total holds")
            self._partial = partial
            self._note_special()
            return 0
        if partial.missing != 0:
            raise PeerFault(CloseCode.PROTOCOL, f"the fragments of {sequence} do not add up to its total")
        self._partial = None
        self._note_special()
        if not partial.fresh:
            return 0
        self._adopt_run()
        return int(session.inbox.accept_special(sequence, bytes(partial.chunks), partial.flags, partial.details))

    def _begin(self, sequence: int, flags: int, position: int, end: int) -> _Partial:
        """The first fragment: its prefix, its cost, its place."""
        session = self.session
        assert session is not None
        assert session.inbox is not None
        if flags & ~_FIRST_FLAGS:
            raise PeerFault(CloseCode.PROTOCOL, f"DATA with flags 0x{flags:02x}")
        if self._partial is not None:
            inside = self._partial.sequence
            raise PeerFault(CloseCode.PROTOCOL, f"DATA {sequence} inside of fragmented message {inside}")
        buffer = self._decoder.buffer
        total: int | None = None
        if flags & _MORE:
            self._need(position, 4, end)
            total = _TOTAL.unpack_from(buffer, position)[0]
            position += 4
        headers, headers_size, position = self._headers(flags, position, end)
        chunk = buffer[position:end]
        size = headers_size + len(chunk) if total is None else total
        limit = self._endpoint.config.limits.message
        if size > limit + _ID_ROOM:
            raise PeerFault(CloseCode.TOO_LARGE, f"message {sequence} of {size} bytes is over the limit of {limit}")
        session.inbox.admit(COST_PER_MESSAGE + size)
        origin = _take_origin(headers)
        details = Details(
            headers=headers,
            headers_size=headers_size,
            redelivered=bool(flags & DataFlag.REDELIVERED),
            origin=origin,
        )
        fresh = session.inbox.expect(sequence)
        if fresh:
            session.inbox.partial = COST_PER_MESSAGE + size
        partial = _Partial(sequence, flags & _RAW, details, size - headers_size - len(chunk), fresh)
        partial.chunks += chunk
        return partial

    def _continue(self, sequence: int, flags: int, chunk: bytes) -> _Partial:
        """A later fragment."""
        partial = self._partial
        if partial is None or partial.sequence != sequence:
            raise PeerFault(CloseCode.PROTOCOL, f"a continued fragment of {sequence} without its beginning")
        if flags & ~_NEXT_FLAGS or not chunk:
            raise PeerFault(CloseCode.PROTOCOL, f"a continued fragment of {len(chunk)} bytes, flags 0x{flags:02x}")
        partial.missing -= len(chunk)
        if partial.missing < 0:
            raise PeerFault(CloseCode.PROTOCOL, f"the fragments of {sequence} exceed its total")
        if partial.fresh:
            partial.chunks += chunk
        return partial

    def _headers(self, flags: int, position: int, end: int) -> tuple[dict[str, object] | None, int, int]:
        """The header map: (map, its size, where the payload begins)."""
        if not flags & DataFlag.HEADERS:
            return None, 0, position
        self._need(position, 2, end)
        size = _HEADER_LENGTH.unpack_from(self._decoder.buffer, position)[0]
        self._need(position + 2, size, end)
        begin = position + 2
        try:
            return decode_map(self._decoder.buffer[begin : begin + size]), size, begin + size
        except ValueError as error:
            raise PeerFault(CloseCode.PROTOCOL, f"headers: {printable(error)}") from None

    def _need(self, position: int, size: int, end: int) -> None:
        if position + size > end:
            raise PeerFault(CloseCode.PROTOCOL, "a DATA frame is shorter than its flags say")

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
                self._spend(now)
            return False
        if flags:
            raise PeerFault(CloseCode.PROTOCOL, f"{frame_name(kind)} with flags 0x{flags:02x}")
        if kind == PING:
            self._spend(now)
            self._pong = _unpack_sequence(buffer, start)[0]
            self.want_write(now)
        elif kind == PONG:
            self._receive_pong(_unpack_sequence(buffer, start)[0], now)
        elif kind in (ACK, SKIP, REJECT, FIN):
            if session.inbox is not None:  # None: the session is over, the peer does not know yet
                return self._receive_session_frame(session, kind, start, end, now)
        else:
            raise PeerFault(CloseCode.PROTOCOL, f"{frame_name(kind)} came in state {self.state.value}")
        return False

    def _receive_session_frame(self, session: Session, kind: int, start: int, end: int, now: float) -> bool:
        buffer = self._decoder.buffer
        if kind == ACK:
            received, read, credit, first = _ACK_BODY.unpack_from(buffer, start)
            if not session.receive_ack(received, read, credit, first, now):
                self._spend(now)
            return False
        if kind == REJECT:
            outbox_id, sequence, code = _REJECT_BODY.unpack_from(buffer, start)
            text = buffer[start + _REJECT_BODY.size : end].decode("utf-8", "replace")
            if not session.receive_reject(outbox_id, sequence, code, text, now):
                self._spend(now)
            return False
        if self._partial is not None:
            raise PeerFault(CloseCode.PROTOCOL, f"{frame_name(kind)} inside of a fragmented message")
        before = session.inbox.received if session.inbox is not None else 0
        if kind == SKIP:
            first, last, reason = _SKIP_BODY.unpack_from(buffer, start)
            self._check_sequence(first, last)
            if not session.receive_skip(first, last, reason):
                self._spend(now)
        else:
            sequence = _unpack_sequence(buffer, start)[0]
            self._check_sequence(sequence, sequence)
            if not session.receive_fin(sequence, now):
                self._spend(now)
        if session.inbox is not None and session.inbox.received > before:
            self._adopt_run()
        self._note_special()
        return True

    def _check_sequence(self, first: int, last: int) -> None:
        if first < 1 or last > MAX_SEQUENCE:
            raise PeerFault(CloseCode.PROTOCOL, f"sequences {first} to {last} are not from 1 to {MAX_SEQUENCE}")

    def _spend(self, now: float) -> None:
        """A control frame that changes nothing: bounded by a token bucket."""
        self._tokens = min(_TOKENS, self._tokens + (now - self._tokens_at) * _TOKENS_PER_SECOND) - 1.0
        self._tokens_at = now
        if self._tokens < 0:
            raise PeerFault(CloseCode.ABUSE, "")

    # -- liveness -----------------------------------------------------------------------------------------------

    def on_timer(self, now: float) -> float | None:
        parked = self.state is ConnectionState.PARKED and self.dialer  # as acceptor, parking does not count
        if self.state in _HANDSHAKE or self.state is ConnectionState.PREAMBLE or parked:
            return self._handshake_timer(now)
        if self.state is not ConnectionState.LIVE:
            return None
        config = self._endpoint.config
        if self._endpoint.paused:  # our own pause is not the peer's silence: ask before judging
            self._dead_grace = now + config.probe_timeout
            self.ping(now)
        if now >= self._dead_at():
            self.close(CloseCode.TIMEOUT, f"{self.peer_id} was silent for {now - self._last_received:.1f} s", now)
            return None
        if now >= self._stall_at():
            self._lost(ConnectionLost(f"the stream to {self.peer_id} took no byte for {config.write_stall} s"), now)
            return None
        if self._probe_at is not None and now >= self._probe_at:
            self._probe_over(now)
        if self.state is ConnectionState.LIVE and now >= self._ping_at():
            self.ping(now)
        return self._next_deadline() if self.state is ConnectionState.LIVE else None

    def _handshake_timer(self, now: float) -> float | None:
        if self._endpoint.paused and now >= self._deadline:
            self._deadline = now + self._endpoint.config.probe_timeout
        if now >= self._deadline:
            self.close(CloseCode.TIMEOUT, f"the handshake stopped in state {self.state.value}", now)
            return None
        return self._deadline

    def _dead_at(self) -> float:
        return max(self._last_received + self._endpoint.config.dead_after, self._dead_grace)

    def _stall_at(self) -> float:
        since = self._write_since
        return float("inf") if since is None else max(since + self._endpoint.config.write_stall, self._dead_grace)

    def _ping_at(self) -> float:
        heard = max(self._last_received, self._last_ping) + self._endpoint.config.ping_after * self._spread
        said = max(self._last_sent, self._last_ping) + self.peer_limits.idle * 4 / 9 * self._spread
        return min(heard, said)

    def _next_deadline(self) -> float:
        deadline = min(self._dead_at(), self._stall_at(), self._ping_at())
        return deadline if self._probe_at is None else min(deadline, self._probe_at)

    def _schedule(self, now: float) -> None:
        self._endpoint.timers.cancel(self)
        self._endpoint.timers.schedule(self, self._next_deadline())

    def ping(self, now: float) -> None:
        """Ask for a sign of life."""
        self._last_ping = now
        self._opaque += 1
        self._ping = self._opaque
        self.want_write(now)

    def probe(self, now: float) -> None:
        """Somebody else claims this session: answer within the probe time, or lose it."""
        if self._probe_at is not None:
            return
        if now < self._probe_begun + _PROBE_SPACING:  # a stranger's dials must not become a flood of PINGs
            self._probe_at = self._probe_begun + _PROBE_SPACING
            self._probe_since, self._probe_extensions, self._probe_opaque = now, -1, self._opaque + 1
            self._endpoint.timers.schedule(self, self._probe_at)
            return
        self._begin_probe(now)

    def _begin_probe(self, now: float) -> None:
        self._probe_begun = now
        self.ping(now)
        self._probe_opaque = self._opaque
        self._probe_since = now
        self._probe_extensions = 0
        self._probe_at = now + self._endpoint.config.probe_timeout
        self._endpoint.timers.schedule(self, self._probe_at)

    def _probe_over(self, now: float) -> None:
        if self._probe_extensions < 0:  # it had to wait for its time
            self._begin_probe(now)
            return
        silent = self._last_received <= self._probe_since
        if silent and not self._endpoint.paused:
            self._probe_at = None
            assert self.session is not None
            self._endpoint.incumbent_silent(self.session, now)
        elif self._probe_extensions < _PROBE_EXTENSIONS:
            self._probe_extensions += 1
            self._probe_since = now
            self._probe_at = now + self._endpoint.config.probe_timeout
        else:
            self._alive(now)

    def _receive_pong(self, opaque: int, now: float) -> None:
        if self._ponged < opaque <= self._opaque:
            self._ponged = opaque
        else:
            self._spend(now)
        if self._probe_at is not None and self._probe_opaque <= opaque <= self._opaque:
            self._alive(now)

    def _alive(self, now: float) -> None:
        self._probe_at = None
        assert self.session is not None
        self._endpoint.incumbent_alive(self.session, now)

    # -- ending -------------------------------------------------------------------------------------------------

    def last_words(self, frame: bytes) -> None:
        """A frame that must go out before the CLOSE."""
        self._control.append(frame)

    def close(
        self, code: CloseCode, detail: str, now: float, *, resumable: bool = True, retry_after: float = 0.0
    ) -> None:
        """Say CLOSE and be done with it.  Idempotent."""
        if self.state in (ConnectionState.CLOSING, ConnectionState.CLOSED):
            return
        error = failure_for(code, detail, resumable=resumable)
        silent = self.state is ConnectionState.PREAMBLE and not self.dialer and self._decoder.position < len(PREAMBLE)
        # a stranger gets the code alone: no hint, and no more bytes than it sent
        text = detail if self.peer_id else ""
        if silent:
            self._lost(error, now)
            return
        self._say(encode_close(code, round(retry_after * 1000), text, resumable=resumable), now)
        self.state = ConnectionState.CLOSING
        self._ended(error, now, flush=True)

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
        self._lost(error, now)

    def _lost(self, error: ConnectionFailure, now: float) -> None:
        self.state = ConnectionState.CLOSED
        self._ended(error, now, flush=False)

    def _ended(self, error: ConnectionFailure, now: float, *, flush: bool) -> None:
        self.error = error
        self._decoder.clear()
        self._partial = None
        self._hello = None
        self._transcript = b""
        self._endpoint.timers.cancel(self)
        self._endpoint.connection_ended(self, now, flush=flush)


def _take_origin(headers: dict[str, object] | None) -> bytes | None:
    """The reserved header ``id``, taken out of the map; None where it is not."""
    if headers is None or "id" not in headers:
        return None
    origin = headers.pop("id")
    if not (isinstance(origin, bytes) and len(origin) == 24):
        raise PeerFault(CloseCode.PROTOCOL, "the reserved header id is not a binary of 24 bytes")
    return origin
