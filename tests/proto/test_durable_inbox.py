"""The durable inbox: what comes is on disk before anybody is told of it, and is handed over from there.

The worlds have disks, and a judge who knows what is on them.
"""

from __future__ import annotations

import errno
from math import inf
from typing import Literal

import pytest

from networkio_proto import Config, ConfigurationError, Delivery, Details, Endpoint, MessagesReady, PeerEnded
from networkio_proto.events import GapRange, Positions
from networkio_proto.frames import SkipReason
from networkio_proto.handshake import Ended, InboxFacts, Why
from networkio_proto.inbox import Inbox
from networkio_proto.journal import InboxesEnded, InboxMoved, JournalBatch, KeptMessage, restore
from networkio_testing.disk import Disk
from networkio_testing.durable import DurableJudge
from networkio_testing.world import Host, World

RUN = b"r" * 16


class Pair:
    """ "a" sends to "b", which has a durable inbox and dials; ``sender``: a has a journal, too."""

    def __init__(
        self, *, sender: bool = False, config: Config | None = None, dialer: str = "b", judged: bool = True
    ) -> None:
        self.world = World()
        self.judge = DurableJudge(self.world if judged else World())
        self.disk = Disk(inbox=True)
        self.a = self.world.host("a", disk=Disk() if sender else None)
        self.b = self.world.host("b", config, disk=self.disk)
        (self.b if dialer == "b" else self.a).dial("a" if dialer == "b" else "b")
        self.world.run(1.0)

    @property
    def inbox(self) -> Inbox:
        found = self.b.session("a").inbox
        assert found is not None
        return found

    def hold(self) -> None:
        """From here on the disk takes as long as it likes."""
        self.disk.delay = inf

    def flush(self) -> None:
        """It has done its work."""
        self.disk.delay = 0.0
        self.disk.finish(self.b)
        self.b.pump()
        self.world.run(1.0)

    def send(self, *payloads: bytes) -> None:
        self.a.send("b", *payloads)
        self.world.run(1.0)

    def cut(self) -> None:
        wire = self.world.live("a", "b")
        assert wire is not None
        wire.cut()

    def restart(self, host: Host | None = None) -> None:
        """A process dies, and another begins."""
        host = host or self.b
        host.crash()
        host.restart()
        if host is self.b:
            host.dial("a")
        self.world.run(60.0)

    def took(self) -> list[tuple[bytes, bool]]:
        """What b's application takes and acknowledges now, and whether it is flagged."""
        taken = self.b.take("a", 100)
        for delivery in taken:
            self.b.settle("a", delivery)
        self.world.run(1.0)
        return [(delivery[2], details_of(delivery).redelivered) for delivery in taken]


def details_of(delivery: Delivery) -> Details:
    return delivery[4] or Details()


def test_nothing_is_handed_over_or_acknowledged_before_it_is_on_disk() -> None:
    pair = Pair()
    pair.hold()
    pair.send(b"1", b"2")
    session = pair.b.session("a")
    assert (session.unread, session.held, len(pair.inbox.staged)) == (0, 0, 2)
    assert pair.a.session("b").outbox.received == 0
    assert session.unsettled == 2 * 65
    assert not any(isinstance(notice, MessagesReady) for notice in pair.b.notices)
    pair.flush()
    assert any(isinstance(notice, MessagesReady) for notice in pair.b.notices)
    assert pair.a.session("b").outbox.received == 2
    assert pair.took() == [(b"1", False), (b"2", False)]
    assert pair.a.session("b").outbox.all_read
    assert session.counters.taken_in == 2


def test_a_connection_that_brought_something_made_progress_be_it_on_disk_or_not() -> None:
    """Seed 6000015: what was taken back with the connection left its dialer waiting for ever longer."""
    pair = Pair()
    pair.disk.full = 1000
    pair.send(b"1")
    [target] = pair.b.session("a").targets
    for _ in range(3):
        pair.cut()
        assert target.attempts == 0
        pair.world.run(1.0)


