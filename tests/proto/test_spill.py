"""What of an outbox is on disk only: a bound of memory, and nothing that anybody else could notice."""

from __future__ import annotations

import gc
import tracemalloc
from array import array
from typing import Any

import pytest

from networkio_proto import (
    Config,
    Endpoint,
    JournalDamaged,
    JournalFailed,
    JournalFull,
    Outcome,
)
from networkio_proto.journal import (
    JournalRecord,
    MessageAccepted,
    MessagesKept,
    OutboxOpened,
    OutboxTrimmed,
)
from networkio_proto.outbox import Entry, Outbox, Spilled
from networkio_proto.session import Session
from networkio_proto.spill import JournalLoad, Spill
from tests.proto.helpers import Waiting
from tests.proto.helpers_node import Far
from tests.proto.test_keeper import Desk

#: of cost 100, so that ten of them are the bound
SIZE = 36
BOUND = 1000


def payload(number: int, size: int = SIZE) -> bytes:
    return str(number).encode().ljust(size, b".")


def spilled(session: Session) -> list[int]:
    """The sequences of what is on disk only."""
    outbox = session.outbox
    return [number for number in range(outbox.first, outbox.next) if type(outbox.entry(number)) is Spilled]


class Disk:
    """One endpoint that sends to "b", with a journal that writes at once, and loads when it is told to."""

    def __init__(self, records: list[Any] | None = None, **changes: Any) -> None:
        self.records: list[JournalRecord] = []
        self.endpoint = Endpoint("a", Config(outbox_resident=BOUND, **changes), journal=True)
        self.endpoint.restore(records or [], 0.0)
        self.session = self.endpoint.session("b", 0.0)
        self.write()

    def write(self) -> None:
        while (batch := self.endpoint.journal_request()) is not None:
            self.records += batch.records
            self.endpoint.journal_done(batch.token, 0.0)

    def send(self, count: int, **options: Any) -> None:
        """Accept so many messages, and write them in one batch."""
        for _ in range(count):
            number = self.session.outbox.next
            self.session.send(payload(number), 0.0, raw=True, **options)
        self.write()

    def found(self, load: JournalLoad) -> list[MessageAccepted]:
        """What was written of it."""
        messages = [record for record in self.records if isinstance(record, MessageAccepted)]
        return [message for message in messages if load.first <= message.sequence <= load.last]

    def want(self) -> JournalLoad | None:
        """What is asked for, now that the cursor stands where it does."""
        journal = self.session.journal
        assert journal is not None
        journal.prefetch()
        return self.endpoint.journal_load()

    def load(self) -> None:
        """Bring what is asked for."""
        load = self.want()
        assert load is not None
        self.endpoint.journal_loaded(load.token, self.found(load), 0.0)

    def pull(self, size: int = 1 << 20) -> bytes:
        out: list[bytes | memoryview] = []
        outbox = self.session.outbox
        outbox.credit = 1 << 30
        outbox.pull(out, size, 0.0)
        return b"".join(out)


# -- what is put away -------------------------------------------------------------------------------------------------


def test_what_lies_beyond_the_bound_is_put_away_once_it_is_on_disk() -> None:
    disk = Disk()
    disk.send(25)
    assert spilled(disk.session) == list(range(12, 26))  # eleven are more than the bound
    assert disk.session.outbox.cost == 2500
    disk.session.send(payload(26), 0.0, raw=True)
    assert spilled(disk.session) == list(range(12, 26))
    disk.write()
    assert spilled(disk.session) == list(range(12, 27))


def test_up_to_the_bound_everything_stays() -> None:
    disk = Disk()
    disk.send(10)
    assert spilled(disk.session) == []
    disk.send(1)
    assert spilled(disk.session) == []
    disk.send(1)
    assert spilled(disk.session) == [12]


def test_how_much_lies_ahead_is_added_up_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(outbox_limit=1 << 30)
    disk.send(150)
    disk.pull()
    disk.session.outbox.credit = 1 << 30
    while disk.session.outbox.cursor <= 150:
        disk.load()
        disk.pull()
    assert spilled(disk.session) == []
    looks, cost_of = 0, Outbox.cost_of

    def counted(outbox: Outbox, sequence: int) -> int:
        nonlocal looks
        looks += 1
        return cost_of(outbox, sequence)

    monkeypatch.setattr(Outbox, "cost_of", counted)
    for _ in range(10):
        disk.session.send(b"", 0.0, raw=True)
        disk.write()
    assert spilled(disk.session) == []
    assert looks < 10 + sum(range(0, 11, 2)) + 10  # each once, and all ahead with every second


