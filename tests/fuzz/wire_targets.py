"""Targets: streams of bytes, to the frame decoder, to both sides of a handshake, and to a live connection."""

from __future__ import annotations

from collections.abc import Callable

from networkio_proto import ConnectionState
from networkio_proto.frames import HANDSHAKE_FRAME_LIMIT, FrameDecoder, PeerFault
from tests.fuzz.reader import mended
from tests.fuzz.reference import parse_frames
from tests.proto.helpers_wire import PREAMBLE, SMALL, Line, Node, Peer, fingerprint

__all__ = ["acceptor", "dialer", "frames", "judge_line", "rest", "stream"]

#: a stranger gets no more memory than this (P-SEC-1)
_STRANGER = 8192


def frames(data: bytes) -> None:
    """The frame decoder finds what the reference finds, however the stream is cut, and keeps no more than it must."""
    limit = (64, 600, 4096, 65536)[data[0] & 3] if data else 64
    step = 1 + (data[1] % 32 if len(data) > 1 else 0)
    said = data[2:]
    expected = parse_frames(said, limit)
    for chunk in _chunks(said, step):
        decoder = FrameDecoder()
        found: list[tuple[int, int, bytes]] = []
        fault: int | None = None
        for start in range(0, len(said), chunk):
            decoder.feed(said[start : start + chunk])
            try:
                while (frame := decoder.next_frame(limit)) is not None:
                    kind, flags, begin, end = frame
                    found.append((kind, flags, decoder.buffer[begin:end]))
            except PeerFault as error:
                fault = int(error.code)
                break
            assert decoder.pending < limit + 4, "more is kept than an unfinished frame"
        assert (found, fault) == expected[:2], f"in chunks of {chunk}"
        if fault is None:
            assert decoder.pending == expected.rest
        decoder.clear()
        assert decoder.pending == 0


def acceptor(data: bytes) -> None:
    """A stranger dials and says anything."""
    _stranger(data, lambda node: node.accept())


def dialer(data: bytes) -> None:
    """Whoever answers a dial says anything."""
    _stranger(data, lambda node: node.dial("a" if data and data[0] & 4 else None))


def _stranger(data: bytes, begin: Callable[[Node], Line]) -> None:
    """It ends in a live session or in one close, costs little, and changes no session before it is live."""
    mode, said = (data[0], data[1:]) if data else (0, b"")
    if mode & 1:
        said = PREAMBLE + mended(said, HANDSHAKE_FRAME_LIMIT)
    results = []
    for chunk in _chunks(said, 1 + mode // 8):
        node = Node(config=SMALL)
        line = begin(node)
        line.raw()
        before = fingerprint(node.endpoint)
        lived = False
        for start in range(0, len(said), chunk):
            line.feed(said[start : start + chunk])
            lived = lived or line.live
            assert lived or line.connection._decoder.pending <= _STRANGER, "a stranger costs too much"
        node.pump()
        judge_line(line)
        connections = node.session("a").connections if "a" in node.endpoint.sessions else 0
        if not lived and not connections:
            assert fingerprint(node.endpoint) == before, "a stranger changed a session"
        results.append(_result(line))
        node.advance(10.0)
        assert line.closed is not None or line.live, "it stays without being live"
        rest(node)
    assert all(result == results[0] for result in results), "chunks make a difference"


def stream(data: bytes) -> None:
    """On a live connection any bytes are events or one close, the same ones however they are cut."""
    mode, said = (data[0], data[1:]) if data else (0, b"")
    if mode & 1:
        said = mended(said, SMALL.limits.frame)
    results = []
    for chunk in _chunks(said, 1 + mode // 8):
        node, peer = Node(config=SMALL), Peer()
        if mode & 2:
            node.send(peer, b"one", bytes(9000), b"three")
        line = node.connect(peer)
        for start in range(0, len(said), chunk):
            line.feed(said[start : start + chunk])
            assert line.connection._decoder.pending < SMALL.limits.frame + 4
        node.pump()
        judge_line(line)
        session = node.session(peer)
        assert session.unsettled <= SMALL.window_max + SMALL.limits.message + 128
        results.append((_result(line), node.read(peer)))
        assert session.unsettled <= sum(reject.cost for box in session.inboxes for reject in box.rejects.values()) + (
            SMALL.limits.message + 128 if line.live else 0
        )
        line.eof()
        assert line.closed is not None
        judge_line(line)
        rest(node)
    assert all(result == results[0] for result in results), "chunks make a difference"


def _chunks(said: bytes, size: int) -> list[int]:
    """Sizes of the pieces: all in one, and that."""
    return sorted({len(said) or 1, size}, reverse=True)


def _result(line: Line) -> tuple[object, ...]:
    """All that is there to see of what the bytes did."""
    error = line.connection.error
    return (line.state, None if error is None else (error.code, str(error)), line.raw(),
            fingerprint(line.node.endpoint))  # fmt: skip


def judge_line(line: Line) -> None:
    """It lives, or it was closed for a reason that has a name, and keeps nothing."""
    if line.closed is None:
        assert line.state not in (ConnectionState.CLOSING, ConnectionState.CLOSED)
        return
    assert line.connection.error is not None
    assert line.connection._decoder.pending == 0, "a closed connection keeps bytes"
    assert not line.connection._assembly.unfinished, "a closed connection keeps a part of a message"
    assert line.connection not in line.node.endpoint.connections


def rest(node: Node) -> None:
    """Timers come seldom enough that nobody notices that they come."""
    endpoint = node.endpoint
    for _ in range(12):
        due = endpoint.get_timer()
        if due is None:
            return
        node.now = max(node.now, due)
        endpoint.handle_timer(node.now)
        node.pump()
        again = endpoint.get_timer()
        assert again is None or again > node.now, "a timer that is always due"
