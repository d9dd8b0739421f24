"""One byte stream from its first byte to its last: chunks and garbage, floods, what goes out, ends.

The handshake is in ``test_negotiation.py``, messages in ``test_assembly.py``, PING and deadlines in
``test_liveness.py``; what each state does with each frame is in ``test_table.py``.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from itertools import cycle, repeat
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from networkio_proto import (
    CloseCode,
    Config,
    ConfigurationError,
    Connection,
    ConnectionState,
    NormalClose,
    Transmit,
    UsageError,
)
from tests.proto.helpers import pair
from tests.proto.helpers_wire import (
    ACK,
    CLOSE,
    CONTINUED,
    DATA,
    PING,
    PONG,
    PREAMBLE,
    SMALL,
    Line,
    Node,
    Peer,
    ack,
    close,
    data,
    dialled,
    fin,
    fingerprint,
    frame,
    opened,
    ping,
    pings,
    pong,
    reject,
    skip,
)

# -- chunks and garbage -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One input of a node: bytes that arrive, a command, or time that passes."""

    what: str
    stretch: bytes = b""
    number: int = 0


@cache
def recorded(seed: int) -> tuple[Step, ...]:
    """What happens at node "b" in a conversation with "a", which dials it: everything that the protocol has."""
    draw = random.Random(seed)
    a, b = Node("a", SMALL), Node("b", SMALL)
    lines = dialled(a, b)
    steps: list[Step] = []
    often = ("arrive",) * 4 + ("back", "back", "talk", "talk", "send", "read", "reject", "time")
    for what in ["arrive", "back"] * 2 + draw.choices(often, k=60):
        if what == "arrive" and (stretch := lines[0].raw()):
            lines[1].say(stretch)
            steps.append(Step("bytes", stretch))
        elif what == "back":
            lines[0].say(lines[1].raw())
        elif what == "talk":
            talk(a, draw)
        elif what in COMMANDS:
            step = Step(what, number=draw.randrange(20_000))
            COMMANDS[what](b, step)
            steps.append(step)
            if what == "time":
                a.advance(step.number / 10_000)
    assert lines[1].state is ConnectionState.LIVE
    return tuple(steps)


def talk(node: Node, draw: random.Random) -> None:
    """Node "a" does something that can be seen on the wire."""
    session, connection = node.session("b"), node.session("b").connection
    for _ in range(draw.randrange(1, 5)):
        payload = draw.randbytes(draw.choice((0, 1, 5, 100, 3000, 9000, 19_000)))
        headers = {"kind": payload[:9]} if draw.random() < 0.3 else None
        session.send(payload, node.now, headers=headers, ttl=draw.choice((None, None, 0.1)), ack_now=len(payload) == 5)
    if draw.random() < 0.3:
        session.cancel(session.outbox.next - 1, node.now)
    if connection is not None and draw.random() < 0.3:
        connection.ping(node.now)
    node.read("b", draw.randrange(5))
    node.pump()


def command_send(node: Node, step: Step) -> None:
    node.send("a", bytes(step.number), b"small")


def command_read(node: Node, step: Step) -> None:
    node.read("a", step.number % 7)


def command_reject(node: Node, step: Step) -> None:
    session = node.session("a")
    for delivery in session.take(2):
        session.settle(delivery, node.now, reject=(step.number, "no"))
    node.pump()


def command_time(node: Node, step: Step) -> None:
    node.advance(step.number / 10_000)


COMMANDS = {"send": command_send, "read": command_read, "reject": command_reject, "time": command_time}


def replay(steps: Iterable[Step], cuts: Iterator[int]) -> tuple[Node, Line, list[object]]:
    """Node "b" lives through it again, its bytes cut into pieces; with everything that it says and tells."""
    node = Node("b", SMALL)
    line = node.accept()
    told: list[object] = []
    for step in steps:
        if step.what == "bytes":
            position = 0
            while position < len(step.stretch):
                size = next(cuts)
                line.feed(step.stretch[position : position + size])
                position += size
            holds_no_more_than_it_may(line)
            node.pump()
        else:
            try:
                COMMANDS[step.what](node, step)
            except UsageError as error:
                told.append(str(error))
        # notices are ready-sets: which there are is a fact, in which order two kinds of them came is none
        told.append((line.raw(), sorted(map(repr, node.events))))
        node.events.clear()
    return node, line, told


