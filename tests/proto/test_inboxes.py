"""Inboxes that were left, that shrank, and that are told as ended."""

from __future__ import annotations

import pytest

from networkio_proto import Config, Limits, Outcome, PeerRestarted
from tests.proto.helpers import live, pair
from tests.proto.helpers_session import (
    ACCEPTOR,
    DIALER,
    hear,
    hosts,
    noticed,
    one,
    reconnect,
    restart,
    until_live,
    verdict,
)

# -- long without a connection ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sender", "receiver"), ["ab", "ba"])
def test_an_idle_session_without_a_connection_shrinks_to_its_positions_and_goes_on_from_them(
    sender: str, receiver: str
) -> None:
    world = pair()
    s, r = world.hosts[sender], world.hosts[receiver]
    s.send(receiver, b"1", b"2")
    world.run(1.0)
    r.read(sender)
    live(world).cut()
    world.advance(14 * 60.0)
    assert r.session(sender).inboxes.boxes
    world.advance(2 * 60.0)
    assert r.session(sender).inboxes.boxes == []
    assert [facts.received for facts in r.session(sender).inboxes.dormant] == [2]
    s.send(receiver, b"3")
    reconnect(world)
    assert verdict(s) == "B"
    assert r.read(sender) == [b"3"]
    world.run(1.0)
    assert s.session(receiver).ledger.read == 3


@pytest.mark.parametrize("what", ["unread", "held", "rejected"])
def test_a_session_with_anything_left_to_do_does_not_shrink(what: str) -> None:
    world = pair()
    a, b = hosts(world)
    a.send("b", b"1")
    world.run(0.01)
    if what != "unread":
        delivery = one(b, "a")
        live(world).cut()
        if what == "rejected":
            b.settle("a", delivery, reject=(1, "no"))
    else:
        live(world).cut()
    world.advance(3600.0)
    reconnect(world)
    if what == "unread":
        assert b.read("a") == [b"1"]
    elif what == "held":
        b.settle("a", delivery)
    world.run(1.0)
    assert a.session("b").outcome(1) is (Outcome.REJECTED if what == "rejected" else Outcome.READ)


def test_a_shrunk_session_hands_nothing_over_twice_whatever_else_it_does_meanwhile() -> None:
    world = pair()
    a, b = hosts(world)
    a.send("b", b"once")
    hear(world, DIALER)
    assert b.read("a") == [b"once"]
    live(world).cut()  # a does not know
    b.send("a", b"late", ttl=2000.0)  # its timer comes when the session has shrunk
    world.advance(3000.0)
    reconnect(world)
    assert b.read("a") == []
    assert a.session("b").outcome(1) is Outcome.READ
    assert b.session("a").outcome(1) is Outcome.EXPIRED


# -- verdicts ---------------------------------------------------------------------------------------------------------


def test_an_outbox_that_was_left_for_another_process_is_resumed_where_it_stood() -> None:
    """P-RES-6: two processes use the id "b"; "a" is with one, then with the other, then with the first again."""
    world = pair(Config(limits=Limits(frame=8192)))
    a, b = hosts(world)
    twin = world.host("twin", Config(), peer_id="b")
    b.send("a", bytes(20_000), b"2")
    hear(world, ACCEPTOR)
    assert a.read("b", 1) == [bytes(20_000)]  # b does not know
    b.listening = False
    live(world).cut()
    a.dial("twin", to="b")
    twin.send("a", b"twin's")
    world.run(30.0)
    assert len(noticed(a, PeerRestarted)) == 1
    assert a.read("b") == [b"2", b"twin's"]
    twin.listening = False
    twin.crash()
    b.listening = True
    wire = until_live(world)
    wire.deliver(ACCEPTOR, 8192)  # b was told of the twin's outbox: it begins anew, and is cut within message 1
    wire.cut()
    reconnect(world)
    assert b.session("a").ledger.read == 2
    assert a.session("b").unread == 0
    b.send("a", b"3")
    world.run(1.0)
    assert a.read("b") == [b"3"]


def test_old_inboxes_without_anything_unread_are_dropped_in_the_end_and_told_as_ended() -> None:
    """P-RES-7: the newest 4 at least are kept; all are bounded."""
    world = pair()
    a, b = hosts(world)
    outboxes = []
    for number in range(20):
        a.send("b", b"%d" % number)
        world.run(1.0)
        assert b.read("a") == [b"%d" % number]
        outboxes.append(a.session("b").outbox.outbox_id)
        restart(a)
        world.run(5.0)
    kept = [box.outbox_id for box in b.session("a").inboxes if not box.empty]
    assert 4 <= len(kept) <= 8
    assert kept == outboxes[-len(kept) :]
    ended = [item.outbox_id for _, item in b.session("a").inboxes._ended]
    assert ended == outboxes[: 20 - len(kept)][::-1]


@pytest.mark.slow
def test_what_a_peer_tells_as_ended_is_forgotten_after_a_week() -> None:
    world = pair()
    a, b = hosts(world)
    a.send("b", b"1")
    world.run(1.0)
    b.read("a")
    b.abort("a")
    assert len(b.session("a").inboxes._ended) == 1
    world.advance(6 * 24 * 3600.0)
    a.dial("b")
    world.run(60.0)
    assert len(b.session("a").inboxes._ended) == 1
    world.advance(1 * 24 * 3600.0)
    reconnect(world)
    live(world).cut()
    reconnect(world)
    assert b.session("a").inboxes._ended == []


def test_the_oldest_of_many_ended_outboxes_is_forgotten() -> None:
    world = pair()
    a, b = hosts(world)
    for number in range(20):
        a.send("b", b"%d" % number)
        world.run(1.0)
        b.abort("a")
        world.run(1.0)
        a.dial("b")
        world.run(5.0)
    assert len(b.session("a").inboxes._ended) == 16
    a.send("b", b"last")
    world.run(1.0)
    assert b.read("a")[-1] == b"last"


# -- whose turn it is with the reader ---------------------------------------------------------------------------------


@pytest.mark.parametrize("left", ["unread", "held", "nothing"])
def test_an_outbox_that_returns_keeps_its_turn_while_anything_of_it_is_left(left: str) -> None:
    """P-RES-5, P-RES-6: two processes use the id "b", and "a" was with one, then with the other."""
    world = pair()
    a, b = hosts(world)
    twin = world.host("twin", Config(), peer_id="b")
    b.send("a", b"1")
    world.run(1.0)
    if left != "unread":
        first = one(a, "b")
        if left == "nothing":
            a.settle("b", first)
            world.run(1.0)
    b.listening = False
    live(world).cut()
    a.dial("twin", to="b")
    twin.send("a", b"twin's")
    world.run(30.0)
    twin.listening = False
    twin.crash()
    b.listening = True
    until_live(world)
    b.send("a", b"2")
    world.run(1.0)
    assert a.session("b").unread == (3 if left == "unread" else 2)
    if left == "held":
        a.release("b", first)
    expected = {"unread": [b"1", b"2", b"twin's"], "held": [b"1", b"2", b"twin's"], "nothing": [b"twin's", b"2"]}
    assert a.read("b") == expected[left]
