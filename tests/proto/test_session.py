"""What a session does with what its two applications ask and its connections bring, over simulated wires.

In most tests "a" dials and "b" accepts; "b" is the arbiter.  A wire's bytes wait until somebody delivers them, so that
what a side says can be read off the wire before the other hears it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from struct import unpack_from
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from networkio_proto import (
    COST_PER_MESSAGE,
    CloseCode,
    Config,
    ConfigurationError,
    Connection,
    ConnectionLost,
    DataFlag,
    Delivery,
    Effect,
    EncodeError,
    Endpoint,
    Event,
    Gap,
    GapRange,
    Limits,
    MessageNotHeld,
    MessagesFailed,
    MessagesRead,
    MessagesReady,
    MessagesReceived,
    MessageTooLarge,
    NodeClosed,
    OutboxFull,
    Outcome,
    PeerConnected,
    PeerDisconnected,
    PeerRestarted,
    Positions,
    RetryRequested,
    Session,
    SessionClosed,
    SessionEnded,
    SkipReason,
    TargetState,
    Wake,
    Watch,
)
from networkio_proto.frames import (
    ACK,
    ATTACH,
    DATA,
    FIN,
    REJECT,
    PeerFault,
    encode_ack,
    encode_fin,
    encode_reject,
    encode_skip,
)
from networkio_proto.journal import JournalRecord, MessageAccepted, OutboxOpened
from networkio_proto.maps import encode_map
from networkio_proto.outbox import SMALL
from networkio_proto.session import encode_headers
from networkio_testing.world import Host, Watcher, Wire, World
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


Kind = TypeVar("Kind")


def noticed(host: Host, kind: type[Kind]) -> list[Kind]:
    """The notices of a kind that the application took, oldest first; they are forgotten."""
    found: list[Kind] = [notice for notice in host.notices if isinstance(notice, kind)]
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
    assert len(noticed(a, MessagesFailed)) == 1
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


@pytest.mark.parametrize("ttl", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_to_live_that_is_none_is_refused(ttl: float) -> None:
    world = pair()
    a, _ = hosts(world)
    with pytest.raises(ConfigurationError, match="ttl"):
        a.send("b", b"x", ttl=ttl)
    assert a.session("b").outbox.next == 1


# -- the outbox's bounds -----------------------------------------------------------------------------------------------


def test_an_outbox_takes_messages_until_its_cost_has_reached_the_bound() -> None:
    world = pair(Config(outbox_limit=900), connected=False)
    a, b = hosts(world)
    session = a.session("b")
    world.advance(7.0)
    for _ in range(5):
        a.send("b", bytes(200 - COST_PER_MESSAGE - 20))
    assert not session.has_room
    with pytest.raises(OutboxFull, match=r"holds 5 unread messages of cost 900 .* no connection to b for 7\.0 s"):
        a.send("b", b"")
    assert session.ledger.accepted == 5
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
        if isinstance(effect, Wake) and effect.session is not None:
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
    with pytest.raises(OutboxFull, match="message 1 is on its way"):
        a.send("b", b"")
    assert a.session("b").ledger.lost == 0


# -- acknowledging -----------------------------------------------------------------------------------------------------


def quiet_pair(config: Config | None = None, *, b: Config | None = None) -> World:
    """A pair of which "a" has just sent a small message that "b" read, and that says nothing any more."""
    world = pair(config, b=b)
    first, second = hosts(world)
    first.send("b", b"hello")
    world.run(0.01)
    second.read("a")
    world.run(1.0)
    assert said(world, DIALER) == said(world, ACCEPTOR) == []
    return world


def test_an_ack_goes_out_at_once_when_the_application_has_settled_all_that_it_holds() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"1", b"2")
    hear(world, DIALER)
    one_, two = b.take("a", 2)
    b.settle("a", one_)
    assert acks(world, ACCEPTOR) == []
    b.settle("a", two)
    assert [ack[:2] for ack in acks(world, ACCEPTOR)] == [(3, 3)]


def test_an_ack_waits_for_company_for_25_ms_and_no_longer() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"1", b"2")
    hear(world, DIALER)
    world.advance(0.0249)
    assert said(world, ACCEPTOR) == []
    world.advance(0.0002)
    assert [ack[:2] for ack in acks(world, ACCEPTOR)] == [(3, 1)]
    hear(world, ACCEPTOR)
    held, _ = b.take("a", 2)
    b.settle("a", held)
    world.advance(0.0249)
    assert said(world, ACCEPTOR) == []
    world.advance(0.0002)
    assert [ack[:2] for ack in acks(world, ACCEPTOR)] == [(3, 2)]
    hear(world, ACCEPTOR)
    world.advance(1.0)
    assert said(world, ACCEPTOR) == []


def test_an_ack_joins_a_message_that_goes_the_same_way() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"1")
    hear(world, DIALER)
    assert said(world, ACCEPTOR) == []
    b.send("a", b"answer")
    assert kinds(said(world, ACCEPTOR)) == [ACK, DATA]
    hear(world, ACCEPTOR)
    world.advance(1.0)
    assert said(world, ACCEPTOR) == []


@pytest.mark.parametrize(
    ("messages", "size", "at_once"),
    [(63, 1, False), (64, 1, True), (1, 64 * KIB - 65, False), (1, 64 * KIB - 64, True)],
    ids=["63 messages", "64 messages", "less than 64 KiB", "64 KiB"],
)
def test_an_ack_goes_out_at_once_after_64_messages_or_64_kib(messages: int, size: int, at_once: bool) -> None:
    world = quiet_pair()
    a, _ = hosts(world)
    a.send("b", *messages * [bytes(size)])
    hear(world, DIALER)
    assert [ack[0] for ack in acks(world, ACCEPTOR)] == ([messages + 1] if at_once else [])


def test_what_counts_for_an_ack_is_what_came_since_the_last() -> None:
    world = quiet_pair()
    a, _ = hosts(world)
    for _ in range(3):
        a.send("b", *40 * [b"x"])
        hear(world, DIALER)
        assert len(acks(world, ACCEPTOR)) == 0
        world.advance(0.03)
        assert len(acks(world, ACCEPTOR)) == 1
        hear(world, ACCEPTOR)


@pytest.mark.parametrize(("size", "at_once"), [(4999, False), (5001, True)])
def test_an_ack_goes_out_at_once_when_half_of_the_credit_is_used_up(size: int, at_once: bool) -> None:
    window = 10_000 + 2 * (2 * COST_PER_MESSAGE + 5)  # what the greeting used of it is behind us
    world = quiet_pair(Config(window=window, window_guaranteed=window, window_max=window))
    a, b = hosts(world)
    a.send("b", bytes(size - COST_PER_MESSAGE + (window - 10_000) // 2))
    inbox = b.session("a").inbox
    assert inbox is not None
    told = inbox.allowed - inbox.used
    hear(world, DIALER)
    assert bool(acks(world, ACCEPTOR)) == at_once == (inbox.allowed - inbox.used < window // 2)
    assert told == window


@pytest.mark.parametrize("fragments", [1, 3])
def test_an_ack_goes_out_at_once_when_the_sender_asks_for_it(fragments: int) -> None:
    world = quiet_pair(Config(limits=Limits(frame=8192), ack_cost=1 << 30))
    a, _ = hosts(world)
    a.send("b", bytes(7000 * fragments), ack_now=True)
    hear(world, DIALER)
    assert [ack[:2] for ack in acks(world, ACCEPTOR)] == [(2, 1)]


def test_an_ack_goes_out_at_once_for_fin_and_while_ending_or_draining() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    b.session("a").drain(world.now)
    b.pump()
    hear(world, ACCEPTOR)
    a.send("b", b"1", b"2")
    hear(world, DIALER)
    assert [ack[:2] for ack in acks(world, ACCEPTOR)] == [(3, 1)]
    hear(world, ACCEPTOR)
    b.settle("a", one(b, "a"))
    assert [ack[:2] for ack in acks(world, ACCEPTOR)] == [(3, 2)]
    b.session("a").undrain()
    hear(world, ACCEPTOR)
    a.end("b")
    hear(world, DIALER)
    assert [ack[:2] for ack in acks(world, ACCEPTOR)] == [(4, 2)]
    hear(world, ACCEPTOR)
    one(b, "a")
    b.end("a")
    assert kinds(said(world, ACCEPTOR)) == [FIN]  # nothing else is new: the message is held


def test_at_most_one_ack_waits_however_much_there_is_to_acknowledge() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    live(world).throttle(ACCEPTOR, 0)
    for number in range(300):
        a.send("b", b"%d" % number, ack_now=True)
        hear(world, DIALER)
        b.read("a")
    assert said(world, ACCEPTOR) == []
    live(world).throttle(ACCEPTOR)
    assert [ack[:2] for ack in acks(world, ACCEPTOR)] == [(301, 301)]


def test_an_ack_joins_what_waits_to_be_written() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"1")
    hear(world, DIALER)
    live(world).throttle(ACCEPTOR, 0)
    b.send("a", b"answer")
    b.read("a")
    live(world).throttle(ACCEPTOR)
    assert kinds(said(world, ACCEPTOR)) == [ACK, DATA]
    assert acks(world, ACCEPTOR)[0][:2] == (2, 2)


def test_a_duplicate_is_acknowledged_as_if_it_were_new_and_its_cost_comes_back() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", bytes(1000))
    data = bytes(live(world).pipes[DIALER].data)
    hear(world, DIALER)
    b.read("a")
    before = acks(world, ACCEPTOR)[-1]
    hear(world, ACCEPTOR)
    inject(world, DIALER, data)
    assert b.session("a").unread == 0
    world.advance(0.03)
    (after,) = acks(world, ACCEPTOR)
    assert after[:2] == before[:2]
    assert after[2] == before[2] + 1000 + COST_PER_MESSAGE


def test_positions_are_told_within_25_ms_of_a_connection_if_they_moved_while_it_was_made() -> None:
    """What the dialer stated in its ATTACH may be old when it goes live; else a credit of 0 would last for ever."""
    window = Config(window=64 * KIB, window_max=64 * KIB)
    world = pair(window)
    a, b = hosts(world)
    b.send("a", *100 * [bytes(1000)])
    world.run(1.0)
    assert b.session("a").outbox.untransmitted
    live(world).cut()
    world.advance(1.0)
    (wire,) = a.answer_dials()
    wire.deliver(DIALER)
    wire.deliver(ACCEPTOR)  # a has stated its facts: no credit at all
    taken = len(a.read("b"))
    world.run(0.1)
    assert b.session("a").outbox.read == taken
    assert a.session("b").unread == 100 - taken


def test_an_acknowledgement_is_news_to_the_application_once() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.notices.clear()
    a.send("b", b"1", b"2", b"3")
    world.run(0.1)
    assert a.notices == [MessagesReceived("b", 4)]
    b.read("a", 2)
    world.run(0.1)
    assert a.notices[1:] == [MessagesRead("b", 3)]
    b.read("a")
    world.run(0.1)
    assert a.notices[2:] == [MessagesRead("b", 4)]


def test_what_an_ack_lost_with_its_connection_had_to_say_is_told_once_after_the_resume() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"1", b"2")
    hear(world, DIALER)
    b.read("a", 1)
    live(world).cut()
    a.notices.clear()
    reconnect(world)
    assert noticed(a, MessagesReceived) == [MessagesReceived("b", 3)]
    assert noticed(a, MessagesRead) == [MessagesRead("b", 2)]
    assert b.read("a") == [b"2"]


def test_each_value_of_an_ack_counts_for_itself() -> None:
    world = quiet_pair()
    a, _ = hosts(world)
    outbox = a.session("b").outbox
    credit = outbox.credit
    a.send("b", b"1", b"2", b"3")
    inject(world, ACCEPTOR, encode_ack(3, 0, 0, 1))
    assert (outbox.received, outbox.read, outbox.credit) == (3, 1, credit)
    inject(world, ACCEPTOR, encode_ack(2, 2, credit + 5, 1))
    assert (outbox.received, outbox.read, outbox.credit) == (3, 2, credit + 5)
    inject(world, ACCEPTOR, encode_ack(0, 0, credit, 0))
    assert (outbox.received, outbox.read, outbox.credit) == (3, 2, credit + 5)


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        (encode_ack(2, 0, 0, 1), "ACK of received 2, read 0 where 1 was sent"),
        (encode_ack(0, 1, 0, 1), "ACK of received 0, read 1"),
        (encode_ack(1, 1, 0, 3), "ACK says first 3 where only 0 came"),
    ],
    ids=["more than was sent", "read beyond received", "first beyond what came"],
)
def test_an_ack_of_what_never_was_closes_the_connection(frame: bytes, complaint: str) -> None:
    world = quiet_pair()
    a, _ = hosts(world)
    inject(world, ACCEPTOR, frame)
    error = a.session("b").error
    assert complaint in str(error)
    assert (a.session("b").outbox.received, a.session("b").outbox.read) == (1, 1)


@pytest.mark.parametrize("news", ["credit", "first", "received", "nothing"])
def test_acks_are_a_flood_only_if_they_tell_nothing(news: str) -> None:
    world = pair()
    a, b = hosts(world)
    a.send("b", *300 * [b"x"])
    b.send("a", *300 * [b"x"])
    world.run(1.0)
    credit = a.session("b").outbox.credit
    for number in range(1, 301):
        received, more, first = 0, 0, 1
        if news == "received":
            received = number
        elif news == "credit":
            more = credit + number
        elif news == "first":
            first = number
        if a.session("b").connected:
            inject(world, ACCEPTOR, encode_ack(received, received, more, first))
    assert a.session("b").connected == (news != "nothing")


# -- rejecting ---------------------------------------------------------------------------------------------------------


def test_a_rejection_ends_the_message_with_its_code_and_reason_and_is_settled_on_both_sides() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"bad", b"good")
    hear(world, DIALER)
    bad, good = b.take("a", 2)
    b.settle("a", bad, reject=(7, "bad order"))
    b.settle("a", good)
    assert kinds(said(world, ACCEPTOR)) == [REJECT, ACK]
    world.run(0.1)
    session = a.session("b")
    assert [session.outcome(sequence) for sequence in (2, 3)] == [Outcome.REJECTED, Outcome.READ]
    failure = session.failure(2)
    assert failure is not None
    assert (failure.reason, failure.code, failure.seen) == ("bad order", 7, "yes")
    assert len(noticed(a, MessagesFailed)) == 1
    inbox = b.session("a").inbox
    assert inbox is not None
    assert inbox.idle
    assert inbox.unsettled == 0
    assert inbox.first == 4


def test_a_rejection_goes_before_any_ack_that_passes_it() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"1", b"2", b"3")
    hear(world, DIALER)
    taken = b.take("a", 3)
    b.settle("a", taken[1], reject=(1, ""))
    b.settle("a", taken[0])
    b.settle("a", taken[2], reject=(2, ""))
    assert kinds(said(world, ACCEPTOR)) == [REJECT, REJECT, ACK]
    assert [frame.u64(2) for frame in said(world, ACCEPTOR)[:2]] == [3, 4]


def test_a_rejection_that_was_lost_comes_again_with_the_next_connection() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"bad")
    world.run(1.0)
    b.settle("a", one(b, "a"), reject=(7, "no"))
    live(world).cut()
    world.run(1.0)
    live(world)
    assert a.session("b").outcome(2) is Outcome.REJECTED
    inbox = b.session("a").inbox
    assert inbox is not None
    assert inbox.idle


def test_a_rejection_while_there_is_no_connection_is_told_on_the_next_one() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"bad", b"good")
    world.run(1.0)
    live(world).cut()
    taken = b.take("a", 2)
    b.settle("a", taken[0], reject=(7, "no"))
    b.settle("a", taken[1])
    reconnect(world)
    assert [a.session("b").outcome(sequence) for sequence in (2, 3)] == [Outcome.REJECTED, Outcome.READ]


def test_a_rejection_that_arrived_is_repeated_until_first_has_passed_it_and_changes_nothing_any_more() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"bad", b"good")
    world.run(1.0)
    taken = b.take("a", 2)
    b.settle("a", taken[0], reject=(7, "first"))
    hear(world, ACCEPTOR)  # the rejection is known; what a makes of it is not
    live(world).cut()
    for _ in range(3):
        reconnect(world)
        live(world).cut()
    reconnect(world)
    session = a.session("b")
    assert session.ledger.rejected == 1
    b.settle("a", taken[1])
    world.run(0.1)
    assert session.ledger.read == 2
    inbox = b.session("a").inbox
    assert inbox is not None
    assert inbox.idle
    assert inbox.rejects == {}


def test_a_rejected_message_keeps_its_credit_until_the_sender_has_passed_it() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", bytes(1000))
    hear(world, DIALER)
    b.settle("a", one(b, "a"), reject=(0, ""))
    inbox = b.session("a").inbox
    assert inbox is not None
    before = inbox.allowed
    hear(world, ACCEPTOR)
    hear(world, DIALER)  # a's ACK with its ``first``
    assert [ack[2] for ack in acks(world, ACCEPTOR)] == [before + 1064]


def test_a_rejected_message_keeps_its_credit_over_a_cut() -> None:
    world = pair(Config(window=64 * KIB, window_max=64 * KIB))
    a, b = hosts(world)
    a.send("b", b"unread", bytes(1000))
    world.run(0.1)
    _, bad = b.take("a", 2)
    b.settle("a", bad, reject=(0, ""))
    live(world).cut()
    reconnect(world)
    assert a.session("b").outcome(2) is Outcome.REJECTED
    assert promised(b, "a") == 64 * KIB - (64 + 6) - (64 + 1000)


@pytest.mark.parametrize("what", ["another outbox", "read long ago", "twice", "fin"])
def test_a_rejection_of_what_is_over_is_ignored(what: str) -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"x")
    a.end("b")
    world.run(0.01)
    session = a.session("b")
    outbox_id, sequence = session.outbox.outbox_id, 2
    if what == "another outbox":
        outbox_id = bytes(16)
    elif what == "read long ago":
        sequence = 1
    elif what == "twice":
        inject(world, ACCEPTOR, encode_reject(outbox_id, 2, 1, "once"))
    else:
        sequence = 3
    before = session.ledger
    inject(world, ACCEPTOR, encode_reject(outbox_id, sequence, 9, "again"))
    assert session.ledger == before
    assert session.connected
    assert b.session("a").connected


def test_a_rejection_of_what_was_never_sent_closes_the_connection() -> None:
    world = quiet_pair()
    a, _ = hosts(world)
    inject(world, ACCEPTOR, encode_reject(a.session("b").outbox.outbox_id, 2, 0, ""))
    assert "REJECT of 2 where 1 was sent" in str(a.session("b").error)


def test_what_is_not_held_can_be_neither_settled_nor_rejected_nor_released() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"x")
    world.run(0.01)
    delivery = one(b, "a")
    b.settle("a", delivery)
    with pytest.raises(MessageNotHeld):
        b.settle("a", delivery)
    with pytest.raises(MessageNotHeld):
        b.settle("a", delivery, reject=(1, ""))
    with pytest.raises(MessageNotHeld):
        b.release("a", delivery)


def test_a_released_message_comes_again_before_all_others_and_counts_its_attempts() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"1", b"2")
    world.run(0.01)
    noticed(b, MessagesReady)
    b.release("a", one(b, "a"))
    assert len(noticed(b, MessagesReady)) == 1
    again = one(b, "a")
    assert again[2] == b"1"
    assert again[4] is not None
    assert again[4].attempt == 2


# -- ending ------------------------------------------------------------------------------------------------------------


def step(world: World, order: tuple[int, int] = (0, 1)) -> bool:
    """Let one frame arrive, or if none is under way, let time pass until the next timer; False once nothing is left.

    Dials are answered at once.  ``order``: which end of a wire goes first.
    """
    for host in world.hosts.values():
        host.answer_dials()
    for wire in world.open_wires():
        for end in order:
            pipe = wire.pipes[end]
            if pipe.black_hole:
                continue
            if pipe.data:
                size = 8 if pipe.delivered == 0 else 4 + int.from_bytes(pipe.data[:4], "big")
                wire.deliver(end, size)
                return True
            if pipe.fin:
                wire.deliver(end)
                return True
    if world.next_timer() > world.now + 120.0:
        return False
    world.advance(world.next_timer() - world.now + 1e-6)
    return True


def until_live(world: World) -> Wire:
    """Frame by frame until the two are live, and no further."""
    for _ in range(1000):
        if (wire := world.live("a", "b")) is not None:
            return wire
        assert step(world)
    raise AssertionError("they do not get together")


def is_over(host: Host, peer: str) -> bool:
    session = host.session(peer)
    return session.closed and not session.connected and not session.ending and session.outbox.all_read


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("ender", ["both", "a first", "b first"])
@pytest.mark.parametrize("how", ["rst", "fin", "half 0", "half 1"])
def test_a_session_that_both_sides_end_is_over_wherever_its_connection_is_cut(
    how: str, ender: str, order: tuple[int, int]
) -> None:
    """The FIN, the last ACK or the CLOSE may be what the cut destroys: at each frame once."""
    place, cut = 0, True
    while cut:
        world = pair(seed=place)
        a, b = hosts(world)
        a.send("b", b"1", b"2")
        b.send("a", b"3")
        if ender != "b first":
            a.end("b")
        if ender != "a first":
            b.end("a")
        cut, arrived = False, 0
        while step(world, order):
            b.read("a")
            a.read("b")
            if a.session("b").peer_ended:
                a.end("b")
            if b.session("a").peer_ended:
                b.end("a")
            if arrived == place and (wires := world.open_wires()):
                cut = True
                if how.startswith("half"):
                    wires[0].cut_half(int(how[-1]))
                else:
                    wires[0].cut(how)
            arrived += 1
        for host, peer, sent in ((a, "b", 2), (b, "a", 1)):
            assert is_over(host, peer), f"cut at frame {place}"
            assert len(noticed(host, SessionEnded)) == 1, f"cut at frame {place}"
            assert host.session(peer).ledger.read == sent, f"cut at frame {place}"
            assert all(target.state is TargetState.STOPPED for target in host.session(peer).targets)
        place += 1
    assert place > 8


def test_an_ended_session_is_over_when_the_last_message_is_read() -> None:
    world = pair()
    a, b = hosts(world)
    a.send("b", b"last")
    a.end("b")
    b.end("a")
    world.run(10.0)
    assert a.session("b").ending
    assert b.session("a").ending
    assert b.read("a") == [b"last"]
    assert b.session("a").closed
    world.run(10.0)
    assert is_over(a, "b")
    assert a.session("b").ledger.read == 1


@pytest.mark.parametrize("idle", ["connected", "shrunk"])
def test_a_session_that_the_peer_ended_long_ago_can_be_ended(idle: str) -> None:
    """Shrinking must not forget that the peer's FIN was read."""
    world = pair()
    a, b = hosts(world)
    a.send("b", b"last")
    a.end("b")
    world.run(1.0)
    assert b.read("a") == [b"last"]
    world.run(1.0)
    if idle == "shrunk":
        live(world).cut()
        world.advance(3600.0)
    assert b.session("a").peer_ended
    reconnect(world)
    b.end("a")
    world.run(60.0)
    assert is_over(a, "b")
    assert is_over(b, "a")
    assert [len(noticed(host, SessionEnded)) for host in (a, b)] == [1, 1]


