"""The sentence that says what the messages wait for."""

from __future__ import annotations

from networkio_testing.world import World
from tests.proto.helpers import pair
from tests.proto.helpers_session import hosts
from tests.proto.helpers_wire import ack, opened


def test_why_says_what_the_messages_wait_for_with_the_peers_own_words() -> None:
    world = pair(connected=False)
    a, b = hosts(world)
    session = a.session("b")
    world.advance(5.0)
    assert session.why(world.now).startswith("no connection to b for 5.0 s; this side has no address to dial")
    a.dial("b")
    a.send("b", b"x")
    world.run(1.0)
    assert session.why(world.now).startswith("the application of b has not acknowledged message 1 for ")
    b.abort("a")
    world.run(1.0)
    assert "the peer closed the connection: the session was aborted" in session.why(world.now)
    assert "no address to dial" in session.why(world.now)


def test_why_says_that_nothing_waits_when_everything_is_read() -> None:
    world = pair()
    a, b = hosts(world)
    session = a.session("b")
    assert session.why(world.now) == "nothing is waiting: b has read every message"
    a.send("b", b"x")
    assert session.why(world.now) == "message 1 is on its way to b, for 0.0 s now"
    world.run(1.0)
    b.read("a")
    world.run(1.0)
    assert session.why(world.now) == "nothing is waiting: b has read every message"


def test_why_of_a_peer_that_refuses_this_side_names_its_words() -> None:
    world = World()
    a = world.host("a")
    world.host("c")
    a.endpoint.add_target("c", world.now, to="b")
    a.pump()
    world.run(60.0)
    assert "another peer answered than the one that was meant" in a.session("b").why(world.now)
    assert "dialling has stopped" in a.session("b").why(world.now)


def test_why_says_that_the_peer_gives_no_credit() -> None:
    node, peer, line = opened(credit=1)
    node.send(peer, b"one", b"two")
    line.say(ack(1, 1, credit=0))
    node.advance(3.0)
    assert node.session(peer).why(node.now) == "a gives no credit for message 2: its inbox is full, for 3.0 s now"
