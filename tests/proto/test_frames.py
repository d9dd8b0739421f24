"""Frames: any stream of bytes, in any chunks, is the same frames or the same fault, and its length is judged early."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from networkio_proto import frames
from networkio_proto.errors import CloseCode
from networkio_proto.frames import (
    HANDSHAKE_FRAME_LIMIT,
    MAX_SEQUENCE,
    PREAMBLE,
    DataFlag,
    FrameDecoder,
    PeerFault,
    SkipReason,
    check_length,
    check_preamble,
    encode_ack,
    encode_close,
    encode_fin,
    encode_frame,
    encode_ping,
    encode_pong,
    encode_reject,
    encode_skip,
    frame_name,
)

thorough = settings(derandomize=True, deadline=None, max_examples=60)

LIMIT = 8192

#: the table of the specification (Layout): type, name, least and most bytes of a body
TABLE = [
    (0x01, "HELLO", 0, 4094),
    (0x02, "HELLO_ACK", 0, 4094),
    (0x03, "ATTACH", 0, 4094),
    (0x10, "DATA", 8, None),
    (0x11, "ACK", 32, 32),
    (0x12, "SKIP", 18, 18),
    (0x13, "REJECT", 26, 538),
    (0x14, "FIN", 8, 8),
    (0x20, "PING", 8, 8),
    (0x21, "PONG", 8, 8),
    (0x30, "CLOSE", 10, 522),
]
BODY_SIZES = {kind: (least, most) for kind, _, least, most in TABLE}


@dataclass(frozen=True)
class Found:
    """What was found in a stream: frames as (type, flags, body), and the code of the fault that ended it."""

    frames: list[tuple[int, int, bytes]]
    fault: CloseCode | None


def drain(decoder: FrameDecoder, found: list[tuple[int, int, bytes]], limit: int = LIMIT) -> None:
    while (frame := decoder.next_frame(limit)) is not None:
        kind, flags, start, end = frame
        found.append((kind, flags, decoder.buffer[start:end]))


def decode(chunks: Iterable[bytes], limit: int = LIMIT) -> Found:
    """Feed chunk by chunk, take what is there after each."""
    decoder, found = FrameDecoder(), Found([], None)
    for chunk in chunks:
        decoder.feed(chunk)
        try:
            drain(decoder, found.frames, limit)
        except PeerFault as fault:
            return Found(found.frames, fault.code)
    return found


def judged(kind: int, length: int, limit: int = LIMIT) -> CloseCode | None:
    """The rules P-FRAME-1, -2 and -4, in as few words as possible."""
    if length > limit:
        return CloseCode.TOO_LARGE
    least, most = BODY_SIZES.get(kind, (0, None))
    if length < 2 + least or (most is not None and length > 2 + most):
        return CloseCode.PROTOCOL
    return None


def reference(stream: bytes, limit: int = LIMIT) -> Found:
    """The same from the whole stream, without a decoder."""
    found: list[tuple[int, int, bytes]] = []
    while len(stream) >= 6:
        length, kind, flags = int.from_bytes(stream[:4], "big"), stream[4], stream[5]
        code = judged(kind, length, limit)
        if code is not None:
            return Found(found, code)
        if len(stream) < 4 + length:
            break
        found.append((kind, flags, stream[6 : 4 + length]))
        stream = stream[4 + length :]
    return Found(found, None)


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    """The stream in chunks; places beyond its end, and the same place twice, make empty chunks or none."""
    bounds = [0, *sorted(min(place, len(stream)) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(bounds)]


def bytewise(stream: bytes) -> list[bytes]:
    return [stream[index : index + 1] for index in range(len(stream))]


kinds = st.sampled_from([kind for kind, *_ in TABLE]) | st.integers(0, 255)


@st.composite
def wellformed(draw: st.DrawFn) -> bytes:
    """A frame that no bound forbids."""
    kind = draw(kinds)
    least, most = BODY_SIZES.get(kind, (0, None))
    size = draw(st.integers(least, min(most or 60, 60 + least)))
    return encode_frame(kind, draw(st.binary(min_size=size, max_size=size)), draw(st.integers(0, 255)))


@st.composite
def odd(draw: st.DrawFn) -> bytes:
    """A header with any length, and a few bytes behind it."""
    length = draw(st.integers(0, 80) | st.sampled_from([4096, 4097, LIMIT, LIMIT + 1, 2**32 - 1]))
    return length.to_bytes(4, "big") + bytes([draw(kinds), draw(st.integers(0, 255))]) + draw(st.binary(max_size=40))


streams = st.lists(wellformed() | odd() | st.binary(max_size=12), max_size=8).map(b"".join)
places = st.lists(st.integers(0, 300), max_size=12)


# -- decoding ---------------------------------------------------------------------------------------------------------


@thorough
@given(streams, places)
def test_any_bytes_in_any_chunks_are_frames_or_a_peer_fault_and_nothing_else(stream: bytes, places: list[int]) -> None:
    assert decode(cut(stream, places)) == reference(stream)


@thorough
@given(st.lists(wellformed(), max_size=8).map(b"".join), places)
def test_wellformed_frames_come_out_as_they_went_in(stream: bytes, places: list[int]) -> None:
    found = decode(cut(stream, places))
    assert found.fault is None
    assert b"".join(encode_frame(kind, body, flags) for kind, flags, body in found.frames) == stream


@thorough
@given(streams)
def test_single_bytes_give_the_same_frames(stream: bytes) -> None:
    assert decode(bytewise(stream)) == reference(stream)


@thorough
@given(st.lists(wellformed(), max_size=8).map(b"".join), places)
def test_chunks_that_nobody_looks_at_are_kept_until_somebody_does(stream: bytes, places: list[int]) -> None:
    decoder = FrameDecoder()
    found: list[tuple[int, int, bytes]] = []
    for number, chunk in enumerate(cut(stream, places)):
        decoder.feed(chunk)
        if number % 3 == 2:
            drain(decoder, found)
    drain(decoder, found)
    assert found == reference(stream).frames


def test_a_caller_may_stop_between_two_frames_and_go_on_after_more_has_come() -> None:
    decoder = FrameDecoder()
    decoder.feed(encode_ping(1) + encode_ping(2) + encode_ping(3)[:5])
    assert decoder.next_frame(LIMIT) is not None
    decoder.feed(encode_ping(3)[5:] + encode_ping(4))
    rest: list[tuple[int, int, bytes]] = []
    drain(decoder, rest)
    assert [int.from_bytes(body, "big") for _, _, body in rest] == [2, 3, 4]


def test_a_caller_need_not_ask_whether_there_is_more() -> None:
    decoder = FrameDecoder()
    for number in range(3):
        decoder.feed(encode_ping(number))
        frame = decoder.next_frame(LIMIT)
        assert frame is not None
        assert int.from_bytes(decoder.buffer[frame[2] : frame[3]], "big") == number


@pytest.mark.parametrize("limit", [HANDSHAKE_FRAME_LIMIT, LIMIT, 65536])
def test_a_length_is_judged_when_the_header_is_there_and_not_before(limit: int) -> None:
    bounds = {2 + bound for sizes in BODY_SIZES.values() for bound in sizes if bound is not None}
    edges = {0, 1, 2, limit, HANDSHAKE_FRAME_LIMIT, 2**31, 2**32 - 2} | bounds
    for kind in range(256):
        for length in {edge + step for edge in edges for step in (-1, 0, 1) if edge + step >= 0}:
            header = length.to_bytes(4, "big") + bytes([kind, 0])
            assert decode([header[:5]], limit) == Found([], None)
            code = judged(kind, length, limit)
            complete = [(kind, 0, b"")] if length == 2 and code is None else []
            assert decode([header], limit) == Found(complete, code), f"type {kind}, length {length}"


@pytest.mark.parametrize("length", [2, 10, 11, 100, 101])
@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, name, *_ in TABLE])
def test_a_length_out_of_bounds_is_told_with_the_name_of_its_frame(kind: int, name: str, length: int) -> None:
    expected = judged(kind, length, limit=100)
    if expected is None:
        check_length(length, kind, 100)
        return
    with pytest.raises(PeerFault, match=f"^a {name} .*{length}|^a {name} .*{length - 2}") as caught:
        check_length(length, kind, 100)
    assert caught.value.code is expected


def test_frames_before_a_faulty_one_are_found_and_nothing_after_it() -> None:
    good, bad = encode_ping(1), bytes(6)
    assert decode([good + bad + good]) == Found([(frames.PING, 0, good[6:])], CloseCode.PROTOCOL)
    decoder = FrameDecoder()
    decoder.feed(good + bad + good)
    assert decoder.next_frame(LIMIT) is not None
    for _ in range(3):
        with pytest.raises(PeerFault):
            decoder.next_frame(LIMIT)


@pytest.mark.parametrize("size", [16, 1000, 60_000])
def test_a_drip_of_single_bytes_costs_linear_work(size: int) -> None:
    stream = encode_frame(frames.DATA, bytes(size)) * 3
    decoder = FrameDecoder()
    copied = taken = 0
    for byte in bytewise(stream):
        decoder.feed(byte)
        copied += len(decoder.buffer)  # what was put together to be looked at
        while decoder.next_frame(65536) is not None:
            taken += 1
    assert taken == 3
    assert copied <= len(stream) + 3 * 16


def test_a_drip_of_the_preamble_costs_linear_work() -> None:
    decoder = FrameDecoder()
    copied, taken = 0, None
    for byte in bytewise(bytes(1000)):
        assert taken is None
        decoder.feed(byte)
        copied += len(decoder.buffer)
        taken = decoder.take(1000)
    assert taken == bytes(1000)
    assert copied <= 1000 + 1


def test_a_declared_length_holds_no_memory() -> None:
    decoder = FrameDecoder()
    decoder.feed((2**32 - 1).to_bytes(4, "big") + b"\x10\x00")
    assert decoder.next_frame(2**32 - 1) is None
    assert decoder.pending == 6


@thorough
@given(st.lists(wellformed(), max_size=4).map(b"".join), places)
def test_the_preamble_is_taken_in_any_chunks_and_frames_follow(stream: bytes, places: list[int]) -> None:
    decoder = FrameDecoder()
    found: list[tuple[int, int, bytes]] = []
    preamble = None
    for chunk in cut(PREAMBLE + stream, places):
        decoder.feed(chunk)
        if preamble is None:
            preamble = decoder.take(len(PREAMBLE))
        if preamble is not None:
            drain(decoder, found)
    assert preamble == PREAMBLE
    assert found == reference(stream).frames


@thorough
@given(st.lists(wellformed(), max_size=6), places)
def test_pending_is_what_was_fed_and_not_taken(sent: list[bytes], places: list[int]) -> None:
    decoder = FrameDecoder()
    fed = taken = 0
    for chunk in cut(b"".join(sent), places):
        decoder.feed(chunk)
        fed += len(chunk)
        assert decoder.pending == fed - taken
        while (frame := decoder.next_frame(LIMIT)) is not None:
            taken += 6 + frame[3] - frame[2]
            assert decoder.pending == fed - taken
        assert decoder.pending == fed - taken


@pytest.mark.parametrize("fed", [b"", encode_ping(1)[:3], encode_ping(1), encode_ping(1) + b"\x00"])
def test_nothing_is_left_of_what_was_fed_before_clear(fed: bytes) -> None:
    decoder = FrameDecoder()
    decoder.feed(fed)
    decoder.next_frame(LIMIT)
    decoder.clear()
    assert decoder.pending == 0
    assert decoder.next_frame(LIMIT) is None
    decoder.feed(encode_ping(7))
    found: list[tuple[int, int, bytes]] = []
    drain(decoder, found)
    assert found == [(frames.PING, 0, (7).to_bytes(8, "big"))]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("split", [1, 3, 8, 14])
def test_the_memory_of_a_chunk_belongs_to_the_caller_again_when_feed_returns(kind: type, split: int) -> None:
    stream = encode_ping(0x0102030405060708)
    decoder = FrameDecoder()
    found: list[tuple[int, int, bytes]] = []
    for part in (stream[:split], stream[split:]):
        memory = bytearray(part)
        decoder.feed(memory if kind is bytearray else kind(memory))
        memory[:] = b"\xff" * len(memory)
        drain(decoder, found)
    assert found == [(frames.PING, 0, stream[6:])]


# -- the preamble -----------------------------------------------------------------------------------------------------


def test_the_preamble_is_that_of_the_specification() -> None:
    assert bytes.fromhex("4e 49 4f 00 0d 0a 01 00") == PREAMBLE
    check_preamble(PREAMBLE)


@pytest.mark.parametrize(
    ("received", "code", "named"),
    [
        (PREAMBLE[:6] + b"\x02\x00", CloseCode.VERSION, "version 2"),
        (PREAMBLE[:6] + b"\x01\x01", CloseCode.VERSION, "version"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", CloseCode.PROTOCOL, "TLS"),
        (b"\x15\x03\x03\x00\x02\x02\x28\x00", CloseCode.PROTOCOL, "TLS"),
        (b"GET / HT", CloseCode.PROTOCOL, "HTTP"),
        (b"POST / H", CloseCode.PROTOCOL, "HTTP"),
        (b"HTTP/1.1", CloseCode.PROTOCOL, "HTTP"),
        (b"SSH-2.0-", CloseCode.PROTOCOL, "SSH"),
        (b"NIO\x00\n\x01\x00\x00", CloseCode.PROTOCOL, "4e 49 4f 00 0a 01 00 00"),
        (b"\x1b[31mred", CloseCode.PROTOCOL, "1b 5b 33 31 6d 72 65 64"),
    ],
)
def test_what_speaks_instead_is_named(received: bytes, code: CloseCode, named: str) -> None:
    with pytest.raises(PeerFault, match=named) as caught:
        check_preamble(received)
    assert caught.value.code is code
    assert caught.value.detail == str(caught.value)
    assert caught.value.detail.isprintable()


@thorough
@given(
    st.binary(min_size=8, max_size=8) | st.binary(min_size=2, max_size=2).map(lambda tail: PREAMBLE[:6] + tail),
)
@example(PREAMBLE)
def test_another_framing_version_is_version_and_everything_else_protocol(received: bytes) -> None:
    if received == PREAMBLE:
        check_preamble(received)
        return
    with pytest.raises(PeerFault) as caught:
        check_preamble(received)
    assert caught.value.code is (CloseCode.VERSION if received[:6] == PREAMBLE[:6] else CloseCode.PROTOCOL)


# -- encoding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (encode_ack(3, 2, 262293, 1), "00000022 11 00" + "0000000000000003" "0000000000000002" "0000000000040095"
         "0000000000000001"),
        (encode_skip(4, 6, SkipReason.EXPIRED), "00000014 12 00" + "0000000000000004" "0000000000000006" "0002"),
        (encode_reject(b"\xa1" * 16, 3, 7, "bad order"),
         "00000025 13 00" + "a1" * 16 + "0000000000000003" "0007" "626164206f72646572"),
        (encode_fin(8), "0000000a 14 00" "0000000000000008"),
        (encode_ping(0x0123456789ABCDEF), "0000000a 20 00" "0123456789abcdef"),
        (encode_pong(0x0123456789ABCDEF), "0000000a 21 00" "0123456789abcdef"),
        (encode_close(2, 1500, "busy", resumable=True), "00000010 30 01" "0002" "00000000000005dc" "62757379"),
        (encode_close(0, 0, "", resumable=False), "0000000c 30 00" "0000" "0000000000000000"),
        (encode_frame(0x80, b"\x00\x01"), "00000004 80 00" "0001"),
        (encode_frame(0x10, bytes(8), 0x41), "0000000a 10 41" "0000000000000000"),
    ],
)  # fmt: skip
def test_a_frame_is_written_as_the_specification_shows_it(frame: bytes, expected: str) -> None:
    assert frame == bytes.fromhex(expected)


u64 = st.integers(0, 2**64 - 1)
texts = st.text(st.characters(exclude_categories=()), max_size=700)  # lone surrogates too


@thorough
@given(u64, st.integers(0, 2**16 - 1), texts)
@example(2**64 - 1, 0, "\ud800" * 600)
@example(0, 0, "x" + "\N{MONKEY}" * 200)
@example(0, 0, "x" * 513)
def test_whatever_is_written_is_within_the_bounds_of_its_type(number: int, small: int, text: str) -> None:
    written = [
        encode_ack(number, number, number, number),
        encode_skip(number, number, small),
        encode_reject(b"\x00" * 16, number, small, text),
        encode_fin(number),
        encode_ping(number),
        encode_pong(number),
        encode_close(small, number, text, resumable=bool(small & 1)),
    ]
    found = decode([b"".join(written)], limit=HANDSHAKE_FRAME_LIMIT)
    assert found.fault is None
    assert len(found.frames) == len(written)
    for _, _, body in (found.frames[2], found.frames[-1]):
        told = body[26:] if body is found.frames[2][2] else body[10:]
        assert len(told) <= 512
        whole = text.encode("utf-8", "replace").decode()
        assert whole.startswith(told.decode())  # cut between characters
        assert len(told) > 508 or told.decode() == whole  # and no earlier than needed


# -- names and numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, name, *_ in TABLE])
def test_types_have_the_numbers_and_names_of_the_specification(kind: int, name: str) -> None:
    assert getattr(frames, name) == kind
    assert frame_name(kind) == name


def test_a_type_without_a_name_is_told_by_its_number() -> None:
    assert frame_name(0x7F) == "frame 0x7f"


def test_flags_and_reasons_have_the_numbers_of_the_specification() -> None:
    assert {flag.name: flag.value for flag in DataFlag} == {
        "FRAGMENT_MORE": 0x01,
        "FRAGMENT_CONTINUED": 0x02,
        "REDELIVERED": 0x04,
        "ACK_NOW": 0x08,
        "HEADERS": 0x10,
        "RAW": 0x40,
    }
    assert {reason.name: reason.value for reason in SkipReason} == {
        "ALREADY_READ": 1,
        "EXPIRED": 2,
        "CANCELLED": 3,
        "TOO_LARGE": 4,
        "OVERFLOW": 5,
        "PEER_RESTARTED": 6,
    }
    assert frames.FIRST_IGNORABLE == 0x80
    assert frames.FLAG_RESUMABLE == 0x01
    assert frames.HEADER_SIZE == 6
    assert MAX_SEQUENCE == 2**63 - 1
