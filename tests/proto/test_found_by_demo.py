"""What the demonstration found in the core: conversations whose connections are cut before their first ACK."""

from __future__ import annotations

import pytest

from tests.proto.helpers import live, pair


@pytest.mark.parametrize("seed", range(5))
def test_progress_that_only_the_next_attach_reveals_keeps_the_next_dial_quick(seed: int) -> None:
    """P-DIAL-2: the row of dials starts again where a position has moved, even if no ACK ever came through."""
    world = pair(seed=seed)
    a, b = world.hosts["a"], world.hosts["b"]
    for number in range(30):
        a.send("b", b"%d" % number)
        wire = live(world)
        wire.deliver(0)  # b has it, and a does not learn it
        wire.cut("rst")
        before = world.now
        while world.live("a", "b") is None:
            world.run(0.01)
            assert world.now - before < (0.1 if number else 1.0), f"dial {number} waits although b gets on"
    assert b.read("a") == [b"%d" % number for number in range(30)]


def test_connections_on_which_nothing_moves_are_dialled_less_and_less() -> None:
    """The other half of P-DIAL-2: an ATTACH that reveals nothing is no progress."""
    world = pair()
    waits = []
    for _ in range(8):
        live(world).cut("rst")
        before = world.now
        while world.live("a", "b") is None:
            world.run(0.01)
        waits.append(world.now - before)
    assert max(waits[4:]) > 1.0


def test_whoever_waits_for_messages_learns_that_the_session_is_over() -> None:
    """After both ends, with the inboxes gone, there is still nothing more to come; a new connection opens it again."""
    world = pair()
    a, b = world.hosts["a"], world.hosts["b"]
    a.send("b", b"last words")
    for host, peer in ((a, "b"), (b, "a")):
        host.end(peer)
    world.run(0.1)
    assert not b.session("a").peer_ended  # there is something to read
    assert b.read("a") == [b"last words"]
    world.run(5.0)
    assert a.session("b").finished or a.session("b").closed
    assert a.session("b").peer_ended
    assert b.session("a").peer_ended
    a.dial("b")
    assert not a.session("b").peer_ended
    world.run(5.0)
    assert not b.session("a").peer_ended