def test_what_was_transmitted_does_not_count() -> None:
    disk = Disk()
    disk.send(10)
    disk.pull()
    disk.send(10)
    assert spilled(disk.session) == []
    disk.send(10)
    assert spilled(disk.session) == list(range(22, 31))


def test_a_large_message_that_is_next_stays() -> None:
    disk = Disk()
    disk.session.send(bytes(5000), 0.0)
    disk.session.send(bytes(5000), 0.0)
    disk.write()
    assert spilled(disk.session) == [2]
    assert disk.session.outbox.cost == 2 * 5064


def test_what_the_disk_does_not_know_stays() -> None:
    disk = Disk()
    disk.send(12)
    disk.send(1, ttl=5.0)
    disk.session.send(b"", 0.0)
    assert disk.session.cancel(14, 0.0)  # before it is written
    disk.session.end(0.0)
    disk.write()
    assert spilled(disk.session) == [12]
    assert disk.session.outbox.entry(13).expires == 5.0
    assert disk.session.outbox.entry(15).fin


def test_places_of_one_cost_are_one_object_unless_the_messages_are_large() -> None:
    disk = Disk(outbox_limit=1 << 30)
    disk.send(11)
    for size in (36, 36, 100_000, 100_000):
        disk.session.send(bytes(size), 0.0, raw=True)
    disk.write()
    outbox = disk.session.outbox
    assert outbox.entry(12) is outbox.entry(13)
    assert outbox.entry(14) is not outbox.entry(15)
    assert [outbox.entry(number).cost for number in (13, 14, 15)] == [100, 100_064, 100_064]


def test_a_hundred_thousand_that_wait_take_a_place_in_a_list() -> None:
    disk = Disk(outbox_limit=1 << 30)
    disk.send(100)
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(100):
            disk.send(100)
            disk.records.clear()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 10_000 * 16


# -- what ends while it is put away -----------------------------------------------------------------------------------


def test_what_is_put_away_is_cancelled_read_and_given_up_by_its_cost() -> None:
    disk = Disk()
    disk.send(30)
    session, outbox = disk.session, disk.session.outbox
    assert session.cancel(20, 0.0)
    assert outbox.cost == 2900 + 64
    outbox.acknowledge(15, 15)
    assert (outbox.cost, outbox.cursor, outbox.ledger.read) == (1400 + 64, 16, 15)
    outbox.transmitted = 16
    assert outbox.reject(16, 7, "no")
    assert session.outcome(16) is Outcome.REJECTED
    session.abort(0.0)
    assert (outbox.cost, disk.endpoint.outbox_cost) == (0, 0)
    ledger = session.ledger
    assert (ledger.read, ledger.cancelled, ledger.rejected, ledger.abandoned, ledger.unread) == (15, 1, 1, 13, 0)


def test_what_a_dead_process_may_have_seen_is_given_up_unread() -> None:
    disk = Disk()
    disk.send(20)
    disk.session.outbox.give_up_transmitted(0, 14)
    assert spilled(disk.session) == [15, 16, 17, 18, 19, 20]
    assert disk.session.ledger.lost == 14


def test_a_failed_batch_takes_back_only_what_is_here() -> None:
    disk = Disk()
    disk.send(20)
    disk.session.send(payload(21), 0.0, raw=True)
    batch = disk.endpoint.journal_request()
    assert batch is not None
    disk.endpoint.journal_done(batch.token, 0.0, OSError("full"))
    assert (disk.session.outbox.next, disk.session.outbox.cost) == (21, 2000)
    disk.send(1)
    assert spilled(disk.session)[-1] == 21


# -- what is read back ------------------------------------------------------------------------------------------------


def test_it_is_read_back_before_its_turn_half_the_bound_at_a_time() -> None:
    disk = Disk()
    disk.send(40)
    assert disk.want() is None  # more than half of the bound lies ahead
    disk.pull(3 * 50)
    assert disk.session.outbox.cursor == 4
    assert disk.want() is None
    disk.pull(3 * 50)
    assert disk.session.outbox.cursor == 7
    load = disk.want()
    assert load == JournalLoad(1, "b", 12, 16)
    assert disk.want() is None  # one at a time
    disk.endpoint.journal_loaded(1, disk.found(load), 0.0)
    assert spilled(disk.session)[0] == 17
    outbox = disk.session.outbox
    head = outbox.entries[0]
    assert isinstance(head, bytes)
    assert outbox.entries[11] == head[:6] + (12).to_bytes(8, "big") + payload(12)