# -- long without a connection -----------------------------------------------------------------------------------------


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
    assert r.session(sender).inboxes
    world.advance(2 * 60.0)
    assert r.session(sender).inboxes == []
    assert [facts.received for facts in r.session(sender).dormant] == [2]
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


# -- credit ------------------------------------------------------------------------------------------------------------


def promised(host: Host, peer: str) -> int:
    """The credit that a host's peer has left, as the host told it."""
    inbox = host.session(peer).inbox
    assert inbox is not None
    return inbox.allowed - inbox.used


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
        world.advance(60.0)


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


# -- time to live, and cancelling --------------------------------------------------------------------------------------


def test_what_was_never_transmitted_can_be_cancelled_and_nobody_sees_it() -> None:
    world = pair(connected=False)
    a, b = hosts(world)
    a.send("b", b"1", b"2", b"3")
    assert a.cancel("b", 2)
    assert not a.cancel("b", 2)
    assert not a.cancel("b", 4)
    a.dial("b")
    world.run(1.0)
    assert b.read("a") == [b"1", b"3"]
    world.run(1.0)
    session = a.session("b")
    assert [session.outcome(sequence) for sequence in (1, 2, 3)] == [Outcome.READ, Outcome.CANCELLED, Outcome.READ]
    assert [failure.seen for failure in session.failures()] == ["no"]
    assert not a.cancel("b", 1)
    assert session.outbox.cost == 0


