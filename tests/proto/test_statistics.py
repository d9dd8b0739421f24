"""Statistics agree with what happened, cost nothing when nobody asks, and add up."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from networkio_proto import Config, ConnectionLost, Instrumentation, NormalClose, Outcome, Session, Statistics
from networkio_proto.errors import CloseCode, failure_for
from networkio_proto.handles import MessageHandle, ReceiptHandle
from networkio_proto.nodes import NodeHandle
from networkio_proto.peers import PeerHandle
from networkio_proto.requests import REPLY, REQUEST
from networkio_proto.statistics import Counters, _figures, cause
from networkio_testing.world import Host, World
from tests.proto.helpers import live, pair
from tests.proto.helpers_session import hosts, one, reconnect
from tests.proto.helpers_wire import (
    ACK_NOW,
    PREAMBLE,
    RAW,
    REDELIVERED,
    Node,
    Peer,
    close,
    data,
    opened,
    pings,
    pong,
)


def of(host: Host, peer: str) -> Statistics:
    return host.session(peer).statistics(host.world.now)


# -- our messages -----------------------------------------------------------------------------------------------------


def test_a_new_session_has_done_nothing() -> None:
    world = pair(connected=False)
    a, _ = hosts(world)
    assert of(a, "b") == Statistics(window=a.config.window_guaranteed)


def test_a_message_is_followed_from_its_acceptance_until_it_is_read() -> None:
    world = pair()
    a, b = hosts(world)
    a.send("b", b"12345", b"x")
    on_its_way = of(a, "b")
    assert (on_its_way.accepted, on_its_way.transmitted, on_its_way.received, on_its_way.read) == (2, 2, 0, 0)
    assert (on_its_way.unacknowledged, on_its_way.outbox_cost) == (2, 64 + 5 + 64 + 1)
    assert on_its_way.credit == of(b, "a").window - (64 + 5 + 64 + 1)
    world.run(1.0)
    assert (of(a, "b").received, of(a, "b").read) == (2, 0)
    there = of(b, "a")
    assert (there.taken_in, there.unread, there.held, there.unsettled_cost) == (2, 2, 0, 134)
    delivery = one(b, "a")
    assert (of(b, "a").unread, of(b, "a").held) == (1, 1)
    b.settle("a", delivery)
    b.read("a")
    world.run(1.0)
    done = of(a, "b")
    assert (done.read, done.unacknowledged, done.outbox_cost, done.oldest_age) == (2, 0, 0, 0.0)
    assert (of(b, "a").unread, of(b, "a").held, of(b, "a").unsettled_cost, of(b, "a").taken_in) == (0, 0, 0, 2)


def test_the_age_of_the_oldest_begins_anew_with_each_that_is_read() -> None:
    world = pair()
    a, b = hosts(world)
    a.send("b", b"one")
    world.run(3.0)
    a.send("b", b"two")
    assert of(a, "b").oldest_age == pytest.approx(3.0)
    b.read("a", 1)
    world.run(2.0)
    assert 1.9 < of(a, "b").oldest_age <= 2.0


def test_what_was_sent_before_anybody_was_there_is_accepted_and_not_transmitted() -> None:
    world = pair(connected=False)
    a, _ = hosts(world)
    a.send("b", b"early")
    early = of(a, "b")
    assert (early.accepted, early.transmitted, early.credit) == (1, 0, 0)
    assert (early.connected, early.connected_since) == (0, None)


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.READ])
def test_every_way_of_failing_has_its_figure(outcome: Outcome) -> None:
    world = pair(Config(outbox_limit=200, overflow="drop_oldest"))
    a, b = hosts(world)
    if outcome is Outcome.REJECTED:
        a.send("b", b"")
        world.run(1.0)
        b.settle("a", one(b, "a"), (7, "no"))
    else:
        a.disconnect("b")
        a.send("b", b"", ttl=0.5 if outcome is Outcome.EXPIRED else None)
        if outcome is Outcome.CANCELLED:
            assert a.session("b").cancel(1, world.now)
        elif outcome is Outcome.LOST:
            a.send("b", b"2", b"3", b"4", b"newer")
        elif outcome is Outcome.ABANDONED:
            a.abort("b")
    world.run(1.0)
    failed = of(a, "b").failed
    assert failed[outcome.value] == sum(failed.values()) > 0
    assert list(failed) == [other.value for other in Outcome if other is not Outcome.READ]


# -- the peer's messages ----------------------------------------------------------------------------------------------


def test_duplicates_and_redelivered_ones_are_counted_plain_and_special() -> None:
    node, peer, line = opened()
    line.say(data(1), data(2, flags=RAW | REDELIVERED), data(3, flags=RAW | ACK_NOW))
    assert node.session(peer).statistics(node.now).duplicates == 0
    line.say(data(2), data(3, flags=RAW | REDELIVERED))
    told = node.session(peer).statistics(node.now)
    assert (told.taken_in, told.redelivered, told.duplicates, told.unread) == (3, 1, 2, 3)


def test_what_came_before_a_fault_counts() -> None:
    node, peer, line = opened()
    line.say(data(1), data(3))
    told = node.session(peer).statistics(node.now)
    assert (told.taken_in, told.connected, told.disconnects) == (1, 0, {"protocol": 1})


def test_a_reply_that_nobody_waits_for_is_taken_in_and_dropped() -> None:
    node, peer, line = opened()
    request = node.session(peer).requests.open(b"1" * 16)
    line.say(data(1, headers={REPLY: b"1" * 16}), data(2, headers={REPLY: b"2" * 16}), data(3, headers={REQUEST: b""}))
    told = node.session(peer).statistics(node.now)
    assert (told.taken_in, told.replies_dropped, told.held, told.unread) == (3, 1, 1, 1)
    assert request.delivery is not None


# -- connections ------------------------------------------------------------------------------------------------------


def test_connections_and_how_they_ended_are_counted_over_all_of_them() -> None:
    world = pair()
    a, _ = hosts(world)
    first = of(a, "b")
    assert (first.connected, first.connections, first.disconnects) == (1, 1, {})
    assert first.connected_since is not None
    live(world).cut("rst")
    world.run(0.0)
    assert (of(a, "b").connected, of(a, "b").connected_since, of(a, "b").disconnects) == (0, None, {"lost": 1})
    reconnect(world)
    again = of(a, "b")
    assert (again.connected, again.connections) == (1, 2)
    assert again.connected_since is not None
    assert again.connected_since > first.connected_since
    world.hosts["b"].endpoint.close(world.now)
    world.hosts["b"].pump()
    world.run(0.1)
    assert of(a, "b").disconnects == {"lost": 1, "restarting": 1}


def test_a_connection_that_a_newer_one_superseded_is_counted_once() -> None:
    node, peer, _ = opened()
    node.connect(peer)
    told = node.session(peer).statistics(node.now)
    assert (told.connected, told.connections, told.disconnects) == (1, 2, {"superseded": 1})


def test_a_connection_that_the_verdict_refuses_takes_the_present_one_with_it() -> None:
    node, peer = Node(), Peer("z")
    dial = node.claim(peer, "dialer")
    node.connect(peer)
    outbox = node.session(peer).outbox
    final = {"outbox": outbox.outbox_id, "run": outbox.run, "received": 0, "read": 0, "first": 1, "why": 2}
    dial.say(peer.attach(ended=[final]))
    told = node.session(peer).statistics(node.now)
    assert (told.connected, told.connections, sum(told.disconnects.values())) == (0, 1, 1)


def test_what_was_transmitted_and_goes_out_again_is_counted() -> None:
    world = pair()
    a, b = hosts(world)
    live(world).pipes[0].black_hole = True
    a.send("b", b"1", b"2", b"3")
    live(world).cut("rst")
    reconnect(world)
    assert of(a, "b").retransmitted == 3
    assert [delivery[2] for delivery in b.take("a", 9)] == [b"1", b"2", b"3"]


@pytest.mark.parametrize(
    ("error", "name"),
    [(ConnectionLost(), "lost"), (NormalClose(), "normal"), (failure_for(CloseCode.AUTH_FAILED), "auth_failed"),
     (failure_for(4711), "protocol"), (failure_for(CloseCode.TIMEOUT), "timeout")],
)  # fmt: skip
def test_the_cause_is_one_word_of_a_closed_set(error: Any, name: str) -> None:
    assert cause(error) == name


def test_dials_that_come_to_nothing_are_counted_and_collisions_are_not() -> None:
    node = Node()
    node.add_target("a")
    node.refuse()
    assert node.session("a").statistics(node.now).dials_failed == 1
    node.until_dialled()
    line = node.answer()
    line.say(PREAMBLE, close(CloseCode.COLLISION))
    assert node.session("a").statistics(node.now).dials_failed == 1
    node.until_dialled()
    node.answer().say(PREAMBLE, close(CloseCode.OVERLOAD))
    assert node.session("a").statistics(node.now).dials_failed == 2
    node = Node()
    node.add_target(None)
    node.refuse()
    told = node.endpoint.statistics(node.now)
    assert (told.dials_failed, told.peers) == (1, {})


# -- the round trip ---------------------------------------------------------------------------------------------------


def test_the_round_trip_is_that_of_the_last_ping_and_smoothed() -> None:
    node, peer, line = opened()
    session = node.session(peer)
    assert session.statistics(node.now).round_trip is None
    for seconds in (0.5, 0.1):
        node.advance(1.0)
        line.raw()
        session.measure(node.now)
        node.pump()
        [number] = pings(line)
        node.advance(seconds)
        line.say(pong(number))
        assert session.statistics(node.now).round_trip == pytest.approx(seconds)
    assert session.statistics(node.now).smoothed_round_trip == pytest.approx(0.5 - 0.4 / 8)


def test_a_pong_to_an_earlier_ping_measures_nothing() -> None:
    node, peer, line = opened()
    session = node.session(peer)
    line.connection.ping(node.now)
    line.connection.ping(node.now)
    node.pump()
    node.advance(0.5)
    line.say(pong(1))
    assert session.statistics(node.now).round_trip is None
    line.say(pong(2))
    assert session.statistics(node.now).round_trip == pytest.approx(0.5)


def test_a_measurement_is_asked_for_once_a_second_and_only_of_a_live_connection() -> None:
    node, peer, line = opened()
    session = node.session(peer)
    node.advance(1.0)
    line.raw()
    for _ in range(5):
        session.measure(node.now)
        node.pump()
    assert len(pings(line)) == 1
    node.advance(1.0)
    session.measure(node.now)
    node.pump()
    assert len(pings(line)) == 1
    line.lose()
    session.measure(node.now)
    assert node.endpoint.next_effect() is None


# -- nodes and totals -------------------------------------------------------------------------------------------------


def test_a_node_tells_its_peers_and_what_belongs_to_none() -> None:
    node = Node()
    for name in ("a", "b"):
        node.connect(Peer(name))
        node.send(name, b"x")
    stranger, other = node.accept("1.2.3.4"), node.accept()
    stranger.say(b"GET / HTTP/1.1\r\n\r\n")
    told = node.endpoint.statistics(node.now)
    assert list(told.peers) == ["a", "b"]
    assert told.peers["a"] == node.session("a").statistics(node.now)
    assert (told.total.accepted, told.total.connected, told.total.outbox_cost) == (2, 2, 130)
    assert (told.handshakes, told.handshakes_failed, told.dials_failed) == (1, {"protocol": 1}, 0)
    assert (told.known, told.others) == (2, Statistics())
    some = node.endpoint.statistics(node.now, ["b", "unheard of"])
    assert some.peers == {"b": told.peers["b"]}
    assert some.others == told.peers["a"]
    assert node.endpoint.statistics(node.now, ()).others == some.total == told.total
    assert told.inbox_reserved == node.endpoint.inbox_reserved > 0
    other.lose()
    told = node.endpoint.statistics(node.now)
    assert (told.handshakes, told.handshakes_failed) == (0, {"protocol": 1, "lost": 1})


def test_the_total_adds_up_or_says_the_greatest_or_the_earliest() -> None:
    one = Statistics(accepted=3, oldest_age=1.0, connected_since=5.0, disconnects={"lost": 1, "normal": 2})
    two = Statistics(accepted=4, oldest_age=2.0, round_trip=0.1, connected_since=4.0, disconnects={"lost": 1})
    total = Statistics.total([one, two])
    assert total == Statistics(
        accepted=7, oldest_age=2.0, round_trip=0.1, connected_since=4.0, disconnects={"lost": 2, "normal": 2}
    )
    assert Statistics.total([]) == Statistics()
    assert Statistics.total([one]) == one
    assert one.disconnects == {"lost": 1, "normal": 2}


def test_rows_that_are_added_up_are_in_the_order_of_the_fields() -> None:
    figures = _figures(Node().session("a"), 0.0)
    assert list(figures) == [field.name for field in dataclasses.fields(Statistics)]


def test_statistics_do_not_change_any_more_and_asking_changes_nothing() -> None:
    world = pair()
    a, _ = hosts(world)
    before, node = of(a, "b"), a.endpoint.statistics(world.now)
    assert of(a, "b") == before
    live(world).cut("rst")
    world.run(0.0)
    assert before.disconnects == {}
    assert node.peers["b"] == before
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.read = 1  # type: ignore[misc]


def test_every_figure_says_what_it_means(request: pytest.FixtureRequest) -> None:
    source = (request.config.rootpath / "networkio_proto" / "statistics.py").read_text().splitlines()
    for name in [field.name for field in dataclasses.fields(Statistics)]:
        at = next(number for number, line in enumerate(source) if line.startswith(f"    {name}: "))
        assert source[at - 1].strip().startswith("#: "), name


def test_the_counters_hold_against_the_ledger_through_bad_weather() -> None:
    world: World = pair()
    a, b = hosts(world)
    read = 0
    for turn in range(30):
        if a.session("b").can_send:
            a.send("b", *[b"x"] * 7)
        read += len(b.read("a", 3))
        if turn % 4 == 0 and (wire := world.live("a", "b")) is not None:
            wire.cut("rst")
        world.run(2.0)
    read += len(b.read("a", 1000))
    world.run(60.0)
    near, far = of(a, "b"), of(b, "a")
    assert (near.accepted, near.read, near.unacknowledged) == (210, 210, 0)
    assert far.taken_in == read == 210
    assert near.connections == near.connected + sum(near.disconnects.values()) > 5


def test_counters_of_nothing_are_empty() -> None:
    counters = Counters()
    assert (counters.ends, counters.round_trip, counters.smoothed_round_trip) == ({}, None, None)


# -- as a driver's node and peers show them ---------------------------------------------------------------------------


class Driven(NodeHandle[PeerHandle[Any, Any]]):
    """The handles of a driver without a network; its clock stands at 7."""

    def enter(self) -> float:
        self.time = 7.0
        return self.time

    def leave(self) -> None:
        """Nobody carries out effects."""

    def make_peer(self, session: Session) -> PeerHandle[Any, Any]:
        return PeerHandle(self, session, MessageHandle, ReceiptHandle)


def test_the_handles_of_a_driver_tell_the_same() -> None:
    node = Driven("m", instrumentation=Instrumentation())
    peer, other = node.peer("a"), node.peer("b")
    peer.send_nowait("x")
    other.send_nowait("y")
    told = peer.statistics()
    assert told == peer.session.statistics(7.0)
    assert told.accepted == 1
    assert node.statistics().peers == {"a": told, "b": other.statistics()}
    assert node.statistics(peers=["a"]) == node.endpoint.statistics(7.0, ["a"])
    assert node.endpoint.observer is not None


def test_a_driver_s_peer_asks_for_the_round_trip() -> None:
    node, remote, line = opened()
    line.raw()
    handles = Driven("m")
    handles.endpoint = node.endpoint
    handles.peer(remote.peer_id).measure()
    assert node.endpoint.next_effect() is None  # it was just connected, by this clock
    node.now += 1.0
    handles.enter = lambda: node.now  # type: ignore[method-assign]
    handles.peer(remote.peer_id).measure()
    node.pump()
    assert len(pings(line)) == 1
