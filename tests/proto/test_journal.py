"""The journal's seam: nothing that rests on the disk leaves the node before the disk has it.

The store here is a list of records: what was written survives a crash, what was only asked for does not.
"""

from __future__ import annotations

import random

import pytest

from networkio_proto import Config, Endpoint, Limits, Outcome
from networkio_proto.handshake import InboxFacts
from networkio_proto.journal import (
    InboxMoved,
    JournalBatch,
    JournalQueue,
    JournalRecord,
    MessageAccepted,
    MessagesEnded,
    OutboxOpened,
    OutboxTrimmed,
    ReceiverKnown,
)
from networkio_proto.ledger import FAILURE_RANGES
from networkio_proto.timers import Timers
from networkio_testing.world import Host, World


class Store:
    """A disk under one host: batches are written when the test says so."""

    def __init__(self, host: Host, *, sync: bool = True) -> None:
        self.host = host
        self.records: list[JournalRecord] = []
        #: write every batch at once
        self.sync = sync
        self.boot()
        host.on_pump = self.serve

    def boot(self) -> None:
        """A new process over the records that survived."""
        host = self.host
        source = random.Random(f"{host.name}/{host.lives}")
        host.endpoint = Endpoint(host.name, host.config, random=source, journal=True)
        host.endpoint.restore(list(self.records), host.world.now)
        self.batch: JournalBatch | None = None

    def serve(self, _: Host) -> None:
        if self.sync:
            self.write()

    def write(self) -> int:
        """Make everything durable that is asked for; how many records it was."""
        count = 0
        while (batch := self.host.endpoint.journal_request()) is not None:
            self.records += batch.records
            count += len(batch.records)
            self.host.endpoint.journal_done(batch.token, self.host.world.now)
            self.host.pump()
        return count

    def fail(self) -> None:
        """The disk is full."""
        batch = self.host.endpoint.journal_request()
        assert batch is not None
        self.host.endpoint.journal_done(batch.token, self.host.world.now, OSError("disk full"))

    def crash(self) -> None:
        self.host.crash()
        self.host.lives += 1
        self.host.up = True
        self.boot()


def durable_pair(*, sync: bool = True) -> tuple[World, Store, Store]:
    world = World()
    a, b = Store(world.host("a")), Store(world.host("b"))
    a.host.dial("b")
    world.run(1)
    a.sync = b.sync = sync
    return world, a, b


def strangers(*, sync: bool = True) -> tuple[World, Store, Store]:
    """Two that have not met; only the first has a slow disk."""
    world = World()
    return world, Store(world.host("a"), sync=sync), Store(world.host("b"))


def kinds(records: list[JournalRecord]) -> list[type[JournalRecord]]:
    return [type(record) for record in records]


def test_a_message_is_transmitted_only_when_it_is_on_disk() -> None:
    world, a, b = durable_pair(sync=False)
    b.sync = True
    a.host.send("b", b"one", b"two")
    world.run(1)
    assert b.host.session("a").unread == 0
    assert a.write()
    world.run(1)
    assert b.host.read("a") == [b"one", b"two"]


def test_one_batch_is_under_way_at_a_time_and_takes_all_that_waits() -> None:
    _, a, _ = durable_pair(sync=False)
    a.host.send("b", b"1", b"2")
    first = a.host.endpoint.journal_request()
    assert first is not None
    assert [r.sequence for r in first.records if isinstance(r, MessageAccepted)] == [1, 2]
    a.host.send("b", b"3", b"4")
    assert a.host.endpoint.journal_request() is None
    a.host.endpoint.journal_done(first.token, 0.0)
    second = a.host.endpoint.journal_request()
    assert second is not None
    assert [r.sequence for r in second.records if isinstance(r, MessageAccepted)] == [3, 4]


def test_an_unknown_token_is_refused() -> None:
    _, a, _ = durable_pair()
    with pytest.raises(ValueError, match="no journal batch with token 99"):
        a.host.endpoint.journal_done(99, 0.0)
    with pytest.raises(ValueError, match="no journal"):
        Endpoint("x").journal_done(1, 0.0)
    assert Endpoint("x").journal_request() is None
    assert JournalQueue(Timers()).request() is None


