"""Bugs that the simulated disks found, each at its smallest."""

from __future__ import annotations

from math import inf
from random import Random

import pytest

from networkio_proto import Config, Endpoint, Outcome, PeerDisconnected, ProtocolError
from networkio_proto.handshake import Ended, InboxFacts, Why
from networkio_proto.journal import InboxesEnded, InboxMoved, MessagesEnded, ReceiverKnown, restore
from networkio_testing.disk import Disk
from networkio_testing.durable import DurableJudge
from networkio_testing.world import World
from tests.proto.test_journal import Store, durable_pair, kinds


def test_what_ended_and_is_not_yet_trimmed_on_disk_is_skipped_for_a_peer_that_forgot() -> None:
    """The ATTACH states ``first`` as it is on disk; the peer expects that, and not what is retained in memory."""
    world = World()
    a, b = Store(world.host("a")), world.host("b")
    a.host.dial("b")
    a.host.send("b", b"1", b"2")
    world.run(1)
    a.sync = False
    assert b.read("a", 1) == [b"1"]
    world.run(1)
    assert a.host.session("b").outbox.first == 2
    b.crash()
    b.restart()
    world.run(5)
    assert b.read("a") == []  # a crash here would bring 1 back
    a.write()
    world.run(5)
    assert b.read("a") == [b"2"]
    assert a.host.session("b").connections == 2
    a.sync = True
    a.host.pump()
    world.run(1)
    assert a.host.session("b").ledger.unread == 0


def test_an_outbox_that_goes_on_after_its_end_skips_what_is_not_yet_trimmed_on_disk() -> None:
    world = World()
    a, b = world.host("a"), Store(world.host("b"))
    a.dial("b")
    b.host.send("a", b"1")
    world.run(1)
    a.abort("b")
    b.host.send("a", b"2")
    b.crash()
    a.dial("b")
    world.run(5)
    assert a.read("b") == [b"1", b"2"]  # what came before the end can still be read
    world.run(5)
    assert b.host.session("a").connections == 1
    assert b.host.session("a").ledger.unread == 0


def test_what_was_transmitted_before_a_crash_cannot_be_cancelled_before_a_resume_says_so() -> None:
    world, a, b = durable_pair()
    a.host.send("b", b"seen", b"also")
    world.run(1)
    assert b.host.take("a")
    a.crash()
    assert not a.host.cancel("b", 1)
    assert a.host.session("b").outcome(1) is None
    a.host.dial("b")
    world.run(5)
    b.host.read("a")
    world.run(5)
    assert a.host.session("b").ledger.unread == 2  # the first is held


def test_what_was_never_transmitted_can_be_cancelled_after_a_crash() -> None:
    world = World()
    a = Store(world.host("a"))
    a.host.send("b", b"nobody saw it")
    a.crash()
    assert a.host.cancel("b", 1)
    assert a.host.session("b").outcome(1) is Outcome.CANCELLED


def test_an_inbox_does_not_shrink_below_what_is_on_disk() -> None:
    """What was settled in memory only would count as unread for ever."""
    world = World()
    config = Config(shrink_after=2.0)
    a, b = Store(world.host("a", config)), Store(world.host("b", config))
    a.host.dial("b")
    a.host.send("b", b"1")
    world.run(1)
    b.sync = False
    assert b.host.read("a") == [b"1"]
    wire = world.live("a", "b")
    assert wire is not None
    a.host.listening = b.host.listening = False
    wire.cut()
    world.run(10)
    b.sync = b.host.listening = True
    b.host.pump()
    world.run(60)
    assert a.host.session("b").outcome(1) is Outcome.READ


def test_a_rejection_before_which_nothing_is_settled_is_not_the_end_of_the_session() -> None:
    node = Endpoint("b", journal=True)
    old, new = b"o" * 16, b"n" * 16
    node.restore(
        [
            InboxMoved("a", InboxFacts(old, b"r" * 16, 3, 3, 1), ((2, 7, "no"),)),
            InboxMoved("a", InboxFacts(new, b"r" * 16, 0, 0, 1), ((2, 7, "no"),)),
        ],
        0.0,
    )
    assert [inbox.outbox_id for inbox in node.session("a").inboxes] == [old]


