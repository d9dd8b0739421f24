"""Ends: of connections, of sessions, of nodes, and what may cross on the way."""

from __future__ import annotations

import pytest

from networkio_proto import (
    CloseCode,
    Config,
    ConnectionLost,
    NodeClosed,
    NormalClose,
    Outcome,
    PeerDisconnected,
    PeerEnded,
    PeerRestarting,
    SessionClosed,
    SessionEnded,
    TargetState,
)
from networkio_testing import SimulatedNode
from tests.proto.helpers import frames, two
from tests.proto.helpers_session import noticed, restart, until_live
from tests.proto.helpers_wire import ACK, CLOSE, DATA, FIN, Node, Peer, ack, close, data, fin
from tests.scenarios.helpers import Scene, outcomes

# -- draining ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["the peer is gone", "nobody was ever there", "its application reads nothing"])
def test_a_drain_in_vain_ends_with_its_time_and_tells_what_is_left(why: str) -> None:
    pair = two(connected=why != "nobody was ever there")
    if why == "the peer is gone":
        pair.b.host.crash(reset=False)
    for number in range(3):
        pair.to_b.send(number)
    began = pair.world.now
    ledger = pair.to_b.drain(timeout=7.0)
    assert pair.world.now - began == pytest.approx(7.0)
    assert (ledger.accepted, ledger.unread, ledger.read) == (3, 3, 0)
    pair.to_b.send("sending goes on after it")
    assert not pair.left()


def test_while_a_drain_is_under_way_nothing_new_is_taken_and_an_abort_ends_it() -> None:
    pair = two()
    pair.to_b.send("unread")
    session = pair.to_b.session
    pair.world.hosts["a"].call_at(pair.world.now + 2.0, lambda: refused.append(send_refused(pair.to_b)))
    pair.world.hosts["a"].call_at(pair.world.now + 3.0, lambda: pair.to_b.abort())
    refused: list[bool] = []
    began = pair.world.now
    ledger = pair.to_b.drain(timeout=60.0)
    assert pair.world.now - began == pytest.approx(3.0)
    assert refused == [True]
    assert (ledger.unread, ledger.abandoned) == (0, 1)
    assert session.closed
    with pytest.raises(SessionClosed):
        pair.to_b.send_nowait("after it")


def send_refused(peer: object) -> bool:
    """Is sending refused?"""
    with pytest.raises(SessionClosed, match="draining"):
        peer.send_nowait("new")  # type: ignore[attr-defined]
    return True


# -- both have said everything ----------------------------------------------------------------------------------------


def test_two_ends_that_cross_are_one_end() -> None:
    scene = Scene()
    scene.a.send("b", b"last of a")
    scene.b.send("a", b"last of b")
    scene.a.end("b")
    scene.b.end("a")
    scene.rest()
    assert (scene.got("a"), scene.got("b")) == ([b"last of b"], [b"last of a"])
    for host, peer in ((scene.a, "b"), (scene.b, "a")):
        assert host.session(peer).closed
        assert len(noticed(host, SessionEnded)) == 1
        assert len(noticed(host, PeerEnded)) == 1
        assert host.session(peer).outcome(1) is Outcome.READ
    assert not scene.world.open_wires()
    assert scene.a.session("b").targets == []
    made = scene.world.connections_made
    scene.world.run(3600.0)
    assert scene.world.connections_made == made


@pytest.mark.parametrize("lost", [FIN, ACK, CLOSE])
def test_whatever_of_the_last_words_is_lost_the_session_ends_on_both_sides(lost: int) -> None:
    """FIN, the acknowledgement of FIN, or the goodbye: whoever needs it comes again for it."""
    scene = Scene()
    scene.a.send("b", b"last of a")
    scene.world.run(1.0)
    scene.read()
    scene.world.run(1.0)
    scene.b.end("a")
    scene.world.run(1.0)
    scene.a.end("b")
    wire = scene.wire
    if lost == FIN:
        assert FIN in [item.kind for item in frames(wire.pipes[0].data)]
    else:
        wire.deliver(0)
        said = [item.kind for item in frames(wire.pipes[1].data)]
        assert said[-2:] == [ACK, CLOSE]
        if lost == CLOSE:
            wire.deliver(1, len(wire.pipes[1].data) - 3)
    wire.cut()
    scene.rest(120.0)
    assert scene.a.session("b").closed
    assert scene.b.session("a").closed
    assert len(noticed(scene.a, SessionEnded)) == len(noticed(scene.b, SessionEnded)) == 1
    made = scene.world.connections_made
    scene.world.run(3600.0)
    assert scene.world.connections_made == made
    # and begun anew, it counts on
    scene.a.dial("b")
    scene.a.send("b", b"anew")
    scene.rest()
    assert scene.got() == [b"last of a", b"anew"]


def test_whoever_attaches_after_the_end_with_something_to_say_begins_a_new_session() -> None:
    scene = Scene()
    scene.a.end("b")
    scene.b.end("a")
    scene.world.run(5.0)
    outbox_id = scene.a.session("b").outbox.outbox_id
    restart(scene.a)
    scene.a.send("b", b"of a new process")
    scene.rest()
    assert scene.got() == [b"of a new process"]
    assert scene.a.session("b").outbox.outbox_id != outbox_id
    assert not scene.b.session("a").closed


def test_nothing_of_an_outbox_that_has_ended_is_taken_again() -> None:
    node, peer = Node(), Peer("a")
    line = node.connect(peer)
    line.say(data(1, b"last"), fin(2))
    assert node.read(peer) == [b"last"]
    node.session(peer).end(node.now)
    node.pump()
    line.say(ack(1, 1))
    assert node.session(peer).closed
    line.eof()
    again = node.connect(peer, next=3)
    again.raw()
    again.say(data(1, b"last"))
    assert again.farewell() is CloseCode.PROTOCOL
    assert node.session(peer).unread == 0