def holds_no_more_than_it_may(line: Line) -> None:
    """The memory of one connection and of its session."""
    connection, config = line.connection, line.node.endpoint.config
    pending = connection._decoder.pending
    if connection.state is ConnectionState.LIVE:
        assert pending < config.limits.frame + 4
    elif connection.state in (ConnectionState.CLOSING, ConnectionState.CLOSED):
        assert pending == 0
    else:
        assert pending < 4096 + 4
    for session in line.node.endpoint.sessions.values():
        assert session.unsettled <= config.window_max + config.limits.message + 128


WHOLE = repeat(1 << 30)
SEEDS = st.integers(0, 7)


@cache
def whole(seed: int) -> tuple[Node, Line, list[object]]:
    return replay(recorded(seed), WHOLE)


@given(SEEDS)
@settings(derandomize=True, deadline=None, max_examples=8)
def test_the_same_inputs_give_the_same_outputs(seed: int) -> None:
    node, _, told = whole(seed)
    again, _, told_again = replay(recorded(seed), WHOLE)
    assert told == told_again
    assert fingerprint(node.endpoint) == fingerprint(again.endpoint)


@pytest.mark.slow
@given(SEEDS, st.lists(st.one_of(st.integers(1, 40), st.integers(1, 9000)), min_size=1, max_size=20))
@settings(derandomize=True, deadline=None, max_examples=25)
def test_how_a_stream_is_cut_makes_no_difference(seed: int, sizes: list[int]) -> None:
    node, line, told = whole(seed)
    cut, cut_line, told_cut = replay(recorded(seed), cycle(sizes))
    assert told_cut == told
    assert fingerprint(cut.endpoint) == fingerprint(node.endpoint)
    assert cut_line.state is line.state


def test_a_stream_of_single_bytes_makes_no_difference() -> None:
    _, _, told = whole(1)
    _, _, dripped = replay(recorded(1), repeat(1))
    assert dripped == told


class Damage(Enum):
    FLIP = "flip"
    DELETE = "delete"
    INSERT = "insert"
    REPEAT = "repeat"
    END = "end"


def damaged(steps: Sequence[Step], damage: Damage, place: int, size: int, junk: bytes) -> list[Step]:
    """The conversation with one thing wrong in its bytes."""
    total = sum(len(step.stretch) for step in steps)
    place %= total
    result: list[Step] = []
    for step in steps:
        stretch, here = step.stretch, place
        place -= len(stretch)
        if 0 <= here < len(stretch):
            before, after = stretch[:here], stretch[here:]
            if damage is Damage.FLIP:
                stretch = before + bytes([after[0] ^ 1 << size % 8]) + after[1:]
            elif damage is Damage.DELETE:
                stretch = before + after[size:]
            elif damage is Damage.INSERT:
                stretch = before + junk + after
            elif damage is Damage.REPEAT:
                stretch = before + after[:size] + after
            else:
                return [*result, Step("bytes", before)]
        result.append(Step(step.what, stretch, step.number))
    return result


@pytest.mark.slow
@given(SEEDS, st.sampled_from(Damage), st.integers(0, 1 << 20), st.integers(1, 300), st.binary(min_size=1, max_size=60))
@settings(derandomize=True, deadline=None, max_examples=200)
def test_a_damaged_conversation_ends_in_one_clean_close(
    seed: int, damage: Damage, place: int, size: int, junk: bytes
) -> None:
    """The :class:`Node` watches that there is one Close and nothing after it; here is what remains."""
    node, line, _ = replay(damaged(recorded(seed), damage, place, size, junk), WHOLE)
    line.eof()
    line.lose()
    assert line.closed is not None
    assert line.connection.error is not None
    assert not node.endpoint.connections
    before = fingerprint(node.endpoint)
    line.say(PREAMBLE, junk)
    assert fingerprint(node.endpoint) == before
    assert line.connection.data_to_send(node.now) == []


PEER = Peer()

#: frames that are good in their place, and those that never are
FRAMES = st.sampled_from([
    PREAMBLE, PEER.hello(), PEER.hello_ack(), PEER.attach(), data(1), data(2), data(1, b"four", total=8),
    data(1, b"more", CONTINUED), data(1, headers={"a": 1}), ack(1, 1), ack(0, 0), skip(1, 1), skip(1, 3),
    reject(bytes(16), 1), fin(1), fin(4), ping(), pong(), close(0), close(3, b"x" * 99), frame(0x80), frame(0x7F),
])  # fmt: skip