def test_a_rejection_out_of_turn_is_not_taken_for_one_of_the_message_that_got_its_number_anew() -> None:
    """The sender was rolled back to before it: that it was seen proves it, and so nothing new is dropped."""
    world, a, b = durable_pair()
    a.host.send("b", b"1", b"held")
    copy = list(a.records)
    a.host.send("b", b"bad")
    world.run(1)
    wire = world.live("a", "b")
    assert wire is not None
    wire.black_hole()
    first, _, bad = b.host.take("a", 3)
    b.host.settle("a", first)
    b.host.settle("a", bad, (7, "no"))
    b.crash()
    a.records = copy
    a.crash()
    a.host.dial("b")
    assert a.host.send("b", b"new") == [3]
    world.run(120)
    assert a.host.session("b").outcome(3) is None
    took = b.host.take("a", 3)
    assert [(payload, details is not None and details.redelivered) for _, _, payload, _, details in took] == [
        (b"1", True),
        (b"held", True),
        (b"new", False),
    ]
    for delivery in took:
        b.host.settle("a", delivery)
    world.run(1)
    assert a.host.session("b").ledger.read == 3


def test_what_ended_before_it_was_written_is_not_read_after_two_restarts() -> None:
    """Found by python -m networkio_testing run --seed 5021: a tombstone came back, and nobody knew what it was of."""
    world, a, b = durable_pair()
    a.host.send("b", b"held up")
    world.run(1)
    a.sync = False
    a.host.send("b", b"first")
    batch = a.host.endpoint.journal_request()
    assert batch is not None
    a.host.send("b", b"never", b"last")
    assert a.host.cancel("b", 3)
    a.records += batch.records
    a.host.endpoint.journal_done(batch.token, world.now)
    a.sync = True
    a.host.pump()
    world.run(1)
    a.crash()
    assert [a.host.session("b").outcome(sequence) for sequence in (2, 3, 4)] == [None, Outcome.CANCELLED, None]
    a.host.dial("b")
    world.run(5)
    assert b.host.read("a") == [b"held up", b"first", b"last"]
    world.run(5)
    a.crash()
    expected = [Outcome.READ, Outcome.READ, Outcome.CANCELLED, Outcome.READ]
    assert [a.host.session("b").outcome(sequence) for sequence in (1, 2, 3, 4)] == expected


def test_a_copy_from_before_the_first_transmission_sends_again_flagged_what_the_peer_says_it_has() -> None:
    world, a, b = durable_pair(sync=False)
    b.sync = True
    b.host.dial("a")
    old = list(a.records)
    a.host.send("b", b"1", b"2")
    batch = a.host.endpoint.journal_request()
    assert batch is not None
    copy = [record for record in old if not isinstance(record, ReceiverKnown)] + list(batch.records)
    a.records += batch.records
    a.host.endpoint.journal_done(batch.token, world.now)
    a.sync = True
    a.host.send("b", b"3")
    world.run(1)
    assert b.host.read("a") == [b"1", b"2", b"3"]
    a.records = copy
    a.crash()
    a.host.send("b", b"new")
    world.run(10)
    again = b.host.take("a", 9)
    flagged = [delivery[4] is not None and delivery[4].redelivered for delivery in again]
    assert [delivery[2] for delivery in again] == [b"1", b"2", b"new"]
    assert flagged == [True, True, False]


def test_an_inbox_that_shrank_acknowledges_no_skip_before_it_is_on_disk() -> None:
    world = World()
    config = Config(shrink_after=2.0)
    a, b = Store(world.host("a", config)), Store(world.host("b", config))
    a.host.dial("b")
    a.host.send("b", b"1")
    world.run(1)
    b.host.read("a")
    world.run(1)
    wire = world.live("a", "b")
    assert wire is not None
    b.host.listening = False
    wire.cut()
    world.run(10)
    a.host.send("b", b"2")
    assert a.host.cancel("b", 2)
    b.sync = False
    b.host.listening = True
    world.run(40)
    assert b.host.session("a").positions.outbox_id
    assert a.host.session("b").connected
    assert a.host.session("b").outbox.first == 2  # the SKIP is not on disk there
    b.write()
    world.run(1)
    assert a.host.session("b").outbox.first == 3


def test_what_was_settled_in_an_inbox_that_its_sender_had_left_is_written_when_it_returns() -> None:
    world = World()
    a, b = world.host("a"), Store(world.host("b"))
    a.dial("b")
    a.send("b", b"of a")
    world.run(1)
    a.listening = False
    wire = world.live("a", "b")
    assert wire is not None
    twin = world.host("A", peer_id="a")
    a.pause()
    twin.dial("b")
    world.run(60)
    assert twin.session("b").connected
    assert b.host.read("a") == [b"of a"]
    twin.crash()
    a.resume()
    world.run(120)
    assert a.session("b").connected
    assert a.session("b").outcome(1) is Outcome.READ


