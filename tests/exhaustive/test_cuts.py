"""The canonical conversation, cut after every byte of either direction, in three ways; then the network works again.

The quick form cuts after every other byte in one of the three ways, in turn, and inside of the long payload, which
makes three quarters of all bytes, after every 61st byte only; ``make exhaust`` cuts after every byte in every way.
The wires take little at once, so that a message can be half written when its connection is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from networkio_testing import Wire
from tests.exhaustive.conversation import FULL, HEARD, Conversation, dump, load, report


def _reset(wire: Wire) -> None:
    """Both ends learn of it at once."""
    wire.cut("rst")


def _finish(wire: Wire) -> None:
    """Both ends read the end of the stream; nothing else arrives."""
    wire.black_hole()
    wire.cut("fin")


def _swallow(wire: Wire) -> None:
    """Nothing arrives any more, and nobody is told."""
    wire.black_hole()


@dataclass(frozen=True, slots=True)
class Place:
    """Where bytes are under way: a conversation that waits there, and which bytes can be the last to arrive."""

    dumped: bytes
    wire: int
    end: int
    waiting: int

    def offsets(self, turn: int) -> Iterator[int]:
        """After how many more bytes to cut, if it is this way's turn."""
        for offset in range(self.waiting):
            edge = self.waiting < 1000 or min(offset, self.waiting - offset) < 40
            if FULL or (offset % 6 == 2 * turn if edge else offset % 61 == turn):
                yield offset


def places() -> list[Place]:
    """All deliveries of the conversation."""
    found: list[Place] = []
    conversation = Conversation(capacity=1000)
    conversation.play(lambda it, wire, end: found.append(Place(dump(it), wire.number, end, wire.waiting(end))))
    conversation.heal()
    assert all(conversation.heard(name) == HEARD[name] for name in "ab")
    return found


def cut(place: Place, offset: int, how: Callable[[Wire], None]) -> Conversation:
    """A conversation that was cut there and went on to its end."""
    conversation = load(place.dumped)
    conversation.disturbed = True
    for wire in conversation.world.open_wires():
        if wire.number == place.wire:  # else both ends have left it, and nobody is there to learn of the cut
            wire.deliver(place.end, offset)
            how(wire)
    conversation.heal()
    return conversation


WAYS = (_reset, _finish, _swallow)


@pytest.mark.slow
@pytest.mark.parametrize("how", WAYS, ids=["RST", "FIN", "black hole"])
def test_wherever_the_conversation_is_cut_everything_is_read_exactly_once(how: Callable[[Wire], None]) -> None:
    cuts = 0
    for place in places():
        for offset in place.offsets(WAYS.index(how)):
            try:
                conversation = cut(place, offset, how)
            except AssertionError as error:
                error.add_note(f"wire {place.wire}, from end {place.end}: {offset} of {place.waiting} bytes arrived")
                raise
            for name in "ab":
                assert conversation.heard(name) == HEARD[name], (place.wire, place.end, offset)
            assert not any(item.redelivered for item in conversation.handed)
            assert (conversation.judge.tally["READ"], conversation.judge.tally["REJECTED"]) == (39, 1)
            cuts += 1
    assert cuts > 500
    report(f"cuts, {how.__name__[1:]}: {cuts}")
