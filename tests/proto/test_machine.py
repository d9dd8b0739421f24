"""Two nodes and everything that can go wrong between them: the machine, the swarm, and the bugs that they found."""

from __future__ import annotations

import pytest

from networkio_proto import Config, Effect, GapRange, OutboxFull, Session, SkipReason, Wake, Watch
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