def test_what_was_transmitted_cannot_be_cancelled_until_a_resume_says_that_it_did_not_arrive() -> None:
    world = pair()
    a, b = hosts(world)
    a.send("b", b"arrives", b"lost", b"lost too")
    live(world).deliver(DIALER, 38 + 4 + 10 + len(b"arrives"))  # an ACK, and the first message
    assert [a.cancel("b", sequence) for sequence in (1, 2, 3)] == [False, False, False]
    live(world).cut()
    assert not a.cancel("b", 2)  # the peer may hold it
    world.advance(1.0)
    (wire,) = a.answer_dials()
    wire.throttle(DIALER, 0)
    while world.live("a", "b") is None:
        wire.throttle(DIALER)
        wire.throttle(DIALER, 0)
        wire.deliver(DIALER)
        wire.deliver(ACCEPTOR)
    assert [a.cancel("b", sequence) for sequence in (1, 2, 3)] == [False, True, True]
    wire.throttle(DIALER)
    world.run(1.0)
    assert b.read("a") == [b"arrives"]
    assert a.session("b").outcome(2) is Outcome.CANCELLED


def test_a_cancelled_message_is_told_to_a_connected_peer_at_once() -> None:
    world = pair(Config(window=64 * KIB, window_max=64 * KIB))
    a, b = hosts(world)
    a.send("b", *100 * [bytes(1000)])
    world.run(1.0)
    waiting = a.session("b").outbox.cursor
    assert a.cancel("b", waiting)
    world.run(0.0)
    b.read("a")
    world.run(1.0)
    assert noticed(b, Gap) == [Gap("a", (GapRange(waiting, waiting, SkipReason.CANCELLED),))]
    assert len(b.read("a")) + waiting - 1 == 99


