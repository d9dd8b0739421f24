"""A real node talks to the peer that was written from the specification page alone."""

import datetime
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from networkio_asyncio import Config, MessageRejected, Node, NoMoreMessages, Outcome, Peer
from tests.docs.dry_run_peer import DATA, MORE, PING, PREAMBLE, RAW, Closed, DryRunPeer

CLIENT, SERVER = "client-123", "server-001"


class Server:
    """A node in a thread of its own; its side of the conversation with the dry run's peer."""

    def __init__(self, portal: BlockingPortal, node: Node, port: int) -> None:
        self.portal, self.node, self.port = portal, node, port
        self.peer: Peer = portal.call(node.peer, CLIENT)

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        async def bounded() -> Any:
            with anyio.fail_after(5):
                result = function(*args, **options)
                return await result if hasattr(result, "__await__") else result

        return self.portal.call(bounded)

    def send(self, data: Any, **options: Any) -> Any:
        return self.call(self.peer.send, data, **options)

    def read(self, count: int = 1) -> list[Any]:
        return [self.call(self.peer.read) for _ in range(count)]


@contextmanager
def serving() -> Iterator[Server]:
    async def make() -> Node:
        return Node(SERVER, config=Config(drain_timeout=0.1))

    with start_blocking_portal() as portal, portal.wrap_async_context_manager(portal.call(make)) as node:
        yield Server(portal, node, portal.call(node.listen, "127.0.0.1", 0).port)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def peer(server: Server) -> Iterator[DryRunPeer]:
    peer = DryRunPeer(CLIENT, SERVER, server.port)
    peer.connect()
    yield peer
    peer.cut()


