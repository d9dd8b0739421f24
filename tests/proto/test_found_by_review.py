"""Defects that reading and playing with the finished core brought up, each as the story that showed it."""

from __future__ import annotations

import pytest

from networkio_proto import (
    Config,
    ConfigurationError,
    Endpoint,
    Limits,
    MessageTooLarge,
    Outcome,
    OutcomeForgotten,
    TargetState,
)
from networkio_proto.handshake import InboxFacts
from networkio_proto.inboxes import Inboxes
from networkio_testing.world import Host, World


def connected(config: Config | None = None) -> tuple[World, Host, Host]:
    world = World()
    a, b = world.host("a", config), world.host("b", config)
    a.dial("b")
    world.run(1)
    return world, a, b


def end(host: Host, peer: str) -> None:
    host.session(peer).end(host.world.now)
    host.pump()


def abort(host: Host, peer: str) -> None:
    host.session(peer).abort(host.world.now)
    host.pump()


def test_a_session_asked_for_again_while_the_acceptors_last_word_is_on_its_way_goes_on() -> None:
    world, a, b = connected()
    end(a, "b")
    world.run(1)
    end(b, "a")
    wire = world.live("a", "b")
    if wire is not None:
        wire.deliver(1)
    a.dial("b")
    a.send("b", b"new")
    world.run(60)
    assert b.read("a") == [b"new"]
    world.run(1)
    assert a.session("b").outcome(a.session("b").outbox.next - 1) is Outcome.READ


def test_a_session_asked_for_again_is_not_served_on_the_old_ones_connection() -> None:
    world, a, b = connected()
    end(a, "b")
    world.run(1)
    b.restart()
    world.run(60)
    end(b, "a")
    world.run(1)
    a.dial("b")
    a.send("b", b"new")
    world.run(60)
    assert b.read("a") == [b"new"]
    world.run(60)
    assert a.session("b").unacknowledged == 0
    for wire in world.open_wires():
        wire.cut()
    world.run(60)
    assert b.read("a") == []


def test_an_acceptor_that_was_ending_the_session_before_lets_the_dialer_begin_anew() -> None:
    world = World()
    a, b = world.host("a"), world.host("b")
    a.dial("b")
    b.send("a", b"x")
    world.run(1)
    wire = world.live("a", "b")
    assert wire is not None
    wire.black_hole()
    end(b, "a")
    abort(a, "b")
    world.run(100)
    a.dial("b")
    a.send("b", b"new")
    world.run(120)
    assert b.read("a") == [b"new"]


@pytest.mark.parametrize("dialer", ["a", "b"])
def test_whoever_dials_without_a_name_finds_a_peer_whose_session_was_finished(dialer: str) -> None:
    world, a, b = connected()
    end(a, "b")
    end(b, "a")
    world.run(2)
    other = {"a": "b", "b": "a"}[dialer]
    target = world.hosts[dialer].dial(other, to=None)
    world.run(120)
    assert world.hosts[dialer].session(other).connected
    assert target.state is TargetState.SATISFIED


@pytest.mark.parametrize("give_up", ["disconnect", "abort"])
def test_who_gives_up_during_a_handshake_is_not_connected_afterwards(give_up: str) -> None:
    world = World()
    a, b = world.host("a"), world.host("b")
    a.dial("b")
    [wire] = a.answer_dials()
    wire.deliver(0)
    getattr(a.session("b"), give_up)(world.now)
    a.pump()
    world.run(10)
    assert not a.session("b").connected
    assert not b.endpoint.sessions.get("a") or not b.session("a").connected


def test_an_abandoned_target_closes_its_handshake() -> None:
    world = World()
    a = world.host("a")
    world.host("b")
    target = a.dial("b", to=None)
    [wire] = a.answer_dials()
    wire.deliver(0)
    a.endpoint.abandon_target(target, world.now)
    a.pump()
    world.run(10)
    assert not a.endpoint.live()
    assert not a.endpoint.connections


def test_a_new_process_hears_of_an_end_that_the_old_one_had_read() -> None:
    world, a, b = connected()
    a.send("b", b"1")
    end(a, "b")
    world.run(1)
    b.read("a")
    world.run(1)
    b.restart()
    world.run(60)
    assert b.session("a").peer_ended
    end(b, "a")
    world.run(60)
    assert a.session("b").closed
    assert b.session("a").closed
    assert not world.open_wires()


def test_dropped_messages_do_not_fill_the_outbox() -> None:
    config = Config(overflow="drop_oldest", outbox_limit=100_000)
    world = World()
    a, b = world.host("a", config), world.host("b", config)
    for number in range(5000):
        a.send("b", b"%d" % number + bytes(1000))
    session = a.session("b")
    assert session.ledger.lost > 4900
    assert session.unacknowledged == session.ledger.unread < 100
    a.dial("b")
    world.run(1)
    got = b.read("a")
    assert got[-1].startswith(b"4999")
    assert len(got) + session.ledger.lost == 5000


def test_a_message_that_ended_early_is_not_waited_for() -> None:
    world, a, _ = connected()
    for wire in world.open_wires():
        wire.cut()
    a.send("b", b"x", ttl=0.001)
    world.advance(0.1)
    assert a.session("b").unacknowledged == 0
    assert a.session("b").outcome(1) is Outcome.EXPIRED


def test_an_outcome_that_was_melted_away_is_forgotten_and_not_invented() -> None:
    world, a, b = connected()
    for number in range(2200):
        a.send("b", b"m")
        world.deliver_all()
        [delivery] = b.take("a")
        b.settle("a", delivery, (1, "no") if number % 2 else None)
        world.deliver_all()
    world.run(1)
    session = a.session("b")
    assert session.outcome(3) is None
    failure = session.failure(3)
    assert failure is not None
    assert isinstance(failure.error(3), OutcomeForgotten)
    assert session.outcome(2199) is Outcome.READ
    assert session.ledger.read == session.ledger.rejected == 1100


