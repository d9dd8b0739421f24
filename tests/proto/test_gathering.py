"""Messages in fragments: taken as they come, straight from where the driver received them, however they are cut."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from networkio_proto import CloseCode, Config, Limits
from networkio_proto.memory import Gathered, ReceiveBuffer
from tests.proto.helpers_wire import (
    ACK,
    ACK_NOW,
    CONTINUED,
    MORE,
    RAW,
    Line,
    Node,
    Peer,
    ack,
    data,
    fin,
    opened,
    ping,
    pong,
)

FRAME = 64 * 1024
LARGE = Config(limits=Limits(frame=FRAME, message=8 << 20), window=16 << 20, window_max=16 << 20, inbox_budget=64 << 20)

#: lengths of payloads: one frame and just not, more than is allocated at once
SIZES = (0, 1, 100, 4000, 4095, 4096, 9000, FRAME - 10, FRAME - 9, 3 * FRAME, (1 << 20) + 5)


def payload_of(sequence: int, size: int) -> bytes:
    """Bytes in which nothing repeats soon."""
    return b"".join((sequence << 32 | place).to_bytes(8, "big") for place in range(size // 8 + 1))[:size]


def framed(sequence: int, payload: bytes, flags: int = RAW, headers: dict[str, Any] | None = None) -> list[bytes]:
    """A message as its sender would frame it."""
    if len(payload) <= FRAME - 10 and headers is None:
        return [data(sequence, payload, flags)]
    pieces = [payload[start : start + FRAME - 300] for start in range(0, len(payload), FRAME - 300)] or [b""]
    if len(pieces) == 1:
        return [data(sequence, payload, flags, headers=headers)]
    extra = 0 if headers is None else len(data(sequence, headers=headers)) - len(data(sequence)) - 2
    first = data(sequence, pieces[0], flags, total=len(payload) + extra, headers=headers)
    last = len(pieces) - 1
    return [
        first,
        *(data(sequence, piece, CONTINUED | (MORE if at < last else 0)) for at, piece in enumerate(pieces[1:], 1)),
    ]


def feed(line: Line, stream: bytes, cuts: list[int], kind: Callable[[bytearray], Any]) -> None:
    """The stream in chunks, in memory that is written over as soon as the node has had it."""
    start, number = 0, 0
    while start < len(stream):
        size = cuts[number % len(cuts)]
        memory = bytearray(stream[start : start + size])
        line.connection.receive_data(kind(memory), line.node.now)
        memory[:] = b"\xff" * len(memory)
        start, number = start + size, number + 1
    line.node.pump()


@given(
    st.lists(st.tuples(st.sampled_from(SIZES), st.booleans(), st.booleans()), min_size=1, max_size=6),
    st.lists(st.sampled_from((13, 17, 18, 100, 5000, FRAME, FRAME + 4, 4 * FRAME, 1 << 22)), min_size=1, max_size=4),
    st.sampled_from((bytes, bytearray, memoryview)),
)
@settings(derandomize=True, deadline=None, max_examples=150)
def test_what_comes_is_what_was_sent_however_it_is_cut(
    messages: list[tuple[int, bool, bool]], cuts: list[int], kind: Callable[[bytearray], Any]
) -> None:
    node, peer, line = opened(LARGE)
    if max(cuts) < 1000:
        cuts = [*cuts, 3000]
    frames: list[bytes] = []
    sent: list[bytes] = []
    for sequence, (size, with_headers, interleaved) in enumerate(messages, 1):
        sent.append(payload_of(sequence, size))
        frames += framed(sequence, sent[-1], headers={"kind": "x"} if with_headers else None)
        if interleaved:
            frames.insert(-1, ping(sequence))
    feed(line, b"".join(frames), cuts, kind)
    assert line.live, line.connection.error
    assert node.read(peer) == sent
    asked = [sequence for sequence, (_, _, interleaved) in enumerate(messages, 1) if interleaved]
    assert not asked or pong(asked[-1]) in line.raw()


def test_a_payload_that_looks_like_a_fragment_is_none() -> None:
    """Not even where a chunk begins with it."""
    node, peer, line = opened(LARGE)
    payload = b"before" + data(2, bytes(5000), total=6000)
    stream = data(1, payload)
    feed(line, stream, [stream.index(b"before") + 6, 1 << 20], memoryview)
    assert line.live
    assert node.read(peer) == [payload]


def test_a_message_that_comes_again_is_dropped_and_counted() -> None:
    for size in (9000, 3 * FRAME):
        node, peer, line = opened(LARGE)
        stream = b"".join(framed(1, payload_of(1, size)))
        feed(line, stream + stream + b"".join(framed(2, payload_of(2, size))), [5000], memoryview)
        assert node.read(peer) == [payload_of(1, size), payload_of(2, size)]
        assert node.session(peer).counters.duplicates == 1


def test_no_part_of_a_fragment_is_kept_beside_the_message() -> None:
    _, _, line = opened(LARGE)
    stream = b"".join(framed(1, payload_of(1, 4 * FRAME)))
    for start in range(0, len(stream) - 5000, 5000):
        line.connection.receive_data(memoryview(stream)[start : start + 5000], line.node.now)
        assert line.connection._decoder.pending < 18


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (data(2, bytes(9000), 0x20, total=10_000)[:18], CloseCode.PROTOCOL),
        (data(2, bytes(FRAME - 14), total=(8 << 20) + 65)[:18], CloseCode.TOO_LARGE),
        (data(2, bytes(9000), total=9000)[:18], CloseCode.PROTOCOL),
        (data(2, bytes(9000), total=8999)[:18], CloseCode.PROTOCOL),
        (data(3, bytes(9000), total=10_000)[:18], CloseCode.PROTOCOL),
        (data(2**63, bytes(9000), total=10_000)[:18], CloseCode.PROTOCOL),
        (data(2, bytes(9000), MORE | CONTINUED)[:18], CloseCode.PROTOCOL),
        (data(2, bytes(FRAME), total=2 * FRAME)[:18], CloseCode.TOO_LARGE),
    ],
    ids=["flag", "too large", "nothing is left", "beyond its total", "a hole", "no sequence", "continues nothing",
         "frame too large"],
)  # fmt: skip
def test_a_fragment_is_judged_by_its_head(head: bytes, code: CloseCode) -> None:
    """And everything before it is delivered."""
    node, peer, line = opened(LARGE)
    line.say(data(1, payload_of(1, 9000)) + head)
    assert line.farewell() is code
    assert node.read(peer) == [payload_of(1, 9000)]


def received(line: Line) -> list[int]:
    """What the ACKs say that came; that nothing was received, none need say."""
    said = [int.from_bytes(item.body[:8], "big") for item in line.heard() if item.kind == ACK]
    return [position for position in said if position]


@pytest.mark.parametrize("size", [9000, 3 * FRAME])
def test_a_sender_that_asks_for_an_ack_gets_it_when_the_message_is_complete(size: int) -> None:
    _, _, line = opened(LARGE)
    stream = b"".join(framed(1, payload_of(1, size), RAW | ACK_NOW))
    line.say(stream[:-1])
    assert received(line) == []
    line.say(stream[-1:])
    assert received(line) == [1]
    line.say(data(2))
    assert received(line) == []


def test_a_message_that_is_cut_off_is_forgotten() -> None:
    node, peer, line = opened(LARGE)
    stream = b"".join(framed(1, payload_of(1, 2 * FRAME)))
    line.say(stream[:5000])
    assert node.session(peer).unsettled > 2 * FRAME
    line.lose()
    assert node.session(peer).unsettled == 0
    again = node.connect(peer, next=2)
    again.say(stream)
    assert node.read(peer) == [payload_of(1, 2 * FRAME)]


def test_the_rest_of_a_duplicate_means_nothing_when_the_session_is_over_meanwhile() -> None:
    node, peer = Node(config=LARGE), Peer()
    line = node.connect(peer, "dialer")
    line.say(data(1, b"last"), fin(2))
    node.session(peer).end(node.now)
    node.pump()
    line.say(ack(1, 1))
    again = b"".join(framed(1, payload_of(1, 2 * FRAME)))
    line.say(again[:5000])
    node.read(peer)
    node.pump()
    assert node.session(peer).inbox is None
    line.raw()
    line.say(again[5000:], ping(7))
    assert line.raw() == pong(7)


@pytest.mark.parametrize("chunk", [1 << 20, 22, 17])
def test_duplicates_in_fragments_are_passed_over_when_the_session_is_over(chunk: int) -> None:
    """P-DATA-9, whatever the chunks are: there is no inbox any more that they could be of."""
    node, peer = Node(config=LARGE), Peer()
    line = node.connect(peer, "dialer")
    line.say(data(1, b"last"), fin(2))
    node.session(peer).end(node.now)
    node.pump()
    node.read(peer)
    line.say(ack(1, 1))
    assert node.session(peer).inbox is None
    line.raw()
    line.say(data(1, b"eight by", total=11), data(1, b"tes", CONTINUED), ping(7), chunk=chunk)
    line.say(data(1, bytes(9000), total=12_000), data(1, bytes(3000), CONTINUED), ping(8), chunk=max(chunk, 5000))
    assert line.live
    assert pong(8) in line.raw()


def test_credit_for_a_duplicate_is_given_back_when_it_begins() -> None:
    """P-ACK-10: as soon as it is used."""
    node, _, line = opened(LARGE)
    message = framed(1, payload_of(1, 3 * FRAME))
    line.say(*message)
    node.advance(1.0)
    line.raw()
    line.say(message[0])
    node.advance(0.1)
    assert line.kinds() == [ACK]


@pytest.mark.parametrize(
    "view",
    [
        lambda memory: memoryview(memory).cast("c"),
        lambda memory: memoryview(memory).cast("b"),
        lambda memory: memoryview(memory).cast("H"),
        lambda memory: memoryview(memory).cast("B", (2, len(memory) // 2)),
        lambda memory: memoryview(bytes(byte for byte in memory for _ in range(2)))[::2],
    ],
    ids=["c", "b", "H", "two dimensions", "every other byte"],
)
def test_bytes_may_come_in_memory_of_any_shape(view: Callable[[bytearray], memoryview]) -> None:
    node, peer, line = opened(LARGE)
    payload = payload_of(1, 2 * FRAME)
    stream = b"".join(framed(1, payload)) + data(2, b"odd" if len(payload) % 2 else b"even")
    line.connection.receive_data(view(bytearray(stream + bytes(len(stream) % 2))), node.now)
    node.pump()
    assert node.read(peer)[:1] == [payload]


def test_a_declared_size_allocates_nothing_and_what_comes_allocates_some_of_it() -> None:
    """P-FRAME-6."""
    _, _, line = opened(LARGE)
    tracemalloc.start()
    try:
        line.say(data(1, b"", total=8 << 20))
        line.say(data(1, bytes(100), CONTINUED | MORE))
        assert tracemalloc.get_traced_memory()[1] < 50_000
    finally:
        tracemalloc.stop()


def test_memory_grows_fast_at_first_and_then_doubles() -> None:
    payload = payload_of(1, 5 << 20)
    gathered = Gathered(len(payload))
    memories: list[int] = []
    for start in range(0, len(payload), 1000):
        gathered.add(payload[start : start + 1000])
        if gathered._room not in memories:
            memories.append(gathered._room)
    assert memories == [16_000, 272_000, 1 << 20, 2_098_000, 4_198_000, len(payload)]
    assert gathered.take() == payload


def test_a_message_that_is_gathered_can_be_copied_with_its_world() -> None:
    gathered = Gathered(10)
    gathered.add(b"abc")
    other = deepcopy(gathered)
    gathered.add(b"defghij")
    other.add(b"DEFGHIJ")
    assert (gathered.take(), other.take()) == (b"abcdefghij", b"abcDEFGHIJ")


def test_what_drivers_receive_into_becomes_large_where_much_comes() -> None:
    buffer = ReceiveBuffer()
    sizes: list[int] = []
    for count in (3, 64 * 1024 - 1, 64 * 1024, 100, 256 * 1024, 7):
        sizes.append(len(buffer.view))
        buffer.view[:count] = came = bytes([count % 251]) * count
        assert buffer.received(count) == came
    assert sizes == [65536, 65536, 65536, 262144, 262144, 262144]


def test_what_memory_is_held_can_be_collected_with_whatever_holds_it() -> None:
    """A BytesIO with a view of it cannot, on newer Pythons."""
    gathered = Gathered(10)
    gathered.add(b"abc")
    cycle: list[object] = [ReceiveBuffer(), gathered]
    cycle.append(cycle)
    del cycle, gathered
    gc.collect()
