"""What a session does with what its two applications ask and its connections bring, over simulated wires.

Its parts have their own modules: acknowledgements, attachment, farewell, inboxes, notices, progress, window.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from networkio_proto import (
    COST_PER_MESSAGE,
    Config,
    ConfigurationError,
    DataFlag,
    Delivery,
    EncodeError,
    Endpoint,
    Gap,
    GapRange,
    Limits,
    MessageNotHeld,
    MessagesFailed,
    MessagesReady,
    MessageTooLarge,
    NodeClosed,
    OutboxFull,
    Outcome,
    Positions,
    Session,
    SessionClosed,
    SkipReason,
    Watch,
)
from networkio_proto.frames import PeerFault, encode_fin, encode_skip
from networkio_proto.headers import encode_headers
from networkio_proto.journal import JournalRecord, MessageAccepted, OutboxOpened
from networkio_proto.maps import encode_map
from networkio_proto.outbox import SMALL
from networkio_testing.world import Host, World
from tests.proto.helpers import live, pair
from tests.proto.helpers_session import (
    ACCEPTOR,
    DIALER,
    KIB,
    hear,
    hosts,
    inject,
    noticed,
    one,
    payloads,
    quiet_pair,
    reconnect,
    rooms,
)

# -- sending ----------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("ttl", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_to_live_that_is_none_is_refused(ttl: float) -> None:
    world = pair()
    a, _ = hosts(world)
    with pytest.raises(ConfigurationError, match="ttl"):
        a.send("b", b"x", ttl=ttl)
    assert a.session("b").outbox.next == 1


# -- the outbox's bounds ----------------------------------------------------------------------------------------------


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


# -- rejecting --------------------------------------------------------------------------------------------------------


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


# -- time to live, and cancelling -------------------------------------------------------------------------------------


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


# -- draining, leaving, aborting, expiring ----------------------------------------------------------------------------


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


def test_a_second_target_leaves_a_connection_alone() -> None:
    world = pair()
    wire = live(world)
    world.hosts["a"].dial("b")
    world.run(1.0)
    assert live(world) is wire


# -- what the live connection may bring -------------------------------------------------------------------------------


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


def test_what_comes_for_a_session_that_is_over_is_the_peers_fault() -> None:
    world = World()
    session = world.host("a").session("b")
    with pytest.raises(PeerFault, match="the session is over"):
        session.receive_fin(1, world.now)


# -- any conversation -------------------------------------------------------------------------------------------------


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


@pytest.mark.slow
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


# -- with a disk under it ---------------------------------------------------------------------------------------------


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
    disk.write()  # it is on disk, and ``read`` has not moved
    world.run(1.0)
    assert a.session("b").unacknowledged == 3
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
    disk.write(broken=True)
    assert (session.ledger.accepted, session.unacknowledged) == (0, 0)
    assert a.send("b", b"again") == [1]
    a.end("b")
    disk.write()
    world.run(60.0)
    assert b.read("a") == [b"again"]


def test_an_end_that_a_broken_disk_did_not_take_stays_one() -> None:
    world, (disk,) = on_disk("a")
    a, b = hosts(world)
    a.send("b", b"lost")
    a.end("b")
    disk.write(broken=True)
    session = a.session("b")
    assert (session.ending, session.ledger.accepted, session.outbox.fin) == (True, 0, 1)
    disk.write()
    world.run(60.0)
    assert b.read("a") == []
    assert b.session("a").peer_ended


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
    session.farewell.peer_is_done()
    assert not request.over
    world.run(1.0)
    b.read("a")
    world.run(1.0)
    session.farewell.peer_is_done()
    assert request.over
