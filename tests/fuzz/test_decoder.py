"""Machine: the frame decoder, whose stream is split, joined and garbled, against a reference that sees it whole."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from networkio_proto.frames import FrameDecoder, PeerFault, encode_frame
from tests.fuzz.profiles import machine
from tests.fuzz.reference import BODIES, parse_frames

kinds = st.sampled_from(sorted(BODIES)) | st.integers(0, 255)
lengths = st.integers(0, 80) | st.sampled_from((4095, 4096, 4097, 8192, 8193, 2**31, 2**32 - 1))


class Decoder(RuleBasedStateMachine):
    """What was written lies in ``waiting``; what the decoder was given since its last frame lies in ``given``."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = FrameDecoder()
        self.limit = 4096
        self.waiting = b""
        self.given = b""
        self.fault: int | None = None

    # what comes on the stream

    @rule(kind=kinds, flags=st.integers(0, 255), data=st.data())
    def write_frame(self, kind: int, flags: int, data: st.DataObject) -> None:
        least, most = BODIES.get(kind, (0, None))
        bounds = (least, least + 1, self.limit - 2, self.limit - 1) if most is None else (least, most, most + 1)
        size = data.draw(st.sampled_from(bounds) | st.integers(least, least + 40))
        self.waiting += encode_frame(kind, bytes(size), flags)

    @rule(length=lengths, kind=kinds, flags=st.integers(0, 255), rest=st.binary(max_size=20))
    def write_odd_header(self, length: int, kind: int, flags: int, rest: bytes) -> None:
        self.waiting += length.to_bytes(4, "big") + bytes([kind, flags]) + rest

    @rule(place=st.integers(0, 200), value=st.integers(0, 255))
    def garble(self, place: int, value: int) -> None:
        if place < len(self.waiting):
            self.waiting = self.waiting[:place] + bytes([value]) + self.waiting[place + 1 :]

    # how it comes

    @rule(size=st.sampled_from((0, 1, 2, 3, 5, 6, 7, 100, 5000, 1 << 20)), as_view=st.booleans(),
          ask=st.sampled_from((True, True, False)))  # fmt: skip
    def feed(self, size: int, as_view: bool, ask: bool = True) -> None:
        """``ask``: look for frames at once; a connection that is parked does not."""
        chunk, self.waiting = self.waiting[:size], self.waiting[size:]
        self.decoder.feed(memoryview(chunk) if as_view else chunk)
        self.given += chunk
        if ask:
            self.look()

    @rule(drops=st.integers(1, 30))
    def drip(self, drops: int) -> None:
        for _ in range(drops):
            self.feed(1, False)

    @rule()
    def ask_again(self) -> None:
        self.look()

    @initialize(limit=st.sampled_from((64, 4096)))
    def begin(self, limit: int) -> None:
        self.limit = limit

    @precondition(lambda self: self.fault is None)
    @rule(limit=st.sampled_from((4096, 8192, 65536)))
    def other_limit(self, limit: int) -> None:
        """A connection goes live: from the next frame on, another bound holds, and no lower one."""
        self.limit = max(limit, self.limit)
        self.look()

    @rule()
    def close(self) -> None:
        self.decoder.clear()
        assert self.decoder.pending == 0
        assert self.decoder.buffer == b""
        self.given, self.fault = b"", None

    # what is compared

    def look(self) -> None:
        """Take every frame that is there; both must find the same."""
        if self.fault is not None:
            return  # the connection is over: nobody asks
        expected = parse_frames(self.given, self.limit)
        found: list[tuple[int, int, bytes]] = []
        try:
            while (frame := self.decoder.next_frame(self.limit)) is not None:
                kind, flags, start, end = frame
                found.append((kind, flags, self.decoder.buffer[start:end]))
        except PeerFault as error:
            self.fault = int(error.code)
        assert (found, self.fault) == (expected.frames, expected.fault)
        if self.fault is None:
            assert self.decoder.pending == expected.rest < self.limit + 4
        self.given = self.given[len(self.given) - expected.rest :]


pytestmark = pytest.mark.slow
TestDecoder = Decoder.TestCase
TestDecoder.settings = machine(examples=60, steps=40)