def test_what_is_put_away_goes_out_whole_and_in_order() -> None:
    disk = Disk()
    disk.send(40)
    sent = disk.pull()
    for _ in range(20):
        if disk.session.outbox.cursor == 41:
            break
        assert spilled(disk.session)[0] == disk.session.outbox.cursor
        disk.load()
        sent += disk.pull()
    head = (10 + SIZE).to_bytes(4, "big") + sent[4:6]
    assert sent == b"".join(head + number.to_bytes(8, "big") + payload(number) for number in range(1, 41))
    assert disk.want() is None


def test_a_message_that_is_not_its_frame_is_read_back_as_it_was() -> None:
    disk = Disk()
    disk.send(11)
    disk.send(1, headers={"k": "v"})
    disk.send(1, ack_now=True)
    disk.session.send(bytes(3000), 0.0)
    disk.session.send(bytes(36), 0.0)
    disk.write()
    before = disk.session.outbox.cost
    disk.pull()
    disk.load()
    disk.pull()
    disk.load()
    outbox = disk.session.outbox
    assert [type(entry) for entry in outbox.entries[11:15]] == [Entry, Entry, Entry, Spilled]
    assert b"k" in outbox.entry(12).headers
    disk.pull()
    disk.load()
    assert outbox.entry(15).payload == bytes(36)
    assert outbox.cost == before


def test_what_has_ended_meanwhile_is_left_alone() -> None:
    disk = Disk()
    disk.send(40)
    disk.pull()
    load = disk.want()
    assert load is not None
    assert (load.first, load.last) == (12, 16)
    disk.session.outbox.acknowledge(12, 12)
    assert disk.session.cancel(14, 0.0)
    disk.endpoint.journal_loaded(load.token, disk.found(load), 0.0)
    outbox = disk.session.outbox
    assert outbox.entry(14).skip
    assert spilled(disk.session)[0] == 17
    assert outbox.cost == 27 * 100 + 64


def test_what_stands_between_is_read_for_nothing_and_counts() -> None:
    disk = Disk()
    disk.send(11)
    for _ in range(10):
        disk.send(1)
        disk.send(1, ttl=99.0)
    disk.pull()
    load = disk.want()
    assert load is not None
    assert (load.first, load.last) == (12, 16)
    assert spilled(disk.session)[:4] == [12, 14, 16, 18]


def test_a_load_that_failed_is_asked_for_again() -> None:
    disk = Disk()
    disk.send(40)
    disk.pull()
    load = disk.want()
    assert load is not None
    with pytest.raises(ValueError, match="no load with token 7 is under way"):
        disk.endpoint.journal_loaded(7, [], 0.0)
    disk.endpoint.journal_loaded(load.token, [], 0.0, OSError("cannot be read"))
    assert spilled(disk.session)[0] == 12
    again = disk.endpoint.journal_load()
    assert again == JournalLoad(2, "b", load.first, load.last)
    with pytest.raises(ValueError, match="no load with token 1 is under way"):
        disk.endpoint.journal_loaded(load.token, [], 0.0)


def test_one_load_is_under_way_at_a_time_and_peers_take_turns() -> None:
    disk = Disk()
    disk.send(40)
    disk.pull()
    other = disk.endpoint.session("c", 0.0)
    for number in range(1, 41):
        other.send(payload(number), 0.0, raw=True)
    disk.write()
    assert other.journal is not None
    other.outbox.credit = 1 << 30
    other.outbox.pull([], 1 << 20, 0.0)
    other.journal.prefetch()
    first = disk.endpoint.journal_load()
    assert first is not None
    assert first.peer_id == "c"
    assert disk.want() is None
    disk.endpoint.journal_loaded(first.token, [], 0.0)
    second = disk.endpoint.journal_load()
    assert second is not None
    assert second.peer_id == "b"


def test_without_a_journal_nothing_is_loaded() -> None:
    endpoint = Endpoint("a")
    assert endpoint.journal_load() is None
    with pytest.raises(ValueError, match="no journal"):
        endpoint.journal_loaded(1, [], 0.0)


def test_when_all_is_back_what_is_sent_stays_again() -> None:
    disk = Disk()
    disk.send(16)
    disk.pull()
    disk.load()
    assert spilled(disk.session) == []
    disk.send(6)
    assert spilled(disk.session) == []
    disk.send(6)
    assert spilled(disk.session) == [23, 24, 25, 26, 27, 28]


