"""Every frame in every state, in every role, as the specification's section *States* has it.

``TABLE`` mirrors that section's table. "-" is what it is there; any other word names the method of :class:`Case` that
looks whether the right thing happened.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from struct import pack

import pytest

from networkio_proto import CloseCode, Config, ConnectionLost, ConnectionState, Limits, Outcome, Session
from tests.proto.helpers_wire import (
    ACK,
    ATTACH,
    CLOSE,
    CONTINUED,
    DATA,
    FIN,
    HEADERS,
    HELLO,
    HELLO_ACK,
    MORE,
    PING,
    PONG,
    PREAMBLE,
    REJECT,
    SKIP,
    Line,
    Node,
    Peer,
    ack,
    close,
    data,
    fin,
    fingerprint,
    frame,
    ping,
    pong,
    reject,
    skip,
)

TABLE = """
received              START   GREETED  AGREED  CLAIMED  PARKED   LIVE    MIDST    CLOSING  CLOSED
HELLO                 agree   -        -       -        wait     -       -        nothing  nothing
HELLO_ACK             -       claim    -       -        wait     -       -        nothing  nothing
ATTACH                -       -        attach  attach   wait     -       -        nothing  nothing
DATA, whole           -       -        -       -        wait     take    -        nothing  nothing
DATA, first fragment  -       -        -       -        wait     begin   -        nothing  nothing
DATA, continued       -       -        -       -        wait     -       collect  nothing  nothing
ACK                   -       -        -       -        wait     read    read     nothing  nothing
SKIP                  -       -        -       -        wait     skip    -        nothing  nothing
REJECT                -       -        -       -        wait     reject  reject   nothing  nothing
FIN                   -       -        -       -        wait     finish  -        nothing  nothing
PING                  -       -        -       -        wait     pong    pong     nothing  nothing
PONG                  -       -        -       -        wait     pass    pass     nothing  nothing
CLOSE                 close   close    close   close    wait     close   close    nothing  nothing
80                    -       -        -       -        wait     pass    pass     nothing  nothing
FF                    -       -        -       -        wait     pass    pass     nothing  nothing
00                    -       -        -       -        wait     -       -        nothing  nothing
7F                    -       -        -       -        wait     -       -        nothing  nothing
end of stream         lost    lost     lost    lost     lost     lost    lost     nothing  nothing
5 s since START       late    late     late    late     wait     stay    stay     nothing  nothing
"""

#: the types of the specification; the other ones below 80 are critical, those from 80 on can be skipped
LISTED = {HELLO, HELLO_ACK, ATTACH, DATA, ACK, SKIP, REJECT, FIN, PING, PONG, CLOSE}

#: a frame length that tells the bound of a live connection from that of a handshake
FRAME_LIMIT = 8192
CONFIG = Config(limits=Limits(frame=FRAME_LIMIT))

ROLES = ("dialer", "acceptor")
#: which side of the connection the node "m" is, and the peer, which makes it the arbiter or the follower
SEATS = list(product(ROLES, ("a", "z")))
#: states that one side alone is ever in (a dial is never parked: see test_a_dial_is_never_parked)
ROLE_OF = {"START": "acceptor", "GREETED": "dialer", "AGREED": "acceptor", "CLAIMED": "dialer", "PARKED": "acceptor"}


def seats(state: str) -> list[tuple[str, str]]:
    """The seats in which a node can be in the state."""
    return [seat for seat in SEATS if ROLE_OF.get(state, seat[0]) == seat[0]]


def cells() -> Iterator[tuple[str, str, str]]:
    """(state, what is received, the word) of each cell of the table."""
    head, *rows = TABLE.strip().splitlines()
    states = head.split()[1:]
    for row in rows:
        received, words = row[:22].strip(), row[22:].split()
        yield from ((state, received, word) for state, word in zip(states, words, strict=True))


class Case:
    """A node in a state, and the peer at the other end of the line."""

    def __init__(self, state: str, role: str, peer_id: str) -> None:
        self.state, self.role = state, role
        self.node = Node(config=CONFIG)
        self.peer = Peer(peer_id)
        self.node.send(self.peer, b"for ACK and REJECT")
        self.session: Session = self.node.session(self.peer)
        self.incumbent: Line | None = None
        self.line = self._reach()
        self.line.raw()
        self.entered = self.line.state
        self.before = fingerprint(self.node.endpoint)
        self.lasting = fingerprint(self.node.endpoint, connected=False)

    def _reach(self) -> Line:
        node, peer, role, state = self.node, self.peer, self.role, self.state
        if state == "START":
            line = node.accept()
            line.say(PREAMBLE)
            return line
        if state == "GREETED":
            line = node.dial(peer.peer_id)
            line.say(PREAMBLE)
            return line
        if state in ("AGREED", "CLAIMED"):
            return node.claim(peer, role)
        if state == "PARKED":
            self.incumbent = node.connect(Peer(peer.peer_id, life=2))
            line = node.claim(peer, role)
            line.say(peer.attach())
            assert line.state is ConnectionState.PARKED
            return line
        line = node.connect(peer, role)
        if state == "MIDST":
            line.say(data(1, b"four", total=8))
        elif state == "CLOSING":
            line.connection.close(CloseCode.NORMAL, "", node.now)
            node.pump()
        elif state == "CLOSED":
            line.say(close(CloseCode.NORMAL))
        return line

    def receive(self, received: str) -> None:
        """What the row says happens."""
        line, peer = self.line, self.peer
        if received == "end of stream":
            line.eof()
        elif received == "5 s since START":
            for _ in range(6):
                if self.incumbent is not None:  # it is busy, so the probe goes on
                    self.incumbent.say(frame(0x80, b"busy"))
                self.node.advance(0.9)
        elif received == "HELLO":
            line.say(peer.hello())
        elif received == "HELLO_ACK":
            line.say(peer.hello_ack())
        elif received == "ATTACH":
            line.say(peer.attach())
        else:
            line.say({
                "DATA, whole": data(1, b"whole"),
                "DATA, first fragment": data(1, b"four", total=8),
                "DATA, continued": data(1, b"more", CONTINUED),
                "ACK": ack(1, 1),
                "SKIP": skip(1, 2),
                "REJECT": reject(self.session.outbox.outbox_id, 1),
                "FIN": fin(1),
                "PING": ping(77),
                "PONG": pong(77),
                "CLOSE": close(CloseCode.OVERLOAD, b"busy", retry_after=1500),
            }.get(received) or frame(int(received, 16)))  # fmt: skip

    # -- the words of the table -----------------------------------------------------------------------------------

    def refuse(self) -> None:
        assert self.line.farewell() is CloseCode.PROTOCOL
        assert self.line.state is ConnectionState.CLOSING
        self.nothing_lasting_changed()

    def agree(self) -> None:
        assert self.line.kinds() == [HELLO_ACK]
        assert self.line.state is ConnectionState.ATTACH
        self.nothing_changed()

    def claim(self) -> None:
        assert self.line.kinds() == [ATTACH]
        assert self.line.state is ConnectionState.ATTACH
        self.nothing_changed()

    def attach(self) -> None:
        assert self.session.connection is self.line.connection
        kinds = self.line.kinds()
        assert kinds.count(ATTACH) == (self.role == "acceptor")
        assert kinds[-1] == DATA
        self._live()

    def take(self) -> None:
        assert self.node.read(self.peer) == [b"whole"]
        self._live()

    def begin(self) -> None:
        assert self.session.unread == 0
        self.nothing_lasting_changed()
        self.line.say(data(1, b"more", CONTINUED))
        assert self.node.read(self.peer) == [b"fourmore"]
        self._live()

    def collect(self) -> None:
        assert self.node.read(self.peer) == [b"fourmore"]
        self._live()

    def read(self) -> None:
        assert self.session.outcome(1) is Outcome.READ
        self._live()

    def skip(self) -> None:
        assert self.session.inbox is not None
        assert (self.session.inbox.received, self.session.inbox.read) == (2, 2)
        self._live()

    def reject(self) -> None:
        assert self.session.outcome(1) is Outcome.REJECTED
        self._live()

    def finish(self) -> None:
        assert self.session.peer_ended
        self._live()

    def pong(self) -> None:
        assert self.line.raw() == pong(77)
        self.nothing_changed()
        self._live()

    def pass_(self) -> None:
        assert self.line.raw() == b""
        self.nothing_changed()
        self._live()

    def stay(self) -> None:
        self.nothing_lasting_changed()
        self._live()

    def wait(self) -> None:
        assert self.line.state is ConnectionState.PARKED
        assert self.line.raw() == b""
        self.nothing_lasting_changed()

    def close(self) -> None:
        assert self.line.ended() is CloseCode.OVERLOAD
        error = self.line.connection.error
        assert error is not None
        assert (error.remote, error.resumable, error.detail, error.retry_after) == (True, True, "busy", 1.5)
        self.nothing_lasting_changed()

    def lost(self) -> None:
        self.line.ended()
        assert isinstance(self.line.connection.error, ConnectionLost)
        self.nothing_lasting_changed()

    def late(self) -> None:
        assert self.line.farewell() is CloseCode.TIMEOUT
        self.nothing_changed()

    def nothing(self) -> None:
        assert self.line.raw() == b""
        self.nothing_changed()

    def _live(self) -> None:
        """It is live and well: it takes the next message."""
        assert self.line.state is ConnectionState.LIVE
        self.line.raw()
        self.line.say(ping(99))
        assert pong(99) in self.line.raw()

    def nothing_changed(self) -> None:
        assert fingerprint(self.node.endpoint) == self.before

    def nothing_lasting_changed(self) -> None:
        assert fingerprint(self.node.endpoint, connected=False) == self.lasting


WORDS = {"-": "refuse", "pass": "pass_"}


@pytest.mark.parametrize(
    ("state", "received", "word"), [pytest.param(*cell, id=f"{cell[0]}-{cell[1]}") for cell in cells()]
)
def test_every_state_answers_every_input_as_specified(state: str, received: str, word: str) -> None:
    for role, peer_id in seats(state):
        case = Case(state, role, peer_id)
        case.receive(received)
        getattr(case, WORDS.get(word, word))()


@pytest.mark.parametrize("state", ["START", "GREETED", "AGREED", "CLAIMED", "LIVE", "MIDST"])
def test_every_unlisted_type_is_critical_or_ignorable_by_its_number(state: str) -> None:
    [seat, *_] = seats(state)
    skipped = Case(state, *seat)
    for kind in set(range(256)) - LISTED:
        if kind >= 0x80 and state in ("LIVE", "MIDST"):
            skipped.line.say(frame(kind, b"body", kind))
            skipped.pass_()
        else:
            case = Case(state, *seat)
            case.line.say(frame(kind, b"body"))
            case.refuse()


# -- flags ------------------------------------------------------------------------------------------------------------

#: type, a state that takes it, a frame of it, and the flags that are not defined for it
FLAGS = [
    ("HELLO", "START", Peer().hello(), 0xFF),
    ("HELLO_ACK", "GREETED", Peer().hello_ack(), 0xFF),
    ("ATTACH", "AGREED", Peer().attach(), 0xFF),
    ("DATA", "LIVE", data(1, b"whole"), 0x20 | 0x80),
    ("DATA, first", "LIVE", data(1, b"four", total=8), 0x20 | 0x80),
    ("DATA, continued", "MIDST", data(1, b"more", CONTINUED), 0xFF & ~(MORE | CONTINUED)),
    ("ACK", "LIVE", ack(1, 1), 0xFF),
    ("SKIP", "LIVE", skip(1, 1), 0xFF),
    ("REJECT", "LIVE", reject(bytes(16), 1), 0xFF),
    ("FIN", "LIVE", fin(1), 0xFF),
    ("PING", "LIVE", ping(), 0xFF),
    ("PONG", "LIVE", pong(), 0xFF),
    ("CLOSE", "LIVE", close(CloseCode.NORMAL), 0xFF & ~0x01),
    ("CLOSE, early", "START", close(CloseCode.NORMAL), 0xFF & ~0x01),
]


@pytest.mark.parametrize(("state", "good", "undefined"), [row[1:] for row in FLAGS], ids=[row[0] for row in FLAGS])
def test_every_flag_that_is_not_defined_for_a_type_is_refused(state: str, good: bytes, undefined: int) -> None:
    [(role, peer_id), *_] = seats(state)
    for bit in range(8):
        if undefined & 1 << bit:
            case = Case(state, role, peer_id)
            case.line.say(good[:5], bytes([good[5] | 1 << bit]), good[6:])
            case.refuse()


# -- lengths ----------------------------------------------------------------------------------------------------------

#: type: least and greatest size of its body; None: whatever the length field may be
BODIES: dict[int, tuple[int, int | None]] = {
    HELLO: (0, 4094),
    HELLO_ACK: (0, 4094),
    ATTACH: (0, 4094),
    DATA: (8, None),
    ACK: (32, 32),
    SKIP: (18, 18),
    REJECT: (26, 538),
    FIN: (8, 8),
    PING: (8, 8),
    PONG: (8, 8),
    CLOSE: (10, 522),
    0x80: (0, None),
    0x00: (0, None),
}


def judged(kind: int, length: int, bound: int) -> CloseCode | None:
    """What a header alone must be answered with (P-FRAME-1 to P-FRAME-4); None: the body is waited for."""
    if length > bound:
        return CloseCode.TOO_LARGE
    least, most = BODIES[kind]
    if length < 2 or not least <= length - 2 <= (bound if most is None else most):
        return CloseCode.PROTOCOL
    return None


@pytest.mark.parametrize("kind", BODIES, ids=lambda kind: f"{kind:02X}")
@pytest.mark.parametrize(
    ("state", "bound"), [("START", 4096), ("GREETED", 4096), ("AGREED", 4096), ("LIVE", FRAME_LIMIT)]
)
def test_a_length_is_judged_as_soon_as_the_header_is_there(kind: int, state: str, bound: int) -> None:
    [(role, peer_id), *_] = seats(state)
    least, most = BODIES[kind]
    edges = {0, 1, 2, least + 1, least + 2, 4096, 4097, bound, bound + 1, 2**31, 2**32 - 1}
    if most is not None:
        edges |= {most + 2, most + 3}
    for length in sorted(edges):
        case = Case(state, role, peer_id)
        case.line.say(pack(">IBB", length, kind, 0)[:5])
        assert case.line.state is case.entered
        case.line.say(b"\0")
        code = judged(kind, length, bound)
        if code is not None:
            assert case.line.farewell() is code, length
            case.nothing_lasting_changed()
        elif length > 2 and (state == "LIVE" or kind in (HELLO, HELLO_ACK, ATTACH)):
            # of a type that the state does not take, an implementation may wait for the body or not
            assert case.line.state is case.entered, length
            case.nothing_changed()


@pytest.mark.parametrize("state", ["LIVE", "MIDST"])
@pytest.mark.parametrize(
    "body",
    [
        data(0),
        data(2),
        data(2**63),
        data(2**64 - 1),
        data(1, b"", MORE),
        data(1, b"\0\0\0", MORE),
        data(1, b"", HEADERS),
        data(1, b"\0\5\x81", HEADERS),
        data(1, b"\0\1\xc0", HEADERS),
        data(1, b"12345", total=4),
        data(1, b"1234", total=4),
        data(1, b"12345", CONTINUED),
        data(1, b"", CONTINUED),
        data(1, b"", CONTINUED | MORE),
        data(1, b"1234", CONTINUED | MORE),
        data(2, b"1234", CONTINUED),
        ack(0, 1),
        ack(2, 1),
        ack(2**63, 0),
        ack(1, 1, first=2**63),
        ack(1, 1, first=2),
        skip(0, 1),
        skip(2, 1),
        skip(2, 3),
        skip(1, 2**63),
        fin(0),
        fin(2),
        fin(2**63),
    ],
    ids=lambda frame: frame[4:24].hex(),
)
def test_a_frame_that_no_state_of_the_session_allows_is_refused(state: str, body: bytes) -> None:
    for role, peer_id in SEATS:
        case = Case(state, role, peer_id)
        case.line.say(body)
        case.refuse()


# -- closing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["START", "GREETED", "AGREED", "CLAIMED", "LIVE", "MIDST"])
def test_a_close_ends_the_connection_in_silence_whatever_its_code(state: str) -> None:
    for code, flags, (role, peer_id) in product([*CloseCode, 18, 65535], [0, 1], seats(state)):
        case = Case(state, role, peer_id)
        case.line.say(close(code, b"\xffwhy\n", retry_after=2**63, flags=flags))
        # an unlisted code counts as PROTOCOL (P-CLOSE-9)
        assert case.line.ended() == (code if code in list(CloseCode) else CloseCode.PROTOCOL)
        error = case.line.connection.error
        assert error is not None
        assert (error.remote, error.resumable, error.retry_after) == (True, bool(flags), 300.0)
        assert error.detail.isascii()
        assert error.detail.isprintable()
        assert case.line.connection not in case.node.endpoint.connections
        assert code == CloseCode.ABORT or case.session.outcome(1) is None


@pytest.mark.parametrize("state", ["START", "GREETED", "AGREED", "CLAIMED", "PARKED", "LIVE", "MIDST"])
def test_a_local_close_says_its_code_once_and_is_deaf_from_then_on(state: str) -> None:
    for role, peer_id in seats(state):
        case = Case(state, role, peer_id)
        for code in (CloseCode.RESTARTING, CloseCode.ABUSE):
            case.line.connection.close(code, "", case.node.now)
            case.node.pump()
        assert case.line.farewell() is CloseCode.RESTARTING
        for _, received, _ in cells():
            case.receive(received)
        case.line.lose()
        case.line.eof()
        case.nothing_lasting_changed()


def test_a_dial_is_never_parked() -> None:
    """No newcomer of another incarnation finds an incumbent on a dial: whoever is taken closes such dials."""
    node, old, new = Node(), Peer("a", life=1), Peer("a", life=2)
    dial = node.claim(old, "dialer")
    node.connect(new)
    assert dial.farewell() is CloseCode.COLLISION


def test_the_preamble_comes_once_and_first() -> None:
    for state in ("START", "GREETED", "AGREED", "CLAIMED", "LIVE", "MIDST"):
        for role, peer_id in seats(state):
            case = Case(state, role, peer_id)
            case.line.say(PREAMBLE)  # read as a header, it is a frame of 0x4E494F00 bytes
            assert case.line.farewell() is CloseCode.TOO_LARGE
            case.nothing_lasting_changed()