def test_after_a_restart_what_was_not_settled_comes_from_disk_in_order_and_flagged_and_the_rest_does_not_come() -> None:
    pair = Pair()
    pair.send(b"1", b"2", b"3", b"4")
    one, _, three, _ = pair.b.take("a", 4)
    pair.b.settle("a", one)
    pair.b.settle("a", three)
    pair.world.run(1.0)
    sent = pair.judge.tally["accepted"]
    pair.restart()
    pair.send(b"5")
    taken = pair.b.take("a", 9)
    assert [(each[2], details_of(each).redelivered, details_of(each).attempt) for each in taken] == [
        (b"2", True, 1), (b"4", True, 1), (b"5", False, 1)
    ]
    for each in taken:
        pair.b.settle("a", each)
    pair.world.run(1.0)
    assert pair.a.session("b").ledger.read == sent + 1
    pair.restart()
    assert pair.took() == []
    pair.judge.at_rest()


def test_a_dead_sender_is_no_loss_and_what_a_message_says_beside_itself_is_kept_with_it() -> None:
    pair = Pair()
    pair.b.listening = pair.a.listening = True
    pair.send(b"old")
    pair.restart(pair.a)
    pair.a.send("b", b"new", headers={"k": 1}, raw=True)
    pair.world.run(30.0)
    pair.a.crash()
    pair.b.crash()
    pair.b.restart()
    old, new = pair.b.take("a", 9)
    assert (old[2], new[2], new[3]) == (b"old", b"new", 0x40)
    restarted = details_of(new).peer_restarted
    assert isinstance(restarted, Positions)
    assert (restarted.outbox_id, restarted.received) == (old[0].outbox_id, 1)
    assert (details_of(new).headers, details_of(new).redelivered) == ({"k": 1}, True)
    assert [box.forsaken for box in pair.b.session("a").inboxes] == [True, False]


def test_what_is_settled_of_an_inbox_that_was_left_does_not_come_again_and_it_keeps_its_turn() -> None:
    pair = Pair()
    pair.send(b"1", b"2", b"3")
    pair.restart(pair.a)
    pair.send(b"4")
    two = pair.b.take("a", 2)[1]
    pair.b.settle("a", two)
    pair.world.run(1.0)
    pair.restart()
    assert pair.took() == [(b"1", True), (b"3", True), (b"4", True)]
    pair.restart()
    assert pair.took() == []
    assert [box.holding for box in pair.b.session("a").inboxes] == [False] * len(pair.b.session("a").inboxes.boxes)
    pair.send(b"5")
    assert pair.took() == [(b"5", False)]
    pair.judge.at_rest()


def test_a_rejection_in_an_inbox_that_was_left_lasts() -> None:
    pair = Pair()
    pair.send(b"1")
    pair.restart(pair.a)
    pair.send(b"2")
    (one,) = pair.b.take("a", 1)
    pair.b.settle("a", one, (7, "no"))
    pair.world.run(1.0)
    pair.restart()
    left, present = pair.b.session("a").inboxes.boxes
    assert (list(left.rejects), left.read, list(present.rejects)) == ([1], 1, [])
    assert pair.took() == [(b"2", True)]


@pytest.mark.parametrize("dialer", ["a", "b"])
def test_while_it_is_being_decided_what_is_received_a_connection_has_to_wait(dialer: str) -> None:
    pair = Pair(dialer=dialer)
    pair.hold()
    pair.send(b"1")
    pair.send(b"2")
    assert [len(pair.inbox.staged), pair.inbox.in_doubt] == [2, True]
    pair.cut()
    assert len(pair.inbox.staged) == 1
    pair.world.run(5.0)
    assert pair.b.session("a").connection is None
    assert pair.judge.tally["closed: RETRY"] > 0
    pair.flush()
    pair.world.run(30.0)
    assert pair.b.session("a").connection is not None
    assert pair.took() == [(b"1", False), (b"2", False)]
    pair.judge.at_rest()


def test_a_newcomer_that_comes_while_it_is_being_decided_is_asked_to_come_again() -> None:
    pair = Pair(dialer="a")
    pair.hold()
    pair.send(b"1")
    wire = pair.world.live("a", "b")
    assert wire is not None
    wire.cut_half(0)  # b does not know that it is gone
    pair.world.run(1.0)
    assert pair.judge.tally["closed: RETRY"] > 0
    pair.flush()
    pair.world.run(60.0)
    assert pair.took() == [(b"1", False)]


