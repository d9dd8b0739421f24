"""Two nodes and everything that can go wrong between them: the machine, the swarm, and the bugs that they found."""

from __future__ import annotations

import pytest

from networkio_proto import Config, Effect, GapRange, OutboxFull, Outcome, Session, SkipReason, Wake, Watch
from networkio_testing.judges import Judge
from networkio_testing.world import Host, Watcher, World

# -- what the machine and the swarm found ---------------------------------------------------------------------------


class Woken(Watcher):
    """The sessions for which a Wake came."""

    def __init__(self, world: World) -> None:
        self.sessions: list[Session | None] = []
        world.watchers.append(self)

    def effect(self, host: Host, effect: Effect) -> None:
        if isinstance(effect, Wake):
            self.sessions.append(effect.session)


def test_room_that_one_peer_gives_back_wakes_those_who_wait_to_send_to_another() -> None:
    world = World()
    node = world.host("a", Config(outbox_node_limit=1000))
    node.send("b", bytes(2000))
    with pytest.raises(OutboxFull):
        node.send("c", b"waits")
    node.session("c").watch = Watch.ROOM
    woken = Woken(world)
    node.abort("b")
    assert node.session("c") in woken.sessions


def test_a_gap_is_told_with_the_next_message_however_long_the_session_lay_idle() -> None:
    world = World()
    a, b = world.host("a"), world.host("b", Config(shrink_after=2.0))
    a.send("b", b"1")
    (cancelled,) = a.send("b", b"2")
    assert a.cancel("b", cancelled)
    a.dial("b")
    world.run(1.0)
    assert b.read("a") == [b"1"]
    world.run(1.0)
    a.disconnect("b")
    world.run(60.0)
    a.send("b", b"3")
    a.dial("b")
    world.run(1.0)
    (delivery,) = b.take("a")
    assert delivery[4] is not None
    assert delivery[4].gap == (GapRange(2, 2, SkipReason.CANCELLED),)


def test_a_rejection_is_told_again_on_a_connection_that_has_nothing_else_to_say() -> None:
    world = World()
    a, b = world.host("a"), world.host("b")
    a.dial("b")
    a.send("b", b"1")
    world.run(1.0)
    (delivery,) = b.take("a")
    a.disconnect("b")
    b.settle("a", delivery, reject=(7, "no"))
    a.dial("b")
    world.run(1.0)
    assert a.session("b").outcome(1) is Outcome.REJECTED
    assert b.session("a").inboxes[0].rejects == {}


def test_what_is_settled_while_a_dial_is_under_way_is_told_when_it_succeeds() -> None:
    world = World()
    a, b = world.host("a"), world.host("b")
    a.send("b", b"1")
    b.dial("a")
    world.run(1.0)
    (delivery,) = b.take("a")
    b.disconnect("a")
    b.dial("a")
    (wire,) = b.answer_dials()
    wire.deliver(0)
    wire.deliver(1)
    wire.deliver(0)  # b's ATTACH says that nothing is read
    b.settle("a", delivery)
    world.run(1.0)
    assert a.session("b").outcome(1) is Outcome.READ


def test_a_dial_that_stated_an_outbox_which_is_no_more_does_not_become_live() -> None:
    world = World()
    Judge(world)
    a, b = world.host("a"), world.host("b")
    a.dial("b")
    (wire,) = a.answer_dials()
    wire.deliver(0)
    wire.deliver(1)
    wire.deliver(0)  # b has a's ATTACH, a has no answer yet
    a.abort("b")
    a.dial("b")
    a.send("b", b"1")
    wire.deliver(1)
    wire.deliver(0)
    wire.cut()
    world.run(5.0)
    assert b.read("a") == [b"1"]


def test_an_abort_keeps_the_positions_of_every_outbox_that_the_peer_id_ever_had() -> None:
    world = World()
    a, b, twin = world.host("a"), world.host("b"), world.host("twin", peer_id="a")
    a.dial("b")
    a.send("b", b"1")
    world.deliver_all()
    wire = world.live("a", "b")
    assert wire is not None
    assert b.read("a") == [b"1"]
    wire.cut()  # a does not learn that
    a.disconnect("b")
    twin.dial("b")
    twin.send("b", b"another")
    world.run(1.0)
    assert b.read("a") == [b"another"]
    b.abort("a")
    twin.crash()
    a.dial("b")
    b.dial("a")
    world.run(5.0)
    assert b.read("a") == []
    assert a.session("b").outcome(1) is Outcome.READ
