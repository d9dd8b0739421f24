"""Windows, full outboxes, slow readers, slow lines: nobody wedges, nobody spins, memory stays where it is."""

from __future__ import annotations

import pytest

from networkio_proto import (
    CloseCode,
    Config,
    Limits,
    OutboxFull,
    Outcome,
    PeerDisconnected,
)
from networkio_testing import World
from tests.proto.helpers import frames
from tests.proto.helpers_session import inject, noticed, promised
from tests.proto.helpers_wire import ACK, DATA, PING, PONG, WINDOW, Node, Peer, ack, data, ping, pong
from tests.scenarios.helpers import Scene

#: a window that ten messages of a cost of 1,000 fill
TEN = Config(window=10_000, window_guaranteed=10_000, window_max=10_000, outbox_limit=200_000)
BODY = bytes(1000 - 64)


def test_a_sender_whose_peer_acknowledges_nothing_stops_goes_on_by_one_and_does_not_spin() -> None:
    scene = Scene(TEN)
    scene.a.send("b", *[BODY] * 30)
    scene.world.run(1.0)
    b, outbox = scene.b.session("a"), scene.a.session("b").outbox
    assert (b.unread, outbox.cursor) == (10, 11)
    held = scene.b.take("a", 10)
    before = scene.world.steps.total
    cost = outbox.cost
    scene.world.run(3600.0)
    # an hour of a full window is pings and pongs and nothing else
    assert scene.world.steps.total - before < 3600 / 20 * 2 * 12
    assert (b.held, outbox.cursor, outbox.cost) == (10, 11, cost)
    for number, delivery in enumerate(held[:5], 11):
        scene.b.settle("a", delivery)
        scene.world.run(0.1)
        assert outbox.cursor == number + 1
        assert b.unread == number - 10
    assert scene.world.connections_made == 1
    for delivery in held[5:]:
        scene.b.settle("a", delivery)
    scene.rest()
    assert outbox.ledger.read == 30


def test_both_directions_full_let_everything_pass_that_is_no_message_and_one_reader_frees_its_direction() -> None:
    scene = Scene(TEN)
    a, b = scene.a.session("b"), scene.b.session("a")
    scene.a.send("b", *[BODY] * 60)
    scene.b.send("a", *[BODY] * 60)
    scene.world.run(1.0)
    assert (a.unread, b.unread) == (10, 10)
    for host, peer in ((scene.a, "b"), (scene.b, "a")):
        with pytest.raises(OutboxFull):
            host.send(peer, *[BODY] * 200)
    full = scene.a.session("b").outbox.cost
    wire = scene.wire
    scene.world.run(120.0)  # PING and PONG
    assert scene.wire is wire
    assert scene.a.session("b").outbox.cost == full
    assert scene.b.read("a", 1) == [BODY]  # ACK
    scene.world.run(0.1)
    assert a.outbox.read == 1
    assert (a.outbox.cursor, b.outbox.cursor) == (12, 11)
    while a.outbox.unread:
        assert scene.b.read("a")
        scene.world.run(0.1)
        assert a.unread == 10  # the other direction stands where it stood
    assert b.outbox.cursor == 11
    while b.outbox.unread:
        assert scene.a.read("b")
        scene.world.run(0.1)
    scene.rest()


def test_with_both_directions_full_a_goodbye_passes() -> None:
    scene = Scene(TEN)
    scene.a.send("b", *[BODY] * 60)
    scene.b.send("a", *[BODY] * 60)
    scene.world.run(1.0)
    scene.a.disconnect("b")
    scene.world.run(0.1)
    [lost] = noticed(scene.b, PeerDisconnected)
    assert lost.error is not None
    assert lost.error.code is CloseCode.NORMAL
    scene.a.dial("b")
    while scene.a.session("b").unacknowledged or scene.b.session("a").unacknowledged:
        scene.world.run(1.0)
        scene.read()
    scene.rest()
    assert (len(scene.got("a")), len(scene.got("b"))) == (60, 60)


@pytest.mark.parametrize("beyond", [1, 2])
def test_one_message_may_pass_the_credit_and_a_second_is_a_fault(beyond: int) -> None:
    window = 20_000
    node, peer = Node(config=Config(window=window, window_guaranteed=window, window_max=window)), Peer()
    line = node.connect(peer)
    line.raw()
    line.say(data(1, bytes(window - 64 - 1)))
    assert line.live  # one byte is left
    for number in range(2, 2 + beyond):
        line.say(data(number, b"beyond"))
    if beyond == 1:
        assert line.live
        assert len(node.read(peer)) == 2
        return
    assert line.farewell() is CloseCode.FLOW
    assert len(node.read(peer)) == 2  # what was within is not lost


def test_a_connection_that_begins_with_a_half_full_inbox_gives_the_other_half_as_credit() -> None:
    scene = Scene(TEN)
    scene.a.send("b", *[BODY] * 30)
    scene.world.run(1.0)
    assert scene.b.read("a", 5)
    scene.world.run(1.0)
    assert scene.b.session("a").unread == 10
    scene.b.read("a", 5)
    scene.wire.cut()
    assert scene.b.session("a").unread == 5
    assert scene.b.session("a").unsettled == 5000
    scene.world.run(60.0)
    assert scene.b.session("a").unread == 10
    assert promised(scene.b, "a") <= 0
    assert scene.b.session("a").inbox.used == 5000  # type: ignore[union-attr]
    while scene.a.session("b").unacknowledged:
        scene.read()
        scene.world.run(0.1)
    scene.rest()
    assert scene.a.session("b").outbox.ledger.read == 30