def test_a_newcomer_that_is_asked_to_come_again_leaves_the_live_connection_in_its_place() -> None:
    pair = Pair(dialer="a")
    pair.hold()
    pair.send(b"1")
    session, wire = pair.b.session("a"), pair.world.live("a", "b")
    incumbent = session.connection
    assert wire is not None
    assert incumbent is not None
    wire.cut_half(0)
    while not pair.judge.tally["closed: RETRY"]:
        pair.world.step(inf)
    assert session.connection is incumbent
    assert (incumbent.error, session.inbox.received, session.connections) == (None, 1, 1)  # type: ignore[union-attr]
    pair.flush()
    pair.world.run(60.0)
    assert (session.connections, pair.judge.tally["closed: SUPERSEDED"]) == (2, 1)
    assert pair.took() == [(b"1", False)]
    pair.judge.at_rest()


def test_a_connection_that_made_progress_and_went_for_one_that_is_refused_is_dialled_again_at_once() -> None:
    pair = Pair()
    pair.hold()
    pair.send(b"1")
    pair.a.crash(reset=False)  # b does not know that it is gone, and nothing answers its probe
    pair.a.restart()
    pair.a.dial("b")
    while not pair.judge.tally["closed: RETRY"]:
        pair.world.step(inf)
    assert pair.judge.tally["closed: SUPERSEDED"] == 1
    (target,) = pair.b.session("a").targets
    assert target.retry_at is not None
    assert target.retry_at - pair.b.now <= pair.b.config.retry_quick
    assert (target.attempts, pair.b.session("a").counters.dials_failed) == (0, 0)
    pair.flush()
    pair.world.run(60.0)
    assert pair.took() == [(b"1", False)]


def test_what_came_with_a_connection_that_is_gone_and_is_not_on_disk_is_asked_for_again() -> None:
    pair = Pair()
    pair.disk.full = 1000
    cancelled = pair.a.session("b")
    pair.a.send("b", b"0", b"1")
    pair.a.end("b")
    pair.world.run(1.0)
    assert pair.b.session("a").connection is not None
    assert cancelled.outbox.received == 0
    assert (pair.inbox.fin, pair.b.session("a").nothing_follows) == (3, False)
    pair.cut()
    assert (pair.inbox.received, pair.inbox.fin, list(pair.inbox.staged), pair.inbox.unsettled) == (0, 0, [], 0)
    pair.world.run(5.0)
    pair.disk.full = 0
    pair.world.run(30.0)
    assert pair.took() == [(b"0", False), (b"1", False)]
    assert any(isinstance(notice, PeerEnded) for notice in pair.b.notices)
    assert pair.b.session("a").peer_ended


class Small(Disk):
    """A disk that has room for batches whose new messages take no more than so many bytes."""

    def __init__(self, room: int) -> None:
        super().__init__(inbox=True)
        self.room = room
        self.refused: list[list[int]] = []

    def _write(self, batch: JournalBatch) -> OSError | None:
        moved = [record for record in batch.records if isinstance(record, InboxMoved)]
        came = [message for record in moved for message in record.messages]
        if sum(len(message.payload) for message in came) > self.room:
            self.refused.append([len(message.payload) for message in came])
            return OSError(errno.ENOSPC, "no space left on device")
        return super()._write(batch)


class Hub:
    """ "b" keeps what comes from "a" and "c" on a small disk."""

    def __init__(self, room: int) -> None:
        self.world = World()
        self.judge = DurableJudge(self.world)
        self.disk = Small(room)
        self.b = self.world.host("b", disk=self.disk)
        self.a, self.c = self.world.host("a"), self.world.host("c")
        for host in (self.a, self.c):
            host.dial("b")
        self.world.run(1.0)

    def read(self, peer: str) -> list[int]:
        """The sizes of what is read now."""
        taken = self.b.take(peer, 100)
        for delivery in taken:
            self.b.settle(peer, delivery)
        self.world.run(1.0)
        return [len(delivery[2]) for delivery in taken]


def test_what_finds_no_room_on_the_disk_keeps_nothing_else_from_it() -> None:
    hub = Hub(5000)
    hub.a.send("b", bytes(9000))  # there will never be room for it
    hub.world.run(3.0)
    hub.c.send("b", b"x", b"y")
    hub.world.run(3.0)
    assert hub.read("c") == [1, 1]
    assert hub.b.send("c", b"answer")
    hub.world.run(1.0)
    assert hub.c.read("b") == [b"answer"]
    assert hub.b.session("a").connected
    assert (hub.b.session("a").unread, hub.a.session("b").outbox.received) == (0, 0)
    tried = len(hub.disk.refused)
    hub.world.run(10.0)
    assert 15 <= len(hub.disk.refused) - tried <= 21  # twice a second
    assert set(map(tuple, hub.disk.refused[1:])) == {(9000,)}
    hub.disk.room = 10_000
    hub.world.run(2.0)
    assert hub.read("a") == [9000]
    assert hub.c.session("b").outbox.all_read