def test_a_message_whose_time_is_over_before_it_is_transmitted_expires_on_the_minute() -> None:
    world = pair(connected=False)
    a, b = hosts(world)
    a.send("b", b"1", ttl=5.0)
    a.send("b", b"2")
    a.send("b", b"3", ttl=7.0)
    world.advance(4.9)
    assert a.session("b").outcome(1) is None
    world.advance(0.2)
    assert a.session("b").outcome(1) is Outcome.EXPIRED
    assert len(noticed(a, MessagesFailed)) == 1
    world.advance(2.0)
    assert a.session("b").outcome(3) is Outcome.EXPIRED
    a.dial("b")
    world.run(1.0)
    taken = b.take("a", 5)
    assert payloads(taken) == [b"2"]
    assert taken[0][4] is not None
    assert taken[0][4].gap == (GapRange(1, 1, SkipReason.EXPIRED),)
    assert noticed(b, Gap) == [
        Gap("a", (GapRange(1, 1, SkipReason.EXPIRED), GapRange(3, 3, SkipReason.EXPIRED)))
    ]


def test_a_message_that_the_peer_holds_does_not_expire() -> None:
    world = pair()
    a, b = hosts(world)
    a.send("b", b"x", ttl=5.0)
    world.run(60.0)
    assert a.session("b").outcome(1) is None
    live(world).cut()
    reconnect(world)
    assert a.session("b").outcome(1) is None
    assert b.read("a") == [b"x"]
    world.run(1.0)
    assert a.session("b").outcome(1) is Outcome.READ


def test_a_message_whose_time_ran_out_on_its_way_expires_when_the_resume_says_that_it_did_not_arrive() -> None:
    world = pair()
    a, b = hosts(world)
    a.send("b", b"x", ttl=5.0)
    live(world).cut()
    b.listening = False
    world.advance(6.0)
    assert a.session("b").outcome(1) is None
    b.listening = True
    reconnect(world)
    assert a.session("b").outcome(1) is Outcome.EXPIRED
    assert b.session("a").unread == 0


def test_a_message_without_credit_expires_while_it_waits_and_makes_no_room_for_a_hole() -> None:
    world = pair(Config(window=64 * KIB, window_max=64 * KIB))
    a, b = hosts(world)
    a.send("b", *66 * [bytes(1000)])
    a.send("b", b"late", ttl=5.0)
    a.send("b", b"last")
    world.run(10.0)
    assert a.session("b").outcome(67) is Outcome.EXPIRED
    assert len(b.read("a")) == 62
    world.run(1.0)
    assert b.read("a")[-1] == b"last"


# -- restarts ----------------------------------------------------------------------------------------------------------


def test_the_first_message_of_a_restarted_peer_says_where_the_old_outbox_stood() -> None:
    world = pair()
    a, b = hosts(world)
    a.send("b", b"1", b"2", b"3")
    world.run(0.01)
    b.read("a", 2)
    old = a.session("b").outbox.outbox_id
    a.restart()
    a.dial("b")
    a.send("b", b"new", b"newer")
    world.run(5.0)
    positions = Positions(old, 3, 2)
    assert noticed(b, PeerRestarted) == [PeerRestarted("a", positions)]
    left, new, newer = b.take("a", 10)
    assert payloads([left, new, newer]) == [b"3", b"new", b"newer"]
    assert left[4] is None
    assert new[4] is not None
    assert new[4].peer_restarted == positions
    assert newer[4] is None
    for delivery in (left, new, newer):
        b.settle("a", delivery)
    world.run(1.0)
    assert a.session("b").ledger.read == 2


def test_a_peer_that_restarts_with_nothing_said_before_has_no_old_positions() -> None:
    world = pair()
    a, b = hosts(world)
    a.send("b", b"1")
    world.run(0.01)
    b.read("a")
    for _ in range(2):
        a.restart()
        a.dial("b")
        world.run(5.0)
        b.abort("a")  # what was known of the old outbox is over now
        world.run(5.0)
    first, second = noticed(b, PeerRestarted)
    assert first.positions is not None
    assert second.positions is None


def redelivered(delivery: Delivery) -> bool:
    return delivery[4] is not None and delivery[4].redelivered


def restart(host: Host) -> None:
    """A new process, which dials again if it is "a"."""
    host.restart()
    if host.name == "a":
        host.dial("b")


@pytest.mark.parametrize(("sender", "receiver"), ["ab", "ba"])
def test_a_restarted_receiver_gets_what_it_had_not_read_again_and_flagged_and_the_rest_unflagged(
    sender: str, receiver: str
) -> None:
    world = pair(Config(window=64 * KIB, window_max=64 * KIB))
    s, r = world.hosts[sender], world.hosts[receiver]
    s.send(receiver, b"read", b"taken", b"waiting", *60 * [bytes(1200)], b"last")
    world.run(1.0)
    (first,) = r.read(sender, 1)
    assert first == b"read"
    r.take(sender)
    world.run(1.0)
    transmitted = s.session(receiver).outbox.sent
    assert 3 < transmitted < 60
    restart(r)
    world.run(60.0)
    (resumed,) = [notice.resumed for notice in noticed(s, PeerConnected)[1:]]
    assert (resumed.verdict, resumed.peer_restarted, resumed.retransmitted) == ("A", True, transmitted - 1)
    got: list[Delivery] = []
    for _ in range(9):
        got += r.take(sender, 1000)
        for delivery in list(r.session(sender).inboxes[-1].held.values()):
            r.settle(sender, delivery)
        world.run(1.0)
    assert payloads(got) == [b"taken", b"waiting", *60 * [bytes(1200)], b"last"]
    assert [redelivered(delivery) for delivery in got] == [
        sequence <= transmitted for sequence in range(2, 2 + len(got))
    ]


def test_what_was_transmitted_to_a_dead_process_is_flagged_even_if_it_acknowledged_nothing() -> None:
    world = pair()
    a, b = hosts(world)
    a.send("b", b"perhaps")
    hear(world, DIALER)
    assert b.read("a") == [b"perhaps"]
    live(world).cut()  # a does not hear of it
    b.restart()
    a.send("b", b"new")
    reconnect(world)
    taken = b.take("a", 9)
    assert payloads(taken) == [b"perhaps", b"new"]
    assert redelivered(taken[0])


def test_a_mark_lasts_over_further_connections() -> None:
    """P-MARK-3: "b forgot", then a cut and a normal resume."""
    world = pair(Config(window=64 * KIB, window_max=64 * KIB))
    a, b = hosts(world)
    a.send("b", *40 * [bytes(1000)])
    world.run(1.0)
    b.restart()
    world.run(0.0)
    until_live(world)
    for _ in range(10):
        step(world)
    live(world).cut()
    reconnect(world)
    (resumed,) = [notice.resumed for notice in noticed(a, PeerConnected)[2:]]
    assert resumed.verdict == "B"
    taken = b.take("a", 100)
    assert len(taken) == 40
    assert all(redelivered(delivery) for delivery in taken)


def test_a_cut_alone_marks_nothing() -> None:
    world = pair()
    a, b = hosts(world)
    a.send("b", b"1", b"2", b"3")
    live(world).cut()
    reconnect(world)
    taken = b.take("a", 9)
    assert payloads(taken) == [b"1", b"2", b"3"]
    assert not any(redelivered(delivery) for delivery in taken)
    (first, again) = (notice.resumed for notice in noticed(a, PeerConnected))
    assert (first.resumed, first.connections, first.verdict, first.downtime) == (False, 1, "A", 0.0)
    assert (again.resumed, again.connections, again.verdict, again.peer_restarted) == (True, 2, "A", False)
    assert again.retransmitted == 3
    assert 0.0 < again.downtime < 60.0


