"""Bytes: however a stream is cut into chunks, and wherever it ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from networkio_proto import CloseCode, ConnectionLost, ConnectionState
from networkio_testing import Wire
from tests.proto.helpers_wire import (
    ACK,
    ATTACH,
    CONTINUED,
    DATA,
    HELLO,
    MORE,
    PONG,
    PREAMBLE,
    RAW,
    SMALL,
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
from tests.scenarios.helpers import Scene, redelivered

#: one frame of every type that may come on a live connection, each good where it stands, behind messages 1 and 2
FRAMES: dict[str, Callable[[Node], bytes]] = {
    "DATA": lambda node: data(3, b"payload"),
    "DATA with headers": lambda node: data(3, b"payload", headers={"kind": "order"}),
    "DATA, first fragment": lambda node: data(3, b"pay", total=7),
    "ACK": lambda node: ack(2, 1),
    "SKIP": lambda node: skip(3, 5),
    "REJECT": lambda node: reject(node.session("a").outbox.outbox_id, 2),
    "FIN": lambda node: fin(3),
    "PING": lambda node: ping(77),
    "PONG": lambda node: pong(77),
    "an ignorable one": lambda node: frame(0x99, b"whatever"),
    "CLOSE": lambda node: close(CloseCode.RESTARTING, b"back soon"),
}


def conversation() -> tuple[Node, Line]:
    """A live connection on which both sides have sent two messages."""
    node, peer = Node(config=SMALL), Peer()
    line = node.connect(peer)
    line.say(data(1, b"one"), data(2, b"two"))
    node.send(peer, b"un", b"deux")
    return node, line


def outcome(node: Node, line: Line) -> object:
    """Everything that a chunk led to: state, messages, notices, what was said, and how the connection ended."""
    return (fingerprint(node.endpoint), line.raw(), line.state, repr(line.connection.error), repr(node.events))


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_means_the_same_wherever_it_is_cut_in_two(name: str) -> None:
    node, line = conversation()
    said = FRAMES[name](node)
    line.say(said)
    whole = outcome(node, line)
    for place in range(1, len(said)):
        node, line = conversation()
        line.say(said[:place])
        line.say(said[place:])
        assert outcome(node, line) == whole, place


def test_fifty_frames_in_one_chunk_mean_the_same_as_one_after_the_other() -> None:
    def said(node: Node) -> list[bytes]:
        run = [data(number, b"%d" % number) for number in range(3, 43)]
        return [*run[:20], ack(2, 1), ping(1), skip(43, 44), data(45, b"h", headers={"k": 1}), frame(0x80),
                data(46, b"fr", total=6), ack(2, 2), data(46, b"ag", CONTINUED | MORE), data(46, b"nt", CONTINUED),
                fin(47)]  # fmt: skip

    def filled(node: Node) -> list[bytes]:
        parts = said(node)
        return parts[:20] + [data(number, b"%d" % number) for number in range(23, 43)] + parts[20:]

    node, line = conversation()
    pieces = filled(node)
    assert len(pieces) == 50
    line.say(b"".join(pieces))
    at_once = fingerprint(node.endpoint), node.read("a")
    node, line = conversation()
    for piece in pieces:
        line.say(piece)
    assert (fingerprint(node.endpoint), node.read("a")) == at_once
    assert at_once[1] == [b"one", b"two", *(b"%d" % number for number in range(3, 43)), b"h", b"fragnt"]
    assert PONG in line.kinds()


# -- where a stream ends ----------------------------------------------------------------------------------------------

def end_after(wire: Wire, end: int, count: int, how: str) -> None:
    """So many more bytes from ``end`` arrive, then the stream ends for both: by EOF, or by a reset."""
    assert wire.deliver(end, count) == count
    for pipe in wire.pipes:
        pipe.data.clear()
    wire.cut(how)


#: the frame of the dialer's in which the stream ends, and after how many of its bytes; the preamble goes before HELLO
PLACES = {
    "the preamble": (0, 5),
    "the header of HELLO": (0, 8 + 4),
    "HELLO": (0, 8 + 40),
    "the header of ATTACH": (1, 2),
    "ATTACH": (1, 60),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_handshake_that_ends_in_the_middle_of_something_is_made_anew(place: str, how: str) -> None:
    """Nothing has changed at the acceptor, the part of a frame is forgotten, and the next connection does it all."""
    scene = Scene(connected=False)
    scene.a.send("b", b"one", b"two")
    scene.a.dial("b")
    [wire] = scene.a.answer_dials()
    number, count = PLACES[place]
    if number:
        wire.deliver(0)
        wire.deliver(1)
    end_after(wire, 0, count, how)
    assert "a" not in scene.b.endpoint.sessions
    assert not scene.b.endpoint.connections
    assert scene.a.session("b").unacknowledged == 2
    scene.rest()
    assert scene.got() == [b"one", b"two"]
    assert scene.b.session("a").connections == 1


@pytest.mark.parametrize("end", [0, 1], ids=["of the dialer", "of the acceptor"])
@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize(
    "count",
    [
        pytest.param(3, id="a header"),
        pytest.param(4 + 2 + 8 + 5, id="a payload"),
        pytest.param(65540 + 1000, id="a second fragment"),
        pytest.param(2 * 65540 + 3, id="the header of a third fragment"),
    ],
)
def test_a_stream_that_ends_in_the_middle_of_a_message_delivers_it_later_and_once(
    end: int, count: int, how: str
) -> None:
    scene = Scene()
    sender, receiver = (scene.a, scene.b) if end == 0 else (scene.b, scene.a)
    large = bytes(range(256)) * 600
    sender.send(receiver.name, large, b"after it")
    end_after(scene.wire, end, count, how)
    session = receiver.session(sender.name)
    assert isinstance(session.error, ConnectionLost)
    assert (session.unread, session.unsettled) == (0, 0)
    scene.rest()
    assert scene.got(receiver.name) == [large, b"after it"]
    assert [delivery[1] for delivery in scene.heard[receiver.name]] == [1, 2]
    assert not any(map(redelivered, scene.heard[receiver.name]))


# -- what is no frame of the protocol ---------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [b"", PREAMBLE])
@pytest.mark.parametrize("kind", [0x04, 0x15, 0x7F, 0x80, 0xFF])
def test_before_everybody_is_live_an_unknown_type_ends_the_connection_be_it_ignorable_or_not(
    kind: int, before: bytes
) -> None:
    """In place of HELLO, and in place of ATTACH; once live, ignorable ones are skipped."""
    node, peer = Node(), Peer()
    line = node.accept() if before else node.claim(peer)
    line.raw()
    line.say(before, frame(kind, b"x"))
    assert line.farewell() is CloseCode.PROTOCOL
    assert not node.endpoint.sessions


@pytest.mark.parametrize(
    ("said", "code"),
    [
        pytest.param(data(1, b"", RAW | CONTINUED), CloseCode.PROTOCOL, id="a continuation of nothing"),
        pytest.param(data(1, b"x", RAW | 0x20), CloseCode.PROTOCOL, id="a flag that is not defined"),
        pytest.param(data(1, b"", RAW, total=3), None, id="a first fragment without content"),
        pytest.param(data(1, b"ab", RAW, total=3) + data(2, b"c"), CloseCode.PROTOCOL, id="another message inside"),
        pytest.param(
            data(1, b"ab", RAW, total=3) + data(1, b"cd", CONTINUED), CloseCode.PROTOCOL, id="longer than its total"
        ),
        pytest.param(
            data(1, b"ab", RAW, total=9) + data(1, b"cd", CONTINUED), CloseCode.PROTOCOL, id="shorter than its total"
        ),
        pytest.param(
            data(1, b"ab", RAW, total=2) + data(1, b"", CONTINUED), CloseCode.PROTOCOL, id="an empty last fragment"
        ),
        pytest.param(
            data(1, b"ab", RAW, total=3) + data(1, b"cd", CONTINUED | MORE), CloseCode.PROTOCOL,
            id="longer than its total and more to come",
        ),
        pytest.param(
            data(1, b"ab", RAW, total=3) + data(1, b"", CONTINUED | MORE), CloseCode.PROTOCOL,
            id="an empty fragment in the middle",
        ),
        pytest.param(
            data(1, b"ab", RAW, total=3) + data(2, b"c", CONTINUED), CloseCode.PROTOCOL, id="of another message"
        ),
        pytest.param(fin(1) + data(2, b"x"), CloseCode.PROTOCOL, id="a message behind the end"),
        pytest.param(data(1, b"", RAW), None, id="an empty message"),
    ],
)
def test_fragments_that_do_not_add_up_end_the_connection_and_leave_nothing(said: bytes, code: CloseCode | None) -> None:
    node, peer = Node(), Peer()
    line = node.connect(peer)
    line.raw()
    line.say(said)
    if code is not None:
        assert line.farewell() is code
        assert node.session(peer).unread == 0
        assert node.session(peer).unsettled == 0
        return
    assert line.live
    again = node.connect(peer)
    again.say(data(1, b"whole") if node.session(peer).unread == 0 else data(2, b"whole"))
    assert node.read(peer)[-1] == b"whole"


@pytest.mark.parametrize(
    "said",
    [b"", PREAMBLE, PREAMBLE + frame(HELLO, bytes(90))[:9]],
    ids=["nothing", "the preamble", "a part of HELLO"],
)
def test_who_connects_and_falls_silent_is_shown_out_when_the_time_for_a_handshake_is_over(said: bytes) -> None:
    node = Node()
    line = node.accept()
    line.say(said)
    node.advance(4.99)
    assert line.closed is None
    node.advance(0.02)
    assert line.closed is not None
    assert line.state in (ConnectionState.CLOSED, ConnectionState.CLOSING)
    assert not {DATA, ACK, ATTACH} & set(line.kinds() if said else [])
    assert not node.endpoint.sessions
    node.advance(5.0)
    assert not node.endpoint.connections