def test_of_much_that_came_as_much_is_written_as_there_is_room_for_and_more_each_time() -> None:
    hub = Hub(100_000)
    hub.disk.delay = 0.2  # so that it comes together
    hub.a.send("b", *[bytes(2000)] * 300)
    hub.world.run(30.0)
    read = []
    while sizes := hub.read("a"):
        read += sizes
        hub.world.run(10.0)
    assert read == [2000] * 300
    assert hub.a.session("b").outbox.all_read
    assert hub.b.endpoint.journal is not None
    assert hub.b.endpoint.journal._room == inf


def test_what_was_to_be_written_apart_and_is_taken_back_with_its_connection_comes_again() -> None:
    hub = Hub(0)
    hub.a.send("b", b"1")
    hub.world.run(2.0)
    hub.disk.delay = inf
    while hub.disk.writing is None or not hub.disk.writing.optional:
        hub.world.run(0.1)
    wire = hub.world.live("a", "b")
    assert wire is not None
    wire.cut()
    hub.disk.finish(hub.b)
    assert not hub.b.session("a").inboxes.boxes[0].staged
    hub.disk.delay, hub.disk.room = 0.0, 100
    hub.world.run(5.0)
    assert hub.read("a") == [1]


def test_an_end_behind_what_finds_no_room_waits_for_it() -> None:
    hub = Hub(10)
    hub.a.send("b", b"1")
    hub.world.run(1.0)
    assert hub.read("a") == [1]
    hub.disk.delay = 0.2
    hub.a.send("b", bytes(8), bytes(9), bytes(10), b"4")
    hub.a.end("b")
    hub.world.run(20.0)
    session = hub.b.session("a")
    assert session.unread == 4
    assert hub.read("a") == [8, 9, 10, 1]
    assert session.nothing_follows
    hub.world.run(5.0)
    assert hub.a.session("b").outbox.all_read


@pytest.mark.parametrize("policy", ["redeliver", "report"])
@pytest.mark.parametrize("durable", [True, False], ids=["durable", "not durable"])
def test_both_processes_die_and_only_a_receiver_without_a_durable_inbox_leaves_doubts(
    policy: Literal["redeliver", "report"], durable: bool
) -> None:
    """The sender's journal knows whether the inbox to which it sent outlives its process."""
    world = World()
    judge = DurableJudge(world)
    a = world.host("a", Config(on_peer_restart=policy), disk=Disk())
    b = world.host("b", disk=Disk(inbox=durable))
    b.dial("a")
    a.send("b", b"read", b"kept")
    world.run(1.0)
    b.settle("a", b.take("a", 1)[0])
    world.run(1.0)
    b.crash()
    a.send("b", b"never transmitted")
    world.run(1.0)
    a.crash()
    for host in (a, b):
        host.restart()
    a.send("b", b"new")
    world.run(1.0)
    b.dial("a")
    world.run(60.0)
    taken = b.take("a", 100)
    for delivery in taken:
        b.settle("a", delivery)
    world.run(1.0)
    lost = policy == "report" and not durable
    expected = [] if lost else [(b"kept", True), (b"never transmitted", not durable)]
    assert [(each[2], details_of(each).redelivered) for each in taken] == [*expected, (b"new", False)]
    assert a.session("b").ledger.lost == (2 if lost else 0)
    judge.at_rest()


def test_a_full_disk_stops_the_acknowledgements_and_the_window_bounds_what_is_staged() -> None:
    pair = Pair(config=Config(window=1000, window_guaranteed=1000, window_max=1000))
    pair.disk.full = 1000
    pair.send(*[bytes(100)] * 30)
    assert pair.b.session("a").connection is not None
    assert pair.b.session("a").unsettled <= 1000 + 164
    assert pair.a.session("b").outbox.received == 0
    pair.disk.full = 0
    pair.world.run(5.0)
    assert pair.a.session("b").outbox.received > 0
    while pair.took():
        pass
    assert pair.a.session("b").outbox.all_read
    pair.judge.at_rest()


