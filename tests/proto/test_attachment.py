"""What follows from the facts that two sides exchange: resumes, restarts, marks, verdicts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from networkio_proto import (
    Config,
    Delivery,
    Gap,
    GapRange,
    Outcome,
    PeerConnected,
    PeerRestarted,
    Positions,
    RetryRequested,
    SessionEnded,
    SkipReason,
)
from networkio_proto.frames import ATTACH
from networkio_testing.world import Host, World
from tests.proto.helpers import frames, live, pair
from tests.proto.helpers_session import (
    ACCEPTOR,
    DIALER,
    KIB,
    hear,
    hosts,
    kinds,
    noticed,
    payloads,
    reconnect,
    restart,
    step,
    until_live,
    verdict,
)

# -- restarts ---------------------------------------------------------------------------------------------------------


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
        for delivery in list(r.session(sender).inboxes.boxes[-1].held.values()):
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


# -- verdicts ---------------------------------------------------------------------------------------------------------


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
    inbox = session.inbox.restored(replace(session.inbox.facts(), received=received, read=read, first=1))
    session.inboxes.boxes, session.inboxes.present = [inbox], inbox


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


def test_a_dialer_that_stated_another_inbox_says_at_once_where_this_one_stands() -> None:
    """P-ACK-10: its ATTACH stated the base; the sender has no credit with which it could ask by a duplicate."""
    world = World()
    reader = world.host("reader", Config(window=100, window_guaranteed=100))
    first, twin = world.host("first", peer_id="twins"), world.host("second", peer_id="twins")
    reader.dial("first", to="twins")
    first.send("reader", b"1")
    world.run(1.0)
    first.listening = False
    world.open_wires()[0].cut()
    reader.dial("second", to="twins")
    twin.send("reader", b"the other one's")
    world.run(60.0)
    assert reader.session("twins").unread == 2
    outbox = first.session("reader").outbox
    outbox.received = 0  # as if the acknowledgement had been lost with the connection
    twin.listening, first.listening = False, True
    reader.session("twins").drop_targets()
    world.open_wires()[0].cut()
    reader.dial("first", to="twins")
    world.run(1.0)
    assert first.session("reader").connected
    assert outbox.credit == 0
    assert outbox.received == 1
    assert not outbox.untransmitted


def test_what_another_connection_was_told_meanwhile_is_news_on_this_one() -> None:
    """Each dial is compared with what it stated itself: "a" reads after its own ATTACH, and then answers b's dial."""
    world = pair()
    a, b = hosts(world)
    b.send("a", b"1")
    world.run(1.0)
    live(world).cut()
    world.advance(1.0)
    (own,) = a.answer_dials()
    own.deliver(DIALER)
    own.deliver(ACCEPTOR)
    assert a.read("b") == [b"1"]
    b.dial("a")
    (theirs,) = b.answer_dials()
    for end in (DIALER, ACCEPTOR, DIALER):
        theirs.deliver(end)
    assert a.session("b").connected
    own.deliver(DIALER)
    own.deliver(ACCEPTOR)
    connection = a.session("b").connection
    assert connection is own.ends[DIALER]
    world.run(0.01)
    assert b.session("a").outcome(1) is Outcome.READ