def test_a_failed_batch_takes_back_its_messages_and_all_accepted_since_and_their_numbers_are_used_again() -> None:
    world, a, b = durable_pair(sync=False)
    b.sync = True
    a.host.send("b", b"kept")
    a.write()
    a.host.send("b", b"lost 1")
    batch = a.host.endpoint.journal_request()
    assert batch is not None
    a.host.send("b", b"lost 2", b"x" * 5000)
    a.host.endpoint.journal_done(batch.token, world.now, OSError("disk full"))
    session = a.host.session("b")
    assert session.ledger.accepted == 1
    assert session.outbox.cost == 64 + 4
    assert a.host.endpoint.outbox_cost == 64 + 4
    assert a.host.send("b", b"again") == [2]
    a.sync = True
    a.host.pump()
    world.run(1)
    assert b.host.read("a") == [b"kept", b"again"]


def test_an_end_outlives_a_batch_that_fails() -> None:
    world, a, b = durable_pair(sync=False)
    b.sync = True
    a.host.session("b").end(world.now)
    a.fail()
    assert a.host.session("b").ending
    a.sync = True
    a.host.pump()
    world.run(1)
    assert b.host.session("a").peer_ended


def test_read_is_acknowledged_only_when_it_is_on_disk() -> None:
    world, a, b = durable_pair()
    b.sync = False
    a.host.send("b", b"one")
    world.run(1)
    assert b.host.read("a") == [b"one"]
    world.run(5)
    assert a.host.session("b").outcome(1) is None
    assert InboxMoved in kinds(b.records) or b.write()
    world.run(1)
    assert a.host.session("b").outcome(1) is Outcome.READ


def test_positions_of_a_failed_batch_are_asked_for_again() -> None:
    world, a, b = durable_pair()
    b.sync = False
    a.host.send("b", b"one")
    world.run(1)
    b.host.read("a")
    b.fail()
    world.run(5)
    assert a.host.session("b").outcome(1) is None
    b.write()
    world.run(1)
    assert a.host.session("b").outcome(1) is Outcome.READ


def test_a_rejection_is_told_only_when_it_is_on_disk_and_survives_a_crash() -> None:
    world, a, b = durable_pair()
    b.sync = False
    a.host.send("b", b"bad")
    world.run(1)
    b.host.settle("a", b.host.take("a")[0], (7, "no"))
    world.run(5)
    assert a.host.session("b").outcome(1) is None
    wires = world.open_wires()
    b.write()
    for wire in wires:
        wire.cut()
    b.crash()
    b.sync = True
    world.run(60)
    failure = a.host.session("b").failure(1)
    assert failure is not None
    assert (failure.outcome, failure.code, failure.reason) == (Outcome.REJECTED, 7, "no")
    assert not b.host.session("a").inbox.rejects  # type: ignore[union-attr]


def test_a_restarted_sender_goes_on_under_the_same_numbers_and_nothing_that_was_on_disk_is_lost() -> None:
    world, a, b = durable_pair()
    a.host.send("b", b"one", b"two", b"x" * 100_000)
    a.host.session("b").send(b"h", world.now, headers={"k": 1})
    a.host.pump()
    world.run(1)
    assert b.host.read("a", 1) == [b"one"]
    world.run(1)
    outbox_id = a.host.session("b").outbox.outbox_id
    a.host.send("b", b"not sent yet")
    a.crash()
    assert a.host.session("b").outbox.outbox_id == outbox_id
    assert a.host.session("b").unacknowledged == 4
    assert a.host.session("b").outcome(1) is Outcome.READ
    a.host.dial("b")
    world.run(1)
    assert b.host.read("a") == [b"two", b"x" * 100_000, b"h", b"not sent yet"]
    world.run(1)
    assert a.host.session("b").unacknowledged == 0
    assert a.host.session("b").ledger.failed == 0


def test_nothing_that_a_restarted_receiver_acknowledged_comes_again_and_the_rest_comes_flagged() -> None:
    world, a, b = durable_pair()
    a.host.send("b", b"one", b"two")
    world.run(1)
    assert b.host.read("a", 1) == [b"one"]
    b.crash()
    world.run(60)
    taken = b.host.take("a", 9)
    assert [delivery[2] for delivery in taken] == [b"two"]
    assert taken[0][4] is not None
    assert taken[0][4].redelivered