def test_a_peer_that_claims_to_have_read_what_was_never_transmitted_is_closed_and_nothing_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, a, b = connected()
    for wire in world.open_wires():
        wire.cut()
    a.send("b", b"1", b"2", b"3")
    outbox = a.session("b").outbox
    lie = InboxFacts(outbox.outbox_id, outbox.run, 3, 3, 1)
    liar, truth = b.session("a").inboxes, Inboxes.reported
    monkeypatch.setattr(Inboxes, "reported", lambda self: lie if self is liar else truth(self))
    world.run(0.5)
    assert a.session("b").outcome(1) is None
    assert not a.session("b").connected


def test_an_abort_reaches_the_other_side_at_once() -> None:
    world, a, b = connected()
    b.dial("a")
    world.run(5)
    a.send("b", b"1")
    world.run(1)
    abort(b, "a")
    world.run(1)
    session = a.session("b")
    assert session.outcome(1) is Outcome.ABANDONED
    assert session.closed
    assert session.peer_ended
    assert not session.targets


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf")])
def test_a_ttl_that_is_no_time_is_refused(ttl: float) -> None:
    _, a, _ = connected()
    with pytest.raises(ConfigurationError, match="ttl"):
        a.send("b", b"x", ttl=ttl)
    assert a.session("b").ledger.accepted == 0


def test_pings_faster_than_the_peer_allows_are_not_configurable() -> None:
    with pytest.raises(ConfigurationError, match="ping_after"):
        Config(ping_after=0.005)
    with pytest.raises(ConfigurationError, match="dead_after"):
        Config(dead_after=0.1, ping_after=0.01)


def test_a_failed_batch_leaves_no_ttl_behind() -> None:
    endpoint = Endpoint("a", journal=True)
    session = endpoint.session("b", 0.0)
    session.send(b"1", 0.0, ttl=5.0)
    batch = endpoint.journal_request()
    assert batch is not None
    endpoint.journal_done(batch.token, 0.0, OSError())
    assert session.ledger.accepted == 0
    session.send(b"no ttl", 1.0)
    batch = endpoint.journal_request()
    assert batch is not None
    endpoint.journal_done(batch.token, 1.0)
    endpoint.handle_timer(6.0)
    assert session.outcome(1) is None


def test_acknowledgements_that_say_nothing_new_are_not_sent() -> None:
    """A large message whose first fragment uses half of the credit brings fragments, and no ACK for each of them."""
    config = Config(window=65536, window_max=65536, limits=Limits(frame=8192))
    world, a, b = connected(config)
    wire = world.live("a", "b")
    assert wire is not None
    before = wire.pipes[1].delivered
    a.send("b", bytes(4_000_000))
    while wire.waiting(0) or a.session("b").outbox.fragment:
        wire.deliver(0, 8192)
        world.advance(0.002)
        wire.deliver(1)
    world.run(1)
    assert b.session("a").unread == 1
    assert wire.pipes[1].delivered - before < 10 * 38


def test_a_message_that_is_rejected_while_it_goes_out_again_goes_out_to_its_end() -> None:
    config = Config(limits=Limits(frame=8192), window=1 << 20)
    world, a, b = connected(config)
    a.send("b", bytes(300_000), b"next")
    world.deliver_all()
    session = a.session("b")
    session.outbox.resume(0)  # as after a peer that left this outbox and returned
    wire = world.live("a", "b")
    assert wire is not None
    wire.pipes[0].capacity = 20_000
    session.connection.want_write(world.now)  # type: ignore[union-attr]
    a.pump()
    assert session.outbox.fragment
    b.settle("a", b.take("a")[0], (1, "no"))
    wire.deliver(1)
    assert session.outcome(1) is Outcome.REJECTED
    wire.pipes[0].capacity = 1 << 30
    world.run(5)
    assert world.live("a", "b") is wire
    assert b.read("a") == [b"next"]
    world.run(1)
    assert session.unacknowledged == 0


def test_refusing_a_message_changes_nothing_even_where_the_oldest_may_be_dropped() -> None:
    config = Config(overflow="drop_oldest", outbox_limit=1000, limits=Limits(message=5000))
    world = World()
    a = world.host("a", config)
    a.send("b", bytes(900), bytes(900))
    with pytest.raises(MessageTooLarge):
        a.send("b", bytes(6000))
    assert a.session("b").ledger.lost == 0


def test_messages_that_come_in_one_chunk_with_an_abort_are_announced() -> None:
    """Found by the swarm, seed 108."""
    world, a, b = connected()
    b.send("a", b"last words")
    abort(b, "a")
    a.notices.clear()
    world.run(1)
    assert any(type(notice).__name__ == "MessagesReady" for notice in a.notices)
    assert a.read("b") == [b"last words"]


def test_a_new_process_that_has_something_to_say_is_heard_by_a_dialer_that_only_came_to_confirm_an_end() -> None:
    """Found by the swarm, seed 27 of an earlier tree."""
    world, a, b = connected()
    end(a, "b")
    world.deliver_all()
    wire = world.live("a", "b")
    assert wire is not None
    b.session("a").end(world.now)
    b.pump()
    wire.deliver(1)  # a has read b's end, and is finished
    assert a.session("b").finished
    b.crash()
    b.restart()
    b.send("a", b"from the new process")
    world.run(60)
    assert a.read("b") == [b"from the new process"]
    world.run(1)
    assert b.session("a").unacknowledged == 0