@pytest.mark.slow
@given(
    role=st.sampled_from(["dialer", "acceptor"]),
    peer_id=st.sampled_from(["a", "z"]),
    reach=st.sampled_from(["nothing", "preamble", "hello", "live"]),
    garbage=st.lists(FRAMES | st.binary(max_size=40) | st.builds(frame, st.integers(0, 255), st.binary(max_size=40))),
)
@settings(derandomize=True, deadline=None, max_examples=250)
def test_whatever_arrives_ends_in_one_clean_close(role: str, peer_id: str, reach: str, garbage: list[bytes]) -> None:
    node, peer = Node(config=SMALL), Peer(peer_id)
    node.send(peer, b"unsent", bytes(9000))
    if reach == "live":
        line = node.connect(peer, role)
    elif reach == "hello":
        line = node.claim(peer, role)
    else:
        line = node.accept() if role == "acceptor" else node.dial(peer_id)
        line.say(PREAMBLE if reach == "preamble" else b"")
    for piece in garbage:
        line.say(piece)
        holds_no_more_than_it_may(line)
    line.eof()
    assert line.closed is not None
    assert not node.endpoint.connections


def test_what_came_whole_before_a_fault_takes_effect_and_nothing_after_it() -> None:
    """P-FRAME-14, in one chunk and in many."""
    stream = data(1, b"one") + data(2, b"two") + data(9, b"nine") + data(3, b"three") + ack(0, 0)
    for chunk in (1, 7, 1000):
        node, peer = Node(), Peer()
        line = node.connect(peer)
        line.raw()
        line.say(stream, chunk=chunk)
        assert line.farewell() is CloseCode.PROTOCOL
        assert node.read(peer) == [b"one", b"two"]


def test_bytes_after_the_end_are_not_even_kept() -> None:
    for end in (Line.eof, Line.lose):
        line = Node().connect(Peer())
        line.connection.close(CloseCode.NORMAL, "", line.node.now)
        line.say(bytes(100_000))
        end(line)
        end(line)
        assert line.state is ConnectionState.CLOSED
        line.say(bytes(100_000))
        holds_no_more_than_it_may(line)


# -- floods -----------------------------------------------------------------------------------------------------------

#: frames that change nothing (P-ABUSE-1), on a connection whose peer holds message 1 and rejected message 2
IDLE_FRAMES = {
    "PING": ping(),
    "PONG that answers nothing": pong(1 << 40),
    "ACK without news": ack(1, 0, credit=0),
    "SKIP that is ignored": skip(1, 1),
    "empty frame of an unknown type": frame(0x80),
    "REJECT of another outbox": reject(b"another outbox, ", 1),
    "REJECT below first": b"below",
    "REJECT once more": b"again",
}


@pytest.mark.parametrize("name", IDLE_FRAMES)
def test_frames_that_change_nothing_are_limited(name: str) -> None:
    """A burst of 256, and 64 a second."""
    node, peer, line = opened(Config())
    node.send(peer, b"one", b"two", b"three")
    outbox = node.session(peer).outbox.outbox_id
    line.say(data(1), ack(2, 1), reject(outbox, 2))
    idle = {b"below": reject(outbox, 1), b"again": reject(outbox, 2)}.get(IDLE_FRAMES[name], IDLE_FRAMES[name])
    for _ in range(3):
        line.say(idle * 200)
        node.advance(3.125)
        line.say(frame(0xFF, b"not counted") * 1000)
    assert line.closed is None
    node.advance(4.0)
    line.say(idle * 256)
    node.advance(1.0)
    line.say(idle * 64)
    assert line.closed is None
    line.say(idle)
    assert line.farewell() is CloseCode.ABUSE


def test_frames_that_have_a_meaning_are_not_limited() -> None:
    """Answers to our questions, rejections that come again after a resume, acknowledgements that tell something."""
    node, peer, line = opened(Config())
    node.send(peer, *[b"x"] * 600)
    outbox = node.session(peer).outbox.outbox_id
    line.say(*[ack(sequence, 0) for sequence in range(1, 601)])
    line.say(*[reject(outbox, sequence) for sequence in range(2, 600)])
    for _ in range(300):
        node.session(peer).connection.ping(node.now)  # type: ignore[union-attr]
        node.pump()
        line.say(*[pong(value) for value in pings(line)])
    assert line.closed is None
    line.lose()
    holds = {"outbox": outbox, "run": node.endpoint.run, "received": 600, "read": 0, "first": 1}
    again = node.connect(peer, inbox=holds)
    again.say(*[reject(outbox, sequence) for sequence in range(2, 600)])
    assert again.closed is None


# -- what goes out ----------------------------------------------------------------------------------------------------