def eventually(server: Server, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not server.call(condition):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def step(peer: DryRunPeer, until: Callable[[], object]) -> None:
    """Take no frame more than it needs."""
    while not until():
        frame = peer._frame(5)
        assert frame
        peer._on_frame(*frame)
        peer._control()


def ended(peer: DryRunPeer) -> Closed:
    with pytest.raises(Closed) as closed:
        peer.wait(lambda: False)
    return closed.value


def test_messages_go_both_ways_and_are_read(server: Server, peer: DryRunPeer) -> None:
    values = ["Hello", {"k": [1, -2, 2.5, None, True]}, b"\0\xff", {7: {"deep": [[]]}}, ""]
    for value in values:
        peer.send(value)
    peer.send(b"raw", raw=True, kind="image")
    peer.pump()
    assert server.read(len(values)) == values
    message = server.call(server.peer.receive)
    assert (message.data, dict(message.headers)) == (b"raw", {"kind": "image"})
    server.call(message.ack)
    peer.wait(lambda: peer.outcomes == dict.fromkeys(range(1, 7), "READ"))

    receipts = [server.send(value) for value in values] + [server.send(b"raw", raw=True, headers={"kind": "image"})]
    messages = [peer.receive() for _ in receipts]
    assert [message.data for message in messages] == [*values, b"raw"]
    assert messages[-1].headers == {"kind": "image"}
    peer.pump()
    server.call(receipts[-1].received)
    assert receipts[0].outcome is None
    for message in reversed(messages):
        peer.ack(message)
    peer.pump()
    for receipt in receipts:
        server.call(receipt.read)


def test_a_cut_in_the_middle_costs_nothing(server: Server, peer: DryRunPeer) -> None:
    receipts = [server.send(number) for number in range(10)]
    for number in range(10):
        peer.send(number)
    mine = [peer.receive() for _ in range(6)]
    for message in mine[:3]:
        peer.ack(message)
    eventually(server, lambda: server.peer.unread >= 5)
    theirs = server.read(4)
    peer.wait(lambda: 2 in peer.outcomes)
    # Of the next message only a piece arrives; the peer does not hear any more that its message 5 is read.
    for number in range(10, 13):
        peer.send(number)
    peer.sock.sendall(b"\0\0\0\x0b\x10\0\0\0\0\0")
    peer.cut()
    receipts += [server.send(number) for number in range(10, 13)]
    theirs += server.read()

    peer.connect()
    assert peer.first == 6
    while len(mine) < 13:
        mine.append(peer.receive())
    for message in mine[3:]:
        peer.ack(message)
    theirs += server.read(8)
    peer.wait(lambda: peer.first == peer.next)
    for receipt in receipts:
        server.call(receipt.read)
    assert [message.data for message in mine] == theirs == list(range(13))
    assert [message.sequence for message in mine] == list(range(1, 14))
    assert peer.outcomes == dict.fromkeys(range(1, 14), "READ")
    assert not any(message.flags & 0x04 for message in mine), "nobody forgot anything: nothing is REDELIVERED"


def test_many_cuts_at_any_place(server: Server, peer: DryRunPeer) -> None:
    total, mine, receipts = 60, [], []
    for number in range(total):
        peer.send([number, "x" * 3000])
        receipts.append(server.send([number, "y" * 3000]))
        if number % 3 == 1:
            peer.pump()
        if number % 7 == 2:
            mine.append(peer.receive())
            peer.ack(mine[-1])
        if number % 5 == 3:
            peer.cut()
            peer.connect()
    while len(mine) < total:
        mine.append(peer.receive())
        peer.ack(mine[-1])
    peer.pump()
    assert [message.data for message in mine] == [[number, "y" * 3000] for number in range(total)]
    assert server.read(total) == [[number, "x" * 3000] for number in range(total)]
    peer.wait(lambda: peer.first == peer.next)
    for receipt in receipts:
        server.call(receipt.read)


def test_fragments_both_ways_and_a_cut_among_them(server: Server, peer: DryRunPeer) -> None:
    big = bytes(range(256)) * 1200
    assert len(big) > 4 * 65536
    # The first fragment of a message that is then begun anew.
    peer.sock.sendall((65534).to_bytes(4, "big") + bytes([DATA, MORE | RAW]) + (1).to_bytes(8, "big")
                      + len(big).to_bytes(4, "big") + b"?" * 65520)  # fmt: skip
    peer.cut()
    peer.send(big, raw=True, size=len(big))
    peer.send("after")
    peer.connect()
    assert server.read() == [big]
    peer.wait(lambda: peer.sent == 2)  # one message may pass the credit, the next waits for more
    assert server.read() == ["after"]
    peer.wait(lambda: peer.outcomes == {1: "READ", 2: "READ"})

    receipts = [server.send(big, raw=True), server.send("after")]
    step(peer, lambda: peer.partial)
    peer.cut()
    peer.connect()
    for expected, receipt in zip((big, "after"), receipts, strict=True):
        assert receipt.outcome is None
        message = peer.receive()
        assert message.data == expected
        peer.ack(message)
        peer.pump()
        server.call(receipt.read)


def test_more_than_the_windows_hold(server: Server, peer: DryRunPeer) -> None:
    payload = b"z" * 50_000
    for _ in range(20):
        peer.send(payload, raw=True)
    receipts = [server.send(payload, raw=True) for _ in range(20)]
    peer.pump()
    assert peer.cursor < 20, "credit holds the rest back"
    for _ in range(20):
        message = peer.receive()
        assert message.data == payload
        peer.ack(message)
        assert server.read() == [payload]
    peer.wait(lambda: peer.first == peer.next)
    for receipt in receipts:
        server.call(receipt.read)


def test_rejections_both_ways_survive_a_cut(server: Server, peer: DryRunPeer) -> None:
    for data in ("good", "bad", "good"):
        peer.send(data)
    peer.pump()
    for code in (0, 7, 0):
        message = server.call(server.peer.receive)
        server.call(message.reject, "bad order", code) if code else server.call(message.ack)
    peer.cut()
    peer.connect()
    peer.wait(lambda: len(peer.outcomes) == 3)
    assert peer.outcomes == {1: "READ", 2: "REJECTED", 3: "READ"}
    assert peer.rejections == {2: (7, "bad order")}

    receipts = [server.send(data) for data in ("good", "bad", "good")]
    messages = [peer.receive() for _ in receipts]
    peer.cut()
    peer.ack(messages[0])
    peer.reject(messages[1], 9, "no, thanks")
    peer.ack(messages[2])
    peer.connect()
    server.call(receipts[0].read)
    with pytest.raises(MessageRejected) as rejected:
        server.call(receipts[1].read)
    assert (rejected.value.code, rejected.value.reason) == (9, "no, thanks")
    server.call(receipts[2].read)
    assert peer.inbox
    inbox = peer.inbox
    peer.wait(lambda: not inbox.rejected)  # the node told a `first` beyond it


def test_skips_both_ways(server: Server, peer: DryRunPeer) -> None:
    peer.cut()
    eventually(server, lambda: not server.peer.connected)
    cancelled = [peer.send("never"), peer.send("never")]
    peer.send("but this")
    assert all(peer.cancel(sequence) for sequence in cancelled)
    expired = server.send("late", ttl=0.01)
    server.send("in time")
    time.sleep(0.05)
    peer.connect()

    message = server.call(server.peer.receive)
    assert message.data == "but this"
    assert [(gap.first, gap.last, gap.reason) for gap in message.gap] in ([(1, 2, 3)], [(1, 1, 3), (2, 2, 3)])
    server.call(message.ack)
    arrived = peer.receive()
    assert (arrived.data, arrived.missing) == ("in time", [(1, 1, 2)])
    assert expired.outcome is Outcome.EXPIRED
    peer.ack(arrived)
    peer.wait(lambda: peer.outcomes == {1: "CANCELLED", 2: "CANCELLED", 3: "READ"})


def test_ping_and_pong(server: Server, peer: DryRunPeer) -> None:
    peer.sock.sendall(b"\0\0\0\x04\x80\xff\0\x01")  # a frame that nobody knows, in front
    peer.ping(b"\x01\x23\x45\x67\x89\xab\xcd\xef")
    peer.wait(lambda: peer.pongs == [b"\x01\x23\x45\x67\x89\xab\xcd\xef"])


def test_the_node_pings_what_is_silent() -> None:
    async def make() -> Node:
        return Node(SERVER, config=Config(drain_timeout=0.1, ping_after=0.1, dead_after=0.6))

    with start_blocking_portal() as portal, portal.wrap_async_context_manager(portal.call(make)) as node:
        peer = DryRunPeer(CLIENT, SERVER, portal.call(node.listen, "127.0.0.1", 0).port)
        peer.connect()
        deadline = time.monotonic() + 0.8
        while time.monotonic() < deadline:
            peer.pump(0.02)  # answers, and so stays alive
        frame = peer._frame(1)
        assert frame
        assert frame[0] == PING
        time.sleep(0.9)
        assert ended(peer).code == 11  # TIMEOUT


@pytest.mark.parametrize("first", ["node", "peer"])
def test_the_end_of_both_sides(server: Server, peer: DryRunPeer, first: str) -> None:
    peer.send("last of ours")
    receipt = server.send("last of theirs")
    if first == "node":
        server.call(server.peer.end)
    peer.end()
    peer.pump()
    peer.ack(peer.receive())
    assert server.read() == ["last of ours"]
    if first == "peer":
        with pytest.raises(NoMoreMessages):
            server.read()
        server.call(server.peer.end)
    closed = ended(peer)
    assert (closed.code, closed.resumable) == (0, False)
    assert peer.finished
    assert receipt.outcome is Outcome.READ
    assert peer.outcomes == {1: "READ", 2: "FIN"}


def test_the_end_is_confirmed_after_a_cut(server: Server, peer: DryRunPeer) -> None:
    server.call(server.peer.end)
    peer.end()
    assert peer._transmit()
    step(peer, lambda: peer.finished)
    peer.cut()  # before the node's CLOSE is read
    with pytest.raises(Closed) as closed:
        peer.connect()  # states `ended`; the side that is live first says that it is over
    assert (closed.value.code, closed.value.resumable) == (0, False)


def test_a_newer_connection_replaces_the_older(server: Server, peer: DryRunPeer) -> None:
    older = peer.sock
    peer.send("over the older")
    peer.pump()
    peer.connect()
    peer.send("over the newer")
    peer.pump()
    assert server.read(2) == ["over the older", "over the newer"]
    with older:
        received = b""
        older.settimeout(5)
        while chunk := older.recv(65536):
            received += chunk
    assert b"\x30\x01\x00\x04" in received  # CLOSE, RESUMABLE, SUPERSEDED
    assert peer.seen.popitem()[1] == 2


def test_the_node_goes_down_and_says_so() -> None:
    with serving() as server:
        peer = DryRunPeer(CLIENT, SERVER, server.port)
        peer.connect()
        server.send("unread")
    closed = ended(peer)
    assert (closed.code, closed.resumable) == (1, True)
    assert peer.receive().data == "unread"


def test_the_payload_codec(server: Server, peer: DryRunPeer) -> None:
    """The example of the page, from and to bytes."""
    example = bytes.fromhex(
        "95 93 c7 00 01 01 a1 61 92 c7 00 02 07 c7 14 0e 07 e8 02 1d 0c 1e 00 00 00 00 00 05 00 00 00 00 d6 93 a4 00"
        "c7 0c 0f ff ff ff ff 00 01 51 7f 00 0f 42 3f c7 09 08 01 00 00 00 00 00 00 00 00"
    )
    zone = datetime.timezone(datetime.timedelta(hours=1))
    instant = datetime.datetime(2024, 2, 29, 12, 30, 0, 5, zone)
    value = [(1, "a"), {7}, instant, datetime.timedelta(microseconds=-1), 2**64]
    peer.send(encoded=example)
    peer.pump()
    assert server.read() == [value]
    server.send(value)
    assert peer.receive().payload == example


FAULTS = {
    "an unknown type": (b"\0\0\0\x02\x40\0", 8),
    "a length of 0": (b"\0\0\0\0\0\0", 8),
    "a frame over the limit": (b"\0\1\0\1\x80\0", 10),
    "a flag that is not defined": (b"\0\0\0\x0a\x20\x01abcdefgh", 8),
    "a sequence too far": (b"\0\0\0\x0b\x10\0\0\0\0\0\0\0\0\x09\1", 8),
    "an ACK of what was not sent": (b"\0\0\0\x22\x11\0" + b"\0\0\0\0\0\0\0\1" * 4, 8),
    "a second ATTACH": (b"\0\0\0\x03\x03\0\x80", 8),
    "a message that is too large": (b"\0\0\0\x0f\x10\x41\0\0\0\0\0\0\0\1\x01\0\0\x41?", 10),
}


@pytest.mark.parametrize(("wrong", "code"), FAULTS.values(), ids=FAULTS)
def test_faults_end_only_the_connection(server: Server, peer: DryRunPeer, wrong: bytes, code: int) -> None:
    peer.send("before")
    peer.pump()
    peer.sock.sendall(wrong)
    closed = ended(peer)
    assert (closed.code, closed.resumable) == (code, True)
    peer.send("after")
    peer.connect()
    assert server.read(2) == ["before", "after"]


@pytest.mark.parametrize("stranger", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"])
def test_strangers_get_no_answer(server: Server, stranger: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 5) as sock:
        sock.sendall(stranger)
        try:
            assert sock.recv(1) == b""
        except ConnectionResetError:
            pass
    with socket.create_connection(("127.0.0.1", server.port), 5) as sock:
        sock.sendall(PREAMBLE[:6] + b"\x02\x00")
        received = b""
        while chunk := sock.recv(4096):
            received += chunk
    assert received[:8] == PREAMBLE
    assert received[12:16] == b"\x30\x01\x00\x07"  # CLOSE, RESUMABLE, VERSION