def test_every_start_goes_on_under_a_new_run_and_knows_the_last_of_the_old() -> None:
    world, a, b = durable_pair()
    a.host.send("b", b"one")
    world.run(1)
    old = a.host.session("b").outbox.run
    a.crash()
    outbox = a.host.session("b").outbox
    assert outbox.run != old
    assert outbox.facts().runs == {old: 1, outbox.run: 1}
    a.crash()
    assert a.host.session("b").outbox.facts().runs[old] == 1
    a.host.dial("b")
    world.run(1)
    a.host.send("b", b"two")
    world.run(1)
    assert b.host.read("a") == [b"one", b"two"]


def test_an_old_copy_of_the_senders_journal_is_noticed_and_drops_no_new_message() -> None:
    world, a, b = durable_pair()
    a.host.send("b", b"one")
    world.run(1)
    copy = list(a.records)
    a.host.send("b", b"two", b"three")
    world.run(1)
    assert b.host.read("a") == [b"one", b"two", b"three"]
    world.run(1)
    a.records = copy
    a.crash()
    a.host.dial("b")
    a.host.send("b", b"new")
    world.run(60)
    assert b.host.read("a")[-1] == b"new"


def test_an_outbox_that_its_journal_never_had_is_unknown_and_makes_a_new_one() -> None:
    world, a, b = durable_pair()
    copy = list(a.records)
    a.host.session("b").abort(world.now)
    a.host.pump()
    world.run(1)
    a.host.dial("b")
    a.host.send("b", b"in the new outbox")
    world.run(40)
    assert b.host.read("a") == [b"in the new outbox"]
    a.records = copy
    a.crash()
    before = a.host.session("b").outbox.outbox_id
    a.host.dial("b")
    a.host.send("b", b"after the old copy came back")
    world.run(60)
    assert a.host.session("b").outbox.outbox_id != before
    assert b.host.read("a") == [b"after the old copy came back"]


def test_an_end_survives_a_crash() -> None:
    world, a, b = durable_pair()
    a.host.send("b", b"last")
    a.host.session("b").end(world.now)
    a.host.pump()
    a.crash()
    assert a.host.session("b").ending
    a.host.dial("b")
    world.run(1)
    assert b.host.read("a") == [b"last"]
    assert b.host.session("a").peer_ended
    b.host.session("a").end(world.now)
    b.host.pump()
    world.run(5)
    assert a.host.session("b").closed
    assert b.host.session("a").closed


def test_an_end_behind_what_was_read_survives_a_crash() -> None:
    world, a, b = durable_pair()
    a.host.send("b", b"last")
    a.host.session("b").end(world.now)
    a.host.pump()
    world.run(1)
    b.sync = False  # the end is taken, and that is not on disk yet
    assert b.host.read("a") == [b"last"]
    b.sync = True
    world.run(1)
    b.host.pump()
    world.run(1)
    assert a.host.session("b").outbox.first == 2 == a.host.session("b").outbox.fin
    a.crash()
    assert a.host.session("b").ending
    assert a.host.session("b").outbox.fin == 2


@pytest.mark.parametrize("dies", ["a", "b"])
def test_an_end_that_was_read_is_known_after_a_crash_of_its_reader(dies: str) -> None:
    """Its sender does not say it again: the position covers it."""
    world, a, b = durable_pair()
    reader, other = (a, b) if dies == "a" else (b, a)
    left, right = other.host.name, reader.host.name
    other.host.send(right, b"last")
    other.host.end(right)
    world.run(1)
    assert reader.host.read(left) == [b"last"]
    world.run(1)
    reader.crash()
    if dies == "a":
        a.host.dial("b")
    world.run(60)
    assert reader.host.session(left).nothing_follows
    reader.host.end(left)
    world.run(60)
    assert reader.host.session(left).closed
    assert other.host.session(right).closed
    assert not world.open_wires()


@pytest.mark.parametrize("dies", ["a", "b"])
@pytest.mark.parametrize("how", ["ended", "aborted"])
def test_the_last_positions_of_a_session_that_is_over_survive_a_crash(dies: str, how: str) -> None:
    """What they say was lost on the way; without them everything that was acknowledged would come again."""
    world, a, b = durable_pair()
    reader, other = (a, b) if dies == "a" else (b, a)
    left, right = other.host.name, reader.host.name
    sequences = other.host.send(right, b"1", b"2")
    if how == "ended":
        other.host.end(right)
        reader.host.end(left)
    world.run(1)
    for wire in world.open_wires():
        wire.black_hole()
    assert reader.host.read(left) == [b"1", b"2"]
    if how == "aborted":
        reader.host.abort(left)
    reader.crash()
    if dies == "a":
        a.host.dial("b")
    world.run(200)
    assert reader.host.read(left) == []
    assert [other.host.session(right).outcome(sequence) for sequence in sequences] == [Outcome.READ, Outcome.READ]
    assert not other.host.session(right).ending
    reader.crash()  # they outlive the next process too
    before = [ended for _, ended in reader.host.session(left).inboxes._ended]
    assert [(ended.received >= 2, ended.read >= 2) for ended in before] == [(True, True)]