def test_a_gap_with_nothing_behind_it_yet_outlives_the_process() -> None:
    pair = Pair(sender=True)
    pair.a.disconnect("b")
    pair.b.listening = False
    pair.send(b"1", b"2", b"3")
    assert pair.a.cancel("b", 3)
    pair.b.listening = True
    pair.b.dial("a")
    pair.world.run(60.0)
    assert pair.inbox.gap
    pair.restart()
    pair.send(b"4")
    taken = pair.b.take("a", 9)
    assert [(each[2], details_of(each).gap) for each in taken] == [
        (b"1", ()), (b"2", ()), (b"4", (GapRange(3, 3, SkipReason.CANCELLED),))
    ]


def test_a_reply_is_passed_on_when_it_is_on_disk_and_to_nobody_after_a_restart() -> None:
    pair = Pair(judged=False)  # judges know nothing of replies
    pair.hold()
    request = pair.b.session("a").requests.open(b"n" * 16)
    pair.a.session("b").send(b"reply", pair.world.now, reserved={".reply": b"n" * 16})
    pair.a.pump()
    pair.world.run(0.1)
    assert request.delivery is None
    pair.disk.delay = 0.0
    pair.disk.finish(pair.b)
    assert request.delivery is not None
    assert request.delivery[2] == b"reply"
    records = [record for batch in pair.disk.batches for record in batch]
    again = Endpoint("b", journal=True, durable_inbox=True)
    again.restore(records, 0.0)
    session = again.session("a")
    assert (session.unread, session.held, session.requests.dropped) == (0, 0, 1)


@pytest.mark.parametrize("how", ["abort", "expire", "aborted"])
def test_what_is_unread_when_a_session_is_over_stays_for_its_reader_on_disk_too(how: str) -> None:
    pair = Pair()
    pair.send(b"1", b"2")
    (one,) = pair.b.take("a", 1)
    pair.b.settle("a", one)
    if how == "abort":
        pair.b.abort("a")
    elif how == "aborted":
        pair.a.abort("b")
    else:
        pair.a.crash()
        pair.world.run(1.0)
        pair.b.session("a").farewell.expire(pair.world.now)
        pair.b.pump()
    pair.world.run(1.0)
    assert pair.b.session("a").inbox is None
    pair.b.crash()
    pair.b.restart()
    session = pair.b.session("a")
    assert (session.unread, session.inbox, len(session.inboxes.ended(-inf))) == (1, None, 1)
    (two,) = pair.b.take("a", 9)
    assert (two[2], details_of(two).redelivered) == (b"2", True)
    pair.b.settle("a", two)
    pair.world.run(1.0)
    pair.b.crash()
    pair.b.restart()
    assert not pair.b.session("a").inboxes.boxes


def test_an_inbox_that_ended_and_was_read_afterwards_is_not_stated_as_one_that_goes_on() -> None:
    """Found by a game (seed 902456): when the session shrank it became the positions of a living one."""
    pair = Pair(config=Config(session_expiry=5.0))
    pair.send(b"1", b"2")
    pair.a.crash()
    pair.world.run(8.0)
    session = pair.b.session("a")
    assert [ended.outbox_id for ended in session.inboxes.ended(-inf)] == [session.inboxes.boxes[0].outbox_id]
    assert len(pair.b.read("a")) == 2
    pair.world.run(1.0)
    session.inboxes.shrink()
    assert (session.inboxes.boxes, session.inboxes.dormant, session.inboxes.reported()) == ([], [], None)


def test_a_session_that_is_over_while_something_is_staged_still_hands_it_over() -> None:
    pair = Pair()
    pair.hold()
    pair.send(b"1")
    pair.a.abort("b")
    pair.world.run(1.0)
    session = pair.b.session("a")
    (ended,) = session.inboxes.ended(-inf)
    assert (session.inbox, session.peer_ended, ended.received, ended.read) == (None, False, 1, 0)
    pair.flush()
    assert pair.took() == [(b"1", False)]
    assert session.peer_ended


def test_switched_off_what_is_on_disk_is_handed_over_and_stays_there_until_it_is_settled() -> None:
    pair = Pair()
    pair.send(b"1", b"2", b"3")
    pair.disk.inbox = False
    pair.restart()
    session = pair.b.session("a")
    assert not session.inboxes.durable
    two = pair.b.take("a", 2)[1]
    pair.b.settle("a", two)
    pair.send(b"4")
    four = pair.b.take("a", 2)[1]
    pair.b.settle("a", four)
    pair.world.run(1.0)
    pair.disk.inbox = True
    pair.restart()
    assert pair.took() == [(b"1", True), (b"3", True)]
    pair.send(b"5")
    assert pair.took() == [(b"5", False)]
    pair.disk.inbox = False
    pair.restart()
    pair.send(b"6")
    assert pair.took() == [(b"6", False)]
    assert pair.inbox.stored == 0