def test_a_cursor_that_is_set_back_wants_what_is_there() -> None:
    disk = Disk()
    disk.send(30)
    disk.session.outbox.acknowledge(25, 0)
    assert disk.session.outbox.cursor == 26
    disk.load()
    assert spilled(disk.session) == list(range(12, 26))
    disk.session.outbox.resume(0)
    disk.pull()
    assert disk.session.outbox.cursor == 12
    disk.load()
    disk.pull()
    assert disk.session.outbox.cursor == 17


def test_a_message_that_is_half_sent_may_be_gone() -> None:
    disk = Disk()
    disk.session.send(bytes(20_000), 0.0)
    disk.send(20)
    outbox = disk.session.outbox
    disk.pull(1)
    assert outbox.fragment
    outbox.acknowledge(1, 1)
    assert (outbox.first, outbox.cursor) == (2, 1)
    load = disk.want()
    assert load is not None
    assert load.first == 2
    disk.endpoint.journal_loaded(load.token, disk.found(load), 0.0)
    disk.send(1)
    assert spilled(disk.session)[-1] == 22


def test_nothing_is_looked_for_twice() -> None:
    outbox = Outbox(b"o" * 16, b"r" * 16)
    spill = Spill(outbox, BOUND, 0)
    for number in range(1, 101):
        outbox.append(payload(number), True)
    spill.put_away(100)
    looks = 0

    def cost_of(sequence: int) -> int:
        nonlocal looks
        looks += 1
        return 100

    for number in range(12, 101):
        outbox.unspill(number, payload(number), b"", 0)
    outbox_cost_of = Outbox.cost_of
    try:
        Outbox.cost_of = lambda self, sequence: cost_of(sequence)  # type: ignore[method-assign]
        for cursor in range(1, 101):
            outbox.cursor = cursor
            for _ in range(10):
                assert spill.missing() is None
    finally:
        Outbox.cost_of = outbox_cost_of  # type: ignore[method-assign]
    assert looks < 300


# -- a new process ----------------------------------------------------------------------------------------------------


def test_a_process_begins_with_places_and_reads_them_back() -> None:
    first = Disk()
    first.send(40)
    opened = next(record for record in first.records if isinstance(record, OutboxOpened))
    head = [record for record in first.records if isinstance(record, MessageAccepted)][:5]
    kept = MessagesKept("b", 6, array("Q", [100] * 35))
    disk = Disk([opened, *head, kept, OutboxTrimmed("b", 3)])
    disk.records = [*first.records]
    outbox = disk.session.outbox
    assert spilled(disk.session) == list(range(6, 41))
    assert (outbox.cost, disk.endpoint.outbox_cost, outbox.ledger.accepted, outbox.ledger.read) == (3800, 3800, 40, 2)
    disk.session.send(payload(41), 0.0, raw=True)
    disk.write()
    assert spilled(disk.session)[-1] == 41
    out = disk.pull()
    while outbox.cursor < 42:
        disk.load()
        out += disk.pull()
    assert [out[at + 14 : at + 14 + SIZE] for at in range(0, len(out), 14 + SIZE)] == [
        payload(number) for number in range(3, 42)
    ]


def test_a_small_journal_is_whole_and_stays_so() -> None:
    first = Disk()
    first.send(4)
    disk = Disk(list(first.records))
    disk.session.outbox.resume(0)
    assert disk.want() is None
    assert spilled(disk.session) == []
    assert [type(entry) for entry in disk.session.outbox.entries] == [bytes] * 4


# -- a driver ---------------------------------------------------------------------------------------------------------


def full_desk(count: int = 40) -> Desk:
    """A node that has so many messages for "b", most of them on disk only."""
    desk = Desk(outbox_resident=BOUND)
    for number in range(count):
        desk.to_b.send_nowait(payload(number))
    desk.slate.finish_all()
    return desk


def run(desk: Desk) -> None:
    """Let everything happen."""
    desk.settle()
    while desk.slate.loading is not None:
        desk.slate.finish_load()
        desk.settle()


def read_all(far: Far) -> list[bytes]:
    return [far.read_nowait() for _ in range(far.unread)]


def test_a_driver_loads_what_is_wanted() -> None:
    desk = full_desk()
    far = desk.meet()
    assert far.unread < 40
    run(desk)
    assert read_all(far) == [payload(number) for number in range(40)]


