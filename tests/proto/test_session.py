"""What a session does with what its two applications ask and its connections bring, over simulated wires.

In most tests "a" dials and "b" accepts; "b" is the arbiter.  A wire's bytes wait until somebody delivers them, so that
what a side says can be read off the wire before the other hears it.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import unpack_from
from typing import TypeVar

import pytest

from networkio_proto import (
    COST_PER_MESSAGE,
    Config,
    DataFlag,
    Delivery,
    Event,
    GapRange,
    Limits,
    MessagesFailed,
    MessageTooLarge,
    NodeClosed,
    OutboxFull,
    Outcome,
    Positions,
    SessionClosed,
    SkipReason,
    Watch,
    events,
)
from networkio_proto.frames import ACK
from networkio_proto.maps import encode_map
from networkio_proto.outbox import SMALL
from networkio_proto.session import encode_headers
from networkio_testing.world import Host, World
from tests.proto.helpers import Frame, frames, live, pair

DIALER, ACCEPTOR = 0, 1  # the ends of a wire: a's and b's
KIB = 1024


def hosts(world: World) -> tuple[Host, Host]:
    return world.hosts["a"], world.hosts["b"]


def said(world: World, end: int) -> list[Frame]:
    """What an end of the live wire has said and the other not heard yet."""
    return frames(live(world).pipes[end].data)


def kinds(found: list[Frame]) -> list[int]:
    return [frame.kind for frame in found]


def acks(world: World, end: int) -> list[tuple[int, ...]]:
    """(received, read, credit, first) of the ACKs among it."""
    return [unpack_from(">QQQQ", frame.body) for frame in said(world, end) if frame.kind == ACK]


def hear(world: World, end: int) -> None:
    """The other end hears everything that this one has said."""
    live(world).deliver(end)


def inject(world: World, end: int, frame: bytes) -> None:
    """Let the other end hear a frame that this one never said."""
    wire = live(world)
    wire.replay(end, frame)
    wire.deliver(end)


def one(host: Host, peer: str) -> Delivery:
    (delivery,) = host.take(peer)
    return delivery


def payloads(deliveries: list[Delivery]) -> list[bytes]:
    return [delivery[2] for delivery in deliveries]


Kind = TypeVar("Kind", bound=Event)


def noticed(host: Host, kind: type[Kind]) -> list[Kind]:
    """The notices of a kind that the application took, oldest first; they are forgotten."""
    found = [notice for notice in host.notices if isinstance(notice, kind)]
    host.notices = [notice for notice in host.notices if not isinstance(notice, kind)]
    return found


def reconnect(world: World) -> None:
    """Until the two are live again."""
    world.run(60.0)
    live(world)


# -- sending -----------------------------------------------------------------------------------------------------------


def test_messages_that_were_sent_before_any_connection_arrive_in_order() -> None:
    world = pair(connected=False)
    a, b = hosts(world)
    assert a.send("b", b"1", b"2") == [1, 2]
    assert not a.session("b").connected
    a.dial("b")
    assert a.send("b", b"3") == [3]
    world.run(1.0)
    assert a.session("b").connected
    assert b.read("a") == [b"1", b"2", b"3"]
    world.run(1.0)
    session = a.session("b")
    assert [session.outcome(sequence) for sequence in (1, 2, 3, 4)] == 3 * [Outcome.READ] + [None]
    assert session.positions == Positions(session.outbox.outbox_id, 3, 3)
    assert (session.unacknowledged, session.ledger.read, session.failures()) == (0, 3, [])


def test_the_ledger_that_is_handed_out_stands_still() -> None:
    world = pair()
    a, _ = hosts(world)
    before = a.session("b").ledger
    a.send("b", b"x")
    assert (before.accepted, a.session("b").ledger.accepted) == (0, 1)


def test_all_that_a_message_has_beside_its_payload_arrives() -> None:
    world = pair()
    a, b = hosts(world)
    a.send("b", b"raw")
    a.send("b", b"coded", raw=False)
    a.send("b", b"headed", headers={"kind": "x", "n": 7})
    a.send("b", b"large" * KIB)
    a.send("b", b"none", headers={})
    world.run(0.01)
    taken = b.take("a", 10)
    assert payloads(taken) == [b"raw", b"coded", b"headed", b"large" * KIB, b"none"]
    assert [delivery[3] for delivery in taken] == [DataFlag.RAW, 0, DataFlag.RAW, DataFlag.RAW, DataFlag.RAW]
    details = taken[2][4]
    assert details is not None
    assert details.headers == {"kind": "x", "n": 7}
    assert b.session("a").held == 5
    assert b.session("a").unread == 0


@pytest.mark.parametrize("size", [101, SMALL + 1])
def test_a_message_over_this_sides_limit_is_refused(size: int) -> None:
    world = pair(Config(limits=Limits(message=100)))
    a, _ = hosts(world)
    with pytest.raises(MessageTooLarge, match=f"{size} bytes to b is over the limit: 100 here, 100 at the peer"):
        a.send("b", bytes(size))
    assert (a.session("b").ledger.accepted, a.session("b").outbox.next) == (0, 1)
    assert a.send("b", bytes(100)) == [1]


def test_a_message_with_headers_is_held_to_the_limit_with_them() -> None:
    world = pair(Config(limits=Limits(message=100)))
    a, _ = hosts(world)
    headers = {"k": "v"}
    room = 100 - len(encode_map(dict(headers)))
    assert a.send("b", bytes(room), headers=headers) == [1]
    with pytest.raises(MessageTooLarge):
        a.send("b", bytes(room + 1), headers=headers)


@pytest.mark.parametrize("size", [101, SMALL + 1])
def test_a_message_over_the_peers_limit_is_refused_as_soon_as_that_is_known(size: int) -> None:
    world = pair(b=Config(limits=Limits(message=100)), connected=False)
    a, b = hosts(world)
    a.send("b", bytes(size), b"small")
    a.dial("b")
    world.run(1.0)
    assert b.read("a") == [b"small"]
    assert a.session("b").outcome(1) is Outcome.LOST
    with pytest.raises(MessageTooLarge, match="16777216 here, 100 at the peer"):
        a.send("b", bytes(size))


def test_a_session_that_is_draining_ended_or_closed_with_its_node_says_why_it_takes_nothing() -> None:
    world = pair()
    a, b = hosts(world)
    session = a.session("b")
    assert session.can_send
    session.drain(world.now)
    assert not session.can_send
    with pytest.raises(SessionClosed, match="b takes no new messages from this side: it is draining"):
        a.send("b", b"x")
    session.undrain()
    assert session.can_send
    a.end("b")
    with pytest.raises(SessionClosed, match="the session was ended"):
        a.send("b", b"x")
    b.endpoint.close(world.now)
    with pytest.raises(NodeClosed, match="node b is closed"):
        b.send("a", b"x")


@pytest.mark.parametrize(
    ("headers", "complaint"),
    [
        ({"id": b"x"}, "'id' is reserved"),
        ({".anything": 1}, "'.anything' is reserved"),
        ({str(number): 0 for number in range(64)}, "64 headers are more than 63"),
        ({"k": "v" * 4059}, "4065 bytes, at most 4064"),
        ({"k": 1.5}, "float"),
        ({"k": -1}, "int"),
        ({1: "k"}, "a key that is int"),
    ],
)
def test_headers_that_cannot_be_carried_are_refused_and_nothing_changes(
    headers: Mapping[str, object], complaint: str
) -> None:
    world = pair()
    a, _ = hosts(world)
    with pytest.raises(ValueError, match=complaint):
        a.send("b", b"x", headers=headers)
    assert a.session("b").outbox.next == 1


@pytest.mark.parametrize("headers", [{str(number): 0 for number in range(63)}, {"k": "v" * 4058}], ids=["63", "4064"])
def test_the_largest_headers_survive_a_change_of_the_outbox(headers: dict[str, object]) -> None:
    world = pair()
    a, b = hosts(world)
    assert len(encode_headers(headers)) <= 4064
    a.send("b", b"x", headers=headers)
    a.session("b").outbox.rename(bytes(16), mark=False)
    live(world).cut()
    reconnect(world)
    details = one(b, "a")[4]
    assert details is not None
    assert details.headers == headers
    assert details.origin is not None


# -- the outbox's bounds -----------------------------------------------------------------------------------------------


def test_an_outbox_takes_messages_until_its_cost_has_reached_the_bound() -> None:
    world = pair(Config(outbox_limit=1000), connected=False)
    a, b = hosts(world)
    session = a.session("b")
    world.advance(7.0)
    for _ in range(6):
        a.send("b", bytes(200 - COST_PER_MESSAGE - 20))
    assert not session.has_room
    with pytest.raises(OutboxFull, match=r"holds 6 unread messages of cost 1080 .* no connection to b for 7\.0 s"):
        a.send("b", b"")
    assert session.ledger.accepted == 6
    a.dial("b")
    world.run(1.0)
    assert b.read("a", 1)
    world.run(1.0)
    assert session.has_room
    a.send("b", b"")


def rooms(host: Host) -> list[str]:
    """Whom the driver is told to look at, of those who wait for room; taken from the effects."""
    woken = []
    while (effect := host.endpoint.next_effect()) is not None:
        if isinstance(effect, events.Wake) and effect.session is not None:
            woken.append(effect.session.peer_id)
    return woken


def test_sessions_without_room_in_the_node_are_woken_when_another_gives_some_back() -> None:
    world = World()
    a = world.host("a", Config(outbox_node_limit=1000))
    for peer in ("b", "c", "d"):
        a.session(peer).watch = Watch.ROOM
    full = a.send("b", bytes(936))
    for peer in ("c", "d"):
        with pytest.raises(OutboxFull, match="node 1000 of 1000"):
            a.send(peer, b"")
    rooms(a)
    a.session("b").cancel(full[0], world.now)
    assert sorted(rooms(a)) == ["b", "c", "d"]
    assert a.send("c", b"") == [1]


def test_nobody_is_woken_for_room_that_is_not_there() -> None:
    world = World()
    a = world.host("a", Config(outbox_node_limit=500))
    for peer in ("b", "c"):
        a.session(peer).watch = Watch.ROOM
    first, _ = a.send("b", b"x", bytes(936))
    with pytest.raises(OutboxFull):
        a.send("c", b"")
    rooms(a)
    a.session("b").cancel(first, world.now)
    assert rooms(a) == []


def test_a_read_message_makes_room_for_others_of_the_node() -> None:
    world = World()
    a, b = world.host("a", Config(outbox_node_limit=1000)), world.host("b")
    a.dial("b")
    world.run(1.0)
    a.send("b", bytes(936))
    a.session("c").watch = Watch.ROOM
    with pytest.raises(OutboxFull):
        a.send("c", b"")
    woken: list[str] = []
    a.on_pump = lambda host: woken.extend(["room"] if host.session("c").has_room else [])
    world.run(0.01)
    assert not woken
    b.read("a")
    world.run(0.01)
    assert woken
    a.send("c", b"")


def test_dropping_the_oldest_makes_room_while_something_may_be_dropped() -> None:
    world = pair(Config(outbox_limit=4000, overflow="drop_oldest"), connected=False)
    a, b = hosts(world)
    for number in range(10):
        a.send("b", b"%d" % number * 1000)
    session = a.session("b")
    assert session.ledger.lost == 6
    assert [(f.first, f.last, f.outcome, f.seen) for f in session.failures()] == [(1, 6, Outcome.LOST, "no")]
    assert len(noticed(a, MessagesFailed)) == 6
    a.dial("b")
    world.run(1.0)
    taken = b.take("a", 10)
    assert payloads(taken) == [b"%d" % number * 1000 for number in (6, 7, 8, 9)]
    assert taken[0][4] is not None
    assert taken[0][4].gap == (GapRange(1, 6, SkipReason.OVERFLOW),)


def test_what_the_peer_may_hold_is_not_dropped_for_newer_messages() -> None:
    world = pair(Config(outbox_limit=2000, overflow="drop_oldest"))
    a, _ = hosts(world)
    a.send("b", bytes(1000), bytes(1000))  # both are on their way
    with pytest.raises(OutboxFull, match="the application of b|on its way"):
        a.send("b", b"")
    assert a.session("b").ledger.lost == 0