def test_an_inbox_with_nothing_to_keep_shrinks_to_its_positions_and_grows_again() -> None:
    pair = Pair(config=Config(shrink_after=10.0))
    pair.send(b"1")
    pair.took()
    pair.a.crash()
    pair.world.run(60.0)
    assert pair.b.session("a").inboxes.dormant
    pair.a.restart()
    pair.world.run(60.0)
    pair.send(b"2")
    assert pair.took() == [(b"2", False)]


def test_a_durable_inbox_needs_a_journal() -> None:
    with pytest.raises(ConfigurationError, match="a durable inbox is kept in a journal"):
        Endpoint("a", durable_inbox=True)


# -- an inbox by itself -----------------------------------------------------------------------------------------------


def inbox_with(*parts: str) -> Inbox:
    """What came, in order: a number is a message, "s3-4" a SKIP, "f5" FIN, "r6" a reply; "|": on disk up to here."""
    inbox = Inbox(b"o" * 16, RUN, 1, durable=True)
    inbox.attach(10_000)
    for part in parts:
        if part == "|":
            inbox.writing = (len(inbox.staged), inbox.received, inbox.run)
            inbox.landed(InboxFacts(inbox.outbox_id, inbox.run, inbox.received, inbox.read, 1))
        elif part[0] == "s":
            first, last = part[1:].split("-")
            inbox.skip(int(first), int(last), SkipReason.CANCELLED)
        elif part[0] == "f":
            inbox.finish(int(part[1:]))
        elif part[0] == "r":
            inbox.accept_special(int(part[1:]), b"", 0, Details(headers={".reply": b"n" * 16}))
        else:
            inbox.accept(int(part), b"", 0)
    return inbox


@pytest.mark.parametrize(
    ("parts", "gap", "read"),
    [
        (("1", "2", "|"), [], 0),
        (("1", "|", "2", "3"), [], 0),
        (("1", "s2-3", "|", "4"), [(2, 3)], 0),
        (("1", "s2-3", "|", "s4-5"), [(2, 3)], 0),
        (("1", "s2-3", "|", "s4-5", "6"), [(2, 3)], 0),
        (("s1-2", "|", "s3-4", "r5", "6"), [(1, 2)], 2),
        (("s1-2", "|", "s3-4", "r5"), [(1, 2)], 2),
        (("s1-2", "|", "3", "f4"), [(1, 2)], 2),
        (("|", "s1-2", "3"), [], 0),
    ],
)
def test_what_is_dropped_leaves_the_inbox_as_the_disk_has_it(
    parts: tuple[str, ...], gap: list[tuple[int, int]], read: int
) -> None:
    inbox = inbox_with(*parts)
    stored, before = inbox.stored, inbox.unsettled - 64 * len(inbox.staged)
    inbox.run = b"new".ljust(16)
    inbox.unstage()
    inbox.unstage()
    assert (inbox.received, inbox.read, inbox.fin, len(inbox.staged)) == (stored, read, 0, 0)
    assert [(part.first, part.last) for part in inbox.gap] == gap
    assert inbox.unsettled == before
    assert inbox.run == (RUN if parts[-1] != "|" else b"new".ljust(16))
    inbox.accept(stored + 1, b"", 0)
    assert [(part.first, part.last) for part in details_of(inbox.staged[-1]).gap] == gap


def test_what_says_that_the_peer_restarted_is_said_again_when_it_was_dropped() -> None:
    inbox = inbox_with()
    inbox.restarted = Positions(b"x" * 16, 3, 2)
    inbox.accept(1, b"", 0)
    assert inbox.restarted is None
    inbox.unstage()
    assert inbox.restarted == Positions(b"x" * 16, 3, 2)


