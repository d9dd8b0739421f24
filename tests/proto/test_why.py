"""The sentence that says what the messages wait for."""

from __future__ import annotations

import pytest

from networkio_proto import JournalDamaged, JournalFull
from networkio_testing.world import World
from tests.proto.helpers import pair
from tests.proto.helpers_session import hosts
from tests.proto.helpers_wire import ack, opened
from tests.proto.test_keeper import Desk
from tests.proto.test_spill import full_desk, run


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
    session.send(b"y", world.now)  # and nothing has been asked for its bytes
    assert session.why(world.now) == "message 2 is on its way to b, for 0.0 s now"


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


def why(desk: Desk) -> str:
    return desk.to_b.session.why(desk.net.now)


def test_why_says_what_is_not_on_disk_yet() -> None:
    desk = Desk()
    desk.meet()
    desk.to_b.send_nowait(1)
    desk.net.now += 2.0
    assert why(desk) == "message 1 is not on disk yet, for 2.0 s now"
    desk.settle()
    assert why(desk).startswith("message 1 is on its way to b, for ")


def test_why_says_that_a_message_which_is_on_disk_waits_for_what_goes_before_it() -> None:
    desk = Desk()
    desk.to_b.send_nowait(1)
    desk.slate.finish_all()
    with desk.a.inside as now:
        desk.a.endpoint.add_target("b", now, to="b")
    desk.net.run()
    assert desk.slate.writing is not None  # which process of b it is that the message goes to
    assert why(desk) == "what goes before message 1 is not on disk yet, for 0.0 s now"
    desk.settle()
    assert why(desk).startswith("message 1 is on its way to b, for ")


def test_why_says_that_the_journal_cannot_be_written_until_it_is_again() -> None:
    desk = Desk()
    assert "the journal" not in why(desk)
    desk.to_b.send_nowait(1)
    desk.slate.finish(JournalFull("no room; make some"))
    trouble = "; the journal cannot be written (no room; make some)"
    assert why(desk).startswith("no connection to b for ")
    assert why(desk).endswith(trouble)
    assert desk.a.peer("c").why().endswith(trouble)  # which has nothing to do with it
    desk.net.wait(0.6)
    assert why(desk).endswith(trouble)
    desk.to_b.send_nowait(2)
    desk.slate.finish_all()
    assert "the journal" not in why(desk)


@pytest.mark.parametrize("fails", ["load", "batch"])
def test_why_says_that_a_message_is_being_read_back(fails: str) -> None:
    desk = full_desk()
    far = desk.meet()
    first = far.unread + 1
    assert why(desk).startswith("message 1 is on its way to b, for ")
    for _ in range(far.unread):
        far.read_nowait()
    desk.net.wait(0.5)
    desk.net.now += 2.0
    assert why(desk) == f"message {first} is being read back from the journal, for 2.0 s now"
    if fails == "load":
        desk.slate.finish_load(JournalDamaged("message 12 is damaged"))
        trouble = "the journal cannot be read (message 12 is damaged)"
    else:
        desk.to_b.send_nowait(b"")
        desk.slate.finish(OSError("input/output error"))
        trouble = "the journal cannot be written (input/output error)"
    assert why(desk) == f"message {first} is to be read back from the journal, for 2.0 s now; {trouble}"


def test_why_says_no_more_of_what_is_read_again() -> None:
    desk = full_desk()
    desk.meet()
    desk.slate.finish_load(JournalFull("no room"))
    assert why(desk).endswith("; the journal cannot be read (no room)")
    run(desk)
    assert why(desk).startswith("message 1 is on its way to b, for ")
    assert "the journal" not in why(desk)