def test_what_a_dead_process_may_have_seen_is_given_up_where_it_must_not_run_twice() -> None:
    world = pair(Config(on_peer_restart="report", window=64 * KIB, window_max=64 * KIB))
    a, b = hosts(world)
    a.send("b", b"done", b"perhaps", *70 * [bytes(1000)], b"never sent")
    world.run(1.0)
    b.read("a", 1)
    world.run(1.0)
    sent = a.session("b").outbox.sent
    b.restart()
    reconnect(world)
    session = a.session("b")
    assert session.outcome(1) is Outcome.READ
    assert [(f.first, f.last, f.outcome, f.reason, f.seen) for f in session.failures()] == [
        (2, sent, Outcome.LOST, "peer restarted", "unknown")
    ]
    taken = b.take("a", 100)
    assert len(taken) == 73 - sent
    assert not any(redelivered(delivery) for delivery in taken)
    assert taken[0][4] is not None
    assert taken[0][4].gap == (GapRange(2, sent, SkipReason.PEER_RESTARTED),)
    assert taken[-1][2] == b"never sent"


# -- verdicts ----------------------------------------------------------------------------------------------------------


def verdict(host: Host) -> str:
    """The last one of a host on its own outbox."""
    return noticed(host, PeerConnected)[-1].resumed.verdict


def go_back(host: Host, peer: str, *, run: bytes = b"?" * 16) -> None:
    """As if the outbox came from an old copy of a disk: the run that the peer knows is none of its runs."""
    outbox = host.session(peer).outbox
    outbox.run = run
    outbox.runs.clear()


@pytest.mark.parametrize(("sender", "receiver"), ["ab", "ba"])
def test_a_resume_goes_on_where_the_receiver_stands(sender: str, receiver: str) -> None:
    world = pair()
    s, r = world.hosts[sender], world.hosts[receiver]
    s.send(receiver, b"1", b"2")
    world.run(1.0)
    r.read(sender, 1)
    world.run(1.0)
    s.send(receiver, b"3", b"4")
    live(world).cut()
    reconnect(world)
    assert verdict(s) == "B"
    assert r.read(sender) == [b"2", b"3", b"4"]
    world.run(1.0)
    assert s.session(receiver).ledger.read == 4


@pytest.mark.parametrize(("sender", "receiver"), ["ab", "ba"])
def test_an_outbox_that_went_back_in_time_goes_on_under_a_new_name_and_nothing_is_dropped(
    sender: str, receiver: str
) -> None:
    world = pair()
    s, r = world.hosts[sender], world.hosts[receiver]
    s.send(receiver, b"read", b"received")
    world.run(1.0)
    r.read(sender, 1)
    world.run(1.0)
    old = s.session(receiver).outbox.outbox_id
    live(world).cut()
    s.send(receiver, b"never sent")
    go_back(s, receiver)
    made = world.connections_made
    world.run(2.0)
    live(world)
    # as dialer it had stated the old name: it dials again at once; as acceptor it answers with the new one
    assert world.connections_made - made == (2 if sender == "a" else 1)
    assert s.session(receiver).outbox.outbox_id != old
    taken = r.take(sender, 9)
    assert payloads(taken) == [b"received", b"received", b"never sent"]
    assert [redelivered(delivery) for delivery in taken] == [False, True, False]
    assert taken[1][4] is not None
    assert taken[1][4].origin == old + (2).to_bytes(8, "big")
    for delivery in taken:
        r.settle(sender, delivery)
    world.run(1.0)
    assert s.session(receiver).ledger.read == 3


def test_what_may_have_been_seen_before_going_back_in_time_is_given_up_where_it_must_not_run_twice() -> None:
    world = pair(Config(on_peer_restart="report"))
    a, b = hosts(world)
    a.send("b", b"1", b"2")
    world.run(1.0)
    b.read("a", 1)
    world.run(1.0)
    live(world).cut()
    a.send("b", b"3")
    go_back(a, "b")
    reconnect(world)
    assert a.session("b").outcome(2) is Outcome.LOST
    assert b.read("a") == [b"2", b"3"]


def forget(host: Host, peer: str, received: int) -> None:
    """As if the inbox came from an old copy of a disk."""
    session = host.session(peer)
    assert session.inbox is not None
    read = min(received, session.inbox.read)
    session.inbox = session.inbox.restored(replace(session.inbox.facts(), received=received, read=read, first=1))
    session.inboxes = [session.inbox]


@pytest.mark.parametrize(("sender", "receiver"), ["ab", "ba"])
def test_an_inbox_that_went_back_in_time_gets_a_skip_over_what_was_read_and_the_rest_flagged(
    sender: str, receiver: str
) -> None:
    world = pair()
    s, r = world.hosts[sender], world.hosts[receiver]
    s.send(receiver, *[b"%d" % number for number in range(1, 8)])
    world.run(1.0)
    r.read(sender, 5)
    world.run(1.0)
    live(world).cut()
    s.send(receiver, b"8")
    forget(r, sender, 2)
    reconnect(world)
    assert verdict(s) == "D"
    assert noticed(r, Gap) == [Gap(sender, (GapRange(3, 5, SkipReason.ALREADY_READ),))]
    taken = r.take(sender, 9)
    assert payloads(taken) == [b"6", b"7", b"8"]
    assert [redelivered(delivery) for delivery in taken] == [True, True, False]
    for delivery in taken:
        r.settle(sender, delivery)
    world.run(1.0)
    assert s.session(receiver).ledger.read == 8


def test_what_a_receiver_that_went_back_in_time_may_have_seen_is_given_up_where_it_must_not_run_twice() -> None:
    world = pair(Config(on_peer_restart="report"))
    a, b = hosts(world)
    a.send("b", b"1", b"2", b"3")
    world.run(1.0)
    live(world).cut()
    a.send("b", b"4")
    forget(b, "a", 1)
    reconnect(world)
    assert [a.session("b").outcome(sequence) for sequence in (1, 2, 3, 4)] == [None, Outcome.LOST, Outcome.LOST, None]
    assert b.read("a") == [b"4"]


def test_a_skip_over_a_hole_waits_for_credit() -> None:
    world = pair(Config(window=64 * KIB, window_max=64 * KIB))
    a, b = hosts(world)
    a.send("b", b"1", b"2", b"3", bytes(70_000))
    world.run(1.0)
    b.read("a", 3)
    world.run(1.0)
    live(world).cut()
    session = b.session("a")
    assert session.inbox is not None
    unread = session.inbox.ready
    forget(b, "a", 1)
    session.inbox.unsettled = 70_064
    reconnect(world)
    assert a.session("b").outbox.credit == 0
    assert noticed(b, Gap) == []
    session.inbox.unsettled = 0
    del unread
    b.send("a", b"company for an ACK")
    world.run(1.0)
    assert noticed(b, Gap) == [Gap("a", (GapRange(2, 3, SkipReason.ALREADY_READ),))]
    assert b.read("a") == [bytes(70_000)]


@pytest.mark.parametrize(("sender", "receiver"), ["ab", "ba"])
def test_a_restarted_sender_begins_a_new_outbox_beside_what_is_unread_of_the_old(sender: str, receiver: str) -> None:
    world = pair()
    s, r = world.hosts[sender], world.hosts[receiver]
    s.send(receiver, b"old 1", b"old 2")
    world.run(1.0)
    (held,) = r.take(sender)
    restart(s)
    s.send(receiver, b"new")
    world.run(60.0)
    assert verdict(s) == "E"
    r.settle(sender, held, reject=(1, "too late"))  # nobody is told
    assert r.read(sender) == [b"old 2", b"new"]
    world.run(1.0)
    session = s.session(receiver)
    assert (session.ledger.read, session.ledger.rejected) == (1, 0)


@pytest.mark.parametrize("how", ["abort", "expiry"])
@pytest.mark.parametrize(("sender", "receiver"), ["ab", "ba"])
def test_messages_to_a_peer_that_dropped_the_session_end_by_its_last_positions_or_go_on(
    sender: str, receiver: str, how: str
) -> None:
    world = pair(Config(session_expiry=60.0))
    s, r = world.hosts[sender], world.hosts[receiver]
    s.send(receiver, b"read", b"received")
    hear(world, "ab".index(sender))
    r.read(sender, 1)
    old = s.session(receiver).outbox.outbox_id
    if how == "abort":
        live(world).cut()
        s.send(receiver, b"never sent")
        r.abort(sender)
        if receiver == "a":
            r.dial("b")  # to abort is to stop dialling
    else:  # r loses the connection long before s, and its expiry is over first
        live(world).cut_half("ab".index(receiver))
        s.send(receiver, b"never sent")
        r.dials.clear()
        r.listening = s.listening = False
        for target in list(r.endpoint.targets):
            r.endpoint.remove_target(target)
        world.run(62.0)
        assert len(noticed(r, SessionEnded)) == 1
        assert noticed(s, SessionEnded) == []
        r.listening = s.listening = True
        if receiver == "a":
            r.dial("b")
    reconnect(world)
    session = s.session(receiver)
    end = Outcome.ABANDONED if how == "abort" else Outcome.EXPIRED
    assert [session.outcome(sequence) for sequence in (1, 2, 3)] == [Outcome.READ, end, None]
    failure = session.failure(2)
    assert failure is not None
    assert failure.seen == "unknown"
    taken = r.take(sender, 9)
    assert payloads(taken) == [b"received", b"never sent"]  # what was unread can still be read
    assert taken[1][4] is not None
    assert (taken[1][4].origin, taken[1][4].redelivered) == (old + (3).to_bytes(8, "big"), False)
    for delivery in taken:
        r.settle(sender, delivery)
    world.run(1.0)
    assert session.outcome(3) is Outcome.READ


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