def test_what_an_earlier_process_settled_ahead_is_not_forgotten_with_what_is_dropped() -> None:
    endpoint = Endpoint("b", journal=True, durable_inbox=True)
    facts = InboxFacts(b"o" * 16, RUN, 3, 3, 1)
    endpoint.restore([InboxMoved("a", facts, (), 0, ((5, 6), (9, 9)))], 0.0)
    inbox = endpoint.session("a").inbox
    assert inbox is not None
    inbox.attach(10_000)
    for sequence in range(4, 8):
        inbox.accept(sequence, b"", 0)
    assert [delivery[1] for delivery in inbox.staged] == [4, 7]
    assert inbox.facts().seen == 9
    inbox.unstage()
    assert (inbox.received, list(inbox.ahead)) == (3, [(5, 6), (9, 9)])
    for sequence in range(4, 9):
        inbox.accept(sequence, b"", 0)
    inbox.writing = (len(inbox.staged), inbox.received, inbox.run)
    inbox.landed(InboxFacts(inbox.outbox_id, inbox.run, inbox.received, inbox.read, 1))
    inbox.accept(9, b"", 0)
    inbox.accept(10, b"", 0)
    inbox.unstage()
    assert (inbox.received, inbox.read, list(inbox.ahead)) == (8, 3, [(5, 6), (9, 9)])


# -- what a journal says ----------------------------------------------------------------------------------------------


def kept(outbox: bytes, received: int, *numbers: int, old: tuple[InboxMoved, ...] = (), read: int = 0) -> InboxMoved:
    facts = InboxFacts(outbox.ljust(16), RUN, received, read, 1)
    messages = tuple(KeptMessage(number, b"%d" % number, b"", 0) for number in numbers)
    gone = tuple((n, n) for n in range(read + 1, received + 1) if n not in numbers) if numbers else ()
    return InboxMoved("a", facts, (), 0, gone, messages, (), None, 1, old)


NOBODY = InboxMoved("a", InboxFacts(bytes(16), bytes(16), 0, 0, 1), ())


@pytest.mark.parametrize("durable", [True, False])
def test_an_inbox_that_a_record_does_not_speak_of_holds_nothing_any_more(durable: bool) -> None:
    endpoint = Endpoint("b", journal=True, durable_inbox=durable)
    session = endpoint.session("a")
    restore(session, kept(b"K", 2, 1, 2))
    restore(session, kept(b"L", 1, 1))
    left, present = session.inboxes.boxes
    assert (left.read, left.unread, left.unsettled, left.holding, present.unread) == (2, 0, 0, False, 1)
    restore(session, InboxMoved("a", InboxFacts(b"M".ljust(16), RUN, 0, 0, 1), ()))  # empty: it is as if it were not
    assert [box.unread for box in session.inboxes] == [0, 0]
    assert session.inbox is present


def test_an_inbox_that_ended_is_there_as_long_as_it_holds_something() -> None:
    session = Endpoint("b", journal=True, durable_inbox=True).session("a")
    restore(session, kept(b"K", 2, 1, 2))
    restore(session, InboxesEnded("a", (Ended(b"K".ljust(16), RUN, 2, 0, 1, Why.EXPIRED),)))
    assert (session.inbox, session.unread) == (None, 2)
    restore(session, kept(b"K", 9, 9, old=(kept(b"K", 2, 2, read=1),)))  # its sender states it once more
    assert (session.inbox, session.unread) == (None, 1)
    restore(session, kept(b"J", 1, 1, old=(kept(b"I", 3, 3),)))
    assert [box.outbox_id[:1] for box in session.inboxes] == [b"I", b"J"]
    restore(session, NOBODY)
    assert (session.inboxes.boxes, session.inbox) == ([], None)


def test_a_record_of_nothing_with_others_makes_none_the_present_one() -> None:
    session = Endpoint("b", journal=True, durable_inbox=True).session("a")
    restore(session, kept(b"K", 2, 1, 2))
    empty = InboxMoved("a", InboxFacts(b"M".ljust(16), RUN, 0, 0, 1), (), old=(kept(b"K", 2, 2, read=1),))
    restore(session, empty)
    assert (session.inbox, session.unread) == (None, 1)


def test_old_inboxes_are_not_dropped_before_the_disk_knows_what_is_settled_of_them() -> None:
    pair = Pair()
    session = pair.b.session("a")
    for number in range(12):
        pair.send(b"%d" % number)
        pair.restart(pair.a)
    assert session.unread == 12
    pair.hold()
    taken = pair.b.take("a", 12)
    for delivery in taken:
        pair.b.settle("a", delivery)
    assert len(session.inboxes.boxes) > 10
    pair.flush()
    pair.send(b"last")
    assert pair.took() == [(b"last", False)]
    assert len(session.inboxes.boxes) <= 10
    pair.restart()
    assert pair.took() == []