def test_an_end_that_came_and_waits_behind_what_is_unread_is_said_again_to_a_new_process() -> None:
    world, a, b = durable_pair()
    a.host.send("b", b"first", b"last")
    a.host.end("b")
    world.run(1)
    assert b.host.read("a", 1) == [b"first"]
    world.run(1)
    b.crash()
    assert not b.host.session("a").nothing_follows
    world.run(60)
    assert b.host.session("a").nothing_follows
    assert b.host.read("a") == [b"last"]
    b.host.end("a")
    world.run(60)
    assert a.host.session("b").closed
    assert b.host.session("a").closed


def test_a_message_cancelled_before_it_was_written_stays_cancelled() -> None:
    world, a, b = durable_pair(sync=False)
    b.sync = True
    [sequence] = a.host.send("b", b"never mind")
    assert a.host.session("b").cancel(sequence, world.now)
    a.write()
    a.crash()
    assert a.host.session("b").unacknowledged == 0
    a.sync = True
    a.host.dial("b")
    a.host.send("b", b"next")
    world.run(1)
    assert b.host.read("a") == [b"next"]
    world.run(1)
    assert a.host.session("b").unacknowledged == 0


def test_a_cancelled_message_is_passed_over_only_when_that_is_on_disk_and_nothing_behind_it_goes_before() -> None:
    world, a, b = durable_pair()
    a.host.session("b").disconnect(world.now)
    a.host.pump()
    world.run(1)
    a.host.send("b", b"one", b"two", b"three")
    a.sync = False
    assert a.host.session("b").cancel(2, world.now)
    a.host.dial("b")
    world.run(1)
    assert b.host.read("a") == [b"one"]
    assert a.write()
    world.run(1)
    assert b.host.read("a") == [b"three"]


def test_what_ends_in_the_moment_of_its_transmission_is_passed_over_only_when_that_is_on_disk() -> None:
    world = World()
    a, b = Store(world.host("a")), Store(world.host("b", Config(limits=Limits(message=9000))))
    a.host.send("b", bytes(9001), b"small")  # the peer's limit is not known yet
    a.sync = False
    a.host.dial("b")
    world.run(1)
    batch = a.host.endpoint.journal_request()
    assert batch is not None
    assert kinds(list(batch.records)) == [ReceiverKnown]
    a.host.endpoint.journal_done(batch.token, world.now)
    a.host.pump()
    world.run(1)
    assert a.host.session("b").outcome(1) is Outcome.LOST
    assert b.host.session("a").unread == 0
    a.write()
    world.run(1)
    assert b.host.read("a") == [b"small"]


@pytest.mark.parametrize("late", [False, True])
def test_a_message_that_was_cancelled_stays_so_after_a_crash(late: bool) -> None:
    world, a, b = strangers(sync=False)
    a.host.send("b", b"one")
    batch = a.host.endpoint.journal_request()
    assert batch is not None
    if late:  # it is being written as a message in this moment
        assert a.host.session("b").cancel(1, world.now)
    a.records += batch.records
    a.host.endpoint.journal_done(batch.token, world.now)
    if not late:
        assert a.host.session("b").cancel(1, world.now)
    a.write()
    ended = [record for record in a.records if isinstance(record, MessagesEnded)]
    assert [(record.ends, record.failures[0].outcome) for record in ended] == [(((1, 3),), Outcome.CANCELLED)]
    assert a.host.session("b").outbox.ends == set()
    a.crash()
    session = a.host.session("b")
    assert (session.outcome(1), session.unacknowledged) == (Outcome.CANCELLED, 0)
    a.sync = True
    a.host.dial("b")
    world.run(1)
    a.host.send("b", b"two")
    world.run(1)
    assert b.host.read("a") == [b"two"]
    world.run(1)
    assert a.host.session("b").outcome(1) is Outcome.CANCELLED


