"""Ends of sessions, by one side, by both, by nobody; and new beginnings."""

from __future__ import annotations

import pytest

from networkio_proto import CloseCode, Config, Connection, Outcome, SessionClosed, SessionEnded, TargetState
from networkio_testing.world import Host, World
from tests.proto.helpers import live, pair
from tests.proto.helpers_session import DIALER, hear, hosts, noticed, one, reconnect, step

# -- ending -----------------------------------------------------------------------------------------------------------


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


# -- draining, leaving, aborting, expiring ----------------------------------------------------------------------------


def test_an_abort_abandons_what_is_unread_on_this_side_and_stops() -> None:
    world = pair()
    a, b = hosts(world)
    a.send("b", b"read", b"received")
    world.run(0.01)
    b.read("a", 1)
    world.run(0.03)  # the ACK waits for the other one to be read
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
    world.jump(400 * 24 * 3600.0)
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
    assert b.session("a").inboxes.boxes == [] or b.session("a").unread == 0


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


def test_a_target_beside_the_session_that_the_peer_began_anew_leaves_its_connection_alone() -> None:
    world = pair()
    a, b = hosts(world)
    a.end("b")
    b.end("a")
    world.run(1.0)
    assert b.session("a").closed
    a.dial("b")
    world.run(1.0)
    connections = b.session("a").connections
    b.dial("a")
    world.run(5.0)
    assert b.session("a").connected
    assert b.session("a").connections == connections