def test_a_dialer_that_took_a_new_outbox_comes_back_at_once_even_after_a_long_outage() -> None:
    """P-DIAL-4 counts RETRYs in a row, not the dials that failed before."""
    world = pair()
    a, b = hosts(world)
    a.send("b", b"1")
    world.run(1.0)
    b.listening = False
    live(world).cut()
    world.run(300.0)
    go_back(a, "b")
    b.listening = True
    made = world.connections_made
    while world.connections_made == made:
        assert step(world)
    world.run(0.1)
    live(world)


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
    ended = [item.outbox_id for _, item in b.session("a")._ended]
    assert ended == outboxes[: 20 - len(kept)][::-1]


def test_what_a_peer_tells_as_ended_is_forgotten_after_a_week() -> None:
    world = pair()
    a, b = hosts(world)
    a.send("b", b"1")
    world.run(1.0)
    b.read("a")
    b.abort("a")
    assert len(b.session("a")._ended) == 1
    world.advance(6 * 24 * 3600.0)
    a.dial("b")
    world.run(60.0)
    assert len(b.session("a")._ended) == 1
    world.advance(1 * 24 * 3600.0)
    reconnect(world)
    live(world).cut()
    reconnect(world)
    assert b.session("a")._ended == []


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
    assert len(b.session("a")._ended) == 16
    a.send("b", b"last")
    world.run(1.0)
    assert b.read("a")[-1] == b"last"


def test_a_dialer_whose_session_ended_while_it_shook_hands_comes_back_with_the_new_outbox() -> None:
    world = pair()
    a, b = hosts(world)
    a.send("b", b"1")
    world.run(1.0)
    live(world).cut()
    world.advance(1.0)
    (wire,) = a.answer_dials()
    wire.deliver(DIALER)
    wire.deliver(ACCEPTOR)
    a.abort("b")
    a.dial("b")
    a.send("b", b"2")
    world.run(5.0)
    live(world)
    assert b.read("a") == [b"1", b"2"]


def test_a_peer_that_claims_what_was_never_transmitted_is_refused_and_nothing_changes() -> None:
    """P-RES-18."""
    world = pair(Config(window=64 * KIB, window_max=64 * KIB))
    a, b = hosts(world)
    a.send("b", *100 * [bytes(1000)])
    world.run(1.0)
    live(world).cut()
    transmitted = a.session("b").outbox.transmitted
    assert transmitted < 100
    forget(b, "a", transmitted + 1)
    world.run(60.0)
    session = a.session("b")
    assert not session.connected
    assert "protocol violation" in str(session.error)
    assert (session.outbox.received, session.outbox.first, session.ledger.unread) == (transmitted, 1, 100)


def test_a_dial_that_stated_an_outbox_which_is_no_more_is_made_anew() -> None:
    """Both dial; on the connection that "b" made, "a" takes a new outbox, and then "b" prefers the other connection."""
    world = pair()
    a, b = hosts(world)
    a.send("b", b"1")
    world.run(1.0)
    live(world).cut()
    go_back(a, "b")
    b.dial("a")
    (theirs,) = b.answer_dials()
    theirs.deliver(DIALER)  # b's HELLO
    world.advance(1.0)
    (own,) = a.answer_dials()
    own.deliver(DIALER)
    own.deliver(ACCEPTOR)  # a has stated its old outbox on its own dial
    assert kinds(frames(own.pipes[DIALER].data)) == [ATTACH]
    theirs.deliver(ACCEPTOR)
    theirs.deliver(DIALER)  # ATTACH: a takes b's connection, and a new outbox with it
    assert a.session("b").connected
    dial = own.ends[DIALER]
    assert dial is not None
    own.deliver(DIALER)
    own.deliver(ACCEPTOR)  # b took a's, in ignorance
    assert isinstance(dial.error, RetryRequested)
    world.run(60.0)
    assert b.read("a") == [b"1", b"1"]
    world.run(1.0)
    assert a.session("b").unacknowledged == 0


# -- draining, leaving, aborting, expiring -----------------------------------------------------------------------------


def test_a_drain_refuses_new_messages_and_hurries_those_under_way() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"x")
    hear(world, DIALER)
    delivery = one(b, "a")
    session = a.session("b")
    session.drain(world.now)
    session.drain(world.now)
    a.pump()
    assert not session.can_send
    session.undrain()
    assert not session.can_send  # the other drain goes on
    b.settle("a", delivery)
    hear(world, ACCEPTOR)
    assert session.ledger.unread == 0
    session.undrain()
    assert session.can_send


def test_a_session_that_was_disconnected_stays_down_until_somebody_dials_and_then_goes_on() -> None:
    world = pair()
    a, b = hosts(world)
    a.send("b", b"1")
    world.run(0.01)
    a.disconnect("b")
    world.run(3600.0)
    assert world.live("a", "b") is None
    assert a.session("b").targets == []
    assert "closed normally" in str(b.session("a").error)
    a.disconnect("b")  # there is nothing to close any more
    assert b.read("a") == [b"1"]
    a.send("b", b"2")
    a.dial("b")
    world.run(1.0)
    assert b.read("a") == [b"2"]
    world.run(1.0)
    assert a.session("b").ledger.read == 2


def test_whoever_accepts_can_disconnect_too_and_the_dialer_comes_back_later() -> None:
    world = pair()
    world.hosts["b"].disconnect("a")
    world.run(29.0)
    assert world.live("a", "b") is None
    world.run(30.0)
    live(world)


def test_an_abort_abandons_what_is_unread_on_this_side_and_stops() -> None:
    world = pair()
    a, b = hosts(world)
    a.send("b", b"read", b"received")
    world.run(0.01)
    b.read("a", 1)
    world.run(0.01)
    a.send("b", b"never received")
    a.abort("b")
    session = a.session("b")
    assert [session.outcome(sequence) for sequence in (1, 2, 3)] == [
        Outcome.READ,
        Outcome.ABANDONED,
        Outcome.ABANDONED,
    ]
    assert not session.can_send
    with pytest.raises(SessionClosed):
        a.send("b", b"x")
    (ended,) = noticed(a, SessionEnded)
    assert (ended.ledger.read, ended.ledger.abandoned) == (1, 2)
    world.run(3600.0)
    assert world.live("a", "b") is None
    assert "the session was aborted" in str(b.session("a").error)
    assert b.read("a") == [b"received", b"never received"]  # CLOSE comes after it, and takes nothing back
    assert session.ledger.abandoned == 2


def test_after_an_abort_both_sides_go_on_with_new_outboxes() -> None:
    world = pair()
    a, b = hosts(world)
    b.send("a", b"1", b"2")
    world.run(0.01)
    a.read("b", 1)
    world.run(0.01)
    a.abort("b")
    world.run(1.0)
    assert b.session("a").outcome(2) is Outcome.ABANDONED
    assert not b.session("a").can_send
    a.dial("b")
    assert a.session("b").can_send
    world.run(1.0)
    b.send("a", b"3")
    a.send("b", b"4")
    world.run(5.0)
    assert a.read("b") == [b"2", b"3"]
    assert b.read("a") == [b"4"]
    world.run(1.0)
    assert (a.session("b").unacknowledged, b.session("a").unacknowledged) == (0, 0)


def test_what_is_left_when_the_peer_dropped_a_session_that_this_side_is_ending_is_abandoned() -> None:
    """P-END-7."""
    world = pair()
    a, b = hosts(world)
    a.send("b", b"read")
    world.run(0.01)
    b.read("a")
    world.run(0.01)
    live(world).black_hole()
    a.send("b", b"never received")
    a.end("b")
    b.abort("a")
    live_wire = world.open_wires()[0]
    live_wire.cut()
    world.run(60.0)
    assert is_over(a, "b")
    session = a.session("b")
    assert [session.outcome(sequence) for sequence in (1, 2)] == [Outcome.READ, Outcome.ABANDONED]
    assert len(noticed(a, SessionEnded)) == 1
    assert world.live("a", "b") is None
    assert session.targets == []


