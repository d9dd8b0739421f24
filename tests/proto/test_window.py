"""How much a peer may send: credit at first, as it goes on, and all windows of a node together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from networkio_proto import COST_PER_MESSAGE, Config, Limits
from networkio_testing.world import Host, World
from tests.proto.helpers import live, pair
from tests.proto.helpers_session import ACCEPTOR, DIALER, KIB, acks, hear, hosts, promised, reconnect


def test_the_credit_at_first_is_the_window_less_what_is_not_settled() -> None:
    config = Config(window=64 * KIB, window_max=64 * KIB)
    world = pair(config)
    a, b = hosts(world)
    assert promised(b, "a") == 64 * KIB
    a.send("b", bytes(1000 - COST_PER_MESSAGE), bytes(2000 - COST_PER_MESSAGE))
    world.run(0.01)
    b.take("a")
    live(world).cut()
    reconnect(world)
    assert promised(b, "a") == 64 * KIB - 3000
    assert a.session("b").outbox.credit == 64 * KIB - 3000


def test_a_sender_stops_at_the_credit_and_goes_on_when_one_message_is_settled() -> None:
    world = pair(Config(window=64 * KIB, window_max=64 * KIB))
    a, b = hosts(world)
    a.send("b", *200 * [bytes(1000 - COST_PER_MESSAGE)])
    world.run(60.0)
    assert b.session("a").unread == 66  # one message may pass the credit of 65,536
    b.read("a", 1)
    world.run(60.0)
    assert b.session("a").unread == 66
    assert a.session("b").outbox.used - 67_000 == 0


def read_on(host: Host) -> None:
    """An application that is always there."""
    if host.session("a").unread:
        host.read("a")


def test_what_is_settled_at_once_never_stops_the_sender() -> None:
    world = pair()
    a, b = hosts(world)
    b.on_pump = read_on
    a.send("b", *500 * [bytes(10_000)])
    before = world.now
    world.run(0.0)
    assert world.now == before
    assert a.session("b").ledger.read == 500


def test_a_message_that_is_under_way_counts_as_unsettled_with_all_of_its_size() -> None:
    world = pair(Config(limits=Limits(frame=8192), window=64 * KIB, window_max=64 * KIB))
    a, b = hosts(world)
    a.send("b", bytes(60_000))
    live(world).deliver(DIALER, 20_000)
    b.send("a", b"company for an ACK")
    world.advance(0.03)
    assert promised(b, "a") == 64 * KIB - (60_000 + COST_PER_MESSAGE)
    assert all(ack[2] == 64 * KIB for ack in acks(world, ACCEPTOR))
    live(world).cut()
    reconnect(world)
    assert b.read("a") == [bytes(60_000)]


def test_a_window_that_is_used_up_grows_to_its_ceiling_and_not_beyond() -> None:
    world = pair(Config(window=64 * KIB, window_max=200 * KIB))
    a, b = hosts(world)
    seen = []
    for _ in range(10):
        a.send("b", *60 * [bytes(4000)])
        hear(world, DIALER)
        b.read("a")
        seen.append(promised(b, "a"))
        world.run(1.0)
        b.read("a")
    assert seen[0] == 128 * KIB
    assert seen[-1] == 200 * KIB
    assert sorted(seen) == seen
    assert b.endpoint.inbox_reserved == 200 * KIB - 64 * KIB


def test_a_window_does_not_grow_while_the_application_keeps_the_messages() -> None:
    world = pair(Config(window=64 * KIB, window_max=4096 * KIB))
    a, b = hosts(world)
    a.send("b", *200 * [bytes(4000)])
    world.run(60.0)
    assert b.session("a").unread * 4064 < 64 * KIB + 4064
    assert b.endpoint.inbox_reserved == 0


def test_windows_share_the_nodes_budget_and_give_it_back() -> None:
    config = Config(window=256 * KIB, window_guaranteed=64 * KIB, inbox_budget=300 * KIB)
    world = World()
    node = world.host("z", config)
    peers = [world.host(name) for name in "abc"]
    for peer in peers:
        peer.dial("z")
    world.run(1.0)
    assert [promised(node, peer.name) for peer in peers] == [256 * KIB, (64 + 108) * KIB, 64 * KIB]
    assert node.endpoint.inbox_reserved == 300 * KIB
    for wire in world.open_wires():
        wire.cut()
    assert node.endpoint.inbox_reserved == 0


def test_what_a_lost_connection_left_unread_stays_reserved_until_it_is_read() -> None:
    world = pair()
    a, b = hosts(world)
    a.send("b", *200 * [bytes(1000)])
    world.run(1.0)
    assert b.session("a").unread == 200
    live(world).cut()
    assert b.endpoint.inbox_reserved == 200 * 1064 - 64 * KIB
    b.read("a", 100)
    assert b.endpoint.inbox_reserved == 100 * 1064 - 64 * KIB
    b.read("a")
    assert b.endpoint.inbox_reserved == 0


@pytest.mark.parametrize("to", ["b", None])
def test_a_handshake_that_fails_gives_back_the_window_that_it_promised(to: str | None) -> None:
    world = pair(connected=False)
    a, _ = hosts(world)
    a.dial("b", to=to)
    for _ in range(3):
        (wire,) = a.answer_dials()
        wire.deliver(DIALER)
        wire.deliver(ACCEPTOR)
        assert a.endpoint.inbox_reserved == (256 - 64) * KIB
        wire.cut()
        assert a.endpoint.inbox_reserved == 0
        while not a.dials:
            world.advance(world.next_timer() - world.now)


@pytest.mark.slow
def test_a_thousand_peers_of_a_node_whose_budget_is_exhausted_still_move() -> None:
    """I18: the sum of the windows stays within the budget and the guaranteed parts."""
    config = Config(window=64 * KIB, window_guaranteed=1 * KIB, inbox_budget=16 * KIB, max_pending=2000)
    world = World()
    node = world.host("z", replace(config, max_pending_per_source=2000))
    names = [f"p{number}" for number in range(1000)]
    for name in names:
        world.host(name, config).dial("z")
    world.run(1.0)
    assert node.endpoint.inbox_reserved == 16 * KIB
    assert sum(promised(node, name) for name in names) == (1000 + 16) * KIB
    for name in names:
        world.hosts[name].send("z", *3 * [bytes(KIB)])
    world.run(0.1)
    assert sum(node.session(name).unread for name in names) < 1200
    for _ in range(3):
        for name in names:
            node.read(name)
        world.run(0.1)
    assert all(world.hosts[name].session("z").ledger.read == 3 for name in names)