def test_output_comes_in_pieces_of_about_the_size_that_was_asked_for() -> None:
    node, peer, line = opened(Config())
    line.stuck = True
    node.send(peer, *[bytes(1000)] * 100, bytes(200_000))
    total = 0
    while buffers := line.connection.data_to_send(node.now, 10_000):
        size = sum(len(buffer) for buffer in buffers)
        assert size <= 10_000 + 65536 + 4
        total += size
    assert total > 300_000


def test_control_frames_go_before_messages() -> None:
    node, peer, line = opened(Config())
    line.stuck = True
    node.send(peer, bytes(100_000))
    line.say(ping(8), data(1))
    line.connection.ping(node.now)
    node.read(peer)
    line.stuck = False
    line.writable()
    kinds = line.kinds()
    assert set(kinds[: kinds.index(DATA)]) == {PONG, PING, ACK}


def test_a_closed_connection_has_nothing_to_say() -> None:
    node, peer, line = opened(Config())
    line.stuck = True
    node.send(peer, b"too late")
    line.connection.close(CloseCode.NORMAL, "", node.now)
    line.lose()
    line.stuck = False
    assert line.connection.data_to_send(node.now) == []
    line.connection.want_write(node.now)
    assert node.endpoint.next_effect() is None


def test_the_driver_is_told_once_that_there_is_something_to_write() -> None:
    node, peer, line = opened(Config())
    session = node.session(peer)
    for _ in range(5):
        session.send(b"x", node.now)
        line.connection.ping(node.now)
    effects = []
    while (effect := node.endpoint.next_effect()) is not None:
        effects.append(effect)
    [transmit] = [effect for effect in effects if isinstance(effect, Transmit)]
    assert transmit.connection is line.connection
    line.writable()
    session.send(b"x", node.now)
    assert isinstance(node.endpoint.next_effect(), Transmit)


def test_a_connection_says_what_it_is() -> None:
    node = Node()
    assert repr(node.accept().connection) == "<Connection from ? preamble>"
    assert repr(node.connect(Peer("z"), "dialer").connection) == "<Connection to z live>"


# -- piece by piece ---------------------------------------------------------------------------------------------------


def test_what_a_stream_did_not_take_is_offered_again_and_all_of_it_goes_out_in_order() -> None:
    """The same bytes as by ``data_to_send``, however few of them the stream takes at a time."""
    streams = []
    for piece in (None, 7, 1000):
        node, peer, line = opened(Config())
        line.stuck = True
        node.send(peer, *(b"%d" % number * 40 for number in range(100)))
        written, connection = b"", line.connection
        if piece is None:
            while buffers := connection.data_to_send(node.now):
                written += b"".join(buffers)
        else:
            while unsent := bytes(connection.unsent(node.now)):
                assert connection.unsent(node.now) == unsent
                written += unsent[:piece]
                connection.sent(min(piece, len(unsent)), node.now)
        assert not connection.dirty
        streams.append(written)
    assert streams[0] == streams[1] == streams[2]
    assert len(streams[0]) > 8_000


def test_a_stream_that_takes_bytes_slowly_is_not_stalled_and_one_that_takes_none_is() -> None:
    node, peer, line = opened(Config())
    line.stuck = True
    node.send(peer, b"x" * 20_000)
    for _ in range(5):
        assert line.connection.unsent(node.now)
        line.connection.sent(1000, node.now)
        node.advance(29.0)
        line.say(ping())
        assert line.live
    node.advance(1.1)
    assert line.dropped
    assert "took no byte" in str(line.connection.error)


def test_a_stream_cannot_take_more_than_there_was() -> None:
    node, peer, line = opened(Config())
    line.stuck = True
    node.send(peer, b"x" * 100)
    unsent = bytes(line.connection.unsent(node.now))
    for count in (-1, len(unsent) + 1):
        with pytest.raises(ConfigurationError, match=f"{count} of {len(unsent)} bytes"):
            line.connection.sent(count, node.now)
    assert line.connection.unsent(node.now) == unsent


def test_what_is_unsent_goes_out_before_the_goodbye_and_is_worth_nothing_after_the_end() -> None:
    for lost in (False, True):
        node, peer, line = opened(Config())
        line.stuck = True
        node.send(peer, b"one")
        connection = line.connection
        whole = bytes(connection.unsent(node.now))
        connection.sent(3, node.now)
        connection.close(CloseCode.NORMAL, "", node.now)
        assert connection.unsent(node.now) == whole[3:]
        if lost:
            line.lose()
        else:
            connection.sent(len(whole) - 3, node.now)
            assert bytes(connection.unsent(node.now))[4] == CLOSE
            node.advance(1.0)
        assert not connection.unsent(node.now)