# -- goodbyes that cross, and streams that just end -------------------------------------------------------------------


def test_goodbyes_that_cross_are_not_answered_and_leave_nothing_open() -> None:
    scene = Scene()
    scene.a.send("b", b"unread")
    scene.a.disconnect("b")
    scene.b.disconnect("a")
    wire = scene.world.open_wires()[0]
    for end in (0, 1):
        assert [item.kind for item in frames(wire.pipes[end].data)][-1] == CLOSE
        wire.deliver(end)
    scene.world.run(5.0)
    assert not scene.world.open_wires()
    for host in (scene.a, scene.b):
        [lost] = noticed(host, PeerDisconnected)
        assert isinstance(lost.error, NormalClose)
        assert not host.endpoint.connections
    scene.a.dial("b")
    scene.rest()
    assert scene.got() == [b"unread"]


def test_a_goodbye_with_unread_input_behind_it_is_heard() -> None:
    """What came meanwhile is read and thrown away, so that no reset eats the last words."""
    scene = Scene()
    wire = scene.wire
    scene.a.send("b", b"never taken in")
    scene.b.disconnect("a")
    said = [item.kind for item in frames(wire.pipes[1].data)]
    assert said[-1] == CLOSE
    wire.deliver(0)  # a's message reaches a node that has said goodbye
    assert scene.b.session("a").unread == 0
    assert wire.ends[1] is not None  # it stays to the end of what a says
    wire.deliver(1)
    [lost] = noticed(scene.a, PeerDisconnected)
    assert isinstance(lost.error, NormalClose)
    assert lost.error.remote
    scene.a.dial("b")
    scene.rest()
    assert scene.got() == [b"never taken in"]


@pytest.mark.parametrize("how", ["eof", "reset", "eof, reset", "reset, eof"])
def test_a_stream_that_ends_without_a_goodbye_is_one_loss_in_whatever_order_it_is_told(how: str) -> None:
    node, peer = Node(), Peer()
    line = node.connect(peer)
    node.send(peer, b"unread")
    line.say(data(1, b"came before it"))
    node.events.clear()
    for what in how.split(", "):
        if what == "eof":
            line.eof()
        else:
            line.lose()
    line.say(data(2, b"came after it"))
    [lost] = [event for event in node.events if isinstance(event, PeerDisconnected)]
    assert isinstance(lost.error, ConnectionLost)
    assert line.dropped
    assert CLOSE not in line.kinds()
    assert node.read(peer) == [b"came before it"]
    assert node.session(peer).unacknowledged == 1
    again = node.connect(peer, next=2)
    assert DATA in again.kinds()


def test_a_goodbye_is_never_answered_by_another() -> None:
    node, peer = Node(), Peer()
    line = node.connect(peer)
    line.raw()
    line.say(close(CloseCode.RESTARTING, b"back soon", retry_after=1000))
    assert line.raw() == b""
    assert line.closed is not None
    assert not line.live


# -- nodes ------------------------------------------------------------------------------------------------------------


def test_an_error_inside_of_a_node_s_block_comes_out_and_the_peers_hear_a_goodbye() -> None:
    pair = two()
    node = pair.a
    node.peer("b").send("unread")
    began = pair.world.now
    with pytest.raises(RuntimeError, match="in the block"), node:
        raise RuntimeError("in the block")
    assert pair.world.now == began  # it waited for nothing
    pair.world.run(1.0)
    assert not pair.to_a.connected
    assert isinstance(pair.to_a.session.error, PeerRestarting)
    with pytest.raises(NodeClosed):
        node.peer("b").send("too late")


def test_who_stops_listening_keeps_its_peers_and_takes_nobody_new() -> None:
    scene = Scene()
    scene.b.listening = False
    late = scene.world.host("late")
    target = late.dial("b")
    scene.a.send("b", b"still here")
    scene.world.run(60.0)
    assert scene.b.read("a") == [b"still here"]
    assert not late.session("b").connected
    assert target.state in (TargetState.WAITING, TargetState.DIALLING)
    scene.wire.cut()
    scene.world.run(60.0)
    assert not scene.a.session("b").connected
    scene.b.listening = True
    scene.rest(60.0)
    assert scene.a.session("b").connected
    assert late.session("b").connected


def test_a_process_that_exits_inside_a_handler_has_acknowledged_what_it_had_and_not_what_it_was_at() -> None:
    pair = two(Config(dead_after=10.0, ping_after=4.0))
    handled: list[object] = []

    def handler(message: object) -> None:
        handled.append(message.data)  # type: ignore[attr-defined]
        if message.data == 3:  # type: ignore[attr-defined]
            pair.b.host.crash()

    pair.b.serve(handler)
    for number in (1, 2, 3, 4):
        pair.to_b.send(number)
    pair.world.run(1.0)
    assert handled == [1, 2, 3]
    session = pair.to_b.session
    pair.world.run(30.0)
    assert outcomes(session, (3, 4)) == [None, None]
    pair.b.host.restart()
    again = SimulatedNode(pair.b.host)
    again.serve(lambda message: handled.append(message.data))
    pair.world.run(60.0)
    assert handled[3:] in ([3, 4], [2, 3, 4], [1, 2, 3, 4])
    assert outcomes(session, (1, 2, 3, 4)) == [Outcome.READ] * 4
    assert until_live(pair.world)