def test_a_thousand_peers_of_a_node_without_memory_for_them_all_move() -> None:
    """The budget is spent; what is guaranteed to each keeps everybody going, and no more than that is held."""
    config = Config(window=20_000, window_guaranteed=2_000, window_max=20_000, inbox_budget=20_000)
    node = Node(config=config)
    peers = [Peer(f"p{number}") for number in range(1000)]
    lines = [node.connect(peer, next=1) for peer in peers]
    body = bytes(1000 - 64)
    for turn in range(1, 4):
        for line in lines:
            line.say(data(turn, body))
        assert all(line.live for line in lines)
        assert sum(session.unsettled for session in node.endpoint.sessions.values()) == 1000 * 1000
        for peer in peers:
            assert node.read(peer) == [body]
        node.advance(0.03)
    assert node.endpoint.inbox_reserved <= config.inbox_budget


def slowly(world: World, seconds: float, rate: int, tick: float = 0.05) -> None:
    """Time passes, and what "a" says arrives at so many bytes a second; what "b" says at once."""
    credit = 0.0
    end = world.now + seconds
    while world.now < end:
        world.advance(tick)
        wire = world.live("a", "b")
        assert wire is not None
        credit += rate * tick
        credit -= wire.deliver(0, int(credit))
        credit = min(credit, rate)
        wire.deliver(1)


def test_sixteen_mebibytes_over_a_slow_line_are_no_death_and_pings_pass_between_the_fragments() -> None:
    """More than two minutes for one message, where 45 s of silence are death."""
    scene = Scene(Config(outbox_limit=32 << 20))
    scene.world.write_size = 16_384
    wire = scene.wire
    wire.pipes[0].capacity = 65_536  # what the kernel holds
    payload = bytes(16 << 20)
    [sequence] = scene.a.send("b", payload)
    session, receiver = scene.a.session("b"), scene.b.session("a")
    measured, asked = 0, 0
    began = scene.world.now
    while not receiver.unread:
        receiver.measure(scene.world.now)  # the receiver asks in the middle of it, and is answered in its turn
        scene.b.pump()
        receiver.counters.round_trip = None
        slowly(scene.world, 5.0, 125_000)
        asked += session.outbox.fragment > 0
        measured += session.outbox.fragment > 0 and receiver.counters.round_trip is not None
        assert scene.world.live("a", "b") is wire
    assert 125 < scene.world.now - began < 160
    assert asked > 20
    assert measured == asked
    assert scene.world.connections_made == 1
    scene.rest()
    assert scene.got() == [payload]
    assert session.outcome(sequence) is Outcome.READ


def test_a_peer_that_takes_one_byte_a_second_is_slow_and_one_that_takes_none_is_given_up() -> None:
    scene = Scene()
    wire = scene.wire
    wire.pipes[0].capacity = 1000
    assert wire.ends[0] is not None
    wire.ends[0].backlog = lambda: len(wire.pipes[0].data)  # as the system tells it where it can be asked
    scene.a.send("b", bytes(100_000))
    for _ in range(120):
        scene.world.advance(1.0)
        wire.deliver(0, 1)
        wire.deliver(1)
        assert wire.ends[0] is not None
    stopped = scene.world.now
    while scene.a.session("b").connected:
        scene.world.advance(1.0)
        wire.deliver(1)
    assert 29 <= scene.world.now - stopped <= 46
    error = scene.a.session("b").error
    assert error is not None
    assert error.code is CloseCode.TIMEOUT
    scene.rest()
    assert scene.got() == [bytes(100_000)]


@pytest.mark.parametrize(
    "frame", [ping(1), pong(1), ack(0, 0)], ids=["PING", "PONG", "an ACK that says nothing"]
)
def test_a_flood_of_frames_that_mean_nothing_ends_the_connection_and_is_answered_sparingly(frame: bytes) -> None:
    node, peer = Node(), Peer()
    line = node.connect(peer)
    line.raw()
    said = 0
    while line.closed is None:
        line.say(frame)
        said += 1
        assert said <= 300
    heard = line.heard()
    assert line.connection.error is not None
    assert line.connection.error.code is CloseCode.ABUSE
    assert len(heard) <= said + 1
    assert said >= 100
    assert node.connect(peer).live  # it may come again


def test_what_nobody_acknowledges_does_not_hide_pings_behind_a_big_message() -> None:
    """Frames of control pass at the next frame's bound."""
    scene = Scene(Config(limits=Limits(frame=8192)))
    scene.world.write_size = 8192
    wire = scene.wire
    wire.throttle(0, 8192)
    scene.a.send("b", bytes(200_000))
    inject(scene.world, 1, ping(99))
    wire.throttle(0)
    kinds = [item.kind for item in frames(wire.pipes[0].data)]
    assert PONG in kinds
    assert kinds.index(PONG) <= 2
    assert kinds.count(DATA) > 20
    scene.rest()


def test_credit_of_a_new_connection_counts_from_zero() -> None:
    node, peer = Node(), Peer("a")
    line = node.connect(peer)
    line.say(*[data(number, bytes(1000)) for number in range(1, 101)])
    assert len(node.read(peer)) == 100
    again = node.connect(peer, next=101)
    told = [item.u64(2) for item in again.heard() if item.kind == ACK]
    assert all(value <= WINDOW for value in told)
    again.say(*[data(number, bytes(1000)) for number in range(101, 201)])
    assert again.live
    assert PING not in again.kinds()