def test_what_was_never_transmitted_is_not_flagged_after_two_crashes() -> None:
    """Sending one message of two that a journal brought back is not sending both."""
    world = World()
    small = Config(window=64, window_guaranteed=64, inbox_budget=1)
    a, b = Store(world.host("a")), world.host("b", small)
    a.host.send("b", b"1", b"2")
    a.crash()
    a.host.dial("b")
    world.run(1)
    assert b.session("a").unread == 1
    b.crash()
    b.restart()
    world.run(5)
    flags = []
    for _ in (1, 2):
        (delivery,) = b.take("a")
        flags.append(delivery[4] is not None and delivery[4].redelivered)
        b.settle("a", delivery)
        world.run(1)
    assert flags == [True, False]


def test_a_rejection_in_a_new_outbox_waits_for_the_disk_although_its_number_was_rejected_before() -> None:
    world = World()
    a, b = world.host("a"), Store(world.host("b"))
    a.dial("b")
    for message in (b"old", b"new"):
        a.send("b", message)
        world.run(1)
        b.sync = message == b"old"
        b.host.settle("a", b.host.take("a")[0], (7, "no"))
        world.run(1)
        if message == b"old":
            a.crash()
            a.restart()
            a.dial("b")
    assert a.session("b").outcome(1) is None
    b.write()
    world.run(1)
    assert a.session("b").outcome(1) is Outcome.REJECTED


def test_an_inbox_that_was_left_is_left_after_a_crash_too() -> None:
    world = World()
    a, b = world.host("a"), Store(world.host("b"))
    a.dial("b")
    a.send("b", b"bad")
    world.run(1)
    wire = world.live("a", "b")
    assert wire is not None
    wire.black_hole()
    b.host.settle("a", b.host.take("a")[0], (7, "no"))
    a.crash()
    a.restart()
    a.dial("b")
    a.send("b", b"good")
    world.run(60)
    assert b.host.read("a") == [b"good"]
    b.crash()
    left, present = b.host.session("a").inboxes.boxes
    assert left.forsaken
    assert left.rejects
    assert not present.forsaken


def test_what_was_given_up_for_a_restarted_peer_is_not_sent_again_after_a_crash() -> None:
    """``on_peer_restart="report"`` is for commands that must never run twice."""
    world = World()
    a, b = Store(world.host("a", Config(on_peer_restart="report"))), world.host("b")
    b.dial("a")
    a.host.send("b", b"once")
    world.run(1)
    assert b.take("a")
    b.crash()
    b.restart()
    b.listening = False
    world.run(1)
    b.dial("a")
    a.sync = False
    world.deliver_all()
    assert a.host.session("b").outcome(1) is Outcome.LOST
    batch = a.host.endpoint.journal_request()
    assert batch is not None
    assert kinds(list(batch.records)) == [ReceiverKnown, MessagesEnded]
    a.records += batch.records
    a.crash()
    a.sync = True
    world.run(60)
    assert a.host.session("b").connected
    assert b.read("a") == []
    assert a.host.session("b").outcome(1) is Outcome.LOST


def test_a_dialer_that_comes_back_and_learns_that_its_rejection_is_known_acknowledges_it() -> None:
    world = World()
    DurableJudge(world)  # objects to whoever owes an acknowledgement for longer than its delay
    a, b = world.host("a", disk=Disk()), world.host("b", disk=Disk())
    b.dial("a")
    a.send("b", b"bad")
    world.run(1)
    b.settle("a", b.take("a")[0], (7, "no"))
    world.run(1)
    b.crash()
    b.restart()
    b.dial("a")
    world.run(30)
    assert a.session("b").outcome(1) is Outcome.REJECTED
    inbox = b.session("a").inbox
    assert inbox is not None
    assert not inbox.rejects


@pytest.mark.parametrize("way", ["take", "take_one", "take_settled"])
def test_a_message_comes_before_its_flagged_copies_although_its_outbox_was_stated_again(way: str) -> None:
    """An old copy is put back twice: the dialer states the outbox that it left, and b still holds its messages."""
    world = World()
    a, b = Store(world.host("a")), world.host("b")
    a.host.dial("b")
    a.host.send("b", b"1")
    copy = list(a.records)
    a.host.send("b", b"2")
    world.run(1)
    for _ in range(2):
        a.records = list(copy)
        a.crash()
        a.host.dial("b")
        world.run(5)
    session = b.session("a")
    if way == "take_one":
        taken = list(iter(session.take_one, None))
    else:
        taken = session.take(9) if way == "take" else session.take_settled(9, world.now)
    flagged = [(delivery[2], delivery[4] is not None and delivery[4].redelivered) for delivery in taken]
    assert flagged == [(b"1", False), (b"2", False), (b"1", True), (b"1", True)]