def test_what_ended_early_costs_after_a_restart_what_it_did_before() -> None:
    _, a, _ = strangers()
    for _ in range(3):
        a.host.send("b", *[b"x"] * 1000)
    session, now = a.host.session("b"), a.host.world.now
    ended = [3, 5, 6, 7, *range(100, 2000), 2998, 2999, 3000]
    assert all(session.cancel(sequence, now) for sequence in ended[:-3])
    a.write()
    a.sync = False
    assert a.host.send("b", b"y", b"y", b"y") == [3001, 3002, 3003]
    assert all(session.cancel(sequence, now) for sequence in [*ended[-3:], 3001, 3002])  # two before they are written
    a.write()
    cost = session.outbox.cost
    assert cost == 65 * (3003 - 1909) + 64 * 4 + 8 * 1905
    a.crash()
    outbox = a.host.session("b").outbox
    assert outbox.cost == a.host.endpoint.outbox_cost == cost
    places = [outbox.entries[sequence - outbox.origin] for sequence in [*ended, 3001, 3002]]
    assert len(set(map(id, places))) == 2  # one object for each kind
    a.crash()
    assert a.host.session("b").outbox.cost == cost


def test_neighbours_that_ended_in_any_order_and_for_several_reasons_cost_as_little_after_a_restart() -> None:
    _, a, _ = strangers()
    a.host.send("b", *[b"x"] * 8)
    for sequence in (3, 2, 7, 6, 5):
        a.host.session("b").cancel(sequence, a.host.world.now)
        a.write()
    a.records.append(MessagesEnded("b", ((4, 2),), ()))  # in between, for another reason
    a.crash()
    outbox = a.host.session("b").outbox
    assert [outbox.entry(sequence).cost for sequence in range(1, 9)] == [65, 64, 8, 64, 64, 8, 8, 65]
    assert outbox.cost == 65 * 2 + 64 * 3 + 8 * 3


def test_a_message_cancelled_after_a_crash_and_before_anything_is_written_again() -> None:
    world, a, b = strangers()
    a.host.send("b", b"one", b"two")
    a.crash()
    assert a.host.session("b").cancel(1, world.now)
    a.crash()  # that was in memory only
    assert a.host.session("b").cancel(2, world.now)
    a.host.dial("b")
    world.run(1)
    assert b.host.read("a") == [b"one"]
    assert a.host.session("b").outcome(2) is Outcome.CANCELLED


def test_how_a_message_was_rejected_is_known_after_a_crash_before_those_ahead_of_it_are_read() -> None:
    world, a, b = durable_pair()
    a.host.send("b", b"one", b"two")
    world.run(1)
    _, second = b.host.session("a").take(2)
    b.host.session("a").settle(second, world.now, reject=(7, "no"))
    b.host.pump()
    world.run(1)
    assert a.host.session("b").outcome(2) is Outcome.REJECTED
    a.crash()
    b.crash()
    failure = a.host.session("b").failure(2)
    assert failure is not None
    assert (failure.outcome, failure.code, failure.reason) == (Outcome.REJECTED, 7, "no")
    assert a.host.session("b").unacknowledged == 1
    a.host.dial("b")
    world.run(1)
    assert b.host.read("a") == [b"one"]


def test_the_end_of_a_message_is_asked_for_again_after_a_failed_batch() -> None:
    world, a, _ = strangers()
    a.host.send("b", b"one", b"two")
    a.sync = False
    assert a.host.session("b").cancel(2, world.now)
    a.fail()
    assert a.host.session("b").outbox.ends == {2}
    a.host.send("b", b"three")
    assert a.host.session("b").cancel(3, world.now)
    a.fail()  # takes the third back, and its end with it
    assert a.host.session("b").outbox.ends == {2}
    a.write()
    assert a.host.session("b").outbox.ends == set()
    ended = [record.ends for record in a.records if isinstance(record, MessagesEnded)]
    assert ended == [((2, 3),)]


def test_of_ends_that_were_melted_only_the_places_are_on_record() -> None:
    world, a, _ = strangers()
    count = 2 * FAILURE_RANGES + 10
    a.host.send("b", *[b"x"] * count)
    session = a.host.session("b")
    a.sync = False
    for sequence in range(2, count, 2):
        assert session.cancel(sequence, world.now)
    a.write()
    a.crash()
    entries = [a.host.session("b").outbox.entry(sequence).skip for sequence in range(1, count + 1)]
    assert entries == [3 * (sequence % 2 == 0 and sequence < count) for sequence in range(1, count + 1)]