def test_a_peer_that_is_done_leaves_what_this_side_has_to_say_standing() -> None:
    world = pair()
    a, b = hosts(world)
    a.send("b", b"x")
    hear(world, DIALER)
    connection = b.session("a").connection
    assert connection is not None
    close_for_good(world, b, connection)
    assert a.session("b").targets == []
    assert not a.session("b").closed
    assert a.session("b").outcome(1) is None
    a.dial("b")
    world.run(1.0)
    assert b.read("a") == [b"x"]
    world.run(1.0)
    close_for_good(world, b, connection_of(b, "a"))
    assert a.session("b").closed
    assert a.session("b").peer_ended


def connection_of(host: Host, peer: str) -> Connection:
    connection = host.session(peer).connection
    assert connection is not None
    return connection


def close_for_good(world: World, host: Host, connection: Connection) -> None:
    connection.close(CloseCode.NORMAL, "", world.now, resumable=False)
    host.pump()
    world.run(1.0)


@pytest.mark.parametrize(("config", "expiry"), [(None, 24 * 3600.0), (Config(session_expiry=100.0), 100.0)])
def test_a_session_without_a_connection_expires_on_both_sides_after_the_lesser_time(
    config: Config | None, expiry: float
) -> None:
    world = pair(None, b=config)
    a, b = hosts(world)
    a.send("b", b"received")
    world.run(0.01)
    b.listening = False
    live(world).cut()
    a.send("b", b"queued")
    world.advance(expiry - 1.0)
    assert a.session("b").ledger.expired == 0
    world.advance(2.0)
    session = a.session("b")
    assert session.ledger.expired == 2
    assert [failure.seen for failure in session.failures()] == ["unknown", "no"]
    assert [len(noticed(host, SessionEnded)) for host in (a, b)] == [1, 1]
    assert session.can_send
    a.send("b", b"new")
    b.listening = True
    reconnect(world)
    assert b.read("a") == [b"received", b"new"]
    world.run(1.0)
    assert session.outcome(3) is Outcome.READ
    assert b.session("a").ledger == session.ledger or b.session("a").ledger.accepted == 0


def test_a_session_that_never_expires_waits_for_ever() -> None:
    world = pair(Config(session_expiry=None))
    a, b = hosts(world)
    a.send("b", b"x")
    live(world).cut()
    b.listening = False
    world.advance(400 * 24 * 3600.0)
    assert a.session("b").outcome(1) is None
    b.listening = True
    reconnect(world)
    assert b.read("a") == [b"x"]


def test_a_session_that_never_had_a_connection_does_not_expire() -> None:
    world = World()
    a = world.host("a", Config(session_expiry=100.0))
    a.send("b", b"x", ttl=1000.0)
    world.advance(900.0)
    assert a.session("b").outcome(1) is None
    world.advance(200.0)
    assert a.session("b").outcome(1) is Outcome.EXPIRED


def test_an_expired_session_keeps_what_is_unread_for_its_reader() -> None:
    world = pair(Config(session_expiry=100.0))
    a, b = hosts(world)
    a.send("b", b"1", b"2")
    world.run(0.01)
    delivery = one(b, "a")
    b.listening = False
    live(world).cut()
    world.advance(200.0)
    b.settle("a", delivery)
    assert b.read("a") == [b"2"]
    assert b.session("a").inboxes == [] or b.session("a").unread == 0


def test_a_session_that_is_over_can_be_taken_up_again_by_a_new_target() -> None:
    world = pair()
    a, b = hosts(world)
    a.send("b", b"1")
    a.end("b")
    b.end("a")
    world.run(0.01)
    assert b.read("a") == [b"1"]
    world.run(5.0)
    assert is_over(a, "b")
    a.dial("b")
    assert a.send("b", b"2")
    world.run(5.0)
    assert b.read("a") == [b"2"]
    assert b.send("a", b"3")
    world.run(1.0)
    assert a.read("b") == [b"3"]
    world.run(1.0)
    assert a.session("b").unacknowledged == b.session("a").unacknowledged == 0


def test_a_target_that_comes_while_a_finished_dialer_waits_for_the_last_word_starts_anew() -> None:
    world = pair()
    a, b = hosts(world)
    a.end("b")
    b.end("a")
    while not a.session("b").finished:
        assert step(world)
    assert a.session("b").connected  # b has not said its last word
    a.dial("b")
    a.send("b", b"new")
    world.run(60.0)
    assert b.read("a") == [b"new"]
    world.run(1.0)
    assert a.session("b").ledger.read == 1


def test_a_dialer_that_wants_the_last_word_listens_when_a_new_process_has_something_to_say() -> None:
    world = pair()
    a, b = hosts(world)
    a.end("b")
    b.end("a")
    while not a.session("b").finished:
        assert step(world)
    (wire,) = world.open_wires()  # b has closed its end already
    wire.cut()
    b.restart()
    b.send("a", b"new")
    reconnect(world)
    assert a.read("b") == [b"new"]
    assert a.send("b", b"answer")
    world.run(1.0)
    assert b.read("a") == [b"answer"]


def test_a_second_target_leaves_a_connection_alone() -> None:
    world = pair()
    wire = live(world)
    world.hosts["a"].dial("b")
    world.run(1.0)
    assert live(world) is wire


def test_an_end_is_said_once_and_a_closed_session_has_none() -> None:
    world = pair()
    a, _ = hosts(world)
    a.end("b")
    a.end("b")
    assert a.session("b").outbox.next == 2
    a.abort("b")
    a.end("b")
    assert a.session("b").outbox.unread == 0
    assert a.session("b").outbox.all_read


# -- what the live connection may bring --------------------------------------------------------------------------------


def test_a_fin_or_a_skip_of_what_was_taken_already_is_ignored() -> None:
    world = quiet_pair()
    a, b = hosts(world)
    a.send("b", b"2")
    world.run(0.01)
    inject(world, DIALER, encode_fin(1))
    inject(world, DIALER, encode_skip(1, 2, SkipReason.EXPIRED))
    assert b.session("a").connected
    assert not b.session("a").peer_ended
    assert b.read("a") == [b"2"]


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


def test_what_comes_for_a_session_that_is_over_is_the_peers_fault() -> None:
    world = World()
    session = world.host("a").session("b")
    with pytest.raises(PeerFault, match="the session is over"):
        session.receive_fin(1, world.now)


# -- notices and wakes -------------------------------------------------------------------------------------------------


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


# -- any conversation --------------------------------------------------------------------------------------------------

sides = st.sampled_from("ab")
deeds = st.one_of(
    st.tuples(st.just("send"), sides, st.sampled_from([0, 5, 3000, 20_000])),
    st.tuples(st.just("send"), sides, st.sampled_from([0, 5, 3000, 20_000])),
    st.tuples(st.just("deliver"), sides, st.sampled_from([1, 50, 5000, 1 << 30])),
    st.tuples(st.just("deliver"), sides, st.sampled_from([1, 50, 5000, 1 << 30])),
    st.tuples(st.just("take"), sides, st.integers(1, 3)),
    st.tuples(st.just("settle"), sides, st.integers(0, 3)),
    st.tuples(st.just("release"), sides, st.integers(0, 3)),
    st.tuples(st.just("cut"), st.sampled_from(["rst", "fin"]), st.just(0)),
    st.tuples(st.just("wait"), sides, st.sampled_from([0, 1, 60])),
)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.lists(deeds, max_size=60))
def test_every_message_is_handed_over_once_in_order_and_read_however_the_connections_break(
    script: list[tuple[str, str, int]],
) -> None:
    config = Config(limits=Limits(frame=8192), window=16 * KIB, window_guaranteed=8 * KIB, window_max=64 * KIB)
    world = pair(config)
    other = {"a": "b", "b": "a"}
    sent: dict[str, list[bytes]] = {"a": [], "b": []}
    settled: dict[str, dict[int, bytes]] = {"a": {}, "b": {}}
    held: dict[str, list[Delivery]] = {"a": [], "b": []}

    def settle(name: str, delivery: Delivery) -> None:
        world.hosts[name].settle(other[name], delivery)
        assert delivery[1] not in settled[name]
        settled[name][delivery[1]] = delivery[2]

    for deed, name, amount in script:
        host = world.hosts.get(name)
        if deed == "wait":
            world.run(float(amount))
        elif deed == "cut":
            for wire in world.open_wires():
                wire.cut(name)
        elif deed == "deliver":
            for wire in world.open_wires():
                wire.deliver("ab".index(name), amount)
        elif host is None:
            raise AssertionError(name)
        elif deed == "send":
            sent[name].append(f"{len(sent[name])} of {name}".encode() + bytes(amount))
            host.send(other[name], sent[name][-1])
        elif deed == "take":
            held[name] += host.take(other[name], amount)
        elif held[name]:
            delivery = held[name].pop(amount % len(held[name]))
            if deed == "settle":
                settle(name, delivery)
            else:
                host.release(other[name], delivery)
    for _ in range(len(script) + 3):
        world.run(60.0)
        for name, host in world.hosts.items():
            held[name] += host.take(other[name], 1000)
            while held[name]:
                settle(name, held[name].pop())
    world.run(60.0)
    for name, host in world.hosts.items():
        received = settled[other[name]]
        assert [received[sequence] for sequence in sorted(received)] == sent[name]
        session = host.session(other[name])
        assert session.ledger.read == session.ledger.accepted == len(sent[name])
        assert (session.outbox.cost, host.endpoint.outbox_cost) == (0, 0)
        assert session.inbox is None or session.inbox.unsettled == 0