@pytest.mark.parametrize("many", [1, 3])
def test_what_a_copy_forgot_is_no_hole_when_the_outbox_returns_after_another(many: int) -> None:
    """P-RES-19: "a" dials and states the inbox of the twin, so b cannot know that it has to say a SKIP."""
    world = World()
    a, b = Store(world.host("a")), world.host("b")
    twin = world.host("twin", peer_id="b")
    a.host.dial("b")
    b.send("a", b"1")
    world.run(1)
    assert a.host.read("b") == [b"1"]
    world.run(1)
    copy = list(a.records)
    b.send("a", *[b"forgotten"] * many)
    world.run(1)
    assert len(a.host.read("b")) == many
    world.run(1)
    b.send("a", b"last")
    b.listening = False
    a.records = copy
    a.crash()
    a.host.dial("twin", to="b")
    twin.send("a", b"twin's")
    world.run(30)
    assert a.host.read("b") == [b"twin's"]
    world.run(1)
    twin.listening = False
    twin.crash()
    b.listening = True
    a.host.dial("b")
    world.run(60)
    errors = [notice.error for notice in a.host.notices if isinstance(notice, PeerDisconnected)]
    assert [error for error in errors if isinstance(error, ProtocolError)] == []
    [delivery] = a.host.take("b", 9)
    assert delivery[2] == b"last"
    assert delivery[4] is not None
    assert [(gap.first, gap.last) for gap in delivery[4].gap] == [(2, many + 1)]
    a.host.settle("b", delivery)
    world.run(1)
    assert b.session("a").outcome(many + 2) is Outcome.READ


@pytest.mark.parametrize("late", [False, True])
def test_an_outbox_that_ended_is_not_restored_as_a_living_one(late: bool) -> None:
    """``late``: after its end it was stated once more, and what is written of the inbox is about that."""
    life = bytes(16)
    facts = InboxFacts(b"x" * 16, life, 1, 1, 1)
    ended = InboxesEnded("a", (Ended(facts.outbox_id, life, 2, 1, 1, Why.ABORTED),))
    moved = InboxMoved("a", facts, ())
    endpoint = Endpoint("b", journal=True, random=Random(0))
    session = endpoint.session("a", 0.0)
    for record in (moved, ended, moved) if late else (moved, ended):
        restore(session, record)
    assert session.inbox is None
    assert session.inboxes.reported() is None
    assert [one.received for one in session.inboxes.ended(-inf)] == [2]


def test_an_inbox_lives_on_when_another_is_restored_as_ended() -> None:
    life = bytes(16)
    session = Endpoint("b", journal=True, random=Random(0)).session("a", 0.0)
    restore(session, InboxMoved("a", InboxFacts(b"y" * 16, life, 1, 1, 1), ()))
    restore(session, InboxesEnded("a", (Ended(b"x" * 16, life, 2, 1, 1, Why.ABORTED),)))
    assert session.inbox is not None
    assert session.inbox.outbox_id == b"y" * 16


def test_a_copy_from_before_it_met_the_receiver_flags_all_where_a_second_process_was_met_since() -> None:
    """What the receiver names is the second process's, and says nothing of what the lost one transmitted."""
    world = World()
    a, b = Store(world.host("a")), world.host("b")
    a.host.send("b", b"1", b"2", b"3")
    copy = list(a.records)
    b.dial("a")  # and so states its inbox before it knows what it is met with
    world.run(1)
    taken = b.take("a", 3)
    assert len(taken) == 3
    a.host.listening = False
    a.host.crash(reset=True)
    twin = world.host("twin", peer_id="a")
    twin.dial("b")
    twin.send("b", b"twin's")
    world.run(1)
    twin.crash(reset=True)
    a.host.listening = True
    a.records = copy
    a.crash()
    world.run(30)
    flagged = [(delivery[2], delivery[4] is not None and delivery[4].redelivered) for delivery in b.take("a", 9)]
    assert flagged == [(b"twin's", False), (b"1", True), (b"2", True), (b"3", True)]


def test_a_copy_that_is_put_back_twice_flags_all_although_the_receiver_has_one_message_of_the_first_time() -> None:
    world = World()
    a = Store(world.host("a"))
    b = world.host("b", Config(window=64, window_guaranteed=64, window_max=64))
    a.host.send("b", b"1", b"2", b"3")
    copy = list(a.records)
    b.dial("a")
    for _ in range(3):
        world.run(1)
        assert len(b.read("a")) == 1
    for _ in range(2):
        a.records = list(copy)
        a.host.crash(reset=True)
        a.crash()
        world.run(5)  # there is credit for one of them
    taken = []
    for _ in range(9):
        for delivery in b.take("a", 1):
            b.settle("a", delivery)
            taken.append(delivery)
        world.run(1)
    assert {delivery[2] for delivery in taken} == {b"1", b"2", b"3"}
    assert all(delivery[4] is not None and delivery[4].redelivered for delivery in taken)