def test_what_is_written_of_an_inbox_that_has_shrunk_meanwhile_is_where_it_stood() -> None:
    """Seed 7000563: it was taken for the end of the session, and everything settled would have come again."""
    world = World()
    a, b = Store(world.host("a")), Store(world.host("b", Config(shrink_after=2.0)))
    a.host.dial("b")
    a.host.send("b", b"1")
    world.run(1)
    b.sync = False
    assert b.host.read("a") == [b"1"]
    batch = b.host.endpoint.journal_request()
    assert batch is not None
    world.open_wires()[0].cut()
    world.run(1)  # comes back, and asks for it once more
    a.host.session("b").disconnect(world.now)
    a.host.pump()
    world.run(1)
    b.records += batch.records
    b.host.endpoint.journal_done(batch.token, world.now)
    world.run(5)
    assert b.host.session("a").inboxes.dormant
    assert b.write()
    b.crash()
    facts = b.host.session("a").inboxes.reported()
    assert facts is not None
    assert (facts.received, facts.read) == (1, 1)


def test_a_stranger_causes_no_record() -> None:
    world = World()
    a, b = Store(world.host("a"), sync=False), Store(world.host("b"), sync=False)
    a.host.dial("b")
    a.host.answer_dials()
    wire = world.open_wires()[0]
    wire.deliver(0)
    wire.deliver(1)
    assert b.host.endpoint.journal_request() is None


def test_records_come_in_the_order_in_which_they_must_be_kept() -> None:
    world, a, b = durable_pair()
    a.host.send("b", b"one")
    world.run(1)
    b.host.read("a")
    world.run(1)
    assert kinds(a.records)[0] is OutboxOpened
    assert kinds(a.records).index(ReceiverKnown) < kinds(a.records).index(MessageAccepted)
    assert kinds(a.records)[-1] is OutboxTrimmed
    assert InboxMoved in kinds(b.records)


@pytest.mark.parametrize("seed", range(30))
def test_whoever_crashes_whenever_nothing_that_was_accepted_is_lost_and_acknowledged_messages_never_return(
    seed: int,
) -> None:
    chance = random.Random(seed)
    world = World(seed)
    config = Config(window=65536)
    stores = {name: Store(world.host(name, config)) for name in "ab"}
    other = {"a": "b", "b": "a"}
    for name in "ab":
        stores[name].host.dial(other[name])
    accepted: dict[str, list[bytes]] = {"a": [], "b": []}
    acknowledged: dict[str, list[bytes]] = {"a": [], "b": []}
    for step in range(120):
        name = chance.choice("ab")
        store, peer = stores[name], other[name]
        what = chance.random()
        if what < 0.4:
            payload = b"%s%d" % (name.encode(), step) + bytes(chance.choice([0, 9000]))
            store.host.send(peer, payload)  # the disk is synchronous: it is accepted
            accepted[name].append(payload)
        elif what < 0.6:
            acknowledged[name] += store.host.read(peer, chance.randint(1, 5))
        elif what < 0.7:
            for wire in world.open_wires():
                wire.deliver(chance.randint(0, 1), chance.choice([1, 100, 100_000]))
        elif what < 0.8:
            store.crash()
            store.host.dial(peer)
        else:
            world.run(chance.choice([0.01, 0.3, 40.0]))
    for _ in range(10):
        world.run(40)
        for name in "ab":
            acknowledged[name] += stores[name].host.read(other[name])
    for name in "ab":
        assert acknowledged[other[name]] == accepted[name]
        assert stores[name].host.session(other[name]).unacknowledged == 0


def test_a_session_that_is_over_leaves_no_inbox_to_go_on_with() -> None:
    world, a, b = durable_pair()
    a.host.send("b", b"one")
    world.run(1)
    b.host.read("a")
    for store, peer in ((a, "b"), (b, "a")):
        store.host.session(peer).end(world.now)
        store.host.pump()
    world.run(5)
    last = next(record for record in reversed(b.records) if isinstance(record, InboxMoved))
    assert last.facts.received == 0
    b.crash()
    assert b.host.session("a").inbox is None
    a.host.dial("b")
    a.host.send("b", b"anew")
    world.run(5)
    assert b.host.read("a") == [b"anew"]


