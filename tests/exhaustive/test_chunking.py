"""However the bytes of a stream are cut into pieces, a core does the same: every split in two, drips, many at random.

The pieces of one arrival come with nothing in between, so that even effects and notices must be the same, in the same
order.  A driver that carries out effects between the pieces is told in more steps; what its application gets, and
everything that outlives the connection, must not differ.

The quick form plays a tenth of the random splits, and splits the long payload at every 31st byte only.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator, Sequence

import pytest

from tests.exhaustive.conversation import FULL, report
from tests.exhaustive.tape import Core, Input, Tape, record
from tests.proto.helpers_wire import fingerprint

_PEER = {"a": "b", "b": "a"}

#: for each side
RANDOM_SPLITS = 50_000 if FULL else 5_000


def drip(data: bytes) -> Sequence[bytes]:
    """One byte at a time."""
    return [data[index : index + 1] for index in range(len(data))]


class Pieces:
    """Splits at random: one cut or a few, or many short pieces; counts its splits."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self.splits = 0

    def __call__(self, data: bytes) -> Sequence[bytes]:
        draw = self._draw
        self.splits += 1
        if len(data) < 1000 and draw.random() < 0.2:
            cuts = [cut for cut in range(1, len(data)) if draw.random() < 0.3]
        else:
            cuts = sorted(draw.randrange(len(data) + 1) for _ in range(draw.choice((1, 1, 2, 3, 9))))
        return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@pytest.fixture(scope="module", params=["a", "b"])
def tape(request: pytest.FixtureRequest) -> Tape:
    """What reached each of the two."""
    return record(str(request.param))


def fresh(tape: Tape) -> Core:
    return Core(tape.fresh, _PEER[tape.name])


def arrivals(tape: Tape) -> Iterator[tuple[bytes, Input, list[object], str]]:
    """Each arrival of bytes: the core before it, itself, what came of it, the state after it."""
    core = fresh(tape)
    for item in tape.inputs:
        before = pickle.dumps(core, pickle.HIGHEST_PROTOCOL) if item.data else b""
        trace = core.play(item)
        if before:
            yield before, item, trace, core.state()


def test_the_tape_is_what_happened(tape: Tape) -> None:
    """Played again, the core writes the very bytes that it wrote in the world."""
    core = fresh(tape)
    for item in tape.inputs:
        core.play(item)
    assert core.written == tape.written
    assert sum(len(item.data) for item in tape.inputs) > (1000 if tape.name == "b" else 9000)


@pytest.mark.slow
def test_every_split_of_an_arrival_in_two_comes_to_the_same(tape: Tape) -> None:
    splits = 0
    for before, item, trace, state in arrivals(tape):
        size = len(item.data)
        for cut in range(1, size):
            if not FULL and size > 1000 and cut % 31 and min(cut, abs(cut - 8192), size - cut) > 40:
                continue
            core: Core = pickle.loads(before)
            found = core.play(item, lambda data, cut=cut: (data[:cut], data[cut:]))  # type: ignore[misc]
            assert found == trace, cut
            assert core.state() == state, cut
            splits += 1
    report(f"splits in two of what {tape.name} hears: {splits}")


def test_a_drip_of_single_bytes_comes_to_the_same(tape: Tape) -> None:
    slow, fast = fresh(tape), fresh(tape)
    for item in tape.inputs:
        assert slow.play(item, drip) == fast.play(item), item
        assert slow.state() == fast.state(), item


def lasting(core: Core) -> object:
    """What outlives the connection, but what of it was acknowledged already: that is timing."""
    known = fingerprint(core.endpoint, connected=False)
    for session in known.values():
        del session["acknowledger"]
    return known


def test_who_looks_after_every_byte_gets_the_same_in_more_steps(tape: Tape) -> None:
    slow, fast = fresh(tape), fresh(tape)
    for item in tape.inputs:
        seen, expected = slow.play(item, drip, eager=True), fast.play(item)
        assert [it for it in seen if isinstance(it, list)] == [it for it in expected if isinstance(it, list)]
        ends = [[it for it in trace if isinstance(it, tuple) and it[0] == "close"] for trace in (seen, expected)]
        assert ends[0] == ends[1]
        assert lasting(slow) == lasting(fast), item


@pytest.mark.slow
def test_random_splits_come_to_the_same(tape: Tape) -> None:
    """Every arrival of the whole conversation is split anew each time it is played."""
    reference = fresh(tape)
    traces = [reference.play(item) for item in tape.inputs]
    state, seed, splits = reference.state(), 0, 0
    while splits < RANDOM_SPLITS:
        core, pieces = fresh(tape), Pieces(seed)
        for item, trace in zip(tape.inputs, traces, strict=True):
            assert core.play(item, pieces) == trace, f"seed {seed}, {item}"
        assert core.state() == state, seed
        assert core.written == reference.written
        splits, seed = splits + pieces.splits, seed + 1
    report(f"random splits of what {tape.name} hears: {splits}, in {seed} conversations")
