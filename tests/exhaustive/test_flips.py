"""One flipped bit: every bit of every frame of both handshakes of the canonical conversation, and of a frame per type.

Without a proof (``insecure``) the core must end in events or in one clean close, never raise, and hold no more than it
was given (G11).  With one, whose mac covers everything that was said, a flip in the handshake must change no session
either: what was said is not what was meant, so nobody is believed.  A flip in a live connection is TCP's and TLS's to
find; there G11 is all that is promised.

The quick form flips one bit of each byte, another one in each; ``make exhaust`` flips all.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from networkio_proto import ConnectionState
from tests.exhaustive.conversation import FULL, report
from tests.exhaustive.tape import Core, Input, Tape, record
from tests.proto import helpers_wire as wire
from tests.proto.helpers import frames
from tests.proto.helpers_auth import HmacAuth
from tests.proto.helpers_wire import ATTACH, HELLO, HELLO_ACK, PREAMBLE, Node, Peer, fingerprint

_PEER = {"a": "b", "b": "a"}

#: what a core may hold beyond the bytes that it was given: it says no in words, and writes a line for the log
_SLACK = 6000

_DEAD = (ConnectionState.CLOSING, ConnectionState.CLOSED)


def flips(data: bytes, size: int) -> Iterator[bytes]:
    """``data`` with each of the bits of its first ``size`` bytes flipped."""
    for index in range(size):
        for bit in range(8) if FULL else (index % 8,):
            yield data[:index] + bytes([data[index] ^ 1 << bit]) + data[index + 1 :]


def handshake_bytes(data: bytes) -> int:
    """How many bytes at the beginning of what arrived belong to a handshake."""
    start = size = len(PREAMBLE) if data.startswith(PREAMBLE) else 0
    for item in frames(data[start:]):
        if item.kind not in (HELLO, HELLO_ACK, ATTACH):
            break
        size += 6 + len(item.body)
    return size


def handshakes(tape: Tape) -> Iterator[tuple[bytes, Input, int, list[Input]]]:
    """Each arrival that belongs to a handshake: the core before it, itself, how much of it does, what follows on
    this connection."""
    core = Core(tape.fresh, _PEER[tape.name])
    for index, item in enumerate(tape.inputs):
        size = handshake_bytes(item.data)
        if size:
            following = [it for it in tape.inputs[index + 1 :] if it.data and it.arguments[0] == item.arguments[0]]
            yield pickle.dumps(core, pickle.HIGHEST_PROTOCOL), item, size, following
        core.play(item)


def play_flipped(before: bytes, item: Input, data: bytes, following: list[Input]) -> Core:
    """A core that heard this instead, then what the peer says next, and then nothing for two minutes.

    Judged for G11; what the core holds is measured by what it is when it is pickled.
    """
    core: Core = pickle.loads(before)
    number, given = item.arguments[0], len(data)
    connection = core.connections[number]
    trace = list(core.play(Input(item.now, "receive", (number, data))))
    for later in following:
        given += len(later.data)
        trace += core.play(Input(item.now, "receive", (number, later.data)))
    held = len(pickle.dumps(core.endpoint, pickle.HIGHEST_PROTOCOL))
    assert held <= len(before) + given + _SLACK, f"{held} bytes"
    trace += pass_time(core, item.now + 120.0)
    closes = [it[2] for it in trace if isinstance(it, tuple) and it[:2] == ("close", number)]
    assert closes in ([True, False], [False])  # a goodbye that is dropped when nobody answers it, or nothing to say
    assert connection.state in _DEAD, "nothing was heard for two minutes"
    assert connection.error is not None
    assert connection not in core.endpoint.connections
    return core


def connections(core: Core) -> int:
    """How many live connections its session has had."""
    return core.endpoint.session(core.peer, core.now).connections


def lasting(core: Core) -> object:
    """Everything that its session knows."""
    return fingerprint(core.endpoint, connected=False)


def pass_time(core: Core, end: float) -> list[object]:
    """Serve the timers that come until then."""
    trace: list[object] = []
    for _ in range(200):
        due = core.endpoint.get_timer()
        if due is None or due > end:
            return trace
        core.dials.clear()
        trace += core.play(Input(max(core.now, due), "tick"))
    raise AssertionError("the timers never rest")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a", "b"])
def test_any_flipped_bit_of_a_handshake_ends_in_events_or_one_clean_close(name: str) -> None:
    played = lived = 0
    for before, item, size, following in handshakes(record(name)):
        earlier = connections(pickle.loads(before))
        for data in flips(item.data, size):
            core = play_flipped(before, item, data, following[:2])
            played += 1
            lived += connections(core) > earlier
    assert played > (4000 if FULL else 500)
    assert 0 < lived < played  # where nothing is proved, some flips are believed
    report(f"flipped bits in what {name} hears of handshakes, insecure: {played} ({lived} of them were believed)")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a", "b"])
def test_with_a_proof_no_flipped_bit_of_a_handshake_changes_a_session(name: str) -> None:
    played = 0
    for before, item, size, following in handshakes(record(name, HmacAuth(b"k" * 32))):
        unharmed = lasting(pickle.loads(before))
        for data in flips(item.data, size):
            core = play_flipped(before, item, data, following[:2])
            assert lasting(core) == unharmed
            played += 1
    assert played > (4000 if FULL else 500)
    report(f"flipped bits in what {name} hears of handshakes, with a proof: {played}, no session changed")


#: a frame of each type that a live connection takes, and what the peer said before it
LIVE_FRAMES = {
    "DATA": (b"", wire.data(1, b"payload")),
    "DATA, headers": (b"", wire.data(1, b"payload", headers={"key": 1})),
    "DATA, first": (b"", wire.data(1, b"four", total=8)),
    "DATA, continued": (wire.data(1, b"four", total=8), wire.data(1, b"more", wire.CONTINUED)),
    "ACK": (b"", wire.ack(2, 1)),
    "SKIP": (b"", wire.skip(1, 2)),
    "REJECT": (b"", wire.reject(b"", 1)),
    "FIN": (b"", wire.fin(1)),
    "PING": (b"", wire.ping()),
    "PONG": (b"", wire.pong()),
    "CLOSE": (b"", wire.close(0, b"good-bye")),
    "ignorable": (b"", wire.frame(0x80, b"body")),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LIVE_FRAMES)
@pytest.mark.parametrize("peer_id", ["a", "z"])
def test_any_flipped_bit_of_a_frame_ends_in_events_or_one_clean_close(name: str, peer_id: str) -> None:
    """:class:`Node` watches: one Close effect, no Transmit after it; timers are served until two minutes later."""
    before, good = LIVE_FRAMES[name]
    node, peer = Node(config=wire.SMALL), Peer(peer_id)
    node.send(peer, b"one", b"two", b"three")
    line = node.connect(peer)
    line.say(before)
    if name == "REJECT":
        good = wire.reject(node.session(peer).outbox.outbox_id, 1)
    dumped = pickle.dumps((node, line), pickle.HIGHEST_PROTOCOL)
    played = 0
    for bad in flips(good, len(good)):
        played += 1
        node, line = pickle.loads(dumped)
        line.say(bad, wire.data(2, b"what follows"), wire.ping())
        held = len(pickle.dumps(node, pickle.HIGHEST_PROTOCOL))
        assert held <= len(dumped) + len(bad) + _SLACK
        node.advance(120.0)
        assert line.closed is not None, "nothing was heard for two minutes"
        assert line.state in _DEAD
        assert line.connection.error is not None
        assert line.connection not in node.endpoint.connections
    report(f"flipped bits in {name}, from {peer_id}: {played}")
