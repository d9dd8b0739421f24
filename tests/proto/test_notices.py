"""What applications are told, how often, in which order; and who is woken."""

from __future__ import annotations

import pytest

from networkio_proto import (
    ConnectionLost,
    Effect,
    Event,
    Gap,
    GapRange,
    MessagesRead,
    MessagesReady,
    MessagesReceived,
    PeerConnected,
    PeerDisconnected,
    SkipReason,
    Wake,
    Watch,
)
from networkio_proto.frames import encode_skip
from networkio_testing.world import Host, Watcher, World
from tests.proto.helpers import live, pair
from tests.proto.helpers_session import DIALER, hosts, inject, noticed, one, quiet_pair, reconnect, rooms

# -- what the live connection may bring -------------------------------------------------------------------------------


def test_gaps_that_nobody_takes_are_told_in_one_notice_and_stay_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    world = quiet_pair()
    _, b = hosts(world)
    monkeypatch.setattr(b.endpoint, "next_event", lambda: None)
    frames_ = b"".join(encode_skip(sequence, sequence, 2 + sequence % 2) for sequence in range(2, 3002))
    inject(world, DIALER, frames_ + encode_skip(3002, 3005, SkipReason.EXPIRED))
    monkeypatch.undo()
    all_notices(b)
    (gap,) = noticed(b, Gap)
    assert len(gap.ranges) == 1024
    assert gap.ranges[0] == GapRange(2, 2, 2)


def test_neighbouring_gaps_of_one_reason_are_one() -> None:
    world = quiet_pair()
    _, b = hosts(world)
    inject(world, DIALER, encode_skip(2, 3, 2) + encode_skip(4, 9, 2) + encode_skip(10, 10, 3))
    assert noticed(b, Gap) == [Gap("a", (GapRange(2, 9, 2), GapRange(10, 10, 3)))]


# -- notices and wakes ------------------------------------------------------------------------------------------------


def test_at_most_one_notice_of_a_kind_waits_for_each_peer_and_tells_the_present_when_it_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    node = world.host("z")
    peers = [world.host(name) for name in "abcd"]
    for peer in peers:
        peer.dial("z")
    world.run(1.0)
    node.notices.clear()
    monkeypatch.setattr(node.endpoint, "next_event", lambda: None)
    for number in range(30):
        for peer in peers:
            peer.send("z", b"to the node")
            (sequence,) = node.send(peer.name, b"from the node")
            if number % 7 == 3:
                node.endpoint.session(peer.name).cancel(sequence, world.now)
        world.run(0.1)
        for peer in peers:
            peer.read("z")
            if number % 5 == 0:
                node.read(peer.name)
        world.run(0.1)
        if number % 10 == 9:
            for wire in world.open_wires():
                wire.cut()
            world.run(60.0)
    monkeypatch.undo()
    kinds_ = [type(notice) for notice in all_notices(node)]
    peers_ = [notice.peer for notice in node.notices]
    assert len(set(zip(kinds_, peers_, strict=True))) == len(kinds_)
    assert set(peers_) == set("abcd")
    assert {MessagesReady, MessagesReceived, MessagesRead, PeerConnected} <= set(kinds_)
    assert all(notice.through == 30 for notice in node.notices if isinstance(notice, MessagesRead))
    assert all_notices(node) == node.notices  # taking them clears them, and what is unread raises no new one
    assert node.endpoint.notices_waiting == 0
    peers[0].send("z", b"one more")
    world.run(1.0)
    assert node.notices[len(kinds_) :] == [MessagesReady("a")]


def all_notices(host: Host) -> list[Event]:
    while (notice := host.endpoint.next_event()) is not None:
        host.notices.append(notice)
    return list(host.notices)


def test_notices_come_in_the_order_in_which_their_peers_had_something_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    node = world.host("z")
    for name in "abc":
        world.host(name).dial("z")
    world.run(1.0)
    node.notices.clear()
    monkeypatch.setattr(node.endpoint, "next_event", lambda: None)
    for name in "acacb":
        world.hosts[name].send("z", b"x")
        world.run(0.01)
    monkeypatch.undo()
    assert all_notices(node) == [MessagesReady("a"), MessagesReady("c"), MessagesReady("b")]


def test_connected_and_disconnected_are_one_kind_and_the_present_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    world = pair()
    a, b = hosts(world)
    a.notices.clear()
    b.notices.clear()
    for host in (a, b):
        monkeypatch.setattr(host.endpoint, "next_event", lambda: None)
    live(world).cut()
    world.advance(0.001)
    monkeypatch.undo()
    (lost,) = all_notices(a)
    assert isinstance(lost, PeerDisconnected)
    assert isinstance(lost.error, ConnectionLost)
    assert lost.retry_at is not None
    assert 0 <= lost.retry_at - world.now <= 1.0
    reconnect(world)
    (here,) = noticed(a, PeerConnected)
    assert here.resumed.connections == 2
    assert [type(notice) for notice in all_notices(b)] == [PeerConnected]


def test_notices_carry_the_handle_that_the_program_hung_on_the_session() -> None:
    world = pair()
    a, b = hosts(world)
    handle = object()
    b.session("a").handle = handle
    a.send("b", b"x")
    world.run(0.01)
    assert noticed(b, MessagesReady) == [MessagesReady(handle)]


@pytest.mark.parametrize(
    ("watch", "cause"),
    [
        (Watch.READABLE, "message"),
        (Watch.READABLE, "release"),
        (Watch.READABLE, "fin"),
        (Watch.PROGRESS, "received"),
        (Watch.PROGRESS, "failed"),
        (Watch.ROOM, "read"),
        (Watch.LINK, "lost"),
        (Watch.LINK, "connected"),
    ],
)
def test_whoever_watches_is_woken_when_there_may_be_something_and_nobody_else(watch: int, cause: str) -> None:
    world = quiet_pair()
    a, b = hosts(world)
    if cause == "release":
        a.send("b", b"x")
        world.run(1.0)
        held = one(b, "a")
    if cause == "connected":
        live(world).cut()
    woken: list[str] = []
    for host in (a, b):
        host.on_pump = lambda _: None
        record_wakes(host, woken)
    watcher, peer = (b, "a") if watch == Watch.READABLE else (a, "b")
    watcher.session(peer).watch = watch
    if cause == "message":
        a.send("b", b"x")
    elif cause == "release":
        b.release("a", held)
    elif cause == "fin":
        a.end("b")
    elif cause in ("received", "read"):
        a.send("b", b"x")
        world.run(0.01)
        if cause == "read":
            b.read("a")
    elif cause == "failed":
        a.session("b").send(b"x", world.now, ttl=0.5)
        live(world).black_hole()
        a.session("b").cancel(2, world.now)
    elif cause == "lost":
        live(world).cut()
    world.run(1.0)
    assert set(woken) == {watcher.name}


def record_wakes(host: Host, woken: list[str]) -> None:
    class Wakes(Watcher):
        def effect(self, who: Host, effect: Effect) -> None:
            if who is host and isinstance(effect, Wake) and effect.session is not None:
                woken.append(host.name)

    host.world.watchers.append(Wakes())


def test_a_watcher_is_woken_once_until_the_driver_has_taken_it() -> None:
    world = pair()
    _, b = hosts(world)
    session = b.session("a")
    session.watch = Watch.READABLE
    session.wake(Watch.READABLE)
    session.wake(Watch.READABLE)
    session.wake_all()
    assert rooms(b) == ["a"]
    session.wake(Watch.ROOM)
    assert rooms(b) == []
    session.wake_all()
    assert rooms(b) == ["a"]