# -- why ---------------------------------------------------------------------------------------------------------------


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


def test_why_of_a_peer_that_refuses_this_side_names_its_words() -> None:
    world = World()
    a = world.host("a")
    world.host("c")
    a.endpoint.add_target("c", world.now, to="b")
    a.pump()
    world.run(60.0)
    assert "another peer answered than the one that was meant" in a.session("b").why(world.now)
    assert "dialling has stopped" in a.session("b").why(world.now)


# -- with a disk under it ----------------------------------------------------------------------------------------------


class Disk:
    """Writes what one host's sessions ask for when it is told to; what it holds otherwise is tests/proto/test_journal.

    A broken disk fails all that it is told to write.
    """

    def __init__(self, host: Host) -> None:
        host.endpoint = Endpoint(host.name, host.config, random=random.Random(7), journal=True)
        self.host = host
        self.kinds: list[type[JournalRecord]] = []

    def write(self, *, broken: bool = False) -> None:
        while (batch := self.host.endpoint.journal_request()) is not None:
            error = OSError("broken") if broken else None
            self.host.endpoint.journal_done(batch.token, self.host.world.now, error)
            self.kinds += [type(record) for record in batch.records]
            self.host.pump()
            if broken:
                return


def on_disk(*names: str) -> tuple[World, list[Disk]]:
    """A connected pair of which these hosts have a disk, with nothing more to write."""
    world = pair(connected=False)
    disks = [Disk(world.hosts[name]) for name in names]
    world.hosts["a"].dial("b")
    for _ in range(3):
        world.run(1.0)
        for disk in disks:
            disk.write()
    live(world)
    return world, disks


def test_a_message_and_an_end_leave_when_they_are_on_disk() -> None:
    world, (disk,) = on_disk("a")
    a, b = hosts(world)
    a.send("b", b"x")
    a.end("b")
    world.run(1.0)
    assert b.session("a").unread == 0
    disk.write()
    world.run(1.0)
    assert b.read("a") == [b"x"]
    assert b.session("a").peer_ended


def test_what_was_settled_is_told_when_that_is_on_disk() -> None:
    world, (disk,) = on_disk("b")
    a, b = hosts(world)
    a.send("b", b"read", b"read too", b"bad")
    world.run(1.0)
    read, last, bad = b.take("a", 3)
    b.settle("a", last)
    assert b.endpoint.journal_request() is None  # ``read`` has not moved
    b.settle("a", read)
    b.settle("a", bad, reject=(3, "no"))
    world.run(1.0)
    assert a.session("b").unacknowledged == 3
    disk.write()
    world.run(1.0)
    assert [a.session("b").outcome(sequence) for sequence in (1, 2, 3)] == 2 * [Outcome.READ] + [Outcome.REJECTED]


def test_first_is_told_when_it_is_on_disk() -> None:
    world, (disk,) = on_disk("a")
    a, b = hosts(world)
    a.send("b", b"bad")
    disk.write()
    world.run(1.0)
    b.settle("a", one(b, "a"), reject=(3, "no"))
    world.run(1.0)
    assert a.session("b").outbox.first == 2
    inbox = b.session("a").inbox
    assert inbox is not None
    assert not inbox.idle  # it does not know whether a's disk does
    disk.write()
    world.run(1.0)
    assert inbox.idle


def test_what_a_broken_disk_did_not_take_was_never_accepted() -> None:
    world, (disk,) = on_disk("a")
    a, b = hosts(world)
    session = a.session("b")
    session.watch = Watch.PROGRESS
    a.send("b", b"lost", ttl=5.0)
    a.end("b")
    disk.write(broken=True)
    assert (session.ending, session.ledger.accepted, session.unacknowledged) == (False, 0, 0)
    assert a.send("b", b"again") == [1]
    disk.write()
    world.run(60.0)
    assert b.read("a") == [b"again"]


def test_a_new_outbox_id_is_on_disk_before_anything_leaves_under_it() -> None:
    world, (disk,) = on_disk("a")
    a, b = hosts(world)
    a.abort("b")
    world.run(1.0)
    disk.write()
    a.dial("b")
    a.send("b", b"new")
    disk.kinds.clear()
    disk.write()
    assert disk.kinds == [MessageAccepted]
    a.abort("b")
    a.dial("b")
    a.send("b", b"newer")
    world.run(5.0)
    assert b.read("a") == []
    disk.kinds.clear()
    disk.write()
    assert disk.kinds.index(OutboxOpened) < disk.kinds.index(MessageAccepted)
    world.run(5.0)
    assert b.read("a") == [b"newer"]


# -- requests and replies (who waits for them: test_requests) ----------------------------------------------------------


def test_a_size_is_refused_before_sending_where_sending_would_refuse_it() -> None:
    world = pair(Config(limits=Limits(message=100)))
    session = world.hosts["a"].session("b")
    session.check_size(bytes(100))
    session.check_size(bytes(90), {"key": 1})
    for payload, headers in ((bytes(101), None), (bytes(95), {"key": 1})):
        with pytest.raises(MessageTooLarge, match="over the limit"):
            session.check_size(payload, headers)
    with pytest.raises(EncodeError):
        session.check_size(b"", {"id": 1})
    assert session.ledger.accepted == 0


def test_the_librarys_own_headers_go_along_and_are_counted() -> None:
    mine: dict[str, object] = {f"k{number}": number for number in range(62)}
    assert encode_headers(mine, {".own": b"x"}) == encode_map({**mine, ".own": b"x"})
    with pytest.raises(EncodeError, match="63 headers are more than 62"):
        encode_headers({**mine, "k62": 1}, {".own": b"x"})
    with pytest.raises(EncodeError, match="at most 4064 are allowed"):
        encode_headers({"k": bytes(4040)}, {".own": bytes(16)})


def test_replies_have_no_part_in_the_count_of_what_is_ready() -> None:
    world = pair()
    a, b = hosts(world)
    b.session("a").send(b"reply", world.now, reserved={".reply": bytes(16)})
    b.pump()
    a.notices.clear()
    hear(world, ACCEPTOR)
    assert noticed(a, MessagesReady) == []
    assert a.session("b").unread == a.session("b").held == a.session("b").unsettled == 0
    assert a.session("b").requests.dropped == 1
    b.session("a").send(b"reply", world.now, reserved={".reply": bytes(16)})
    b.send("a", b"message")
    hear(world, ACCEPTOR)
    assert len(noticed(a, MessagesReady)) == 1
    assert a.read("b") == [b"message"]


def test_a_window_is_stalled_when_nothing_more_may_come() -> None:
    world = pair(Config(window_guaranteed=300, window=300, window_max=300))
    a, b = hosts(world)
    b.send("a", bytes(100))
    world.run(1.0)
    assert not a.session("b").stalled
    b.send("a", bytes(100), bytes(100))
    world.run(1.0)
    assert a.session("b").stalled
    a.read("b")
    assert not a.session("b").stalled


def test_nothing_follows_an_end_and_what_came_before_it_is_still_there() -> None:
    world = pair()
    a, b = hosts(world)
    assert not a.session("b").nothing_follows
    b.send("a", b"last")
    b.end("a")
    world.run(1.0)
    assert (a.session("b").nothing_follows, a.session("b").peer_ended) == (True, False)
    a.read("b")
    assert a.session("b").peer_ended


def test_the_end_of_the_peer_wakes_those_who_wait_for_replies_and_nothing_else() -> None:
    world = pair()
    a, b = hosts(world)
    session = a.session("b")
    wakes: list[Session | None] = []
    a.on_wake = wakes.append
    request = session.requests.open(bytes(16))
    session.watch = Watch.REPLY
    b.send("a", b"message")
    world.run(1.0)
    assert session not in wakes
    b.end("a")
    world.run(1.0)
    assert session in wakes
    assert request.over


def test_a_peer_that_is_done_answers_nothing_more_once_everything_of_ours_is_read() -> None:
    world = pair()
    a, b = hosts(world)
    session = a.session("b")
    request = session.requests.open(bytes(16))
    a.send("b", b"unread")
    session.peer_is_done()
    assert not request.over
    world.run(1.0)
    b.read("a")
    world.run(1.0)
    session.peer_is_done()
    assert request.over