@pytest.mark.parametrize("sender", ["a", "b"])
@pytest.mark.parametrize("dies", [False, True])
def test_a_session_is_over_only_when_the_outcome_of_its_last_message_is_on_disk(sender: str, dies: bool) -> None:
    """The last ``first`` frees the reader of its rejection, and a process that lost it must hear of that again."""
    world, *stores = durable_pair()
    own, other = sorted(stores, key=lambda store: store.host.name != sender)
    left, right = own.host.name, other.host.name
    other.host.end(left)
    own.host.send(right, b"bad")
    own.host.end(right)
    world.run(1)
    own.sync = False
    other.host.settle(left, other.host.take(left)[0], (9, "no"))
    world.run(1)
    assert own.host.session(right).outcome(1) is Outcome.REJECTED
    assert not own.host.session(right).closed
    assert not other.host.session(left).closed
    if dies:
        own.crash()
        if sender == "a":
            own.host.dial("b")
    own.sync = True
    own.host.pump()
    world.run(60)
    assert own.host.session(right).outcome(1) is Outcome.REJECTED
    for session in (own.host.session(right), other.host.session(left)):
        assert session.closed
        assert session.unsettled == 0


def test_a_batch_that_is_outdated_by_a_new_outbox_lets_nothing_leave() -> None:
    world, a, _ = durable_pair(sync=False)
    a.host.send("b", b"one")
    session = a.host.session("b")
    session.journal.barrier(OutboxOpened)  # type: ignore[union-attr]
    batch = a.host.endpoint.journal_request()
    assert batch is not None
    session.abort(world.now)  # its new outbox is not in that batch
    a.host.endpoint.journal_done(batch.token, world.now)
    assert session.outbox.sendable == 0
    a.write()
    assert session.outbox.sendable == 1


def test_a_position_written_after_the_session_was_over_means_nothing() -> None:
    world, _, b = durable_pair()
    b.sync = False
    b.host.world.hosts["a"].send("b", b"one")
    world.run(1)
    b.host.read("a")
    batch = b.host.endpoint.journal_request()
    assert batch is not None
    b.host.session("a").abort(world.now)
    b.host.endpoint.journal_done(batch.token, world.now)
    assert b.host.session("a").inbox is None


def test_positions_alone_can_be_restored_too() -> None:
    facts = InboxFacts(b"k" * 16, b"r" * 16, 3, 3, 2)
    endpoint = Endpoint("a", journal=True)
    endpoint.restore([InboxMoved("b", facts, ())], 0.0)
    inbox = endpoint.session("b").inbox
    assert inbox is not None
    assert inbox.facts() == facts
    assert endpoint.session("b").outbox.next == 1


def test_what_ended_before_it_was_written_is_never_written_and_its_number_is_not_used_again() -> None:
    world, a, b = durable_pair()
    a.sync = False
    a.host.send("b", b"on disk")
    a.write()
    a.host.send("b", b"given up 1", b"given up 2")
    a.host.abort("b")
    a.host.dial("b")
    assert a.host.send("b", b"kept") == [4]
    a.write()
    assert [record.sequence for record in a.records if isinstance(record, MessageAccepted)] == [1, 4]
    a.sync = True
    for _ in range(2):
        a.crash()
        outbox = a.host.session("b").outbox
        assert (outbox.first, outbox.next, outbox.entry(4).payload) == (4, 5, b"kept")
    a.host.dial("b")
    world.run(60)
    assert b.host.read("a")[-1] == b"kept"
    world.run(1)
    assert a.host.session("b").outcome(4) is Outcome.READ


def test_an_outbox_whose_first_messages_ended_before_anything_was_written_begins_after_them() -> None:
    world = World()
    a, b = Store(world.host("a"), sync=False), Store(world.host("b"))
    a.host.send("b", b"given up")
    a.host.abort("b")
    a.host.dial("b")
    a.host.send("b", b"kept")
    a.write()
    a.sync = True
    a.crash()
    assert a.host.session("b").outbox.first == 2
    a.host.dial("b")
    world.run(1)
    assert b.host.read("a") == [b"kept"]


def test_an_end_that_was_given_up_is_not_said_after_a_crash() -> None:
    world, a, b = durable_pair()
    a.host.send("b", b"given up")
    a.host.session("b").end(world.now)
    a.host.pump()
    a.host.abort("b")
    a.crash()
    session = a.host.session("b")
    assert session.can_send
    assert session.outbox.all_read
    a.host.dial("b")
    a.host.send("b", b"anew")
    world.run(60)
    assert b.host.read("a")[-1] == b"anew"
    assert not b.host.session("a").peer_ended