def test_what_ends_while_it_is_loaded_holds_nothing_up() -> None:
    desk = full_desk()
    desk.meet()
    session, outbox = desk.to_b.session, desk.to_b.session.outbox
    sequence = outbox.cursor
    assert session.inbox is not None
    assert desk.slate.loading is not None
    outbox.transmitted = 40  # by an earlier process, to which the peer's process had more to say
    with desk.a.inside as now:
        assert session.progress.receive_reject(outbox.outbox_id, sequence, 7, "no", now)
    desk.settle()
    assert outbox.cursor == sequence + 1
    desk.to_b.send_nowait(b"", ttl=99.0)
    desk.slate.finish()
    assert outbox.cursor == sequence + 1
    with desk.a.inside as now:
        assert session.progress.receive_ack(session.inbox, 40, 0, 0, 1, now)
    desk.net.run()
    assert outbox.cursor == 42
    assert desk.slate.loading is not None


def test_loads_and_batches_do_not_wait_for_each_other() -> None:
    desk = full_desk()
    desk.meet()
    assert desk.slate.loading is not None
    waiting = desk.send(payload(40))
    assert desk.slate.writing is not None
    desk.slate.finish()
    assert waiting.look().result.sequence == 41
    desk.send(payload(41))
    desk.slate.finish_load()
    assert desk.slate.writing is not None
    run(desk)


def test_a_full_disk_is_read_all_the_same() -> None:
    desk = full_desk()
    far = desk.meet()
    desk.to_b.send_nowait(payload(40))
    desk.slate.finish(JournalFull("no room"))
    while desk.slate.loading is not None:
        desk.slate.finish_load()
        desk.net.run()
    assert read_all(far) == [payload(number) for number in range(40)]


def test_what_cannot_be_read_back_ends_everything() -> None:
    desk = full_desk()
    far = desk.meet()
    desk.slate.finish_load(JournalDamaged("message 12 is damaged"))
    desk.net.run()
    assert read_all(far) == [payload(number) for number in range(10)]  # what was here
    assert isinstance(desk.keeper.error, JournalDamaged)
    [line] = [line for line in desk.a.lines if "journal" in line.text]
    assert line.text % line.arguments == (
        "node a: its journal cannot be read, so nothing is accepted or acknowledged any more; "
        "look after file and disk, and start it anew: message 12 is damaged"
    )
    with pytest.raises(JournalDamaged, match="message 12 is damaged"):
        desk.to_b.send_nowait(b"")
    assert desk.slate.loading is None
    assert desk.slate.writing is None


def test_what_is_being_written_then_is_accepted_and_what_waits_is_not() -> None:
    desk = full_desk()
    desk.meet()
    written, waiting = desk.send(payload(40)), desk.send(payload(41))
    desk.slate.finish_load(OSError("cannot be read"))
    assert not waiting.woken
    desk.slate.finish()
    assert written.look().result.sequence == 41
    with pytest.raises(JournalFailed, match="cannot be read"):
        _ = waiting.look().result
    assert desk.to_b.unacknowledged == 41


def test_transactions_that_wait_then_come_to_nothing() -> None:
    desk = full_desk()
    desk.meet()

    def failing(_: object, db: object) -> None:
        raise LookupError("no such row")

    running = Waiting(desk.a, desk.a._transacting(failing, []))
    waiting = Waiting(desk.a, desk.a._transacting(failing, []))
    desk.slate.finish_load(OSError("cannot be read"))
    assert not waiting.woken
    desk.slate.finish_run()
    with pytest.raises(LookupError):
        _ = running.look().result
    with pytest.raises(JournalFailed, match="cannot be read"):
        _ = waiting.look().result


def test_a_disk_that_was_full_and_then_cannot_be_read_is_not_tried_again() -> None:
    desk = full_desk()
    desk.meet()
    desk.to_b.send_nowait(payload(40))
    desk.slate.finish(JournalFull("no room"))
    desk.slate.finish_load(OSError("cannot be read"))
    desk.net.now += 10
    with desk.a.inside as now:
        desk.a.endpoint.handle_timer(now)
    assert isinstance(desk.keeper.error, JournalFailed)
    assert desk.slate.writing is None


def test_what_is_put_away_can_be_cancelled_and_aborted() -> None:
    desk = full_desk()
    receipt = desk.to_b.receipt(30)
    with desk.a.inside as now:
        assert desk.to_b.session.cancel(30, now)
    far = desk.meet()
    run(desk)
    assert read_all(far) == [payload(number) for number in range(40) if number != 29]
    assert receipt.outcome is Outcome.CANCELLED
    again = full_desk()
    again.to_b.abort()
    run(again)
    assert again.to_b.unacknowledged == 0
    assert again.a.endpoint.outbox_cost == 0