# -- the time for a goodbye -------------------------------------------------------------------------------------------


def test_a_goodbye_has_its_time_and_then_the_stream_is_dropped() -> None:
    node, _, line = opened(Config(linger=3.0))
    line.connection.close(CloseCode.NORMAL, "", node.now)
    node.pump()
    node.advance(2.9)
    assert line.closed is not None
    assert line.closed.flush
    assert (line.state, line.dropped) == (ConnectionState.CLOSING, False)
    node.advance(0.2)
    assert (line.state, line.dropped) == (ConnectionState.CLOSED, True)
    node.advance(1e4)
    line.lose()
    assert not node.endpoint.connections


def test_a_goodbye_that_does_not_go_out_has_no_more_time() -> None:
    node, _, line = opened(Config())
    line.stuck = True
    line.connection.close(CloseCode.NORMAL, "", node.now)
    node.pump()
    node.advance(1.0)
    assert line.dropped
    line.stuck = False
    line.writable()
    assert line.raw() == b""


@pytest.mark.parametrize("how", ["eof", "lose"])
def test_the_stream_is_dropped_as_soon_as_the_peer_has_closed_it(how: str) -> None:
    node, _, line = opened(Config())
    line.connection.close(CloseCode.NORMAL, "", node.now)
    node.pump()
    getattr(line, how)()
    assert (line.state, line.dropped) == (ConnectionState.CLOSED, True)
    assert isinstance(line.connection.error, NormalClose)
    assert line.connection.timer_at == inf
    node.advance(1e4)  # the helper watches that there is no third Close
    getattr(line, how)()


def test_a_connection_that_closes_while_its_own_timer_is_due_still_has_its_time() -> None:
    """Timers are due together: what one of them closes, the next in turn must not drop at once."""
    node, _, line = opened(Config())
    other = node.connect(Peer("other"))
    first, second = (item.connection for item in (line, other))
    node.advance(node.endpoint.get_timer() - node.now)  # type: ignore[operator]
    for connection in (first, second):
        node.endpoint.timers.cancel(connection)
        node.endpoint.timers.schedule(connection, node.now + 1.0)
    first.liveness.heard = -1e6  # it is found dead, and takes the other one with it
    closed = node.endpoint.connection_ended

    def both(connection: Connection, now: float, *, flush: bool) -> None:
        closed(connection, now, flush=flush)
        second.close(CloseCode.NORMAL, "", now)

    node.endpoint.connection_ended = both  # type: ignore[method-assign]
    node.advance(1.0)
    assert [item.state for item in (line, other)] == [ConnectionState.CLOSING] * 2
    node.advance(0.9)
    assert [item.dropped for item in (line, other)] == [False] * 2
    node.advance(0.2)
    assert [item.dropped for item in (line, other)] == [True] * 2


def test_connections_that_are_over_are_forgotten_though_nobody_reports_their_end() -> None:
    node = Node()
    for _ in range(20):
        for _ in range(50):
            node.accept().say(b"GET / HTTP/1.1\r\n")
            node.claim(Peer()).say(frame(0x7F))
        node.advance(1.0)
        node.lines.clear()
    gc.collect()
    assert len(node.endpoint.timers) == 0
    assert not node.endpoint.connections
    assert [item for item in gc.get_objects() if type(item) is Connection and item._endpoint is node.endpoint] == []


# -- when to write ----------------------------------------------------------------------------------------------------


def test_a_write_is_prompt_when_a_message_goes_out_and_none_is_under_way() -> None:
    world = pair()
    a, b = world.hosts["a"], world.hosts["b"]
    connection = a.session("b").connection
    assert connection is not None
    assert not connection.prompt  # there is nothing to send
    a.session("b").send(b"1", world.now)
    assert connection.prompt
    a.pump()
    a.session("b").send(b"2", world.now)
    assert not connection.prompt  # the first is under way: the second can wait for company
    a.pump()
    world.run(0.1)
    a.session("b").send(b"3", world.now)
    assert connection.prompt  # the peer's library has both
    a.pump()
    world.run(0.1)
    assert b.read("a") == [b"1", b"2", b"3"]


def test_a_stranger_is_in_no_hurry() -> None:
    world = pair(connected=False)
    assert not world.hosts["b"].endpoint.accept(world.now).prompt
