"""Two nodes and everything that can go wrong between them: the machine, the swarm, and the bugs that they found."""

from __future__ import annotations

import pytest

from networkio_proto import Config, Effect, OutboxFull, Session, Wake, Watch
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
